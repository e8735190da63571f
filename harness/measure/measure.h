/*
 * Measuring one case: the whole life of one worker process, and the ceilings that the floor is
 * made of. docs/measuring.md says what is measured and why.
 *
 *   allocate, fill -> prepare (forward before backward; the state to decode against) -> first call
 * -> check against the oracle -> peak memory -> warm up -> samples
 *   -> same output again? -> floor evidence
 * or, when instructions are counted:
 *   allocate, fill -> prepare -> first call -> check -> one counted call -> same output again?
 *
 * A wrong answer gets no time. Time-outs and crashes are the runner's business.
 */
#ifndef FB_MEASURE_H
#define FB_MEASURE_H

#include "counter.h"
#include "machine.h"
#include "plan.h"
#include "timing_clock.h"

#include <jansson.h>

enum fb_measure_status {
    FB_MEASURE_OK,
    FB_MEASURE_OOM,     /* inputs or workspace do not fit */
    FB_MEASURE_WRONG,   /* not finite, not written, not what the oracle says, not reproducible */
    FB_MEASURE_ERROR,   /* the mechanism returned an error, or the machine refused */
    FB_MEASURE_SKIPPED, /* the external program is not here, or does not serve the case */
    FB_MEASURE_CRASH,   /* the external program died of a signal */
    FB_MEASURE_STATUS_COUNT
};

enum { FB_MEASURE_REASON_SIZE = 512, FB_MEASURE_HASH_SIZE = 24 };

/* What one worker found. A real that was not measured is NaN, a byte count -1, a text "". */
struct fb_measure_result {
    enum fb_measure_status status;
    char reason[FB_MEASURE_REASON_SIZE]; /* in words, unless ok */

    double *samples_s; /* seconds per call, in the order taken; owned, malloc */
    size_t samples_count;
    int64_t calls_per_sample; /* 1 when cold; the batch when warm. Timed calls: count times this */
    char stop_reason[32];     /* fb_stop_name */
    double first_call_s;      /* page faults and all; no sample */
    double time_host_s;       /* GPU: median per call from launch to completion, seen by the host */

    int64_t ctx_involuntary; /* of all threads, while sampling */
    int64_t page_faults;     /* minor and major, while sampling */
    double steal_s;          /* of the whole machine, while sampling */
    double freq_hz;
    char throttled[8]; /* "true" or "false"; "" on a CPU */

    double flop, bytes_min; /* of one call: the mechanism's model */

    /* Floor evidence. byte floor = bytes_min * touch_s / touch_bytes; flop floor = flop / rate. */
    double touch_s;         /* reading q, k, v and writing out once: the slowest thread's best */
    double touch_bytes;     /* what that moved */
    double gemm_flop_per_s; /* a short burst after the samples */

    int64_t mem_workspace_bytes; /* scratch and constants that the variant asks for */
    int64_t mem_saved_bytes;
    int64_t mem_state_bytes; /* decode: the state after the decoded token */
    int64_t mem_peak_bytes;  /* growth of the resident set over one call; oracle excluded */

    double err_rel, err_max, err_budget; /* NaN without the oracle */
    double softmax_distance;
    char output_hash[FB_MEASURE_HASH_SIZE]; /* XXH64 of the outputs, 16 hexadecimal digits */
    char program_version[128];              /* of the external program, as it says */

    /* With settings->counter: of one call, instead of samples, peak memory and floor. */
    int64_t instructions;
    char counter[FB_COUNTER_TEXT_SIZE];        /* who counted: "callgrind-3.19.0" */
    char toolchain[FB_MACHINE_TOOLCHAIN_SIZE]; /* what a count depends on beside the source */
};

/* Everything absent, status error. */
void fb_measure_result_init(struct fb_measure_result *result);
void fb_measure_result_free(struct fb_measure_result *result);

/* "ok", "oom", "wrong", "error", "skipped", "crash": values of the status column. */
const char *fb_measure_status_name(enum fb_measure_status status);

