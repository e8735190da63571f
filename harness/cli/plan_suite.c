/* Suites to plans: see plan_suite.h. */
#include "plan_suite.h"

#include "counter.h"

enum fb_status fb_plan_suite(const char *path, const struct fb_plan_request *request,
                             struct fb_arena *arena, struct fb_planned *planned,
                             struct fb_error *error)
{
    const struct fb_suite_options suite_options = {request->sets, request->sets_count};
    struct fb_plan_machine here;
    enum fb_status status = fb_suite_read(path, &suite_options, arena, &planned->suite, error);

    if (status != FB_OK)
        return status;
    if (planned->suite.kind == FB_SUITE_TRAINING && !request->trains)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "%s is a suite of kind: training, whose cases are trained, not timed: "
                            "run it with ./bench run",
                            path);
    if (request->measures)
        status = fb_counter_check(planned->suite.measure.counter, error);
    if (status != FB_OK)
        return status;
    fb_plan_machine_here(&here);
    status = fb_plan_build(&planned->suite, request->filter, &here, arena, &planned->plan, error);
    if (status == FB_OK && planned->plan.cases_count == 0)
        status = fb_error_set(error, FB_ERROR_USAGE,
                              "%s: no case is left: --filter '%s' matches none of its %zu points; "
                              "--list shows them",
                              path, request->filter == NULL ? "" : request->filter,
                              planned->suite.factors_count);
    return status;
}
