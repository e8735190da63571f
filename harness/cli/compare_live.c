/* Two programs against each other: see compare_live.h. */
#include "compare_live.h"

#include "ab_compare.h"
#include "ab_worker.h"
#include "commands.h"
#include "compare_output.h"
#include "cpu_features.h"
#include "host_lock.h"
#include "interrupts.h"
#include "machine.h"
#include "plan_suite.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

struct live {
    const struct fb_compare_options *options;
    const struct fb_compare_programs *programs;
    struct fb_arena *arena;
    struct fb_planned planned;
    struct fb_machine machine;
    struct fb_ab_workers workers;
    struct fb_interrupts interrupts;
    struct fb_progress progress;
    struct fb_comparison comparison;
    struct fb_ab_outcome outcome;
};

static void warn(struct live *live, const char *text)
{
    char line[1024];

    (void)snprintf(line, sizeof line, "flowbench compare: warning: %s", text);
    fb_progress_say(&live->progress, line);
}

/* ---- before anything is measured
 * ------------------------------------------------------------------ */

static enum fb_status open_builds(struct live *live, struct fb_error *error)
{
    const char *const paths[FB_AB_SIDE_COUNT] = {
        [FB_AB_OLD] = live->programs->old_program,
        [FB_AB_NEW] = live->programs->new_program,
        [FB_AB_LAYOUT] = live->programs->layout_program,
    };
    enum fb_status status = FB_OK;

    for (int side = 0; side < FB_AB_SIDE_COUNT && status == FB_OK; side++) {
        if (paths[side] != NULL)
            status = fb_ab_build_open(paths[side], &live->interrupts, live->arena,
                                      &live->workers.builds[side], error);
    }
    return status;
}

/* Builds that differ in more than their sources answer another question than was asked. */
static void warn_of_builds(struct live *live)
{
    const struct fb_ab_build *old_build = &live->workers.builds[FB_AB_OLD];
    const struct fb_ab_build *new_build = &live->workers.builds[FB_AB_NEW];

    if (old_build->protocol != new_build->protocol)
        return; /* one of them is too old to tell */
    if (strcmp(old_build->compiler, new_build->compiler) != 0 ||
        strcmp(old_build->compiler_flags, new_build->compiler_flags) != 0)
        warn(live, "the programs were built by different compilers or with different flags: their "
                   "difference is part of every verdict");
}

static void warn_of_machine(struct live *live, bool other_run)
{
    struct fb_machine_warning warnings[FB_WARNING_COUNT];
    char text[640];
    const size_t count = fb_machine_warnings(&live->machine, warnings);

    if (other_run)
        warn(live, "another flowbench is measuring on this machine: both disturb each other; wait "
                   "for it to end");
    for (size_t i = 0; i < count; i++) {
        if (warnings[i].kind != FB_WARNING_BUSY && warnings[i].kind != FB_WARNING_PRESSURE)
            continue;
        (void)snprintf(text, sizeof text, "%s; %s", warnings[i].text, warnings[i].remedy);
        warn(live, text);
    }
}

/* ---- measuring ----------------------------------------------------------------------------------
 */

static enum fb_status measure(struct live *live, struct fb_error *error)
{
    struct fb_gate_rule rule;
    const struct fb_ab_options ab_options = {
        .measure = fb_ab_worker_measure,
        .context = &live->workers,
        .rule = &rule,
        .layout = live->programs->layout_program != NULL,
        .budget_s = live->options->shared.budget_s,
        .progress = &live->progress,
        .interrupts = &live->interrupts,
        .device_name = live->machine.cpu_model,
        .gpu_name = live->machine.gpu.name,
    };

    fb_gate_rule_init(&rule);
    live->workers.suite = &live->planned.suite;
    live->workers.interrupts = &live->interrupts;
    live->workers.memory_limit_bytes = fb_limits_memory_bytes(&live->planned.suite.limits);
    fb_ceiling_book_init(&live->workers.book, fb_cpu_best_isa());
    enum fb_status status = open_builds(live, error);
    if (status != FB_OK)
        return status;
    warn_of_builds(live);
    return fb_ab_compare(&live->planned.suite, &live->planned.plan, &ab_options, live->arena,
                         &live->comparison, &live->outcome, error);
}

static enum fb_status run(struct live *live, struct fb_error *error)
{
    const struct fb_compare_options *options = live->options;
    const struct fb_plan_request request = {options->shared.sets, options->shared.sets_count,
                                            options->shared.filter, false, true};
    bool other_run;

    enum fb_status status =
        fb_plan_suite(options->suite, &request, live->arena, &live->planned, error);
    if (status == FB_OK)
        status = fb_machine_read(&live->machine, error);
    if (status == FB_OK)
        status = fb_interrupts_begin(&live->interrupts, error);
    if (status != FB_OK)
        return status;
    const int lock_fd = fb_host_lock_take(&other_run);
    warn_of_machine(live, other_run);
    status = measure(live, error);
    if (lock_fd >= 0)
        close(lock_fd);
    fb_interrupts_end(&live->interrupts);
    return status;
}

static void set_side(const struct live *live, enum fb_ab_side side, const char *label,
                     struct fb_compare_side *shown)
{
    const struct fb_ab_build *build = &live->workers.builds[side];

    *shown = (struct fb_compare_side){label, build->version, build->git_sha, live->machine.name,
                                      live->machine.identity};
}

int fb_compare_live(const struct fb_compare_options *options,
                    const struct fb_compare_programs *programs, struct fb_arena *arena)
{
    struct fb_error error;
    struct live *live = fb_arena_alloc(arena, 1, sizeof *live, &error);

    if (live == NULL)
        return fb_exit_report("compare", &error);
    live->options = options;
    live->programs = programs;
    live->arena = arena;
    fb_progress_init(&live->progress, stderr, options->shared.color, options->shared.quiet);
    if (run(live, &error) != FB_OK)
        return fb_exit_report("compare", &error);
    if (live->outcome.signal != 0) {
        (void)fprintf(stderr, "flowbench compare: interrupted by %s; nothing is decided\n",
                      live->outcome.signal == SIGTERM ? "SIGTERM" : "SIGINT");
        return live->outcome.signal == SIGTERM ? FB_EXIT_SIGTERM : FB_EXIT_SIGINT;
    }
    if (live->outcome.left_over > 0)
        (void)fprintf(stderr, "flowbench compare: the budget left %zu case%s undecided\n",
                      live->outcome.left_over, live->outcome.left_over == 1 ? "" : "s");
    set_side(live, FB_AB_OLD, programs->old_label, &live->comparison.base);
    set_side(live, FB_AB_NEW, programs->new_label, &live->comparison.fresh);
    return fb_compare_output_write(&live->comparison, options, arena);
}
