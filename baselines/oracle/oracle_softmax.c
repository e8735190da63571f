/*
 * Softmax attention and its local window in float64 (spec/attention.md section 5.1,
 * golden/README.md): scores q.k / sqrt(D), softmax over the keys that a row sees.
 */
#include "oracle_head.h"

#include <math.h>

/* Softmax over keys first .. last of one row; no key at all gives zeros.
 * scores has room for last - first + 1, q and vj for one row each. */
struct softmax_row {
    double *scores, *q, *kj, *vj;
};

static void softmax_row(const struct fb_oracle_head *head, const struct softmax_row *w, int64_t row,
                        int64_t first, int64_t last, double *out)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    const double root = sqrt((double)d);
    double max = -HUGE_VAL, sum = 0.0;
    fb_oracle_widen(w->q, head->q + row * head->q_stride, d);
    for (int64_t c = 0; c < m; c++)
        out[c] = 0.0;
    for (int64_t j = first; j <= last; j++) {
        fb_oracle_widen(w->kj, head->k + j * head->k_stride, d);
        const double score = fb_oracle_dot(w->q, w->kj, d) / root;
        w->scores[j - first] = score;
        max = fmax(max, score);
    }
    for (int64_t j = first; j <= last; j++) {
        const double p = exp(w->scores[j - first] - max);
        sum += p;
        fb_oracle_widen(w->vj, head->v + j * head->v_stride, m);
        fb_oracle_add_scaled(out, p, w->vj, m);
    }
    for (int64_t c = 0; first <= last && c < m; c++)
        out[c] /= sum;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static enum fb_status softmax_window(const struct fb_oracle_head *head,
                                     const struct fb_oracle_rows *rows, int64_t window,
                                     struct fb_arena *arena, struct fb_error *error)
{
    struct softmax_row w;
    w.scores = fb_oracle_doubles(arena, head->kv_len, error);
    w.q = w.scores ? fb_oracle_doubles(arena, head->qk_dim, error) : NULL;
    w.kj = w.q ? fb_oracle_doubles(arena, head->qk_dim, error) : NULL;
    w.vj = w.kj ? fb_oracle_doubles(arena, head->v_dim, error) : NULL;
    if (!w.vj)
        return FB_ERROR_MEMORY;
    for (size_t r = 0; r < rows->count; r++) {
        const int64_t i = rows->index[r];
        const int64_t first = i > window ? i - window : 0;
        const int64_t reach = head->causal ? i : i + min_i64(window, head->kv_len);
        const int64_t last = min_i64(reach, head->kv_len - 1);
        softmax_row(head, &w, i, first, last, rows->out + (int64_t)r * head->v_dim);
    }
    return FB_OK;
}

enum fb_status fb_oracle_softmax(const struct fb_oracle_head *head,
                                 const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                 struct fb_error *error)
{
    /* a window as wide as the longer side hides nothing */
    const int64_t everything = head->q_len > head->kv_len ? head->q_len : head->kv_len;
    return softmax_window(head, rows, everything, arena, error);
}

enum fb_status fb_oracle_local(const struct fb_oracle_head *head, const struct fb_oracle_rows *rows,
                               struct fb_arena *arena, struct fb_error *error)
{
    return softmax_window(head, rows, head->options.window, arena, error);
}
