/*
 * Performer for one instruction set: positive orthogonal features of the softmax kernel. The
 * features of a block of tokens are one small product with the packed projection; the rest is
 * linear attention, see linear/linear_core.h (and linear_gradient.h, linear_decode.h). The maximum
 * over all keys is a running one; causal, it takes a pass of its own, and decoding is told it.
 *
 * Kernel relu is linear attention on the components themselves.
 */
#include "performer/performer.h"

#include "fast_exp.h"
#include "linear/linear_core.h"
#include "linear/linear_decode.h"
#include "linear/linear_gradient.h"

#define PERFORMER_EPSILON      1e-4F
#define PERFORMER_RELU_EPSILON 1e-3F

struct performer_own {
    int64_t dim, features, ld;
    float half_scale;      /* D^(-1/2) / 2: g = half_scale |x|^2 */
    const float *unpacked; /* [features][D] W, as the caller passed it */
    bool settles;          /* gradients of queries: see performer_settle */
    float *projection; /* [D][ld], W^T D^(-1/4); the columns beyond features repeat the last one, so
                          that a maximum may run over whole vectors */
};

static void performer_pack(const struct performer_own *own, const float *projection)
{
    const double scale = pow((double)own->dim, -0.25);
    fb_transpose(projection, own->dim, own->features, own->dim, own->projection, own->ld);
    for (int64_t d = 0; d < own->dim; d++) {
        float *row = own->projection + d * own->ld;
        for (int64_t r = 0; r < own->features; r++) {
            row[r] = (float)(scale * (double)row[r]);
        }
        for (int64_t r = own->features; r < own->ld; r++) {
            row[r] = row[own->features - 1];
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

/* The largest of count numbers, count a multiple of the vector width; four chains, since a maximum
 * takes four cycles. */
static float performer_largest(const float *u, int64_t count)
{
    enum { CHAINS = 4 };
    fb_vf top[CHAINS];
    for (int i = 0; i < CHAINS; i++) {
        top[i] = fb_vf_load(u);
    }
    int64_t c = 0;
    for (; c + CHAINS * FB_VW <= count; c += CHAINS * FB_VW) {
        FB_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            top[i] = fb_vf_max(top[i], fb_vf_load(u + c + i * FB_VW));
        }
    }
    for (; c < count; c += FB_VW) {
        top[0] = fb_vf_max(top[0], fb_vf_load(u + c));
    }
    return fb_vf_hmax(fb_vf_max(fb_vf_max(top[0], top[1]), fb_vf_max(top[2], top[3])));
}

/* u becomes exp(u - g - peak) + epsilon; the columns beyond features become 0. The exponent is at
 * most 0; where exp would fall below the smallest normal number, it is held there. */
static void performer_exponentiate(const struct performer_own *own, float *u, float g, float peak,
                                   float epsilon)
{
    const fb_vf top = fb_vf_set1(peak);
    const fb_vf half_norm = fb_vf_set1(g);
    const fb_vf added = fb_vf_set1(epsilon);
    for (int64_t c = 0; c < own->ld; c += FB_VW) {
        const fb_vf x = fb_vf_sub(fb_vf_sub(fb_vf_load(u + c), top), half_norm);
        fb_vf_store(u + c, fb_vf_add(fb_vf_exp_fast(x), added));
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

static float performer_exponent(const void *context, const float *x, const float *scores,
                                int64_t ld)
{
    return performer_largest(scores, ld) -
           performer_half_norm((const struct performer_own *)context, x);
}

/* With e = phi - epsilon: du = dphi e, dx = D^(-1/4) W^T du - D^(-1/2) (sum of du) x. */
static void performer_pull(const void *context, const float *x, int64_t stride, int64_t rows,
                           const float *phi, float *dphi, int64_t ld, float *dx, int64_t dx_stride)
{
    const struct performer_own *own = (const struct performer_own *)context;
    const fb_vf epsilon = fb_vf_set1(PERFORMER_EPSILON);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < own->features; c += FB_VW) {
            float *du = dphi + i * ld + c;
            const fb_vf e = fb_vf_sub(fb_vf_load(phi + i * ld + c), epsilon);
            fb_vf_store(du, fb_vf_mul(e, fb_vf_load(du)));
        }
    }
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, own->dim, own->features, dphi, ld, 1, own->unpacked, own->dim, dx, dx_stride, false);
    const fb_vf scale = fb_vf_set1((float)pow((double)own->dim, -0.25));
    for (int64_t i = 0; i < rows; i++) {
        fb_vf sum = fb_vf_zero();
        for (int64_t c = 0; c < own->features; c += FB_VW) {
            const int64_t lanes = linear_smaller(FB_VW, own->features - c);
            sum = fb_vf_add(sum, fb_vf_load_part(dphi + i * ld + c, lanes));
        }
        const fb_vf dg = fb_vf_set1(2.0F * own->half_scale * fb_vf_sum(sum));
        for (int64_t c = 0; c < own->dim; c += FB_VW) {
            float *to = dx + i * dx_stride + c;
            const int64_t lanes = linear_smaller(FB_VW, own->dim - c);
            const fb_vf back = fb_vf_mul(dg, fb_vf_load_part(x + i * stride + c, lanes));
            const fb_vf along = fb_vf_mul(scale, fb_vf_load_part(to, lanes));
            fb_vf_store_part(to, fb_vf_sub(along, back), lanes);
        }
    }
}

/* Weights sum to one whatever a query is, so sum phi dphi = 0: adds to a row's dphi the number that
 * makes it so. Features of wide heads are nearly all epsilon, so that what the output's rounding
 * leaves in dphi, larger than dphi, is nearly one number, too. */
static void performer_settle(const void *context, int64_t rows, const float *phi, float *dphi,
                             int64_t ld)
{
    const struct performer_own *own = (const struct performer_own *)context;
    for (int64_t i = 0; i < rows; i++, phi += ld, dphi += ld) {
        fb_vf along = fb_vf_zero();
        fb_vf weight = fb_vf_zero();
        for (int64_t c = 0; c < own->features; c += FB_VW) {
            const int64_t lanes = linear_smaller(FB_VW, own->features - c);
            const fb_vf f = fb_vf_load(phi + c);
            along = fb_vf_fma(f, fb_vf_load_part(dphi + c, lanes), along);
            weight = fb_vf_add(weight, f);
        }
        const fb_vf added = fb_vf_set1(-fb_vf_sum(along) / fb_vf_sum(weight));
        for (int64_t c = 0; c < own->features; c += FB_VW)
            fb_vf_store(dphi + c, fb_vf_add(fb_vf_load(dphi + c), added));
    }
}

/* ---- kernel relu --------------------------------------------------------------------------- */

/* phi(x) = relu(x) + 0.001 component by component. */
static void performer_relu(const void *context, const float *x, int64_t stride, int64_t rows,
                           float *phi, int64_t ld)
{
    const int64_t dim = ((const struct performer_own *)context)->dim;
    const fb_vf zero = fb_vf_zero();
    const fb_vf added = fb_vf_set1(PERFORMER_RELU_EPSILON);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < dim; c += FB_VW) {
            const int64_t lanes = linear_smaller(FB_VW, dim - c);
            const fb_vf value =
                fb_vf_add(fb_vf_max(zero, fb_vf_load_part(x + i * stride + c, lanes)), added);
            fb_vf_store(phi + i * ld + c, fb_vf_keep(value, lanes));
        }
    }
}

