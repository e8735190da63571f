/*
 * What the harness and a program that is not ours say to each other: one JSON object a line, a
 * request to its stdin, an answer from its stdout. docs/external-protocol.md is the contract.
 */
#ifndef FB_PEER_PROTOCOL_H
#define FB_PEER_PROTOCOL_H

#include "attention.h"
#include "plan.h"

#include <jansson.h>

enum {
    FB_PEER_PROTOCOL = 1,
    FB_PEER_TENSORS_MAX = 8,
    FB_PEER_LINE_MAX = 65536, /* bytes of an answer */
    FB_PEER_TEXT_SIZE = 384
};

/* What is asked; every answer answers the last request. */
enum fb_peer_request { FB_PEER_HELLO, FB_PEER_PREPARE, FB_PEER_CALL, FB_PEER_STORE };

/* A tensor at its place in the shared memory. */
struct fb_peer_tensor {
    const char *name; /* "q", "dout", "constants" */
    bool written;     /* by the program */
    struct fb_tensor view;
    size_t offset_bytes, bytes;
};

struct fb_peer_tensors {
    struct fb_peer_tensor items[FB_PEER_TENSORS_MAX + 1];
    int count;
    size_t total_bytes; /* of the shared memory */
};

/* New documents, NULL when memory is short. */
json_t *fb_peer_say_hello(enum fb_backend device);
json_t *fb_peer_say_prepare(const struct fb_case *item, const struct fb_peer_tensors *tensors,
                            int memory_fd);
/* evict: on a device, whose caches only the program's own kernels reach in time. */
json_t *fb_peer_say_call(int64_t calls, bool evict);
json_t *fb_peer_say_store(void);

enum fb_peer_verdict {
    FB_PEER_DONE,  /* as asked */
    FB_PEER_SKIP,  /* it cannot serve this here: text says why and what to do */
    FB_PEER_OOM,   /* it has no memory for it */
    FB_PEER_FAILED /* it failed: text says how */
};

struct fb_peer_answer {
    enum fb_peer_verdict verdict;
    char text[FB_PEER_TEXT_SIZE]; /* the version after hello; the reason unless done */
    double time_s;                /* call: host time of all its calls together */
    double device_time_s;         /* call: of the device's own clock; NaN where it has none */
    int64_t device_peak_bytes;    /* prepare: beside inputs and outputs; -1: it does not say */
};

/* Reads a line without its end. `tensors` are those that were prepared (NULL before): after `store`
 * the shapes that were stored must be theirs. FB_ERROR_INPUT says what is wrong with the line. */
enum fb_status fb_peer_parse(enum fb_peer_request request, const char *line, size_t length,
                             const struct fb_peer_tensors *tensors, struct fb_peer_answer *answer,
                             struct fb_error *error) FB_MUST_CHECK;

/* Whether an answer to `call` has the times of the device: the program's clock alone on a CPU, the
 * device's clock, too, elsewhere. */
enum fb_status fb_peer_check_times(enum fb_backend device, const struct fb_peer_answer *answer,
                                   struct fb_error *error) FB_MUST_CHECK;

#endif
