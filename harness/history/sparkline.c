/* See sparkline.h. */
#include "sparkline.h"

#include "stats.h"

#include <math.h>
#include <string.h>

enum { LEVELS = 8, GROUP_MAX = 4096 };
static const double least_range = 0.0953101798043249; /* ln 1.1 */

static const char *const blocks[LEVELS] = {"\u2581", "\u2582", "\u2583", "\u2584",
                                           "\u2585", "\u2586", "\u2587", "\u2588"};
static const char *const plain[LEVELS] = {"_", ".", "-", "=", "+", "*", "#", "@"};

/* The median of the values that are there; NaN when none is. */
static double middle(const double *values, size_t count)
{
    double kept[GROUP_MAX];
    size_t kept_count = 0;

    for (size_t i = 0; i < count && kept_count < GROUP_MAX; i++) {
        if (!isnan(values[i]))
            kept[kept_count++] = values[i];
    }
    fb_stats_sort(kept, kept_count);
    return fb_stats_median(kept, kept_count);
}

const char *fb_sparkline(const double *values, size_t count, size_t width, bool unicode, char *text)
{
    double drawn[FB_SPARKLINE_WIDTH_MAX];
    double low = HUGE_VAL, high = -HUGE_VAL;
    size_t length = 0;

    width = width < FB_SPARKLINE_WIDTH_MAX ? width : FB_SPARKLINE_WIDTH_MAX;
    width = count < width ? count : width;
    *text = '\0';
    for (size_t i = 0; i < width; i++) {
        const size_t first = i * count / width, end = (i + 1) * count / width;
        drawn[i] = middle(values + first, end - first);
        if (!isnan(drawn[i])) {
            low = fmin(low, drawn[i]);
            high = fmax(high, drawn[i]);
        }
    }
    const double range = fmax(high - low, least_range);
    const double bottom = (low + high - range) / 2.0;
    for (size_t i = 0; i < width; i++) {
        const char *piece = unicode ? "\u00d7" : "x";
        if (!isnan(drawn[i])) {
            const int level = (int)((drawn[i] - bottom) / range * LEVELS);
            const int at = level < 0 ? 0 : level < LEVELS ? level : LEVELS - 1;
            piece = unicode ? blocks[at] : plain[at];
        }
        memcpy(text + length, piece, strlen(piece) + 1);
        length += strlen(piece);
    }
    return text;
}
