/*
 * Linear attention (Katharopoulos et al. 2020) in float64, spec/attention.md section 5.2:
 * phi(x) = elu(x) + 1, out_i = phi(q_i).sum_j phi(k_j) (x) v_j / (phi(q_i).sum_j phi(k_j) + 1e-6).
 */
#include "oracle_head.h"

#include <math.h>

static const double eps = 1e-6;

static void load_phi(double *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = x[i] > 0.0f ? (double)x[i] + 1.0 : exp((double)x[i]);
}

enum fb_status fb_oracle_linear(const struct fb_oracle_head *head,
                                const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                struct fb_error *error)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    double *qi = fb_oracle_doubles(arena, d, error);
    double *kj = qi ? fb_oracle_doubles(arena, d, error) : NULL;
    double *vj = kj ? fb_oracle_doubles(arena, m, error) : NULL;
    double *ksum = vj ? fb_oracle_doubles(arena, d, error) : NULL;
    double *kv = ksum ? fb_oracle_doubles(arena, d * m, error) : NULL;
    if (!kv)
        return FB_ERROR_MEMORY;

    int64_t seen = 0; /* keys 0 .. seen-1 are in the sums */
    for (size_t r = 0; r < rows->count; r++) {
        const int64_t i = rows->index[r];
        const int64_t visible = head->causal && i + 1 < head->kv_len ? i + 1 : head->kv_len;
        for (; seen < visible; seen++) {
            load_phi(kj, head->k + seen * head->k_stride, d);
            fb_oracle_widen(vj, head->v + seen * head->v_stride, m);
            fb_oracle_add_scaled(ksum, 1.0, kj, d);
            fb_oracle_add_outer(kv, 1.0, kj, d, vj, m);
        }
        load_phi(qi, head->q + i * head->q_stride, d);
        const double denominator = fb_oracle_dot(qi, ksum, d) + eps;
        fb_oracle_apply(rows->out + (int64_t)r * m, 1.0 / denominator, qi, kv, d, m);
    }
    return FB_OK;
}
