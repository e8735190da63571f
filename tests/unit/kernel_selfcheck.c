/*
 * Every variant of every mechanism on every instruction set that the processor (or the emulator)
 * has, against the float64 oracle, on 1 and on 2 threads. Needs no test library, so it also runs
 * where only the kernels were cross-compiled. Exit code 1 when anything is wrong.
 */
#include "arena.h"
#include "attention.h"
#include "cpu_features.h"
#include "judge.h"
#include "oracle.h"
#include "random.h"
#include "registry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    int64_t batch, heads, q_len, kv_len, qk_dim, v_dim;
};

/* One token; less than a vector; a few blocks with a remainder; q_len and kv_len apart. */
static const struct shape shapes[] = {
    {1, 1, 1, 1, 1, 1},
    {2, 3, 37, 37, 5, 7},
    {1, 2, 300, 300, 64, 64},
    {1, 2, 130, 71, 33, 20},
};

struct tally {
    int passed, refused, failed;
};

struct buffers {
    float *q, *k, *v;
    float *out[2]; /* of 1 and of 2 threads */
    int64_t out_count;
    void *constants;
};

static const char *describe(const struct fb_attention *attention, const struct fb_problem *p,
                            char *text, size_t size)
{
    snprintf(text, size, "%s/%s %s%s B%d H%d L%d S%d D%d M%d", attention->mechanism->name,
             attention->variant, fb_isa_name(attention->isa), p->causal ? " causal" : "",
             (int)p->batch, (int)p->heads, (int)p->q_len, (int)p->kv_len, (int)p->qk_dim,
             (int)p->v_dim);
    return text;
}

static enum fb_status fill_buffers(const struct fb_attention *attention, const struct fb_problem *p,
                                   struct fb_arena *arena, struct buffers *buffers,
                                   struct fb_error *error)
{
    const struct fb_mechanism *mechanism = attention->mechanism;
    const int64_t heads = p->batch * p->heads;
    const int64_t q_count = heads * p->q_len * p->qk_dim;
    const int64_t k_count = heads * p->kv_len * p->qk_dim;
    const int64_t v_count = heads * p->kv_len * p->v_dim;
    buffers->out_count = heads * p->q_len * p->v_dim;
    buffers->q = fb_arena_alloc(arena, (size_t)q_count, sizeof(float), error);
    buffers->k = fb_arena_alloc(arena, (size_t)k_count, sizeof(float), error);
    buffers->v = fb_arena_alloc(arena, (size_t)v_count, sizeof(float), error);
    for (int i = 0; i < 2; i++)
        buffers->out[i] = fb_arena_alloc(arena, (size_t)buffers->out_count, sizeof(float), error);
    if (!buffers->q || !buffers->k || !buffers->v || !buffers->out[0] || !buffers->out[1])
        return FB_ERROR_MEMORY;
    fb_random_fill_normal_f32(buffers->q, q_count, 1.0F, 7, 1, 1);
    fb_random_fill_normal_f32(buffers->k, k_count, 1.0F, 7, 2, 1);
    fb_random_fill_normal_f32(buffers->v, v_count, 1.0F, 7, 3, 1);
    for (int i = 0; i < 2; i++) {
        for (int64_t j = 0; j < buffers->out_count; j++)
            buffers->out[i][j] = NAN;
    }
    buffers->constants = NULL;
    if (!mechanism->prepare)
        return FB_OK;
    buffers->constants = fb_arena_alloc(arena, mechanism->constants_bytes(p), 1, error);
    if (!buffers->constants)
        return FB_ERROR_MEMORY;
    return mechanism->prepare(p, 7, buffers->constants, error);
}

static struct fb_call call_of(const struct fb_problem *p, const struct buffers *buffers,
                              int threads)
{
    struct fb_call call = {.constants = buffers->constants, .threads = threads};
    call.q = fb_tensor_dense(buffers->q, FB_F32, FB_BHND, p->batch, p->heads, p->q_len, p->qk_dim);
    call.k = fb_tensor_dense(buffers->k, FB_F32, FB_BHND, p->batch, p->heads, p->kv_len, p->qk_dim);
    call.v = fb_tensor_dense(buffers->v, FB_F32, FB_BHND, p->batch, p->heads, p->kv_len, p->v_dim);
    call.out = fb_tensor_dense(buffers->out[threads - 1], FB_F32, FB_BHND, p->batch, p->heads,
                               p->q_len, p->v_dim);
    return call;
}