/* A result as a JSON document (absent reals are null) and back; NULL when memory is short.
 * from_json initialises the result; the caller frees it in any case. */
json_t *fb_measure_result_to_json(const struct fb_measure_result *result);
enum fb_status fb_measure_result_from_json(const json_t *json, struct fb_measure_result *result,
                                           struct fb_error *error) FB_MUST_CHECK;

/* What a worker receives beside its case; `measure` and `limits` of the suite as JSON and back. */
json_t *fb_measure_settings_to_json(const struct fb_measure_settings *settings);
enum fb_status fb_measure_settings_from_json(const json_t *json,
                                             struct fb_measure_settings *settings,
                                             struct fb_error *error) FB_MUST_CHECK;
json_t *fb_limits_to_json(const struct fb_limits *limits);
enum fb_status fb_limits_from_json(const json_t *json, struct fb_limits *limits,
                                   struct fb_error *error) FB_MUST_CHECK;

/* The bytes that a limit means on this machine now: memory_bytes, else the fraction of what is
 * available (MemAvailable, the cgroup's room where that is less). 0: no limit. */
size_t fb_limits_memory_bytes(const struct fb_limits *limits);

struct fb_measure_options {
    bool oracle; /* compare with the float64 definition */
    bool floor;  /* take the floor evidence */
    int process; /* 0 .. processes-1: together with the case's seed it seeds the inputs */
    const struct fb_attention *attention; /* NULL: the case's own; tests put a scripted one here */
    const struct fb_clock *clock;         /* NULL: the monotonic one */
    /* NULL, or told the name of each phase as it begins ("allocate", "first call", "check",
     * "prepare", "memory", "warm-up", "samples", "count", "floor"): what a worker that is killed
     * was doing. */
    void (*on_phase)(void *context, const char *phase);
    void *on_phase_context;
};

/* oracle and floor on, the rest zero. */
void fb_measure_options_init(struct fb_measure_options *options);

/* Measures. Initialises the result, which the caller frees in any case. Returns FB_OK whenever the
 * result tells the story (whatever its status); anything else is a failure of the harness itself.
 */
enum fb_status
fb_measure_case(const struct fb_case *item, const struct fb_measure_settings *settings,
                const struct fb_limits *limits, const struct fb_measure_options *options,
                struct fb_measure_result *result, struct fb_error *error) FB_MUST_CHECK;

/* The machine's ceilings at a number of threads, for one instruction set. OpenBLAS takes part with
 * the kernels that it was started with (OPENBLAS_CORETYPE), hence a process of its own per set. */
struct fb_measure_ceilings {
    int threads;
    double gemm_flop_per_s; /* f32; the best product of every thread, summed, over several shapes */
    char gemm_shape[32];    /* the first thread's best, "m x n x k" */
    char gemm_core[32];     /* what computed it: "OpenBLAS SkylakeX", "flowbench avx512" */
    double copy_bytes_per_s; /* read + written; 4 x the last-level cache, at most 256 MiB */
};

/* About half a second. isa FB_ISA_ANY: the machine's best. */
enum fb_status fb_measure_ceilings(int threads, enum fb_isa isa,
                                   struct fb_measure_ceilings *ceilings,
                                   struct fb_error *error) FB_MUST_CHECK;
/* Those of the GPU for a dtype; threads is 1, the host's. */
enum fb_status fb_measure_device_ceilings(enum fb_dtype dtype, struct fb_measure_ceilings *ceilings,
                                          struct fb_error *error) FB_MUST_CHECK;

json_t *fb_measure_ceilings_to_json(const struct fb_measure_ceilings *ceilings);
enum fb_status fb_measure_ceilings_from_json(const json_t *json,
                                             struct fb_measure_ceilings *ceilings,
                                             struct fb_error *error) FB_MUST_CHECK;

#endif
