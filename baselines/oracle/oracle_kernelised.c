/*
 * Attention through feature maps, and its gradients, in float64: with f the features of a query or
 * key and N_i = sum_j f(k_j) (x) v_j, z_i = sum_j f(k_j) over the keys that row i sees,
 *
 *   out_i = f(q_i).N_i / (f(q_i).z_i + eps)
 *
 *   linear     Katharopoulos et al. 2020, spec/attention.md section 5.2: f(x) = elu(x) + 1, eps
 * 1e-6 performer  Choromanski et al. 2021 as golden/README.md defines it, eps 0: x~ = x D^(-1/4),
 *              u = W x~, g = |x~|^2 / 2, f(x) = (exp(u - g - max) + 1e-4) / sqrt(features), max
 * over the features of a query, over all tokens and features of the head's keys (in the causal form
 * too); it carries no gradient performer, relu kernel   section 5.3, "generalized": f(x) = relu(x)
 * + 0.001, eps 0
 *
 * Gradients, with y_i = f(q_i).z_i + eps and w_i = dout_i.out_i: df(q_i) = (N_i dout_i - w_i z_i) /
 * y_i; df(k_j) = dN_j v_j - dz_j and dv_j = f(k_j).dN_j with dN_j = sum_i f(q_i) (x) dout_i / y_i
 * and dz_j = sum_i w_i f(q_i) / y_i over the rows that see key j.
 */
#include "oracle_head.h"

#include <math.h>

enum map { MAP_ELU, MAP_POSITIVE, MAP_RELU };

struct kernelised {
    const struct fb_oracle_head *head;
    enum map map;
    double eps;
    int64_t features;
    double *projection; /* positive: W transposed, [D][features] */
    double key_max;     /* positive */
    double *fq, *fk;    /* [features] */
    double *df;         /* [features] */
    double *x, *dx;     /* [D] */
    double *v, *g, *y;  /* [M] */
    double *z, *n;      /* [features], [features][M]: sums, later their gradients */
};

static enum fb_status init(struct kernelised *s, const struct fb_oracle_head *head,
                           struct fb_arena *arena, struct fb_error *error)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    s->head = head;
    s->features = s->map == MAP_POSITIVE ? head->options.features : d;
    double **vectors[] = {&s->fq, &s->fk, &s->df, &s->z, &s->x, &s->dx, &s->v, &s->g, &s->y};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const int64_t count = i < 4 ? s->features : i < 6 ? d : m;
        if (!(*vectors[i] = fb_oracle_doubles(arena, count, error)))
            return FB_ERROR_MEMORY;
    }
    s->n = fb_oracle_doubles(arena, s->features * m, error);
    s->projection = s->n ? fb_oracle_doubles(arena, d * s->features, error) : NULL;
    if (!s->projection)
        return FB_ERROR_MEMORY;
    for (int64_t f = 0; s->map == MAP_POSITIVE && f < s->features; f++)
        for (int64_t c = 0; c < d; c++)
            s->projection[c * s->features + f] = (double)head->constants[f * d + c];
    return FB_OK;
}

/* ---- feature maps ---------------------------------------------------------------------------- */

static const double positive_eps = 1e-4, relu_eps = 1e-3;

