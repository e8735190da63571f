/* The command line of `flowbench compare`. */
#ifndef FB_COMPARE_OPTIONS_H
#define FB_COMPARE_OPTIONS_H

#include "comparison_print.h"
#include "shared_options.h"

enum fb_compare_mode { FB_COMPARE_RUNS, FB_COMPARE_BINARIES, FB_COMPARE_COMMITS };

struct fb_compare_options {
    enum fb_compare_mode mode;
    const char *base, *fresh; /* runs, programs or revisions */
    const char *suite;        /* NULL for runs */
    const char *aprime;       /* the old program relinked; NULL: none */
    bool layout;              /* build the old commit relinked, too */
    enum fb_comparison_format format;
    const char *output; /* NULL: standard output */
    struct fb_shared_options shared;
};

/* Parses; a wrong command line ends the process through argp with FB_EXIT_USAGE. */
enum fb_status fb_compare_options_parse(int argc, char **argv, struct fb_arena *arena,
                                        struct fb_compare_options *options,
                                        struct fb_error *error) FB_MUST_CHECK;

#endif
