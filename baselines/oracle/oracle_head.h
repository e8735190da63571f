/*
 * What the oracles of the single mechanisms share: one (batch, head) of a call, the mechanism's
 * parameters, and the few plain float64 loops that all of them need. Private to the oracle room.
 */
#ifndef FB_ORACLE_HEAD_H
#define FB_ORACLE_HEAD_H

#include "arena.h"
#include "attention.h"
#include "oracle.h"

/* Parameters of all mechanisms, at their published defaults where the mechanism has none. */
struct fb_oracle_options {
    /* flow */
    enum fb_oracle_phi { FB_ORACLE_SIGMOID, FB_ORACLE_RELU, FB_ORACLE_ELU } phi;
    double clamp; /* HUGE_VAL: none */
    double extra_eps;
    enum fb_oracle_competition {
        FB_ORACLE_OVER_TOKENS,
        FB_ORACLE_OVER_HEADS,
        FB_ORACLE_NO_COMPETITION
    } competition;
    bool allocation;
    /* performer */
    int64_t features;
    bool relu_kernel;
    const double *key_stabiliser; /* subtracted from key exponents; NULL: their maximum */
    /* local */
    int64_t window, block;
    bool strided;
};

/* One call, and the batch element and query head that are wanted of it. */
struct fb_oracle_task {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct fb_oracle_options options;
    int64_t b, h;
};

/* Rows of one head: token t of q stands at q + t * q_stride, likewise k, v and dout. */
struct fb_oracle_head {
    int64_t q_len, kv_len; /* L, S: the valid ones */
    int64_t qk_dim, v_dim; /* D, M */
    bool causal;
    const float *q, *k, *v, *dout; /* dout NULL when only the forward is wanted */
    int64_t q_stride, k_stride, v_stride, dout_stride;
    const float *constants;
    struct fb_oracle_options options;
};

/* Head h of the task's batch element. Tensors that are not f32 are widened, into the arena. */
enum fb_status fb_oracle_head_of(const struct fb_oracle_task *task, int64_t h,
                                 struct fb_arena *arena, struct fb_oracle_head *head,
                                 struct fb_error *error);

/* The valid lengths of the task's batch element. */
static inline int64_t fb_oracle_q_len(const struct fb_oracle_task *task)
{
    const struct fb_problem *p = task->problem;
    return p->q_lengths ? p->q_lengths[task->b] : p->q_len;
}

static inline int64_t fb_oracle_kv_len(const struct fb_oracle_task *task)
{
    const struct fb_problem *p = task->problem;
    return p->kv_lengths ? p->kv_lengths[task->b] : p->kv_len;
}

/* The rows wanted, strictly ascending, all valid, and where they go: out [count][M]. */
struct fb_oracle_rows {
    const int64_t *index;
    size_t count;
    double *out;
};

typedef enum fb_status (*fb_oracle_fn)(const struct fb_oracle_task *task,
                                       const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                       struct fb_error *error);
/* Adds to dk and dv, which are zero on entry, as dq is. All wanted rows are valid. */
typedef enum fb_status (*fb_oracle_gradient_fn)(const struct fb_oracle_task *task,
                                                const struct fb_oracle_gradients *wanted,
                                                struct fb_arena *arena, struct fb_error *error);

enum fb_status fb_oracle_flow(const struct fb_oracle_task *task, const struct fb_oracle_rows *rows,
                              struct fb_arena *arena, struct fb_error *error);
/* Softmax, and local with either of its patterns. */
enum fb_status fb_oracle_softmax(const struct fb_oracle_task *task,
                                 const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                 struct fb_error *error);
enum fb_status fb_oracle_local(const struct fb_oracle_task *task, const struct fb_oracle_rows *rows,
                               struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_linear(const struct fb_oracle_task *task,
                                const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                struct fb_error *error);
enum fb_status fb_oracle_performer(const struct fb_oracle_task *task,
                                   const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                   struct fb_error *error);

enum fb_status fb_oracle_flow_gradient(const struct fb_oracle_task *task,
                                       const struct fb_oracle_gradients *wanted,
                                       struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_softmax_gradient(const struct fb_oracle_task *task,
                                          const struct fb_oracle_gradients *wanted,
                                          struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_local_gradient(const struct fb_oracle_task *task,
                                        const struct fb_oracle_gradients *wanted,
                                        struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_linear_gradient(const struct fb_oracle_task *task,
                                         const struct fb_oracle_gradients *wanted,
                                         struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_performer_gradient(const struct fb_oracle_task *task,
                                            const struct fb_oracle_gradients *wanted,
                                            struct fb_arena *arena, struct fb_error *error);

/* The query heads that share the task's key-value head are first .. first + count - 1. */
static inline int64_t fb_oracle_group(const struct fb_oracle_task *task, int64_t *first)
{
    const int64_t count = task->problem->heads / task->problem->kv_heads;
    *first = task->h / count * count;
    return count;
}

/* count zeroed doubles of the arena, or NULL with the error filled. */
static inline double *fb_oracle_doubles(struct fb_arena *arena, int64_t count,
                                        struct fb_error *error)
{
    return fb_arena_alloc(arena, (size_t)count, sizeof(double), error);
}

/* Four partial sums, so that the additions need not wait for each other. */
static inline double fb_oracle_dot(const double *x, const double *y, int64_t count)
{
    double sum[4] = {0.0, 0.0, 0.0, 0.0};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        sum[0] += x[i] * y[i];
        sum[1] += x[i + 1] * y[i + 1];
        sum[2] += x[i + 2] * y[i + 2];
        sum[3] += x[i + 3] * y[i + 3];
    }
    for (; i < count; i++)
        sum[0] += x[i] * y[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* y += a x */
static inline void fb_oracle_add_scaled(double *y, double a, const double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] += a * x[i];
}

/* state[r][m] += a x[r] v[m]; state is [rows][columns] */
static inline void fb_oracle_add_outer(double *state, double a, const double *x, int64_t rows,
                                       const double *v, int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        fb_oracle_add_scaled(state + r * columns, a * x[r], v, columns);
}

/* y[m] = a sum_r x[r] state[r][m] */
static inline void fb_oracle_apply(double *y, double a, const double *x, const double *state,
                                   int64_t rows, int64_t columns)
{
    for (int64_t m = 0; m < columns; m++)
        y[m] = 0.0;
    for (int64_t r = 0; r < rows; r++)
        fb_oracle_add_scaled(y, a * x[r], state + r * columns, columns);
}

/* y[r] += a sum_m state[r][m] v[m] */
static inline void fb_oracle_add_product(double *y, double a, const double *state, int64_t rows,
                                         const double *v, int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        y[r] += a * fb_oracle_dot(state + r * columns, v, columns);
}

/* y[m] += a sum_r x[r] state[r][m] */
static inline void fb_oracle_add_apply(double *y, double a, const double *x, const double *state,
                                       int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        fb_oracle_add_scaled(y, a * x[r], state + r * columns, columns);
}

static inline void fb_oracle_widen(double *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (double)x[i];
}

#endif
