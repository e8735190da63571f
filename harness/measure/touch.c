/* The touch kernel over threads: see touch.h. */
#include "touch.h"

#include "cpu_features.h"

#include <assert.h>

void fb_touch_init(struct fb_touch *touch, const struct fb_call *call, int threads)
{
    const struct fb_tensor *reads[3] = {&call->q, &call->k, &call->v};
    assert(call->out.dtype == FB_F32);
    for (int r = 0; r < 3; r++) {
        touch->read[r] = reads[r]->data;
        touch->read_count[r] = fb_tensor_count(reads[r]);
    }
    touch->write = call->out.data;
    touch->write_count = fb_tensor_count(&call->out);
    touch->threads = threads;
}

static fb_touch_slice_fn best_slice_fn(void)
{
#if defined(FB_BUILT_AVX512)
    if (fb_cpu_has(FB_ISA_AVX512))
        return fb_touch_slice_avx512;
#endif
#if defined(FB_BUILT_AVX2)
    if (fb_cpu_has(FB_ISA_AVX2))
        return fb_touch_slice_avx2;
#endif
#if defined(FB_BUILT_NEON)
    if (fb_cpu_has(FB_ISA_NEON))
        return fb_touch_slice_neon;
#endif
    return fb_touch_slice_scalar;
}

/* Where part `index` of `parts` begins: a multiple of the alignment, so that every slice starts on
 * a cache line and threads share none. */
static int64_t slice_start(int64_t count, int index, int parts)
{
    const int64_t line = FB_ALIGNMENT / (int64_t)sizeof(float);
    const int64_t lines = (count + line - 1) / line;
    const int64_t start = lines * index / parts * line;
    return start < count ? start : count;
}

static struct fb_touch_slice slice_of_thread(const struct fb_touch *touch, int thread)
{
    struct fb_touch_slice slice = {0};
    const int threads = touch->threads;
    for (int r = 0; r < 3; r++) {
        const int64_t start = slice_start(touch->read_count[r], thread, threads);
        slice.read[r] = touch->read[r] + start;
        slice.read_count[r] = slice_start(touch->read_count[r], thread + 1, threads) - start;
    }
    const int64_t start = slice_start(touch->write_count, thread, threads);
    slice.write = touch->write + start;
    slice.write_count = slice_start(touch->write_count, thread + 1, threads) - start;
    return slice;
}

void fb_touch_run(const struct fb_touch *touch, bool streaming, int64_t calls,
                  const struct fb_clock *clock, double *best_s)
{
    const fb_touch_slice_fn slice_fn = best_slice_fn();
    const int threads = touch->threads;
    float sum = 0.0F;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int t = 0; t < threads; t++) {
        struct fb_touch_slice slice = slice_of_thread(touch, t);
        slice.streaming = streaming;
        const double start_s = clock->now_s(clock->context);
        for (int64_t i = 0; i < calls; i++)
            sum += slice_fn(&slice);
        const double time_s = (clock->now_s(clock->context) - start_s) / (double)calls;
        best_s[t] = time_s < best_s[t] ? time_s : best_s[t];
    }
    volatile float sink = sum; /* so that the reads are not dead code */
    (void)sink;
}

double fb_touch_bytes(const struct fb_touch *touch)
{
    int64_t count = touch->write_count;
    for (int r = 0; r < 3; r++)
        count += touch->read_count[r];
    return (double)count * (double)sizeof(float);
}
