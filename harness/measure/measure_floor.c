/* What a row's floor is made of, measured beside its samples. docs/measuring.md, "The floor". */
#include "ceilings.h"
#include "measure_device.h"
#include "measure_worker.h"
#include "touch.h"

#include <math.h>
#include <stdlib.h>

/* Touches in the same cache state as the samples, until the budget is spent. */
static void repeat_touch(struct fb_worker *worker, const struct fb_touch *touch, double *best_s)
{
    /* A floor must be low: many repeats, as one undisturbed moment of each thread is enough. */
    enum { REPEATS_LEAST = 8, REPEATS_MOST = 200 };
    const double budget_s = 0.04;
    int64_t calls = 1;
    const double start_s = fb_worker_now_s(worker);
    for (int repeat = 0; repeat < REPEATS_MOST; repeat++) {
        if (fb_worker_is_cold(worker))
            fb_cache_flush_run(&worker->flush);
        fb_touch_run(touch, repeat % 2 == 1, calls, &worker->clock, best_s);
        if (repeat == 0)
            calls = fb_worker_batch_for(worker, best_s[0]);
        if (repeat + 1 >= REPEATS_LEAST && fb_worker_now_s(worker) - start_s >= budget_s)
            return;
    }
}

enum fb_status fb_worker_measure_floor(struct fb_worker *worker, struct fb_error *error)
{
    if (worker->device != NULL) /* its GEMM ceiling is measured once per run: see ceiling_book */
        return fb_worker_device_floor(worker, error);
    const double burst_s = 0.03;
    const int threads = worker->item->threads;
    struct fb_measure_result *result = worker->result;
    fb_worker_enter_phase(worker, "floor");
    double *best_s = calloc((size_t)threads, sizeof *best_s);
    if (!best_s)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the times of %d threads",
                            threads);
    for (int t = 0; t < threads; t++)
        best_s[t] = HUGE_VAL;
    struct fb_touch touch;
    fb_touch_init(&touch, &worker->call, worker->pass->pass, worker->buffers[SLOT_STATE].bytes,
                  threads);
    repeat_touch(worker, &touch, best_s);
    double slowest_s = 0.0;
    for (int t = 0; t < threads; t++)
        slowest_s = fmax(slowest_s, best_s[t]);
    free(best_s);
    if (slowest_s > 0.0) { /* a scripted clock may stand still */
        result->touch_s = slowest_s;
        result->touch_bytes = fb_touch_bytes(&touch);
    }
    struct fb_measure_ceilings ceilings;
    const enum fb_status status =
        fb_ceilings_gemm(threads, worker->attention->isa, burst_s, &ceilings, error);
    if (status == FB_OK)
        result->gemm_flop_per_s = ceilings.gemm_flop_per_s;
    return status;
}