static void performer_relu_keys(const void *context, const float *x, int64_t stride, int64_t rows,
                                float peak, float epsilon, float *phi, int64_t ld)
{
    (void)peak;
    (void)epsilon;
    performer_relu(context, x, stride, rows, phi, ld);
}

static void performer_relu_pull(const void *context, const float *x, int64_t stride, int64_t rows,
                                const float *phi, float *dphi, int64_t ld, float *dx,
                                int64_t dx_stride)
{
    (void)phi;
    const int64_t dim = ((const struct performer_own *)context)->dim;
    const fb_vf zero = fb_vf_zero();
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < dim; c += FB_VW) {
            const int64_t lanes = linear_smaller(FB_VW, dim - c);
            const fb_vf at = fb_vf_load_part(x + i * stride + c, lanes);
            const fb_vf value = fb_vf_select_lt(zero, at, fb_vf_load(dphi + i * ld + c), zero);
            fb_vf_store_part(dx + i * dx_stride + c, value, lanes);
        }
    }
}

/* ---- the variant --------------------------------------------------------------------------- */

/* What every pass starts with: the map, and where scratch goes on after the packed projection. */
struct performer_setup {
    struct performer_own own;
    struct linear_map map;
    size_t used_bytes;
    void *rest; /* NULL when only counting */
};

