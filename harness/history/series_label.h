/* What to call a series: the factors in which it differs from the others of its book. */
#ifndef FB_SERIES_LABEL_H
#define FB_SERIES_LABEL_H

#include "series_book.h"

enum { FB_SERIES_LABEL_SIZE = 256, FB_SERIES_FACTORS_MAX = 32 };

struct fb_series_labels {
    const struct fb_row *first; /* the row that all others are like, except where they vary */
    bool varies[FB_SERIES_FACTORS_MAX];
};

/* Looks at which factors vary over the series of one machine, or of all (SIZE_MAX). A factor that a
 * row does not have tells nothing apart: an older results.csv may lack the column. */
void fb_series_labels_init(struct fb_series_labels *labels, const struct fb_series_book *book,
                           size_t machine);

/* "flow/fused causal N 4K"; text has FB_SERIES_LABEL_SIZE bytes and is returned. */
const char *fb_series_label(const struct fb_series_labels *labels,
                            const struct fb_book_series *series, char *text);

/* "cpu, avx512, 2 threads, f32, ...": what all of these series have in common. */
const char *fb_series_common(const struct fb_series_labels *labels, char *text, size_t text_size);

#endif
