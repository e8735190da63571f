/* One suite from its plan to its report: a new run or a resumed one. Used by cmd_run.c. */
#ifndef FB_RUN_SESSION_H
#define FB_RUN_SESSION_H

#include "arena.h"
#include "machine.h"
#include "plan.h"
#include "run_options.h"
#include "suite.h"

/* A suite read and planned for this machine. */
struct fb_planned {
    struct fb_suite suite;
    struct fb_plan plan;
};

/* Runs a planned suite in a folder of its own. budget_used_s: by suites before it. Reports its
 * failures itself; returns the exit code. */
int fb_run_session_new(const struct fb_planned *planned, const struct fb_run_options *options,
                       const struct fb_machine *machine, double budget_used_s,
                       struct fb_arena *arena);

/* Continues the run in options->resume_dir. */
int fb_run_session_resume(const struct fb_run_options *options, const struct fb_machine *machine,
                          struct fb_arena *arena);

/* Whether two exit codes of several suites: the one that says more. */
int fb_run_worse_exit(int a, int b);

#endif
