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

static fb_vf sum_of_three(const struct fb_touch_slice *s, int64_t i)
{
    return fb_vf_add(fb_vf_add(fb_vf_load(s->read[0] + i), fb_vf_load(s->read[1] + i)),
                     fb_vf_load(s->read[2] + i));
}

static int64_t read_and_write(const struct fb_touch_slice *s, int64_t count)
{
    int64_t i = 0;
    if (s->streaming) {
        for (; i + FB_VW <= count; i += FB_VW)
            FB_STREAM(s->write + i, sum_of_three(s, i));
        FB_STREAM_FENCE();
    } else {
        for (; i + FB_VW <= count; i += FB_VW)
            fb_vf_store(s->write + i, sum_of_three(s, i));
    }
    return i;
}

float FB_ISA_SYMBOL(fb_touch_slice)(const struct fb_touch_slice *slice)
{
    int64_t common = slice->write_count;
    for (int r = 0; r < 3; r++)
        common = slice->read_count[r] < common ? slice->read_count[r] : common;
    const int64_t done = read_and_write(slice, common);
    float sum = 0.0F;
    for (int r = 0; r < 3; r++)
        sum += read_only(slice->read[r] + done, slice->read_count[r] - done);
    for (int64_t i = done; i < slice->write_count; i++)
        slice->write[i] = sum;
    return sum;
}
