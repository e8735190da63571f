/* The JSON documents between the runner and a worker: what to do, and how it is answered. */
#ifndef FB_WORKER_TASK_H
#define FB_WORKER_TASK_H

#include "measure.h"
#include "plan.h"
#include "suite.h"

#include <jansson.h>

/* Of the documents below. A worker of another number is not asked to measure: raise it when a task
 * or an answer changes in a way that the other side would misread. */
enum { FB_WORKER_PROTOCOL_UNNUMBERED = 0, FB_WORKER_PROTOCOL = 1 };

/* {"task": "case", ...} and {"task": "ceilings", "threads": n}; NULL when memory is short. */
json_t *fb_worker_task_case(const struct fb_case *item, const struct fb_suite *suite, int process);
json_t *fb_worker_task_ceilings(enum fb_backend device, enum fb_dtype dtype, int threads,
                                enum fb_isa isa);
/* {"task": "hello"}: answered with the protocol and the build. */
json_t *fb_worker_task_hello(void);

/* Writes a line to the runner and takes the document. */
enum fb_status fb_worker_answer(int fd, json_t *document, struct fb_error *error) FB_MUST_CHECK;

/* The whole life of a worker: reads the task from `in`, does it, writes lines to `out_fd`
 * (worker_process.h). Fails when it could not even answer. */
enum fb_status fb_worker_serve(int in_fd, int out_fd, struct fb_error *error) FB_MUST_CHECK;

#endif
