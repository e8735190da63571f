/* flowbench run: suites are read and planned, all of them before anything is measured, and then
 * measured one after the other. docs/measuring.md, docs/results-format.md. */
#include "commands.h"

#include "plan_suite.h"
#include "run_options.h"
#include "run_preview.h"
#include "run_session.h"

#include <stdio.h>
#include <time.h>

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int preview(const struct fb_planned *planned, const struct fb_run_options *options)
{
    struct fb_error error;

    for (size_t i = 0; i < options->suites_count; i++) {
        if (options->list)
            fb_run_preview_list(&planned[i]);
        else if (fb_run_preview_dry_run(&planned[i], options->data_dir, &error) != FB_OK)
            return fb_exit_report("run", &error);
    }
    return FB_EXIT_OK;
}

static int run_suites(const struct fb_planned *planned, const struct fb_run_options *options,
                      struct fb_arena *arena)
{
    struct fb_machine machine;
    struct fb_error error;
    const double start_s = now_s();
    int code = FB_EXIT_OK;

    if (fb_machine_read(&machine, &error) != FB_OK)
        return fb_exit_report("run", &error);
    if (options->resume_dir != NULL)
        return fb_run_session_resume(options, &machine, arena);
    for (size_t i = 0; i < options->suites_count; i++) {
        if (options->suites_count > 1 && !options->shared.quiet)
            fprintf(stderr, "suite %s (%zu of %zu)\n", planned[i].suite.name, i + 1,
                    options->suites_count);
        const int one =
            fb_run_session_new(&planned[i], options, &machine, now_s() - start_s, arena);
        code = fb_run_worse_exit(code, one);
        /* A full disk or an interrupt would only strike again. */
        if (one == FB_EXIT_FAILED || one == FB_EXIT_SIGINT || one == FB_EXIT_SIGTERM) {
            if (i + 1 < options->suites_count)
                fprintf(stderr, "flowbench run: %zu further suite%s not started\n",
                        options->suites_count - i - 1,
                        options->suites_count - i - 1 == 1 ? " is" : "s are");
            break;
        }
    }
    return code;
}

static int run(int argc, char **argv, struct fb_arena *arena)
{
    struct fb_run_options options;
    struct fb_error error;

    if (fb_run_options_parse(argc, argv, arena, &options, &error) != FB_OK)
        return fb_exit_report("run", &error);
    struct fb_planned *planned =
        fb_arena_alloc(arena, options.suites_count + 1, sizeof *planned, &error);
    if (planned == NULL)
        return fb_exit_report("run", &error);
    const struct fb_plan_request request = {options.shared.sets, options.shared.sets_count,
                                            options.shared.filter, true,
                                            !options.list && !options.dry_run};
    for (size_t i = 0; i < options.suites_count; i++) {
        if (fb_plan_suite(options.suites[i], &request, arena, &planned[i], &error) != FB_OK)
            return fb_exit_report("run", &error);
    }
    return options.list || options.dry_run ? preview(planned, &options)
                                           : run_suites(planned, &options, arena);
}

int fb_cmd_run(int argc, char **argv)
{
    struct fb_arena arena;

    fb_arena_init(&arena, 0);
    const int code = run(argc, argv, &arena);
    fb_arena_free(&arena);
    return code;
}