static enum fb_status run_forward(const struct fb_attention *attention, const struct fb_problem *p,
                                  struct fb_call *call, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct fb_sizes sizes;
    fb_attention_sizes(attention, p, call->threads, &sizes);
    if (sizes.forward_scratch_bytes > 0) {
        call->scratch = fb_arena_alloc(arena, sizes.forward_scratch_bytes, 1, error);
        if (!call->scratch)
            return FB_ERROR_MEMORY;
        memset(call->scratch, 0xff, sizes.forward_scratch_bytes);
    }
    return fb_attention_forward(attention, p, call, error);
}

static enum fb_status judge_all(const struct fb_attention *attention, const struct fb_problem *p,
                                const struct fb_call *call, struct fb_arena *arena,
                                struct fb_judgement *judgement, struct fb_error *error)
{
    double *reference = fb_arena_alloc(arena, (size_t)(p->q_len * p->v_dim), sizeof(double), error);
    int64_t *rows = fb_arena_alloc(arena, (size_t)p->q_len, sizeof(int64_t), error);
    if (!reference || !rows)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < p->q_len; i++)
        rows[i] = i;
    fb_judge_init(judgement, fb_judge_budget(FB_F32, FB_FORWARD), fb_judge_max_abs(&call->v));
    for (int64_t bh = 0; bh < p->batch * p->heads; bh++) {
        const int64_t b = bh / p->heads;
        const int64_t h = bh % p->heads;
        enum fb_status status = fb_oracle_forward_rows(attention->mechanism, p, call, b, h, rows,
                                                       (size_t)p->q_len, reference, error);
        if (status != FB_OK)
            return status;
        fb_judge_add_rows(judgement, &call->out, b, h, rows, (size_t)p->q_len, reference);
    }
    fb_judge_scan_finite(judgement, &call->out);
    fb_judge_finish(judgement);
    return FB_OK;
}

/* FB_OK with *verdict empty: right; with text: wrong; another status: could not be computed. */
static enum fb_status check_one(const struct fb_attention *attention, const struct fb_problem *p,
                                struct fb_arena *arena, char *verdict, size_t verdict_size,
                                struct fb_error *error)
{
    struct buffers buffers;
    enum fb_status status = fill_buffers(attention, p, arena, &buffers, error);
    for (int threads = 1; status == FB_OK && threads <= 2; threads++) {
        struct fb_call call = call_of(p, &buffers, threads);
        struct fb_judgement judgement;
        status = run_forward(attention, p, &call, arena, error);
        if (status == FB_OK)
            status = judge_all(attention, p, &call, arena, &judgement, error);
        if (status == FB_OK && !judgement.passed) {
            fb_judge_describe(&judgement, verdict, verdict_size);
            return FB_OK;
        }
    }
    if (status == FB_OK && attention->deterministic &&
        memcmp(buffers.out[0], buffers.out[1], (size_t)buffers.out_count * sizeof(float)) != 0)
        snprintf(verdict, verdict_size, "1 and 2 threads give different bits");
    return status;
}

static void check_shape(const struct fb_attention *attention, const struct shape *shape,
                        bool causal, struct tally *tally)
{
    struct fb_problem p;
    fb_problem_init(&p, attention->mechanism, shape->batch, shape->heads, shape->q_len,
                    shape->qk_dim);
    p.kv_len = shape->kv_len;
    p.v_dim = shape->v_dim;
    p.causal = causal;

    struct fb_error error;
    if (fb_attention_supports(attention, &p, FB_FORWARD, &error) != FB_OK) {
        tally->refused++;
        return;
    }
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    char name[128];
    char verdict[256] = "";
    const enum fb_status status = check_one(attention, &p, &arena, verdict, sizeof verdict, &error);
    if (status == FB_OK && verdict[0] == '\0') {
        tally->passed++;
    } else {
        tally->failed++;
        printf("FAILED %s: %s\n", describe(attention, &p, name, sizeof name),
               status == FB_OK ? verdict : error.text);
    }
    fb_arena_free(&arena);
}

int main(void)
{
    struct tally all = {0};
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->backend != FB_CPU || !attention->forward)
            continue;
        if (attention->isa != FB_ISA_ANY && !fb_cpu_has(attention->isa))
            continue;
        struct tally tally = {0};
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            check_shape(attention, &shapes[s], false, &tally);
            check_shape(attention, &shapes[s], true, &tally);
        }
        printf("%-10s %-6s %-7s %d passed, %d refused, %d failed\n", attention->mechanism->name,
               attention->variant, fb_isa_name(attention->isa), tally.passed, tally.refused,
               tally.failed);
        all.passed += tally.passed;
        all.failed += tally.failed;
    }
    return all.failed == 0 && all.passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
