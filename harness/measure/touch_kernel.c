/* One thread's part of the touch kernel, compiled once per instruction set. See touch.h. */
#include "simd.h"
#include "touch.h"

enum { UNROLL = 4 };

#if defined(FB_SIMD_AVX512)
#define FB_STREAM(address, value) _mm512_stream_ps(address, value)
#define FB_STREAM_FENCE()         _mm_sfence()
#elif defined(FB_SIMD_AVX2)
#define FB_STREAM(address, value) _mm256_stream_ps(address, value)
#define FB_STREAM_FENCE()         _mm_sfence()
#else
#define FB_STREAM(address, value) fb_vf_store(address, value)
#define FB_STREAM_FENCE()         ((void)0)
#endif

static float read_only(const float *x, int64_t count)
{
    fb_vf sum[UNROLL];
    for (int u = 0; u < UNROLL; u++)
        sum[u] = fb_vf_zero();
    int64_t i = 0;
    for (; i + UNROLL * FB_VW <= count; i += UNROLL * FB_VW)
        for (int u = 0; u < UNROLL; u++)
            sum[u] = fb_vf_add(sum[u], fb_vf_load(x + i + u * FB_VW));
    float rest = 0.0F;
    for (; i < count; i++)
        rest += x[i];
    float lanes[FB_VW];
    fb_vf_store(lanes, fb_vf_add(fb_vf_add(sum[0], sum[1]), fb_vf_add(sum[2], sum[3])));
    for (int lane = 0; lane < FB_VW; lane++)
        rest += lanes[lane];
    return rest;
}

static inline fb_vf sum_of(const struct fb_touch_slice *s, int reads, int64_t i)
{
    fb_vf sum = fb_vf_load(s->read[0].data + i);
    for (int r = 1; r < reads; r++)
        sum = fb_vf_add(sum, fb_vf_load(s->read[r].data + i));
    return sum;
}

/* Side by side, with numbers of ranges that the compiler sees. */
static inline int64_t read_and_write(const struct fb_touch_slice *s, int reads, int writes,
                                     int64_t count)
{
    int64_t i = 0;
    if (s->streaming) {
        for (; i + FB_VW <= count; i += FB_VW) {
            const fb_vf sum = sum_of(s, reads, i);
            for (int w = 0; w < writes; w++)
                FB_STREAM(s->write[w].data + i, sum);
        }
        FB_STREAM_FENCE();
    } else {
        for (; i + FB_VW <= count; i += FB_VW) {
            const fb_vf sum = sum_of(s, reads, i);
            for (int w = 0; w < writes; w++)
                fb_vf_store(s->write[w].data + i, sum);
        }
    }
    return i;
}

static int count_ranges(const struct fb_touch_range *ranges, int most)
{
    int count = 0;
    while (count < most && ranges[count].data)
        count++;
    return count;
}

static int64_t shortest(const struct fb_touch_range *ranges, int count, int64_t least)
{
    for (int r = 0; r < count; r++)
        least = ranges[r].count < least ? ranges[r].count : least;
    return least;
}

float FB_ISA_SYMBOL(fb_touch_slice)(const struct fb_touch_slice *slice)
{
    const int reads = count_ranges(slice->read, FB_TOUCH_READS);
    const int writes = count_ranges(slice->write, FB_TOUCH_WRITES);
    const int64_t common = shortest(slice->write, writes, shortest(slice->read, reads, INT64_MAX));
    int64_t done = 0;
    if (reads == 3 && writes == 1)
        done = read_and_write(slice, 3, 1, common);
    else if (reads == 4 && writes == 3)
        done = read_and_write(slice, 4, 3, common);
    float sum = 0.0F;
    for (int r = 0; r < reads; r++)
        sum += read_only(slice->read[r].data + done, slice->read[r].count - done);
    for (int w = 0; w < writes; w++)
        for (int64_t i = done; i < slice->write[w].count; i++)
            slice->write[w].data[i] = sum;
    return sum;
}
