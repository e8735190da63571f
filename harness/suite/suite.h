/*
 * A suite: the parsed, checked form of a suite file (docs/suite-format.md), ready to be planned.
 * Everything here is owned by the arena given to fb_suite_read.
 */
#ifndef FB_SUITE_H
#define FB_SUITE_H

#include "arena.h"
#include "attention.h"
#include "recipe.h"

enum fb_suite_kind { FB_SUITE_KERNEL, FB_SUITE_DECODE, FB_SUITE_TRAINING };
enum fb_cache_mode { FB_CACHE_COLD, FB_CACHE_WARM };

/* Whether instructions are counted instead of timed, and by whom. Each has its own scale. */
enum fb_counter { FB_COUNTER_NONE, FB_COUNTER_VALGRIND, FB_COUNTER_HARDWARE, FB_COUNTER_COUNT };

/* How samples are taken; docs/measuring.md. */
struct fb_measure_settings {
    double warmup_s;
    double precision; /* stop when the interval's half-width / median is at most this; 0.01 */
    int min_samples;
    int samples;       /* > 0: a fixed number (gating), else adaptive */
    double max_time_s; /* of samples, per process; wins after one sample */
    enum fb_cache_mode cache;
    int processes; /* fresh worker processes per case */
    /* Not none: one call of one process is counted, and all of the above have no part in it. */
    enum fb_counter counter;
};

struct fb_limits {
    double case_timeout_s;
    double memory_fraction; /* of the memory available; used when memory_bytes is 0 */
    size_t memory_bytes;
};

enum fb_metric {
    FB_METRIC_TIME_EXPONENT, /* p of t = a + b N^p */
    FB_METRIC_MEMORY_EXPONENT,
    FB_METRIC_CROSSOVER,         /* sequence length where it overtakes softmax */
    FB_METRIC_FLOOR_RATIO,       /* at the largest size */
    FB_METRIC_FLOOR_RATIO_WORST, /* over all sizes */
    FB_METRIC_TIME_VS_FORWARD,   /* time / that of its own bidirectional forward pass */
    FB_METRIC_SPEEDUP_VS_SOFTMAX,
    FB_METRIC_SPEEDUP_VS_PEER, /* time of an external variant of the same mechanism / time */
    FB_METRIC_TIME_GROWTH,     /* value at the largest size / value at the smallest */
    FB_METRIC_MEMORY_GROWTH,
    FB_METRIC_COUNT
};
enum fb_claim_relation { FB_CLAIM_WITHIN, FB_CLAIM_AT_MOST, FB_CLAIM_AT_LEAST };
enum { FB_CLAIM_THREADS_MAX = -1 }; /* the most threads that the run measured with */

/* One entry of `expect:`; the claim holds for every case group that matches the given factors. */
struct fb_claim {
    const char *mechanism; /* NULL: every mechanism */
    const char *variant;   /* NULL: every variant of our own */
    const char *peer;      /* of FB_METRIC_SPEEDUP_VS_PEER: the external variant */
    int causal;            /* -1 any, 0, 1 */
    int pass;              /* -1 any, else enum fb_pass */
    enum fb_isa isa;       /* FB_ISA_ANY: every one */
    int threads;           /* 0: any number */
    int head_dim;          /* 0: any */
    enum fb_metric metric;
    enum fb_claim_relation relation;
    double value, tolerance; /* within: value +- tolerance */
    const char *text;        /* as written, for messages: "time_exponent is 1.0 +- 0.1" */
};

enum fb_plot_kind {
    FB_PLOT_TIME_VS_SEQ_LEN,
    FB_PLOT_MEMORY_VS_SEQ_LEN,
    FB_PLOT_SPEEDUP_VS_SOFTMAX,
    FB_PLOT_TIME_VS_HEADS,
    FB_PLOT_TIME_VS_HEAD_DIM,
    FB_PLOT_TIME_VS_THREADS,
    FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN,
    FB_PLOT_ISA_BARS,
    FB_PLOT_KIND_COUNT
};

