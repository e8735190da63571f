/* The command line of `flowbench run`. */
#ifndef FB_RUN_OPTIONS_H
#define FB_RUN_OPTIONS_H

#include "shared_options.h"

#include <stdbool.h>
#include <stddef.h>

struct fb_run_options {
    const char *const *suites;
    size_t suites_count;
    struct fb_shared_options shared;
    const char *out_dir, *resume_dir; /* NULL: not given */
    const char *data_dir;             /* --data-dir, FLOWBENCH_DATA, ./data if there, NULL */
    bool list, dry_run;
    int argc; /* as given */
    char **argv;
};

/* Parses; a wrong command line ends the process through argp with FB_EXIT_USAGE. The lists live in
 * the arena. */
enum fb_status fb_run_options_parse(int argc, char **argv, struct fb_arena *arena,
                                    struct fb_run_options *options,
                                    struct fb_error *error) FB_MUST_CHECK;

#endif
