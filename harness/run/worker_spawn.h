/* Starting a worker: environment, limits, descriptors. Used by worker_process.c only. */
#ifndef FB_WORKER_SPAWN_H
#define FB_WORKER_SPAWN_H

#include "worker_process.h"

#include <sys/types.h>

struct fb_worker_pipes {
    int result_fd, tail_fd; /* the runner's ends: non-blocking */
};

/* Starts the worker in a session of its own, tied to the life of this process. */
enum fb_status fb_worker_spawn(const struct fb_worker_task *task, pid_t *pid,
                               struct fb_worker_pipes *pipes, struct fb_error *error) FB_MUST_CHECK;

#endif
