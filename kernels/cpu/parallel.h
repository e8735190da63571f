/*
 * Parallel loops over independent tasks. Denormal numbers are flushed to zero while tasks run
 * (x86: FTZ and DAZ; AArch64: FZ), and the caller's floating-point mode is restored after.
 */
#ifndef FB_PARALLEL_H
#define FB_PARALLEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* task: 0 .. tasks-1; thread: 0 .. threads-1, distinct among tasks that run at the same time, so
 * that it can index per-thread scratch. */
typedef void (*fb_task_fn)(void *context, int64_t task, int thread);

/* Runs every task once on at most `threads` threads; returns when all are done. Tasks are handed
 * out in order, as threads become free; one thread means a plain loop on the caller's thread. The
 * team's threads stay from loop to loop, also when there are fewer tasks than threads. */
void fb_parallel_for(int threads, int64_t tasks, fb_task_fn run, void *context);

#ifdef __cplusplus
}
#endif
#endif
