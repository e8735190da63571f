/*
 * A plan: the cases of a suite resolved against this machine, in the order in which they run.
 */
#ifndef FB_PLAN_H
#define FB_PLAN_H

#include "arena.h"
#include "attention.h"
#include "nn_precision.h"
#include "suite.h"

#include <jansson.h>

enum { FB_CASE_ID_SIZE = 17 };

/* One case: one row of results.csv. All factors are resolved (threads counted, ISA named). */
struct fb_case {
    char id[FB_CASE_ID_SIZE]; /* 16 hexadecimal digits: XXH64 of the factors, equal across runs */
    const struct fb_mechanism *mechanism;
    const char *variant;
    const char *program; /* NULL: flowbench; else the external program, as the suite names it */
    const struct fb_attention *attention; /* NULL when skip_reason is set */
    enum fb_backend device;
    enum fb_isa isa;
    int threads;
    enum fb_dtype dtype;
    enum fb_layout layout;
    bool causal;
    enum fb_pass pass;
    int64_t batch, heads, seq_len, kv_len, head_dim, value_dim;
    int64_t kv_heads; /* 0 means heads */
    enum fb_lengths lengths;
    double params[FB_PARAMS_MAX];
    /* of a training case; task is NULL elsewhere */
    const struct fb_task *task;
    double task_params[FB_PARAMS_MAX];
    enum fb_recipe_kind recipe;
    enum fb_recipe_size model;
    int64_t epochs, steps; /* of training; 0: as the recipe says */
    int64_t batch_size;    /* likewise */
    int precision;         /* as in struct fb_factors */
    uint64_t seed;
    const char *skip_reason; /* NULL: runs; else why the row is `skipped` from the start */
};

/* One fresh worker process of one case. */
struct fb_job {
    size_t case_index;
    int process; /* 0 .. processes-1 */
};

struct fb_plan {
    struct fb_case *cases; /* in the order of the suite */
    size_t cases_count;
    struct fb_job *jobs; /* in running order: a seeded shuffle, processes of a case interleaved */
    size_t jobs_count;
};

/* What planning needs to know of a machine. */
struct fb_plan_machine {
    int threads; /* processors this process may run on */
    enum fb_isa best_isa;
    bool (*has_isa)(enum fb_isa isa);
    bool (*has_device)(enum fb_backend backend);
};
void fb_plan_machine_here(struct fb_plan_machine *machine);

/* Resolves and orders. A point that a mechanism or variant does not support becomes a case with a
 * skip reason. A required device or ISA that is absent is refused (FB_ERROR_USAGE). `filter` is the
 * text of --filter or NULL: "seq_len<=4096,mechanism=flow" (comma: and; | inside a value: or). */
enum fb_status fb_plan_build(const struct fb_suite *suite, const char *filter,
                             const struct fb_plan_machine *machine, struct fb_arena *arena,
                             struct fb_plan *plan, struct fb_error *error) FB_MUST_CHECK;

/* The attention problem of a case, without the lengths of its batch elements. Of `decode` it is the
 * problem of one token, and kv_len leaves room for fb_case_decode_slack tokens beyond seq_len. */
void fb_case_problem(const struct fb_case *item, struct fb_problem *problem);

/* Tokens that a state may be ahead of seq_len while decoding is timed: 16, or 1/64 of seq_len. */
int64_t fb_case_decode_slack(const struct fb_case *item);

/* lengths: random: draws them from the case's seed into the arena and hooks them to the problem;
 * nothing to do for lengths: full. */
enum fb_status fb_case_draw_lengths(const struct fb_case *item, struct fb_arena *arena,
                                    struct fb_problem *problem,
                                    struct fb_error *error) FB_MUST_CHECK;

/* The mechanism's own work for the case's pass: with random lengths that of the valid tokens, of
 * `decode` that of the token after seq_len others. */
void fb_case_cost(const struct fb_case *item, struct fb_cost *cost);

/* Bytes of inputs and outputs, workspace and constants for the case's pass; of `decode` also of the
 * state and of the copy that each sample starts from. */
struct fb_case_bytes {
    size_t io_bytes, workspace_bytes, saved_bytes, state_bytes, constants_bytes, total_bytes;
};
void fb_case_bytes(const struct fb_case *item, struct fb_case_bytes *bytes);

/* Scratch that serves every call of the pass. */
size_t fb_pass_scratch_bytes(const struct fb_sizes *sizes, enum fb_pass pass);
/* The variant's state after decoding the case's token; 0 for other passes. */
size_t fb_case_state_bytes(const struct fb_case *item, const struct fb_attention *attention);

/* The recipe of a training case, with the length and the batch that the case asks for. */
enum fb_status fb_case_recipe(const struct fb_case *item, struct fb_recipe *recipe,
                              struct fb_error *error) FB_MUST_CHECK;

/* What a training case computes in: as asked for, else f32 on a processor and TF32 on a GPU. */
enum fb_nn_precision fb_case_precision(const struct fb_case *item);

/* One line for people: "flow/fused cpu:avx512x2 f32 BHND causal forward B1 H8 N4096 D64". */
void fb_case_describe(const struct fb_case *item, char *text, size_t text_size);

/* The mechanism's parameters as a JSON object with sorted keys, e.g. {"features":256}. */
json_t *fb_case_params_json(const struct fb_case *item);
/* The task's parameters likewise; {} without a task. */
json_t *fb_case_task_params_json(const struct fb_case *item);
/* All factors, and back: what a worker process receives. */
json_t *fb_case_to_json(const struct fb_case *item);
enum fb_status fb_case_from_json(const json_t *json, struct fb_arena *arena, struct fb_case *item,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