/* How long the sequences of a batch are: all as seq_len and kv_len say, or each of its own length,
 * drawn from the seed, the rest being padding. */
enum fb_lengths { FB_LENGTHS_FULL, FB_LENGTHS_RANDOM, FB_LENGTHS_COUNT };

/* Pictures of a training suite, as bits. */
enum fb_training_plot {
    FB_TRAINING_PLOT_CURVES = 1,
    FB_TRAINING_PLOT_STEP_TIME = 2,
    FB_TRAINING_PLOT_SPEED = 4,
    FB_TRAINING_PLOT_ALL = 7
};

enum { FB_TRAINING_PARALLEL_MAX = 64 };

/* What only a suite of kind: training has. */
struct fb_training_settings {
    double checkpoint_s; /* between checkpoints */
    int64_t parallel;    /* cases that are trained at once, at most */
    unsigned plots;      /* of enum fb_training_plot */
};

/* A full assignment of factors before it is resolved against a machine. */
struct fb_factors {
    const struct fb_mechanism *mechanism;
    const char *variant; /* NULL: the default variant */
    const char *program; /* NULL: flowbench itself; else the external program that computes it */
    enum fb_backend device;
    int isa;     /* enum fb_isa, or -1: the best the machine has */
    int threads; /* 0: all of the machine's */
    enum fb_dtype dtype;
    enum fb_layout layout;
    bool causal;
    enum fb_pass pass;
    int64_t batch, heads, seq_len, kv_len, head_dim, value_dim; /* kv_len, value_dim resolved */
    int64_t kv_heads;                                           /* resolved; divides heads */
    enum fb_lengths lengths;
    double params[FB_PARAMS_MAX];
    /* kind: training only; task is NULL elsewhere */
    const struct fb_task *task;
    double task_params[FB_PARAMS_MAX];
    enum fb_recipe_kind recipe;
    enum fb_recipe_size model;
    int64_t epochs, steps; /* of training; 0: as many as the recipe says */
    int64_t batch_size;    /* examples of a training step; 0: as many as the recipe says */
    int precision; /* 0: what the device has without asking; else enum fb_nn_precision + 1 */
    uint64_t seed;
    bool optional_hardware; /* absent hardware is a recorded skip, not a refusal */
    const char *where;      /* file:line:column that gave rise to the device, for refusals */
};

struct fb_suite {
    const char *name, *title, *path;
    enum fb_suite_kind kind;
    struct fb_factors *factors; /* every point of the sweep, expanded, excluded ones removed */
    size_t factors_count;
    struct fb_measure_settings measure;
    struct fb_limits limits;
    struct fb_training_settings training;
    bool oracle; /* error against fp64 in the same row */
    struct fb_claim *claims;
    size_t claims_count;
    enum fb_plot_kind *plots;
    size_t plots_count;
    uint64_t seed;             /* of the order of cases */
    const char *resolved_yaml; /* includes merged and --set applied: parses to this same suite */
};

struct fb_suite_options {
    const char *const *sets; /* "path.to.key=value" as given to --set */
    size_t sets_count;
};

/* Reads, merges, checks and expands a suite file. On failure the error text holds one or more
 * `file:line:column: error: ...` blocks with the line and a caret. */
enum fb_status fb_suite_read(const char *path, const struct fb_suite_options *options,
                             struct fb_arena *arena, struct fb_suite *suite,
                             struct fb_error *error) FB_MUST_CHECK;

/* The same from text in memory; path is used in messages and to resolve `include:`. */
enum fb_status fb_suite_parse(const char *text, size_t length, const char *path,
                              const struct fb_suite_options *options, struct fb_arena *arena,
                              struct fb_suite *suite, struct fb_error *error) FB_MUST_CHECK;

const char *fb_metric_name(enum fb_metric metric);
const char *fb_plot_kind_name(enum fb_plot_kind kind);
const char *fb_lengths_name(enum fb_lengths lengths); /* "full", "random" */
const char *fb_counter_name(enum fb_counter counter); /* "none", "valgrind", "hardware" */

#endif
