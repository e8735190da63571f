/*
 * Time series in the .ts format of the UEA archive (Bagnall et al. 2018; Loning et al. 2019):
 * comment lines '#', header lines '@name value', '@data', then one series a line: the dimensions
 * separated by ':', the label last, the values of a dimension by ','. '?' is a missing value.
 */
#ifndef FB_SERIES_FILE_H
#define FB_SERIES_FILE_H

#include "arena.h"

#include <stdint.h>

struct fb_series {
    int64_t length;      /* time steps */
    const float *values; /* [length, dimensions] */
    int32_t label;       /* index into classes */
};

struct fb_series_set {
    struct fb_series *series;
    int64_t count, dimensions, longest;
    const char **classes; /* distinct labels, sorted as strings */
    int32_t class_count;
};

/* Reads a file into the arena. Missing values are interpolated linearly between their neighbours in
 * time, the ends take the nearest value. With `classes_of` the labels are those of that set (the
 * training split), and another label is refused; NULL: the file's own. Errors name file and line.
 */
enum fb_status fb_series_read(struct fb_series_set *set, const char *path,
                              const struct fb_series_set *classes_of, struct fb_arena *arena,
                              struct fb_error *error) FB_MUST_CHECK;

/* Standardises train and test in place with the mean and the sample standard deviation (n - 1) of
 * every dimension over all steps of the training series: (x - mean) / (deviation + 2.2e-16). */
enum fb_status fb_series_standardise(struct fb_series_set *train, struct fb_series_set *test,
                                     struct fb_error *error) FB_MUST_CHECK;

/* One series of exactly `tokens` steps: a longer one is cut, a shorter one padded with zeros.
 * values [tokens, dimensions]; *length are the steps that are real. */
void fb_series_fill(const struct fb_series_set *set, int64_t index, int64_t tokens, float *values,
                    int64_t *length);

#endif
