/*
 * One worker process: a fresh flowbench that does one task and can crash, hang or eat memory
 * without costing more than that task.
 *
 * The task goes in as one JSON document on stdin. On fd 3 the worker writes lines, each a JSON
 * object: {"phase": "samples"} as it goes along, and at last {"result": {...}} or
 * {"error": "in words", "code": "memory"} (the name of an fb_status). Its stderr and stdout are
 * captured; the tail serves the reason.
 */
#ifndef FB_WORKER_PROCESS_H
#define FB_WORKER_PROCESS_H

#include "interrupts.h"
#include "status.h"
#include "suite.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    FB_WORKER_RESULT_FD = 3,
    FB_WORKER_REASON_SIZE = 512,
    FB_WORKER_PHASE_SIZE = 32,
    FB_WORKER_TAIL_SIZE = 2048,
    FB_WORKERS_MAX = 64 /* that can be waited for at once */
};

struct fb_worker_task {
    const char *program;       /* NULL: this very program (/proc/self/exe) */
    const json_t *input;       /* borrowed */
    int threads;               /* of OpenMP and OpenBLAS */
    enum fb_counter counter;   /* valgrind: it executes the worker */
    const char *openblas_core; /* OPENBLAS_CORETYPE, or NULL: as OpenBLAS finds best */
    bool stops_when_told; /* the first SIGINT or SIGTERM is passed on as SIGTERM: it then ends */
    bool idle_threads;    /* sleep between parallel regions: another process computes */
    const char *gpu;      /* the only GPU that it sees (an entry of CUDA_VISIBLE_DEVICES); NULL: as
                             this process */
    double timeout_s;     /* wall clock, from start to end; 0: none */
    size_t memory_bytes;  /* limit of the task's memory; 0: none */
};

enum fb_worker_end {
    FB_WORKER_RESULT,  /* ended well, `result` holds what it said */
    FB_WORKER_TIMEOUT, /* killed at the time-out */
    FB_WORKER_OOM,     /* killed by the kernel for want of memory, or said so itself */
    FB_WORKER_CRASH,   /* died of a signal */
    FB_WORKER_ERROR,   /* said {"error"}, or ended without a well-formed result */
    FB_WORKER_ABORTED  /* killed by us after a second SIGINT or SIGTERM */
};

struct fb_worker_outcome {
    enum fb_worker_end end;
    json_t *result;                     /* with FB_WORKER_RESULT; owned */
    char reason[FB_WORKER_REASON_SIZE]; /* otherwise: what happened, one line */
    char phase[FB_WORKER_PHASE_SIZE];   /* the last one it told of, or "" */
    double wall_s;
};

/* Starts a worker and waits for its end. FB_OK whatever becomes of the worker; a failure means that
 * none could be started. While it waits, signals are counted in `interrupts`: the first one lets
 * the worker end, the second one kills it. The caller frees the outcome in any case. */
enum fb_status fb_worker_run(const struct fb_worker_task *task, struct fb_interrupts *interrupts,
                             struct fb_worker_outcome *outcome,
                             struct fb_error *error) FB_MUST_CHECK;

/* The same in two steps, for several workers at once. What the task points to must live until the
 * end. */
struct fb_worker;
enum fb_status fb_worker_start(const struct fb_worker_task *task, struct fb_worker **worker,
                               struct fb_error *error) FB_MUST_CHECK;
/* Waits until one of the workers has ended (places that are NULL are passed over; one at least is
 * not), judges and frees it, sets its place to NULL and returns the place. */
size_t fb_worker_wait(struct fb_worker **workers, size_t count, struct fb_interrupts *interrupts,
                      struct fb_worker_outcome *outcome);
/* Kills and forgets a worker; NULL: nothing. */
void fb_worker_abandon(struct fb_worker *worker);

void fb_worker_outcome_free(struct fb_worker_outcome *outcome);

/* "timeout", "oom", "crash", "error": the status of a row whose worker ended so. NULL for a result
 * and for an aborted one, which leave no such row. */
const char *fb_worker_end_status(enum fb_worker_end end);

/* Room beside the task's own bytes that the limit leaves: code, threads' stacks, OpenBLAS's
 * buffers, the oracle. */
size_t fb_worker_memory_allowance(size_t memory_bytes);

#endif
