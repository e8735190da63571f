/* The touch kernel over threads: see touch.h. */
#include "touch.h"

#include "cpu_features.h"

static struct fb_touch_range range_of(const struct fb_tensor *tensor)
{
    const size_t bytes = (size_t)fb_tensor_count(tensor) * fb_dtype_bytes(tensor->dtype);
    return (struct fb_touch_range){tensor->data,
                                   tensor->data ? (int64_t)(bytes / sizeof(float)) : 0};
}

static struct fb_touch_stage forward_stage(const struct fb_call *call)
{
    return (struct fb_touch_stage){
        .read = {range_of(&call->q), range_of(&call->k), range_of(&call->v)},
        .write = {range_of(&call->out)},
    };
}

static struct fb_touch_stage backward_stage(const struct fb_call *call)
{
    return (struct fb_touch_stage){
        .read = {range_of(&call->q), range_of(&call->k), range_of(&call->v), range_of(&call->dout)},
        .write = {range_of(&call->dq), range_of(&call->dk), range_of(&call->dv)},
    };
}

static struct fb_touch_stage decode_stage(const struct fb_call *call, size_t state_bytes)
{
    return (struct fb_touch_stage){
        .read = {{call->decode_state, (int64_t)(state_bytes / sizeof(float))}},
        .write = {range_of(&call->out)},
    };
}

void fb_touch_init(struct fb_touch *touch, const struct fb_call *call, enum fb_pass pass,
                   size_t state_bytes, int threads)
{
    *touch = (struct fb_touch){.threads = threads};
    if (pass == FB_FORWARD || pass == FB_BOTH)
        touch->stage[touch->stages++] = forward_stage(call);
    if (pass == FB_BACKWARD || pass == FB_BOTH)
        touch->stage[touch->stages++] = backward_stage(call);
    if (pass == FB_DECODE)
        touch->stage[touch->stages++] = decode_stage(call, state_bytes);
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

static struct fb_touch_range range_of_thread(const struct fb_touch_range *range, int thread,
                                             int threads)
{
    const int64_t start = slice_start(range->count, thread, threads);
    const int64_t end = slice_start(range->count, thread + 1, threads);
    return (struct fb_touch_range){range->count > 0 ? range->data + start : NULL, end - start};
}

static struct fb_touch_slice slice_of_thread(const struct fb_touch_stage *stage, int thread,
                                             int threads)
{
    struct fb_touch_slice slice = {.streaming = false};
    for (int r = 0; r < FB_TOUCH_READS; r++)
        slice.read[r] = range_of_thread(&stage->read[r], thread, threads);
    for (int w = 0; w < FB_TOUCH_WRITES; w++)
        slice.write[w] = range_of_thread(&stage->write[w], thread, threads);
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
        struct fb_touch_slice slice[FB_TOUCH_STAGES];
        for (int s = 0; s < touch->stages; s++) {
            slice[s] = slice_of_thread(&touch->stage[s], t, threads);
            slice[s].streaming = streaming;
        }
        const double start_s = clock->now_s(clock->context);
        for (int64_t i = 0; i < calls; i++)
            for (int s = 0; s < touch->stages; s++)
                sum += slice_fn(&slice[s]);
        const double time_s = (clock->now_s(clock->context) - start_s) / (double)calls;
        best_s[t] = time_s < best_s[t] ? time_s : best_s[t];
    }
    volatile float sink = sum; /* so that the reads are not dead code */
    (void)sink;
}

double fb_touch_bytes(const struct fb_touch *touch)
{
    int64_t count = 0;
    for (int s = 0; s < touch->stages; s++) {
        for (int r = 0; r < FB_TOUCH_READS; r++)
            count += touch->stage[s].read[r].count;
        for (int w = 0; w < FB_TOUCH_WRITES; w++)
            count += touch->stage[s].write[w].count;
    }
    return (double)count * (double)sizeof(float);
}
