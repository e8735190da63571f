/*
 * Performer (Choromanski et al. 2021, softmax kernel, positive features) in float64, as
 * golden/README.md defines it: x~ = x D^(-1/4), u = W x~, g = |x~|^2 / 2,
 *   phi_q = (exp(u - g - max over features of u) + 1e-4) / sqrt(features)
 *   phi_k = the same with the maximum over all tokens and features of the head
 *   out_i = phi_q_i.sum_j phi_k_j (x) v_j / phi_q_i.sum_j phi_k_j
 * The key maximum spans every key of the head, in the causal form too.
 */
#include "oracle_head.h"

#include <math.h>

static const double eps = 1e-4;

struct performer {
    const struct fb_oracle_head *head;
    double *projection; /* W transposed, [D][features]: the long dimension innermost */
    double *phi;        /* one token, [features] */
    double *vj;
    double *phi_sum; /* [features] */
    double *kv;      /* [features][M] */
};

static enum fb_status init_performer(struct performer *p, const struct fb_oracle_head *head,
                                     struct fb_arena *arena, struct fb_error *error)
{
    const int64_t d = head->qk_dim, m = head->v_dim, features = head->options.features;
    p->head = head;
    p->projection = fb_oracle_doubles(arena, d * features, error);
    p->phi = p->projection ? fb_oracle_doubles(arena, features, error) : NULL;
    p->vj = p->phi ? fb_oracle_doubles(arena, m, error) : NULL;
    p->phi_sum = p->vj ? fb_oracle_doubles(arena, features, error) : NULL;
    p->kv = p->phi_sum ? fb_oracle_doubles(arena, features * m, error) : NULL;
    if (!p->kv)
        return FB_ERROR_MEMORY;
    for (int64_t f = 0; f < features; f++)
        for (int64_t c = 0; c < d; c++)
            p->projection[c * features + f] = (double)head->constants[f * d + c];
    return FB_OK;
}

/* p->phi = u of the token, and the return value g. */
static double project(struct performer *p, const float *x)
{
    const int64_t d = p->head->qk_dim, features = p->head->options.features;
    const double root = pow((double)d, -0.25);
    double g = 0.0;
    for (int64_t f = 0; f < features; f++)
        p->phi[f] = 0.0;
    for (int64_t c = 0; c < d; c++) {
        const double scaled = (double)x[c] * root;
        g += scaled * scaled / 2.0;
        fb_oracle_add_scaled(p->phi, scaled, p->projection + c * features, features);
    }
    return g;
}

static double max_of(const double *x, int64_t count)
{
    double max = -HUGE_VAL;
    for (int64_t i = 0; i < count; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* u in p->phi becomes phi. */
static void exponentiate(struct performer *p, double g, double max)
{
    const double root = sqrt((double)p->head->options.features);
    for (int64_t f = 0; f < p->head->options.features; f++)
        p->phi[f] = (exp(p->phi[f] - g - max) + eps) / root;
}

enum fb_status fb_oracle_performer(const struct fb_oracle_head *head,
                                   const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                   struct fb_error *error)
{
    if (!head->constants || head->options.features < 1)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: performer needs its projection in call->constants");
    struct performer p;
    const enum fb_status status = init_performer(&p, head, arena, error);
    if (status != FB_OK)
        return status;
    const int64_t m = head->v_dim, features = head->options.features;

    double key_max = -HUGE_VAL;
    for (int64_t j = 0; j < head->kv_len; j++) {
        project(&p, head->k + j * head->k_stride);
        key_max = fmax(key_max, max_of(p.phi, features));
    }
    int64_t seen = 0; /* keys 0 .. seen-1 are in the sums */
    for (size_t r = 0; r < rows->count; r++) {
        const int64_t i = rows->index[r];
        const int64_t visible = head->causal && i + 1 < head->kv_len ? i + 1 : head->kv_len;
        for (; seen < visible; seen++) {
            exponentiate(&p, project(&p, head->k + seen * head->k_stride), key_max);
            fb_oracle_widen(p.vj, head->v + seen * head->v_stride, m);
            fb_oracle_add_scaled(p.phi_sum, 1.0, p.phi, features);
            fb_oracle_add_outer(p.kv, 1.0, p.phi, features, p.vj, m);
        }
        const double g = project(&p, head->q + i * head->q_stride);
        exponentiate(&p, g, max_of(p.phi, features));
        const double denominator = fb_oracle_dot(p.phi, p.phi_sum, features);
        fb_oracle_apply(rows->out + (int64_t)r * m, 1.0 / denominator, p.phi, p.kv, features, m);
    }
    return FB_OK;
}
