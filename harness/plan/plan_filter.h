/* --filter: which cases of a plan run. Private to the room. */
#ifndef FB_PLAN_FILTER_H
#define FB_PLAN_FILTER_H

#include "condition.h"
#include "plan.h"

enum { FB_FILTER_CONDITIONS_MAX = 32 };

struct fb_filter {
    struct fb_condition conditions[FB_FILTER_CONDITIONS_MAX];
    size_t count;
};

/* Parses "seq_len<=4096,mechanism=flow|linear"; `max` and `best` mean this machine's, and the
 * suite's external variants are known. Errors are blocks that begin with --filter. */
enum fb_status fb_filter_parse(const char *text, const struct fb_suite *suite,
                               const struct fb_plan_machine *machine, struct fb_arena *arena,
                               struct fb_filter *filter, struct fb_error *error) FB_MUST_CHECK;

bool fb_filter_holds(const struct fb_filter *filter, const struct fb_case *item);

#endif
