/*
 * Performer for one instruction set: positive orthogonal features of the softmax kernel. The
 * features of a block of tokens are one small product with the packed projection; the rest is
 * linear attention, see linear/linear_core.h. The maximum over all keys is a running one; causal,
 * it takes a pass of its own.
 */
#include "performer/performer.h"

#include "linear/linear_core.h"

#define PERFORMER_EPSILON 1e-4F

struct performer_own {
    int64_t dim, features, ld;
    float half_scale;  /* D^(-1/2) / 2: g = half_scale |x|^2 */
    float *projection; /* [D][ld], W^T D^(-1/4); the columns beyond features repeat the last one, so
                          that a maximum may run over whole vectors */
};

static void performer_pack(const struct performer_own *own, const float *projection)
{
    const double scale = pow((double)own->dim, -0.25);
    for (int64_t d = 0; d < own->dim; d++) {
        for (int64_t r = 0; r < own->ld; r++) {
            const int64_t feature = r < own->features ? r : own->features - 1;
            own->projection[d * own->ld + r] =
                (float)(scale * (double)projection[feature * own->dim + d]);
        }
    }
}

/* u of a block of rows. */
static void performer_project(const struct performer_own *own, const float *x, int64_t stride,
                              int64_t rows, float *u)
{
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, own->ld, own->dim, x, stride, 1, own->projection, own->ld, u, own->ld, false);
}

static float performer_half_norm(const struct performer_own *own, const float *x)
{
    fb_vf sum = fb_vf_zero();
    for (int64_t c = 0; c < own->dim; c += FB_VW) {
        const fb_vf part = fb_vf_load_part(x + c, linear_smaller(FB_VW, own->dim - c));
        sum = fb_vf_fma(part, part, sum);
    }
    return own->half_scale * fb_vf_sum(sum);
}

/* The largest of count numbers, count a multiple of the vector width. */
static float performer_largest(const float *u, int64_t count)
{
    fb_vf top = fb_vf_load(u);
    for (int64_t c = FB_VW; c < count; c += FB_VW) {
        top = fb_vf_max(top, fb_vf_load(u + c));
    }
    return fb_vf_hmax(top);
}

/* u becomes exp(u - g - peak) + epsilon; the columns beyond features become 0. The exponent is at
 * most 0; where exp would fall below the smallest normal number, it is held there. */
static void performer_exponentiate(const struct performer_own *own, float *u, float g, float peak,
                                   float epsilon)
{
    const fb_vf top = fb_vf_set1(peak);
    const fb_vf half_norm = fb_vf_set1(g);
    const fb_vf added = fb_vf_set1(epsilon);
    const fb_vf lowest = fb_vf_set1(FB_EXP_LOWEST);
    for (int64_t c = 0; c < own->ld; c += FB_VW) {
        const fb_vf x = fb_vf_sub(fb_vf_sub(fb_vf_load(u + c), top), half_norm);
        const fb_vf value = fb_vf_exp_in_range(fb_vf_max(lowest, x));
        fb_vf_store(u + c, fb_vf_add(value, added));
    }
    for (int64_t c = own->features; c < own->ld; c++) {
        u[c] = 0.0F;
    }
}

static void performer_queries(const void *context, const float *x, int64_t stride, int64_t rows,
                              float *phi, int64_t ld)
{
    const struct performer_own *own = (const struct performer_own *)context;
    performer_project(own, x, stride, rows, phi);
    for (int64_t i = 0; i < rows; i++) {
        float *u = phi + i * ld;
        performer_exponentiate(own, u, performer_half_norm(own, x + i * stride),
                               performer_largest(u, ld), PERFORMER_EPSILON);
    }
}

static float performer_score_keys(const void *context, const float *x, int64_t stride, int64_t rows,
                                  float *phi, int64_t ld)
{
    performer_project((const struct performer_own *)context, x, stride, rows, phi);
    return performer_largest(phi, rows * ld);
}

static void performer_keys(const void *context, const float *x, int64_t stride, int64_t rows,
                           float peak, float epsilon, float *phi, int64_t ld)
{
    const struct performer_own *own = (const struct performer_own *)context;
    for (int64_t i = 0; i < rows; i++) {
        performer_exponentiate(own, phi + i * ld, performer_half_norm(own, x + i * stride), peak,
                               epsilon);
    }
}

/* Lays out the packed projection and the linear kernel's scratch; returns the bytes needed. With
 * scratch NULL it only counts. */
static size_t performer_plan(struct performer_own *own, struct linear_map *map,
                             struct linear_kernel *kernel, const struct fb_problem *p, int threads,
                             void *scratch)
{
    own->dim = p->qk_dim;
    own->features = fb_baseline_int_param(p, FB_PERFORMER_FEATURES);
    own->ld = fb_vf_round_up(own->features);
    own->half_scale = (float)(0.5 / sqrt((double)own->dim));
    *map = (struct linear_map){
        .count = own->features,
        .epsilon = 0.0F,
        .key_epsilon = PERFORMER_EPSILON,
        .own = own,
        .queries = performer_queries,
        .score_keys = performer_score_keys,
        .keys = performer_keys,
    };
    struct fb_scratch_cursor cursor = {(unsigned char *)scratch, 0};
    own->projection = fb_scratch_take_f32(&cursor, own->dim * own->ld);
    void *rest = scratch == NULL ? NULL : cursor.base + cursor.used_bytes;
    return cursor.used_bytes + linear_plan(kernel, p, map, threads, rest);
}

static enum fb_status performer_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                             struct fb_error *why)
{
    (void)pass;
    return fb_baseline_cpu_supports(problem, "performer fused", why);
}

static void performer_cpu_sizes(const struct fb_problem *problem, int threads,
                                struct fb_sizes *sizes)
{
    struct performer_own own;
    struct linear_map map;
    struct linear_kernel kernel = {0};
    *sizes = (struct fb_sizes){0};
    sizes->forward_scratch_bytes = performer_plan(&own, &map, &kernel, problem, threads, NULL);
}

static enum fb_status performer_cpu_forward(const struct fb_problem *problem,
                                            const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    struct performer_own own;
    struct linear_map map;
    struct linear_kernel kernel = {0};
    (void)performer_plan(&own, &map, &kernel, problem, call->threads, call->scratch);
    performer_pack(&own, (const float *)call->constants);
    linear_forward(&kernel, call);
    return FB_OK;
}

const struct fb_attention FB_ISA_SYMBOL(fb_performer_fused) = {
    .mechanism = &fb_performer,
    .variant = "fused",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = performer_cpu_supports,
    .sizes = performer_cpu_sizes,
    .forward = performer_cpu_forward,
    .backward = NULL,
    .decode = NULL,
};
