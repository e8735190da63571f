/* Parallel loops on OpenMP, with denormals flushed; see parallel.h. */
#include "parallel.h"

#include <omp.h>

#if defined(__SSE2__)
#include <immintrin.h>
enum { FB_FLUSH_BITS = 0x8040 }; /* FTZ is bit 15, DAZ bit 6 */

static uint64_t flush_denormals(void)
{
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | FB_FLUSH_BITS);
    return mode;
}

static void restore_mode(uint64_t mode)
{
    _mm_setcsr((unsigned int)mode);
}
#elif defined(__aarch64__)
static uint64_t flush_denormals(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | (UINT64_C(1) << 24)));
    return mode;
}

static void restore_mode(uint64_t mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
#else
static uint64_t flush_denormals(void)
{
    return 0;
}

static void restore_mode(uint64_t mode)
{
    (void)mode;
}
#endif

static void run_alone(int64_t tasks, fb_task_fn run, void *context)
{
    const uint64_t mode = flush_denormals();
    for (int64_t task = 0; task < tasks; task++) {
        run(context, task, 0);
    }
    restore_mode(mode);
}

void fb_parallel_for(int threads, int64_t tasks, fb_task_fn run, void *context)
{
    if (threads > tasks) {
        threads = (int)tasks;
    }
    if (threads <= 1) {
        run_alone(tasks, run, context);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const uint64_t mode = flush_denormals();
        const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            run(context, task, thread);
        }
        restore_mode(mode);
    }
}
