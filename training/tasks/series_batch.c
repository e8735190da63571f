/* Standardised series and their batches: see series_file.h. */
#include "series_file.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void apply(struct fb_series_set *set, int64_t d, double mean, double deviation)
{
    for (int64_t i = 0; i < set->count; i++) {
        float *values = (float *)set->series[i].values + d;
        for (int64_t t = 0; t < set->series[i].length; t++)
            values[t * set->dimensions] =
                (float)(((double)values[t * set->dimensions] - mean) / (deviation + 2.2e-16));
    }
}

enum fb_status fb_series_standardise(struct fb_series_set *train, struct fb_series_set *test,
                                     struct fb_error *error)
{
    const int64_t dimensions = train->dimensions;
    for (int64_t d = 0; d < dimensions; d++) {
        double sum = 0.0, squares = 0.0, count = 0.0;
        for (int64_t i = 0; i < train->count; i++)
            for (int64_t t = 0; t < train->series[i].length; t++, count += 1.0)
                sum += (double)train->series[i].values[t * dimensions + d];
        if (count < 2.0)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "the training split has fewer than two time steps: nothing to "
                                "standardise with");
        const double mean = sum / count;
        for (int64_t i = 0; i < train->count; i++)
            for (int64_t t = 0; t < train->series[i].length; t++) {
                const double off = (double)train->series[i].values[t * dimensions + d] - mean;
                squares += off * off;
            }
        const double deviation = sqrt(squares / (count - 1.0));
        if (!isfinite(deviation))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "dimension %" PRId64 " of the training split is too large to "
                                "standardise",
                                d + 1);
        apply(train, d, mean, deviation);
        apply(test, d, mean, deviation);
    }
    return FB_OK;
}

void fb_series_fill(const struct fb_series_set *set, int64_t index, int64_t tokens, float *values,
                    int64_t *length)
{
    const struct fb_series *s = &set->series[index];
    const int64_t kept = s->length < tokens ? s->length : tokens;
    const size_t row = (size_t)set->dimensions * sizeof *values;
    memcpy(values, s->values, (size_t)kept * row);
    memset(values + kept * set->dimensions, 0, (size_t)(tokens - kept) * row);
    *length = kept;
}
