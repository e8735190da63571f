/*
 * The worker of measure_case.c, shared with the files that lay out its buffers (measure_buffers.c),
 * run its pass (measure_pass.c), take its samples (measure_samples.c), count its instructions
 * (measure_count.c) and take its floor evidence (measure_floor.c). Private to this room.
 */
#ifndef FB_MEASURE_WORKER_H
#define FB_MEASURE_WORKER_H

#include "cache_flush.h"
#include "mapped_buffer.h"
#include "measure.h"
#include "measure_check.h"
#include "measure_peer.h"

enum buffer_slot {
    SLOT_Q,
    SLOT_K,
    SLOT_V,
    SLOT_OUT,
    SLOT_CONSTANTS,
    SLOT_SCRATCH, /* the larger of the scratches that the pass needs: none outlives its call */
    SLOT_DOUT,
    SLOT_DQ,
    SLOT_DK,
    SLOT_DV,
    SLOT_SAVED,
    SLOT_STATE,
    SLOT_STATE_COPY, /* of the state after seq_len tokens */
    SLOT_COUNT
};

struct fb_worker;

/* What tells one pass from another, for the worker. One table in measure_pass.c. */
struct fb_worker_pass {
    enum fb_pass pass;
    bool gradients, decodes; /* which buffers there are */
    bool writes_out;         /* out is a result of the timed call; dq, dk, dv are with gradients */
    /* Untimed, once, when the inputs are there: what the timed call starts from. NULL: nothing. */
    enum fb_status (*prepare)(struct fb_worker *worker, struct fb_error *error);
    /* Untimed, before `calls` timed calls in a row. NULL: nothing. */
    enum fb_status (*rewind)(struct fb_worker *worker, int64_t calls, struct fb_error *error);
    enum fb_status (*call)(struct fb_worker *worker, struct fb_error *error);
};

struct fb_worker {
    const struct fb_case *item;
    const struct fb_measure_settings *settings;
    const struct fb_measure_options *options;
    const struct fb_attention *attention;
    const struct fb_worker_pass *pass;
    struct fb_peer *peer; /* the external program that computes; NULL: a kernel of our own */
    struct fb_measure_result *result;
    struct fb_arena arena;     /* of the lengths */
    struct fb_problem problem; /* of the timed call */
    struct fb_sizes sizes;
    size_t constants_bytes, scratch_bytes, saved_bytes;
    struct fb_mapped_buffer buffers[SLOT_COUNT];
    struct fb_call call;
    struct fb_worker_device *device; /* NULL on the CPU; else buffers hold what the host looks at */
    struct fb_tensor tokens[3];      /* q, k, v: all of them; call holds one token when decoding */
    int64_t decoded;                 /* tokens beyond seq_len that the state holds */
    struct fb_clock clock;
    struct fb_cache_flush flush;
    uint64_t input_seed; /* of this process */
    double spent_s;      /* in calls so far, for the warm-up */
};

/* The row of the table; never NULL. External programs prepare their backward themselves. */
const struct fb_worker_pass *fb_worker_pass_of(enum fb_pass pass, bool external);

/* What a call writes: its tensors and their names, in call order. The pointers live as long as the
 * worker. */
void fb_worker_outputs(const struct fb_worker *worker, struct fb_check_outputs *outputs);

/* Sizes, buffers (FB_ERROR_MEMORY when the limit does not hold them) and inputs. */
enum fb_status fb_worker_allocate(struct fb_worker *worker, const struct fb_limits *limits,
                                  struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_worker_fill(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;

/* rewind and call of the pass. FB_REWIND_FULLY: to where the first call started. */
#define FB_REWIND_FULLY (INT64_MAX / 2)
enum fb_status fb_worker_rewind(struct fb_worker *worker, int64_t calls,
                                struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_worker_call(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;

/* Outputs: poisoned where the calls write them; and as the host sees them after a call. */
enum fb_status fb_worker_poison(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_worker_fetch(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;

/* That many calls in a row and the seconds they took together: by our clock, or by the external
 * program's own. */
enum fb_status fb_worker_timed_calls(struct fb_worker *worker, int64_t calls, double *time_s,
                                     struct fb_error *error) FB_MUST_CHECK;

/* The process that computes: 0 is this one. */
pid_t fb_worker_pid(const struct fb_worker *worker);

void fb_worker_enter_phase(const struct fb_worker *worker, const char *phase);
double fb_worker_now_s(const struct fb_worker *worker);
bool fb_worker_is_cold(const struct fb_worker *worker);

/* One call, timed; the time also counts towards the warm-up. */
enum fb_status fb_worker_timed_call(struct fb_worker *worker, double *time_s,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Calls per sample of something that takes call_s: 1 when cold; when warm a batch long enough that
 * the clock's resolution is below 0.1 % of it, and that max_time cannot hold more than a few
 * thousand samples. A batch of decoding is no longer than fb_case_decode_slack. */
int64_t fb_worker_batch_for(const struct fb_worker *worker, double call_s);

/* Warms up, takes the samples and the evidence into the result. */
enum fb_status fb_worker_sample(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;

/* Counts the instructions of one call into the result, as settings->counter says. */
enum fb_status fb_worker_count(struct fb_worker *worker, struct fb_error *error) FB_MUST_CHECK;
/* The outputs that are here against the oracle, unless it was not asked for. */
enum fb_status fb_worker_check_oracle(struct fb_worker *worker,
                                      struct fb_error *error) FB_MUST_CHECK;

/* The outputs of the last timed call against those of the first call: the result becomes WRONG, and
 * loses its samples, when they were not written everywhere or have changed without leave. What may
 * change must still be right. */
enum fb_status fb_worker_check_again(struct fb_worker *worker,
                                     struct fb_error *error) FB_MUST_CHECK;

/* A wrong answer gets no time and no count. */
void fb_worker_drop_samples(struct fb_measure_result *result);

/* Touch time and GEMM rate into the result. */
enum fb_status fb_worker_measure_floor(struct fb_worker *worker,
                                       struct fb_error *error) FB_MUST_CHECK;

#endif
