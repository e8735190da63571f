/*
 * A program that is not ours, running beside the worker: started, asked, ended. It lives in the
 * worker's process group and dies with it, so that the limits of the case are its limits.
 */
#ifndef FB_PEER_PROCESS_H
#define FB_PEER_PROCESS_H

#include "measure.h"
#include "peer_protocol.h"

#include <sys/types.h>

enum { FB_PEER_MEMORY_FD = 3, FB_PEER_PATH_SIZE = 4096 };

struct fb_peer_process {
    pid_t pid;     /* 0: none */
    int socket_fd; /* requests out, answers in */
    char *line;    /* the answer being read: owned */
    size_t used;   /* bytes of it */
};

/* The program's file: the adapter's where flowbench keeps it, else the path as it is (relative to
 * the folder that flowbench runs in). FB_ERROR_USAGE when it is not there, with the remedy. */
enum fb_status fb_peer_find(const char *program, char path[FB_PEER_PATH_SIZE],
                            struct fb_error *error) FB_MUST_CHECK;

/* Starts it: what ends in .py by $FLOWBENCH_PYTHON or python3, the rest directly. memory_fd is a
 * file in memory; the program finds it at FB_PEER_MEMORY_FD. FB_ERROR_USAGE: cannot be started. */
enum fb_status fb_peer_start(const char *path, int memory_fd, struct fb_peer_process *process,
                             struct fb_error *error) FB_MUST_CHECK;

/* Sends the request (taken, may be NULL for want of memory) and waits for its answer. A verdict
 * that is not FB_PEER_DONE is an error, too; `*status` tells the status of the row that an error
 * means: skipped, oom, crash or error. wall_s: how long the answer took. */
enum fb_status fb_peer_ask(struct fb_peer_process *process, enum fb_peer_request request,
                           json_t *document, const struct fb_peer_tensors *tensors,
                           struct fb_peer_answer *answer, double *wall_s,
                           enum fb_measure_status *row_status,
                           struct fb_error *error) FB_MUST_CHECK;

/* Closes its stdin, waits a moment, kills. */
void fb_peer_end(struct fb_peer_process *process);

#endif
