/* From the path of a suite to its plan on this machine, as commands that measure want it. */
#ifndef FB_PLAN_SUITE_H
#define FB_PLAN_SUITE_H

#include "arena.h"
#include "run_session.h"

struct fb_plan_request {
    const char *const *sets; /* of --set, in order */
    size_t sets_count;
    const char *filter; /* NULL: none */
    bool trains;        /* suites of kind: training are welcome */
    bool measures;      /* not only listed: what counts instructions has to be there */
};

/* Reads, checks and plans. A suite without a case left is refused. */
enum fb_status fb_plan_suite(const char *path, const struct fb_plan_request *request,
                             struct fb_arena *arena, struct fb_planned *planned,
                             struct fb_error *error) FB_MUST_CHECK;

#endif
