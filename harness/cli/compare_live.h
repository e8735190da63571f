/* Comparing two programs, live: from the command line to verdicts. */
#ifndef FB_COMPARE_LIVE_H
#define FB_COMPARE_LIVE_H

#include "compare_options.h"

/* Programs and how they are called in the output. */
struct fb_compare_programs {
    const char *old_program, *new_program;
    const char *layout_program; /* NULL: none */
    const char *old_label, *new_label;
};

/* Measures, writes the verdicts, reports its own failures; returns the exit code. */
int fb_compare_live(const struct fb_compare_options *options,
                    const struct fb_compare_programs *programs, struct fb_arena *arena);

#endif
