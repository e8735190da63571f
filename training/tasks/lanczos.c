/* See lanczos.h. */
#include "lanczos.h"

#include <assert.h>
#include <math.h>

#define LOBES 3.0
#define PI    3.14159265358979323846
enum { FRACTION_BITS = 22 };

struct taps {
    int first, count;
    int32_t weights[FB_LANCZOS_SIZE_MAX];
};

static double sinc(double x)
{
    return x == 0.0 ? 1.0 : sin(PI * x) / (PI * x);
}

static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

/* The weights of one output position, in fixed point. */
static void find_taps(int from, int to, int position, struct taps *taps)
{
    const double scale = (double)from / to, support = LOBES * scale;
    const double centre = (position + 0.5) * scale;
    double weights[FB_LANCZOS_SIZE_MAX], sum = 0.0;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    first = centre - support + 0.5 < 0.0 ? 0 : first;
    last = last > from ? from : last;
    taps->first = first;
    taps->count = last - first;
    for (int i = 0; i < taps->count; i++) {
        weights[i] = lanczos((i + first - centre + 0.5) / scale);
        sum += weights[i];
    }
    for (int i = 0; i < taps->count; i++)
        taps->weights[i] = (int32_t)lround(weights[i] / sum * (1 << FRACTION_BITS));
}

static uint8_t weigh(const uint8_t *from, int stride, const struct taps *taps)
{
    int32_t sum = 1 << (FRACTION_BITS - 1);
    for (int i = 0; i < taps->count; i++)
        sum += taps->weights[i] * from[(taps->first + i) * stride];
    const int32_t value = sum >> FRACTION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

void fb_lanczos_shrink(const uint8_t *image, int from, int to, uint8_t *out)
{
    uint8_t narrow[FB_LANCZOS_SIZE_MAX * FB_LANCZOS_SIZE_MAX];
    struct taps taps[FB_LANCZOS_SIZE_MAX];
    assert(from >= to && from <= FB_LANCZOS_SIZE_MAX);
    for (int i = 0; i < to; i++)
        find_taps(from, to, i, &taps[i]);
    for (int y = 0; y < from; y++)
        for (int x = 0; x < to; x++)
            narrow[y * to + x] = weigh(image + y * from, 1, &taps[x]);
    for (int y = 0; y < to; y++)
        for (int x = 0; x < to; x++)
            out[y * to + x] = weigh(narrow + x, to, &taps[y]);
}
