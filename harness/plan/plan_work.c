/* The work of a case: its attention problem, its bytes and its cost. See plan.h. */
#include "plan.h"

#include "random.h"

#include <stdint.h>
#include <string.h>

/* Stream of the random numbers that draw lengths; others belong to inputs and features. */
static const uint64_t lengths_stream = UINT64_C(0x6c656e67746873); /* "lengths" */

int64_t fb_case_decode_slack(const struct fb_case *item)
{
    const int64_t least = 16;
    const int64_t share = item->seq_len / 64;
    return share > least ? share : least;
}

enum fb_nn_precision fb_case_precision(const struct fb_case *item)
{
    if (item->precision > 0) {
        return (enum fb_nn_precision)(item->precision - 1);
    }
    return item->device == FB_CPU ? FB_NN_F32 : FB_NN_TF32;
}

enum fb_status fb_case_recipe(const struct fb_case *item, struct fb_recipe *recipe,
                              struct fb_error *error)
{
    const enum fb_status status =
        fb_recipe_find(item->task, item->recipe, item->model, item->mechanism, recipe, error);
    if (status == FB_OK && item->batch_size > 0) {
        recipe->batch = item->batch_size;
    }
    return status == FB_OK
               ? fb_recipe_set_length(recipe, item->recipe, item->epochs, item->steps, error)
               : status;
}

void fb_case_problem(const struct fb_case *item, struct fb_problem *problem)
{
    *problem = (struct fb_problem){
        .batch = item->batch,
        .heads = item->heads,
        .kv_heads = item->kv_heads > 0 ? item->kv_heads : item->heads,
        .q_len = item->seq_len,
        .kv_len = item->kv_len,
        .qk_dim = item->head_dim,
        .v_dim = item->value_dim,
        .dtype = item->dtype,
        .causal = item->causal,
    };
    if (item->pass == FB_DECODE) {
        problem->q_len = 1;
        problem->kv_len = item->seq_len + fb_case_decode_slack(item);
        problem->causal = false; /* decoding is causal by nature */
    }
    memcpy(problem->params, item->params, sizeof problem->params);
}

/* ---- lengths --------------------------------------------------------------------------------- */

/* The lengths of the next batch element: 1 .. seq_len, and the same for the keys in self-attention,
 * where a token is a query and a key. */
static void draw_next(const struct fb_case *item, struct fb_random *random, int64_t *q, int64_t *kv)
{
    *q = 1 + (int64_t)fb_random_below(random, (uint64_t)item->seq_len);
    *kv = *q;
    if (item->kv_len != item->seq_len) {
        *kv = 1 + (int64_t)fb_random_below(random, (uint64_t)item->kv_len);
    }
}

enum fb_status fb_case_draw_lengths(const struct fb_case *item, struct fb_arena *arena,
                                    struct fb_problem *problem, struct fb_error *error)
{
    if (item->lengths == FB_LENGTHS_FULL) {
        return FB_OK;
    }
    const size_t batch = (size_t)item->batch;
    int64_t *q = fb_arena_alloc(arena, batch, sizeof *q, error);
    int64_t *kv = fb_arena_alloc(arena, batch, sizeof *kv, error);
    if (q == NULL || kv == NULL) {
        return FB_ERROR_MEMORY;
    }
    struct fb_random random;
    fb_random_init(&random, item->seed, lengths_stream);
    for (size_t b = 0; b < batch; b++) {
        draw_next(item, &random, &q[b], &kv[b]);
    }
    problem->q_lengths = q;
    problem->kv_lengths = kv;
    return FB_OK;
}

/* ---- cost ------------------------------------------------------------------------------------ */

/* Rows of padding that the pass fills with zeros, in bytes. */
static double padding_bytes(const struct fb_problem *p, enum fb_pass pass, int64_t q, int64_t kv)
{
    const double q_rows = (double)p->heads * (double)(p->q_len - q);
    const double kv_rows = (double)p->kv_heads * (double)(p->kv_len - kv);
    const double out = q_rows * (double)p->v_dim;
    const double gradients =
        q_rows * (double)p->qk_dim + kv_rows * ((double)p->qk_dim + (double)p->v_dim);
    const double forward = pass != FB_BACKWARD ? out : 0.0;
    const double backward = pass != FB_FORWARD ? gradients : 0.0;
    return (double)fb_dtype_bytes(p->dtype) * (forward + backward);
}

