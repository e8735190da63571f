/*
 * Softmax attention and its local patterns in float64, with their gradients: scores q.k / sqrt(D),
 * softmax over the keys that a row sees (spec/attention.md sections 5.1 and 5.4, golden/README.md).
 *
 *   window   keys within `window` of the row (softmax itself: all)
 *   strided  n keys are padded by zero vectors to nb blocks of `block`, n' = n + block - n mod
 *            block, nb = n' / block; row i sees the keys j = i (mod nb). The padding counts as keys
 *            of score 0 and value 0, unless causal hides it.
 *
 * Gradients: dp_ij = dout_i.v_j, delta_i = sum_j p_ij dp_ij, ds_ij = p_ij (dp_ij - delta_i);
 * dq_i = sum_j ds_ij k_j / sqrt(D), dk_j = sum_i ds_ij q_i / sqrt(D), dv_j = sum_i p_ij dout_i.
 */
#include "oracle_head.h"

#include <math.h>

/* The keys first, first + step, .. up to last that a row sees; last < first: none. */
struct span {
    int64_t first, last, step;
    int64_t zeros; /* further keys of score 0 and value 0 */
};

/* Work space of one row; scores and dp have a place for each key of the head. */
struct softmax_row {
    const struct fb_oracle_head *head;
    bool local;
    double *scores, *dp, *q, *kj, *vj, *dout;
    /* filled by softmax_weights */
    struct span span;
    double max, sum;
    double delta; /* filled by softmax_deltas */
};

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct span strided_span(const struct fb_oracle_head *head, int64_t i)
{
    const int64_t n = head->kv_len, block = head->options.block;
    const int64_t padded = n + block - n % block;
    const int64_t stride = padded / block;
    const int64_t first = i % stride;
    const int64_t last = head->causal ? min_i64(i, n - 1) : n - 1;
    const int64_t real = last < first ? 0 : (last - first) / stride + 1;
    return (struct span){first, last, stride, head->causal ? 0 : block - real};
}

static struct span span_of(const struct softmax_row *w, int64_t i)
{
    const struct fb_oracle_head *head = w->head;
    if (w->local && head->options.strided)
        return strided_span(head, i);
    /* a window as wide as the longer side hides nothing */
    const int64_t everything = head->q_len > head->kv_len ? head->q_len : head->kv_len;
    const int64_t window = w->local ? min_i64(head->options.window, everything) : everything;
    const int64_t reach = head->causal ? i : i + window;
    return (struct span){i > window ? i - window : 0, min_i64(reach, head->kv_len - 1), 1, 0};
}

static bool sees(const struct span *span, int64_t j)
{
    return j >= span->first && j <= span->last && (j - span->first) % span->step == 0;
}

static enum fb_status init_row(struct softmax_row *w, const struct fb_oracle_head *head, bool local,
                               struct fb_arena *arena, struct fb_error *error)
{
    *w = (struct softmax_row){.head = head, .local = local};
    w->scores = fb_oracle_doubles(arena, head->kv_len, error);
    w->dp = w->scores ? fb_oracle_doubles(arena, head->kv_len, error) : NULL;
    w->q = w->dp ? fb_oracle_doubles(arena, head->qk_dim, error) : NULL;
    w->kj = w->q ? fb_oracle_doubles(arena, head->qk_dim, error) : NULL;
    w->vj = w->kj ? fb_oracle_doubles(arena, head->v_dim, error) : NULL;
    w->dout = w->vj ? fb_oracle_doubles(arena, head->v_dim, error) : NULL;
    return w->dout ? FB_OK : FB_ERROR_MEMORY;
}

/* exp(score - max) of every key that row i sees, their maximum and sum. */
static void softmax_weights(struct softmax_row *w, int64_t i)
{
    const struct fb_oracle_head *head = w->head;
    const int64_t d = head->qk_dim;
    const double root = sqrt((double)d);
    w->span = span_of(w, i);
    w->max = w->span.zeros > 0 ? 0.0 : -HUGE_VAL;
    fb_oracle_widen(w->q, head->q + i * head->q_stride, d);
    for (int64_t j = w->span.first; j <= w->span.last; j += w->span.step) {
        fb_oracle_widen(w->kj, head->k + j * head->k_stride, d);
        w->scores[j] = fb_oracle_dot(w->q, w->kj, d) / root;
        w->max = fmax(w->max, w->scores[j]);
    }
    w->sum = w->span.zeros > 0 ? (double)w->span.zeros * exp(-w->max) : 0.0;
    for (int64_t j = w->span.first; j <= w->span.last; j += w->span.step) {
        w->scores[j] = exp(w->scores[j] - w->max);
        w->sum += w->scores[j];
    }
}

