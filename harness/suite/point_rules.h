/* What makes sense for one point of a sweep, whatever the mechanism. Private to the room. */
#ifndef FB_POINT_RULES_H
#define FB_POINT_RULES_H

#include "factor.h"
#include "suite_reader.h"

/* Lengths are drawn for each batch element, so that a batch of 2^40 is no plan. */
enum { FB_LENGTHS_BATCH_MAX = 4096 };

struct fb_point_place {
    const struct fb_suite_reader *reader;
    const struct fb_yaml_node *const *nodes; /* [FB_FACTOR_COUNT]: where values stand, or NULL */
    const struct fb_yaml_node *key_node;     /* the word `sweep` */
};

/* False with a diagnostic at the value that is to blame. */
bool fb_point_check(const struct fb_point_place *place, enum fb_suite_kind kind,
                    const struct fb_factors *point);

#endif
