/*
 * What the oracles of the single mechanisms share: one (batch, head) of a call, and the few plain
 * float64 loops that all of them need. Private to the oracle room.
 */
#ifndef FB_ORACLE_HEAD_H
#define FB_ORACLE_HEAD_H

#include "arena.h"
#include "attention.h"

enum fb_oracle_phi { FB_ORACLE_SIGMOID, FB_ORACLE_RELU, FB_ORACLE_ELU };
enum fb_oracle_competition {
    FB_ORACLE_OVER_TOKENS,
    FB_ORACLE_OVER_HEADS,
    FB_ORACLE_NO_COMPETITION
};

/* The parameters of every mechanism, at the mechanism's own default where the problem has none. */
struct fb_oracle_options {
    int64_t window, features;
    enum fb_oracle_phi phi;
    double clamp; /* infinite: none */
    double extra_eps;
    enum fb_oracle_competition competition;
    bool allocation;
};

/* One head: token t of q stands at q + t * q_stride, likewise k and v. The lengths are the valid
 * ones of this batch; S may be 0, L not. */
struct fb_oracle_head {
    int64_t q_len, kv_len, qk_dim, v_dim; /* L, S, D, M */
    bool causal;
    const float *q, *k, *v;
    int64_t q_stride, k_stride, v_stride;
    const float *constants;
    struct fb_oracle_options options;

    /* all heads of this batch, for competition over heads: query head h reads key head
     * h / kv_group */
    int64_t heads, index, kv_group;
    const float *q_first, *k_first;
    int64_t q_head_stride, k_head_stride;
};

/* The rows wanted, strictly ascending, and where they go: out [count][M]. */
struct fb_oracle_rows {
    const int64_t *index;
    size_t count;
    double *out;
};

typedef enum fb_status (*fb_oracle_fn)(const struct fb_oracle_head *head,
                                       const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                       struct fb_error *error);

enum fb_status fb_oracle_flow(const struct fb_oracle_head *head, const struct fb_oracle_rows *rows,
                              struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_softmax(const struct fb_oracle_head *head,
                                 const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                 struct fb_error *error);
enum fb_status fb_oracle_local(const struct fb_oracle_head *head, const struct fb_oracle_rows *rows,
                               struct fb_arena *arena, struct fb_error *error);
enum fb_status fb_oracle_linear(const struct fb_oracle_head *head,
                                const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                struct fb_error *error);
enum fb_status fb_oracle_performer(const struct fb_oracle_head *head,
                                   const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                   struct fb_error *error);

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

static inline void fb_oracle_widen(double *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (double)x[i];
}

#endif
