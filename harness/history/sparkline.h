/* A series in one line of text: one character per point, or per group of neighbours. */
#ifndef FB_SPARKLINE_H
#define FB_SPARKLINE_H

#include <stdbool.h>
#include <stddef.h>

enum { FB_SPARKLINE_WIDTH_MAX = 120, FB_SPARKLINE_SIZE = 3 * FB_SPARKLINE_WIDTH_MAX + 1 };

/* Logarithms of values, NaN for a point that has none (drawn as x). The lowest to the highest fill
 * the height, but a range of less than 10 % is drawn no larger than it is, so that noise does not
 * look like news. More points than `width` are drawn as the medians of neighbours. text has
 * FB_SPARKLINE_SIZE bytes. Blocks when unicode, else _.-=+*#@. */
const char *fb_sparkline(const double *values, size_t count, size_t width, bool unicode,
                         char *text);

#endif
