/*
 * A worker whose case an external program computes: its inputs go to the program through shared
 * memory, its calls are the program's, its outputs come back the same way. Everything else (what is
 * checked, evicted, stopped, the floor) is the worker's as for kernels of our own. Private.
 */
#ifndef FB_MEASURE_PEER_H
#define FB_MEASURE_PEER_H

#include "peer_process.h"

struct fb_worker;

struct fb_peer {
    struct fb_peer_process process;
    struct fb_peer_tensors tensors;
    int memory_fd;
    unsigned char *memory;          /* tensors.total_bytes of it, shared with the program */
    int64_t device_peak_bytes;      /* as the program says; -1: it does not */
    enum fb_measure_status failure; /* the row's status when a call here has failed */
};

/* Finds and starts the program and asks for its version: before anything large is allocated. */
enum fb_status fb_peer_open(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;
/* Hands over the case and the inputs; untimed. */
enum fb_status fb_peer_prepare(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;
/* That many calls in a row: the seconds of all of them by the program's clock. */
enum fb_status fb_peer_call(struct fb_worker *worker, int64_t calls, double *time_s,
                            struct fb_error *error) FB_MUST_CHECK;
/* The same on a device, from cold caches when the settings ask for it, timed by the program's clock
 * and, once more, by the device's. */
enum fb_status fb_peer_call_device(struct fb_worker *worker, int64_t calls, double *host_s,
                                   double *device_s, struct fb_error *error) FB_MUST_CHECK;
/* What the last call wrote, into the worker's own outputs; elements that it did not write are
 * poison. */
enum fb_status fb_peer_fetch(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;
void fb_peer_close(struct fb_worker *worker);

#endif