static enum fb_status forward(const struct fb_oracle_task *task, const struct fb_oracle_rows *rows,
                              bool local, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_oracle_head head;
    struct softmax_row w;
    enum fb_status status = fb_oracle_head_of(task, task->h, arena, &head, error);
    if (status == FB_OK)
        status = init_row(&w, &head, local, arena, error);
    if (status != FB_OK)
        return status;
    for (size_t r = 0; r < rows->count; r++) {
        double *out = rows->out + (int64_t)r * head.v_dim;
        softmax_weights(&w, rows->index[r]);
        for (int64_t c = 0; c < head.v_dim; c++)
            out[c] = 0.0; /* and so it stays when the row sees no key */
        for (int64_t j = w.span.first; j <= w.span.last; j += w.span.step) {
            fb_oracle_widen(w.vj, head.v + j * head.v_stride, head.v_dim);
            fb_oracle_add_scaled(out, w.scores[j] / w.sum, w.vj, head.v_dim);
        }
    }
    return FB_OK;
}

/* ---- gradients ------------------------------------------------------------------------------- */

/* dp_ij of every key that row i sees, and delta_i; after softmax_weights. */
static void softmax_deltas(struct softmax_row *w, int64_t i)
{
    const struct fb_oracle_head *head = w->head;
    w->delta = 0.0;
    fb_oracle_widen(w->dout, head->dout + i * head->dout_stride, head->v_dim);
    for (int64_t j = w->span.first; j <= w->span.last; j += w->span.step) {
        fb_oracle_widen(w->vj, head->v + j * head->v_stride, head->v_dim);
        w->dp[j] = fb_oracle_dot(w->dout, w->vj, head->v_dim);
        w->delta += w->scores[j] / w->sum * w->dp[j];
    }
}

static void query_gradients(struct softmax_row *w, const struct fb_oracle_gradients *wanted)
{
    const struct fb_oracle_head *head = w->head;
    const int64_t d = head->qk_dim;
    const double root = sqrt((double)d);
    for (size_t r = 0; r < wanted->q_count; r++) {
        const int64_t i = wanted->q_rows[r];
        softmax_weights(w, i);
        softmax_deltas(w, i);
        for (int64_t j = w->span.first; j <= w->span.last; j += w->span.step) {
            const double ds = w->scores[j] / w->sum * (w->dp[j] - w->delta);
            fb_oracle_widen(w->kj, head->k + j * head->k_stride, d);
            fb_oracle_add_scaled(wanted->dq + (int64_t)r * d, ds / root, w->kj, d);
        }
    }
}

static bool sees_any(const struct span *span, const struct fb_oracle_gradients *wanted)
{
    for (size_t r = 0; r < wanted->kv_count; r++)
        if (sees(span, wanted->kv_rows[r]))
            return true;
    return false;
}

static void key_gradients(struct softmax_row *w, const struct fb_oracle_gradients *wanted)
{
    const struct fb_oracle_head *head = w->head;
    const int64_t d = head->qk_dim, m = head->v_dim;
    const double root = sqrt((double)d);
    for (int64_t i = 0; wanted->kv_count > 0 && i < head->q_len; i++) {
        const struct span span = span_of(w, i);
        if (!sees_any(&span, wanted))
            continue;
        softmax_weights(w, i);
        softmax_deltas(w, i);
        for (size_t r = 0; r < wanted->kv_count; r++) {
            const int64_t j = wanted->kv_rows[r];
            if (!sees(&span, j))
                continue;
            const double p = w->scores[j] / w->sum;
            fb_oracle_add_scaled(wanted->dv + (int64_t)r * m, p, w->dout, m);
            fb_oracle_add_scaled(wanted->dk + (int64_t)r * d, p * (w->dp[j] - w->delta) / root,
                                 w->q, d);
        }
    }
}

static enum fb_status gradient(const struct fb_oracle_task *task,
                               const struct fb_oracle_gradients *wanted, bool local,
                               struct fb_arena *arena, struct fb_error *error)
{
    struct fb_oracle_head head;
    struct softmax_row w;
    enum fb_status status = fb_oracle_head_of(task, task->h, arena, &head, error);
    if (status == FB_OK)
        status = init_row(&w, &head, local, arena, error);
    if (status != FB_OK)
        return status;
    query_gradients(&w, wanted);
    int64_t first;
    const int64_t group = fb_oracle_group(task, &first);
    for (int64_t h = first; status == FB_OK && h < first + group; h++) {
        status = fb_oracle_head_of(task, h, arena, &head, error);
        if (status == FB_OK)
            key_gradients(&w, wanted);
    }
    return status;
}

enum fb_status fb_oracle_softmax(const struct fb_oracle_task *task,
                                 const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                 struct fb_error *error)
{
    return forward(task, rows, false, arena, error);
}

enum fb_status fb_oracle_local(const struct fb_oracle_task *task, const struct fb_oracle_rows *rows,
                               struct fb_arena *arena, struct fb_error *error)
{
    return forward(task, rows, true, arena, error);
}

enum fb_status fb_oracle_softmax_gradient(const struct fb_oracle_task *task,
                                          const struct fb_oracle_gradients *wanted,
                                          struct fb_arena *arena, struct fb_error *error)
{
    return gradient(task, wanted, false, arena, error);
}

enum fb_status fb_oracle_local_gradient(const struct fb_oracle_task *task,
                                        const struct fb_oracle_gradients *wanted,
                                        struct fb_arena *arena, struct fb_error *error)
{
    return gradient(task, wanted, true, arena, error);
}
