/* Writing the verdicts of a comparison where the command line wants them. */
#ifndef FB_COMPARE_OUTPUT_H
#define FB_COMPARE_OUTPUT_H

#include "compare_options.h"

/* Writes the comparison, reports its own failures and returns the exit code of the command. */
int fb_compare_output_write(const struct fb_comparison *comparison,
                            const struct fb_compare_options *options, struct fb_arena *arena);

#endif
