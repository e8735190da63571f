/* Parallel loops on OpenMP, with denormals flushed; see parallel.h. */
#include "parallel.h"

#include <omp.h>
#include <stdatomic.h>

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

/*
 * How many threads a region of this caller has: as many as it ever asked for. libgomp ends the
 * threads that a smaller region does not need, and the next larger one starts others, which costs
 * tens of microseconds each and forgets where they were bound. Idle ones just pass.
 */
static int team_of(int threads)
{
    static _Thread_local int largest;
    largest = threads > largest ? threads : largest;
    return largest;
}

void fb_parallel_for(int threads, int64_t tasks, fb_task_fn run, void *context)
{
    const int busy = threads < tasks ? threads : (int)tasks;
    if (busy <= 1) {
        run_alone(tasks, run, context);
        return;
    }
    atomic_llong next = 0;
#pragma omp parallel num_threads(team_of(threads))
    {
        const int thread = omp_get_thread_num();
        if (thread < busy) {
            const uint64_t mode = flush_denormals();
            int64_t task;
            while ((task = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed)) < tasks) {
                run(context, task, thread);
            }
            restore_mode(mode);
        }
    }
}
