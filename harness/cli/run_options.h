/* The command line of `flowbench run`. */
#ifndef FB_RUN_OPTIONS_H
#define FB_RUN_OPTIONS_H

#include "arena.h"
#include "progress.h"

#include <stdbool.h>
#include <stddef.h>

struct fb_run_options {
    const char *const *suites;
    size_t suites_count;
    const char *const *sets; /* of --set, in order */
    size_t sets_count;
    const char *filter, *out_dir, *resume_dir; /* NULL: not given */
    double budget_s;                           /* 0: none */
    bool list, dry_run, strict, quiet;
    enum fb_color color;
    int argc; /* as given */
    char **argv;
};

/* Parses; a wrong command line ends the process through argp with FB_EXIT_USAGE. The lists live in
 * the arena. */
enum fb_status fb_run_options_parse(int argc, char **argv, struct fb_arena *arena,
                                    struct fb_run_options *options,
                                    struct fb_error *error) FB_MUST_CHECK;

/* "90s", "5m", "1h30m" in seconds; false when it is none of that or not positive. */
bool fb_duration_parse(const char *text, double *seconds);

#endif