/* f = u of the token; s->x = x~; returns g. */
static double project(const struct kernelised *s, const float *x, double *f)
{
    const int64_t d = s->head->qk_dim;
    const double root = pow((double)d, -0.25);
    double g = 0.0;
    for (int64_t r = 0; r < s->features; r++)
        f[r] = 0.0;
    for (int64_t c = 0; c < d; c++) {
        s->x[c] = (double)x[c] * root;
        g += s->x[c] * s->x[c] / 2.0;
        fb_oracle_add_scaled(f, s->x[c], s->projection + c * s->features, s->features);
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

static void find_key_max(struct kernelised *s)
{
    if (s->head->options.key_stabiliser) {
        s->key_max = *s->head->options.key_stabiliser;
        return;
    }
    s->key_max = -HUGE_VAL;
    for (int64_t j = 0; s->map == MAP_POSITIVE && j < s->head->kv_len; j++) {
        project(s, s->head->k + j * s->head->k_stride, s->fk);
        s->key_max = fmax(s->key_max, max_of(s->fk, s->features));
    }
}

static void load_features(const struct kernelised *s, const float *x, bool is_query, double *f)
{
    if (s->map == MAP_POSITIVE) {
        const double g = project(s, x, f);
        const double max = is_query ? max_of(f, s->features) : s->key_max;
        for (int64_t r = 0; r < s->features; r++)
            f[r] = (exp(f[r] - g - max) + positive_eps) / sqrt((double)s->features);
        return;
    }
    for (int64_t c = 0; c < s->features; c++) {
        if (s->map == MAP_RELU)
            f[c] = fmax((double)x[c], 0.0) + relu_eps;
        else
            f[c] = x[c] > 0.0f ? (double)x[c] + 1.0 : exp((double)x[c]);
    }
}

/* dx += df pulled back through the map at x, whose features are f. */
static void pull_features(const struct kernelised *s, const float *x, const double *f,
                          const double *df, double *dx)
{
    const int64_t d = s->head->qk_dim;
    if (s->map == MAP_POSITIVE) {
        const double root = pow((double)d, -0.25);
        const double share = positive_eps / sqrt((double)s->features);
        for (int64_t c = 0; c < d; c++) {
            double sum = 0.0;
            const double scaled = (double)x[c] * root;
            for (int64_t r = 0; r < s->features; r++)
                sum += df[r] * (f[r] - share) * (s->projection[c * s->features + r] - scaled);
            dx[c] += root * sum;
        }
        return;
    }
    for (int64_t c = 0; c < d; c++) {
        if (x[c] > 0.0f)
            dx[c] += df[c];
        else if (s->map == MAP_ELU)
            dx[c] += df[c] * f[c];
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

static int64_t visible_keys(const struct fb_oracle_head *head, int64_t i)
{
    return head->causal && i + 1 < head->kv_len ? i + 1 : head->kv_len;
}

/* Sums of the keys seen .. visible - 1 join z and n. */
static int64_t add_keys(const struct kernelised *s, int64_t seen, int64_t visible)
{
    const struct fb_oracle_head *head = s->head;
    for (; seen < visible; seen++) {
        load_features(s, head->k + seen * head->k_stride, false, s->fk);
        fb_oracle_widen(s->v, head->v + seen * head->v_stride, head->v_dim);
        fb_oracle_add_scaled(s->z, 1.0, s->fk, s->features);
        fb_oracle_add_outer(s->n, 1.0, s->fk, s->features, s->v, head->v_dim);
    }
    return seen;
}

static enum fb_status forward(struct kernelised *s, const struct fb_oracle_task *task,
                              const struct fb_oracle_rows *rows, struct fb_arena *arena,
                              struct fb_error *error)
{
    struct fb_oracle_head head;
    enum fb_status status = fb_oracle_head_of(task, task->h, arena, &head, error);
    if (status == FB_OK)
        status = init(s, &head, arena, error);
    if (status != FB_OK)
        return status;
    find_key_max(s);
    int64_t seen = 0;
    for (size_t r = 0; r < rows->count; r++) {
        const int64_t i = rows->index[r];
        seen = add_keys(s, seen, visible_keys(&head, i));
        load_features(s, head.q + i * head.q_stride, true, s->fq);
        const double y = fb_oracle_dot(s->fq, s->z, s->features) + s->eps;
        fb_oracle_apply(rows->out + (int64_t)r * head.v_dim, 1.0 / y, s->fq, s->n, s->features,
                        head.v_dim);
    }
    return FB_OK;
}

/* ---- gradients ------------------------------------------------------------------------------- */

/* y_i and w_i of a row, from the sums of the keys that it sees; s->df = N_i dout_i. */
static void row_scalars(const struct kernelised *s, int64_t i, double *y, double *w)
{
    const struct fb_oracle_head *head = s->head;
    load_features(s, head->q + i * head->q_stride, true, s->fq);
    fb_oracle_widen(s->g, head->dout + i * head->dout_stride, head->v_dim);
    for (int64_t r = 0; r < s->features; r++)
        s->df[r] = 0.0;
    fb_oracle_add_product(s->df, 1.0, s->n, s->features, s->g, head->v_dim);
    *y = fb_oracle_dot(s->fq, s->z, s->features) + s->eps;
    *w = fb_oracle_dot(s->fq, s->df, s->features) / *y;
}

static void clear(double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = 0.0;
}

/* One query head: dq of the rows wanted when with_queries, and ys, ws of every row unless NULL. */
static void query_gradients(const struct kernelised *s, const struct fb_oracle_gradients *wanted,
                            bool with_queries, double *ys, double *ws)
{
    const struct fb_oracle_head *head = s->head;
    int64_t seen = 0;
    size_t r = 0;
    clear(s->z, s->features);
    clear(s->n, s->features * head->v_dim);
    for (int64_t i = 0; i < head->q_len; i++) {
        const bool is_wanted = with_queries && r < wanted->q_count && wanted->q_rows[r] == i;
        double y, w;
        if (!is_wanted && ys == NULL)
            continue;
        seen = add_keys(s, seen, visible_keys(head, i));
        row_scalars(s, i, &y, &w);
        if (ys) {
            ys[i] = y;
            ws[i] = w;
        }
        if (is_wanted) {
            for (int64_t f = 0; f < s->features; f++)
                s->df[f] = (s->df[f] - w * s->z[f]) / y;
            pull_features(s, head->q + i * head->q_stride, s->fq, s->df,
                          wanted->dq + (int64_t)r * head->qk_dim);
            r++;
        }
    }
}

/* Backwards through the keys; z and n become dz_j and dN_j as rows that see key j are added. */
static void key_gradients(const struct kernelised *s, const struct fb_oracle_gradients *wanted,
                          const double *ys, const double *ws)
{
    const struct fb_oracle_head *head = s->head;
    const int64_t m = head->v_dim;
    int64_t i = head->q_len;
    clear(s->z, s->features);
    clear(s->n, s->features * m);
    for (size_t r = wanted->kv_count; r-- > 0;) {
        const int64_t j = wanted->kv_rows[r];
        for (; i > 0 && visible_keys(head, i - 1) > j; i--) {
            load_features(s, head->q + (i - 1) * head->q_stride, true, s->fq);
            fb_oracle_widen(s->g, head->dout + (i - 1) * head->dout_stride, m);
            fb_oracle_add_outer(s->n, 1.0 / ys[i - 1], s->fq, s->features, s->g, m);
            fb_oracle_add_scaled(s->z, ws[i - 1] / ys[i - 1], s->fq, s->features);
        }
        load_features(s, head->k + j * head->k_stride, false, s->fk);
        fb_oracle_widen(s->v, head->v + j * head->v_stride, m);
        for (int64_t f = 0; f < s->features; f++)
            s->df[f] = -s->z[f];
        fb_oracle_add_product(s->df, 1.0, s->n, s->features, s->v, m);
        pull_features(s, head->k + j * head->k_stride, s->fk, s->df,
                      wanted->dk + (int64_t)r * head->qk_dim);
        fb_oracle_add_apply(wanted->dv + (int64_t)r * m, 1.0, s->fk, s->n, s->features, m);
    }
}

static enum fb_status gradient_of(struct kernelised *s, struct fb_oracle_head *head,
                                  const struct fb_oracle_task *task,
                                  const struct fb_oracle_gradients *wanted, struct fb_arena *arena,
                                  struct fb_error *error)
{
    enum fb_status status = init(s, head, arena, error);
    if (status != FB_OK)
        return status;
    find_key_max(s); /* the group shares its keys */
    if (wanted->kv_count == 0) {
        query_gradients(s, wanted, true, NULL, NULL);
        return FB_OK;
    }
    double *ys = fb_oracle_doubles(arena, head->q_len, error);
    double *ws = ys ? fb_oracle_doubles(arena, head->q_len, error) : NULL;
    if (!ws)
        return FB_ERROR_MEMORY;
    int64_t first;
    const int64_t group = fb_oracle_group(task, &first);
    for (int64_t h = first; status == FB_OK && h < first + group; h++) {
        status = fb_oracle_head_of(task, h, arena, head, error);
        if (status != FB_OK)
            break;
        query_gradients(s, wanted, h == task->h, ys, ws);
        key_gradients(s, wanted, ys, ws);
    }
    return status;
}

static enum fb_status gradient(struct kernelised *s, const struct fb_oracle_task *task,
                               const struct fb_oracle_gradients *wanted, struct fb_arena *arena,
                               struct fb_error *error)
{
    struct fb_oracle_head head;
    enum fb_status status = fb_oracle_head_of(task, task->h, arena, &head, error);
    if (status == FB_OK)
        status = gradient_of(s, &head, task, wanted, arena, error);
    s->head = NULL;
    return status;
}

static struct kernelised linear_map(void)
{
    return (struct kernelised){.map = MAP_ELU, .eps = 1e-6};
}

static enum fb_status performer_map(const struct fb_oracle_task *task, struct kernelised *s,
                                    struct fb_error *error)
{
    *s = (struct kernelised){.map = task->options.relu_kernel ? MAP_RELU : MAP_POSITIVE};
    if (s->map == MAP_POSITIVE && (!task->call->constants || task->options.features < 1))
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: performer needs its projection in call->constants");
    return FB_OK;
}

enum fb_status fb_oracle_linear(const struct fb_oracle_task *task,
                                const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                struct fb_error *error)
{
    struct kernelised s = linear_map();
    return forward(&s, task, rows, arena, error);
}

enum fb_status fb_oracle_performer(const struct fb_oracle_task *task,
                                   const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                   struct fb_error *error)
{
    struct kernelised s;
    const enum fb_status status = performer_map(task, &s, error);
    return status == FB_OK ? forward(&s, task, rows, arena, error) : status;
}

enum fb_status fb_oracle_linear_gradient(const struct fb_oracle_task *task,
                                         const struct fb_oracle_gradients *wanted,
                                         struct fb_arena *arena, struct fb_error *error)
{
    struct kernelised s = linear_map();
    return gradient(&s, task, wanted, arena, error);
}

enum fb_status fb_oracle_performer_gradient(const struct fb_oracle_task *task,
                                            const struct fb_oracle_gradients *wanted,
                                            struct fb_arena *arena, struct fb_error *error)
{
    struct kernelised s;
    const enum fb_status status = performer_map(task, &s, error);
    return status == FB_OK ? gradient(&s, task, wanted, arena, error) : status;
}