static struct linear_map performer_map(const struct performer_own *own, bool relu)
{
    if (relu) {
        return (struct linear_map){
            .count = own->dim,
            .own = own,
            .queries = performer_relu,
            .keys = performer_relu_keys,
            .pull = performer_relu_pull,
        };
    }
    return (struct linear_map){
        .count = own->features,
        .key_epsilon = PERFORMER_EPSILON,
        .own = own,
        .queries = performer_queries,
        .score_keys = performer_score_keys,
        .keys = performer_keys,
        .exponent = performer_exponent,
        .pull = performer_pull,
        .settle = own->settles ? performer_settle : NULL,
    };
}

/* setup is pointed into by its map: it must stay where it is. With scratch NULL it only counts. */
static void performer_set_up(struct performer_setup *setup, const struct fb_problem *p,
                             const void *constants, void *scratch)
{
    const bool relu = fb_performer_is_relu(p);
    struct fb_scratch_cursor cursor = {(unsigned char *)scratch, 0};
    struct performer_own *own = &setup->own;
    own->dim = p->qk_dim;
    own->features = fb_problem_int_param(p, FB_PERFORMER_FEATURES);
    own->ld = fb_vf_round_up(own->features);
    own->half_scale = (float)(0.5 / sqrt((double)own->dim));
    own->unpacked = (const float *)constants;
    /* f32 has the digits for narrow heads */
    own->settles = p->dtype != FB_F32 || p->qk_dim > 128;
    own->projection = relu ? NULL : fb_scratch_take_f32(&cursor, own->dim * own->ld);
    setup->map = performer_map(own, relu);
    setup->used_bytes = cursor.used_bytes;
    setup->rest = scratch == NULL ? NULL : cursor.base + cursor.used_bytes;
    if (scratch != NULL && !relu) {
        performer_pack(own, own->unpacked);
    }
}

static enum fb_status performer_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                             struct fb_error *why)
{
    return fb_baseline_cpu_supports(problem, pass, "performer fused", why);
}

static void performer_cpu_sizes(const struct fb_problem *problem, int threads,
                                struct fb_sizes *sizes)
{
    struct performer_setup setup;
    struct linear_kernel forward = {0};
    struct linear_gradient gradient;
    struct linear_decode decode;
    performer_set_up(&setup, problem, NULL, NULL);
    sizes->saved_bytes = linear_saved_bytes(problem);
    sizes->forward_scratch_bytes =
        setup.used_bytes + linear_plan(&forward, problem, &setup.map, threads, NULL);
    sizes->backward_scratch_bytes =
        setup.used_bytes + linear_plan_gradient(&gradient, problem, &setup.map, threads, NULL);
    sizes->decode_scratch_bytes =
        setup.used_bytes + linear_plan_decode(&decode, problem, &setup.map, threads, NULL);
    sizes->decode_state_bytes = linear_decode_state_bytes(&decode);
}

static enum fb_status performer_cpu_forward(const struct fb_problem *problem,
                                            const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    struct performer_setup setup;
    struct linear_kernel kernel = {0};
    performer_set_up(&setup, problem, call->constants, call->scratch);
    (void)linear_plan(&kernel, problem, &setup.map, call->threads, setup.rest);
    linear_forward(&kernel, call);
    return FB_OK;
}

static enum fb_status performer_cpu_backward(const struct fb_problem *problem,
                                             const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    struct performer_setup setup;
    struct linear_gradient gradient;
    performer_set_up(&setup, problem, call->constants, call->scratch);
    (void)linear_plan_gradient(&gradient, problem, &setup.map, call->threads, setup.rest);
    linear_backward(&gradient, call);
    return FB_OK;
}

static enum fb_status performer_cpu_decode(const struct fb_problem *problem,
                                           const struct fb_call *call, struct fb_error *error)
{
    struct performer_setup setup;
    struct linear_decode decode;
    performer_set_up(&setup, problem, call->constants, call->scratch);
    (void)linear_plan_decode(&decode, problem, &setup.map, call->threads, setup.rest);
    return linear_decode_token(&decode, call, error);
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
    .backward = performer_cpu_backward,
    .decode = performer_cpu_decode,
};
