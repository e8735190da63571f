/* Rows without a value, grouped by cause: what a table under the results says once. */
#ifndef FB_MISSING_H
#define FB_MISSING_H

#include "arena.h"
#include "results.h"

#include <stdbool.h>
#include <stdint.h>

struct fb_missing {
    const struct fb_row *row; /* the first of the group, in the order stored */
    size_t count;
    int64_t seq_len_min, seq_len_max;
    bool one_name;   /* all of one mechanism and variant */
    bool one_causal; /* all causal, or none */
    bool failure;    /* wrong, crash, error */
};

/* Whether a status makes a run fail: wrong, crash, error. */
bool fb_status_is_failure(const char *status);

/* The groups of a run's rows in the order stored; owned by the arena. */
enum fb_status fb_missing_collect(const struct fb_results *results, struct fb_arena *arena,
                                  struct fb_missing **groups, size_t *count,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
