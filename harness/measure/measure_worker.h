/*
 * The worker of measure_case.c, shared with the files that take its samples (measure_samples.c) and
 * its floor evidence (measure_floor.c). Private to this room.
 */
#ifndef FB_MEASURE_WORKER_H
#define FB_MEASURE_WORKER_H

#include "cache_flush.h"
#include "mapped_buffer.h"
#include "measure.h"

enum buffer_slot { SLOT_Q, SLOT_K, SLOT_V, SLOT_OUT, SLOT_CONSTANTS, SLOT_SCRATCH, SLOT_COUNT };

struct fb_worker {
    const struct fb_case *item;
    const struct fb_measure_settings *settings;
    const struct fb_measure_options *options;
    const struct fb_attention *attention;
    struct fb_measure_result *result;
    struct fb_problem problem;
    struct fb_sizes sizes;
    size_t constants_bytes;
    struct fb_mapped_buffer buffers[SLOT_COUNT];
    struct fb_call call;
    struct fb_clock clock;
    struct fb_cache_flush flush;
    uint64_t input_seed; /* of this process */
    double spent_s;      /* in calls so far, for the warm-up */
};

void fb_worker_enter_phase(const struct fb_worker *worker, const char *phase);
double fb_worker_now_s(const struct fb_worker *worker);
bool fb_worker_is_cold(const struct fb_worker *worker);

/* One call, timed; the time also counts towards the warm-up. */
enum fb_status fb_worker_timed_call(struct fb_worker *worker, double *time_s,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Calls per sample of something that takes call_s: 1 when cold; when warm a batch long enough that
 * the clock's resolution is below 0.1 % of it, and that max_time cannot hold more than a few
 * thousand samples. */
int64_t fb_worker_batch_for(const struct fb_worker *worker, double call_s);

/* Warms up, takes the samples and the evidence into the result. */
enum fb_status fb_worker_sample(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;

/* The output of the last timed call against that of the first call: the result becomes WRONG, and
 * loses its samples, when it was not written everywhere or has changed without leave. */
void fb_worker_check_again(struct fb_worker *worker);

/* A wrong answer gets no time. */
void fb_worker_drop_samples(struct fb_measure_result *result);

/* Touch time and GEMM rate into the result. */
enum fb_status fb_worker_measure_floor(struct fb_worker *worker,
                                       struct fb_error *error) FB_MUST_CHECK;

#endif