/* Batch elements are independent: each costs what a batch of one with its lengths costs. */
static void cost_with_lengths(const struct fb_case *item, const struct fb_problem *problem,
                              struct fb_cost *cost)
{
    struct fb_random random;
    struct fb_problem one = *problem;
    fb_random_init(&random, item->seed, lengths_stream);
    *cost = (struct fb_cost){0};
    one.batch = 1;
    for (int64_t b = 0; b < item->batch; b++) {
        struct fb_cost part;
        draw_next(item, &random, &one.q_len, &one.kv_len);
        item->mechanism->cost(&one, item->pass, &part);
        cost->flop += part.flop;
        cost->bytes_min +=
            part.bytes_min + padding_bytes(problem, item->pass, one.q_len, one.kv_len);
    }
}

void fb_case_cost(const struct fb_case *item, struct fb_cost *cost)
{
    struct fb_problem problem;
    fb_case_problem(item, &problem);
    if (item->pass == FB_DECODE) {
        problem.kv_len = item->seq_len + 1; /* the slack is the harness's, not the mechanism's */
    }
    if (item->lengths == FB_LENGTHS_FULL) {
        item->mechanism->cost(&problem, item->pass, cost);
    } else {
        cost_with_lengths(item, &problem, cost);
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool has_gradients(enum fb_pass pass)
{
    return pass == FB_BACKWARD || pass == FB_BOTH;
}

size_t fb_pass_scratch_bytes(const struct fb_sizes *sizes, enum fb_pass pass)
{
    if (pass == FB_DECODE) {
        return sizes->decode_scratch_bytes;
    }
    return has_gradients(pass) && sizes->backward_scratch_bytes > sizes->forward_scratch_bytes
               ? sizes->backward_scratch_bytes
               : sizes->forward_scratch_bytes;
}

size_t fb_case_state_bytes(const struct fb_case *item, const struct fb_attention *attention)
{
    if (item->pass != FB_DECODE) {
        return 0;
    }
    struct fb_problem problem;
    struct fb_sizes sizes;
    fb_case_problem(item, &problem);
    problem.kv_len = item->seq_len + 1;
    fb_attention_sizes(attention, &problem, item->threads, &sizes);
    return sizes.decode_state_bytes;
}

static size_t add_saturating(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

static size_t io_bytes(const struct fb_problem *p, enum fb_pass pass)
{
    /* Each product is at most 2^48 bytes: the suite has checked it. */
    const size_t element = fb_dtype_bytes(p->dtype);
    const size_t q_rows = (size_t)p->batch * (size_t)p->heads * element;
    const size_t kv_rows = (size_t)p->batch * (size_t)p->kv_heads * element;
    const size_t queries = (size_t)(pass == FB_DECODE ? p->kv_len : p->q_len);
    const size_t inputs = q_rows * queries * (size_t)p->qk_dim +
                          kv_rows * (size_t)p->kv_len * ((size_t)p->qk_dim + (size_t)p->v_dim);
    const size_t out = q_rows * (size_t)p->q_len * (size_t)p->v_dim;
    return (inputs + out) * (has_gradients(pass) ? 2 : 1);
}

void fb_case_bytes(const struct fb_case *item, struct fb_case_bytes *bytes)
{
    struct fb_problem p;
    fb_case_problem(item, &p);
    *bytes = (struct fb_case_bytes){.io_bytes = io_bytes(&p, item->pass)};
    if (item->attention != NULL) {
        struct fb_sizes sizes;
        fb_attention_sizes(item->attention, &p, item->threads, &sizes);
        bytes->workspace_bytes = fb_pass_scratch_bytes(&sizes, item->pass);
        bytes->saved_bytes = has_gradients(item->pass) ? sizes.saved_bytes : 0;
        /* the worker keeps a copy of the state to start each sample from */
        bytes->state_bytes = item->pass == FB_DECODE ? 2 * sizes.decode_state_bytes : 0;
        if (item->mechanism->constants_bytes != NULL) {
            bytes->constants_bytes = item->mechanism->constants_bytes(&p);
        }
        if (item->program != NULL) { /* what it reads and writes is shared with it as a copy */
            bytes->workspace_bytes = add_saturating(bytes->io_bytes, bytes->constants_bytes);
        }
    }
    const size_t parts[] = {bytes->workspace_bytes, bytes->saved_bytes, bytes->state_bytes,
                            bytes->constants_bytes};
    bytes->total_bytes = bytes->io_bytes;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        bytes->total_bytes = add_saturating(bytes->total_bytes, parts[i]);
    }
}
