/* Flow-Attention against the others of its block: see accuracy_group.h. Used in this room only. */
#ifndef FB_ACCURACY_PAIR_H
#define FB_ACCURACY_PAIR_H

#include "accuracy_group.h"
#include "stats_survival.h"

/* The step at which a run left its plateau, or its last step, without an event. */
struct fb_survival fb_accuracy_escape(const struct fb_accuracy_row *row);

/* A metric as it is shown: an accuracy in percent, a perplexity as it is. */
double fb_accuracy_shown(const struct fb_accuracy_row *row, double metric);

/* Fills the pairs of all blocks; groups with the ablations of Flow-Attention are compared, too. */
enum fb_status fb_accuracy_compare(const struct fb_accuracy *accuracy, uint64_t seed,
                                   struct fb_arena *arena, struct fb_accuracy_groups *groups,
                                   struct fb_error *error) FB_MUST_CHECK;

#endif
