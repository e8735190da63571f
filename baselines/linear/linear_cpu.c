/*
 * Linear attention for one instruction set: phi(x) = elu(x) + 1, eps = 1e-6. See linear_core.h for
 * the method, linear_gradient.h for the gradients and linear_decode.h for decoding.
 */
#include "linear/linear.h"

#include "fast_exp.h"
#include "linear/linear_core.h"
#include "linear/linear_decode.h"
#include "linear/linear_gradient.h"

struct linear_own {
    int64_t dim;
};

/* elu(x) + 1 */
FB_ALWAYS_INLINE fb_vf linear_phi(fb_vf x)
{
    /* max(x, 0) + exp(min(x, 0)): one of the two terms is 0 or 1 */
    const fb_vf zero = fb_vf_zero();
    return fb_vf_add(fb_vf_max(zero, x), fb_vf_exp_fast(fb_vf_min(zero, x)));
}

static void linear_features(const void *own, const float *x, int64_t stride, int64_t rows,
                            float *phi, int64_t ld)
{
    const int64_t dim = ((const struct linear_own *)own)->dim;
    for (int64_t i = 0; i < rows; i++) {
        const float *from = x + i * stride;
        float *to = phi + i * ld;
        int64_t c = 0;
        for (; c + FB_VW <= dim; c += FB_VW) {
            fb_vf_store(to + c, linear_phi(fb_vf_load(from + c)));
        }
        if (c < dim) {
            const int64_t rest = dim - c;
            const fb_vf value = linear_phi(fb_vf_load_part(from + c, rest));
            fb_vf_store(to + c, fb_vf_keep(value, rest));
        }
    }
}

static void linear_key_features(const void *own, const float *x, int64_t stride, int64_t rows,
                                float peak, float epsilon, float *phi, int64_t ld)
{
    (void)peak;
    (void)epsilon;
    linear_features(own, x, stride, rows, phi, ld);
}

/* The slope of phi is 1 where phi > 1, and phi itself elsewhere. */
static void linear_pull(const void *own, const float *x, int64_t stride, int64_t rows,
                        const float *phi, float *dphi, int64_t ld, float *dx, int64_t dx_stride)
{
    (void)x;
    (void)stride;
    const int64_t dim = ((const struct linear_own *)own)->dim;
    const fb_vf one = fb_vf_set1(1.0F);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < dim; c += FB_VW) {
            const fb_vf slope = fb_vf_min(one, fb_vf_load(phi + i * ld + c));
            const fb_vf value = fb_vf_mul(slope, fb_vf_load(dphi + i * ld + c));
            if (c + FB_VW <= dim) {
                fb_vf_store(dx + i * dx_stride + c, value);
            } else {
                fb_vf_store_part(dx + i * dx_stride + c, value, dim - c);
            }
        }
    }
}

static struct linear_map linear_own_map(const struct linear_own *own)
{
    return (struct linear_map){
        .count = own->dim,
        .epsilon = 1e-6F,
        .key_epsilon = 0.0F,
        .own = own,
        .queries = linear_features,
        .score_keys = NULL,
        .keys = linear_key_features,
        .pull = linear_pull,
    };
}

static enum fb_status linear_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                          struct fb_error *why)
{
    return fb_baseline_cpu_supports(problem, pass, "linear fused", why);
}

static void linear_cpu_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    const struct linear_own own = {problem->qk_dim};
    const struct linear_map map = linear_own_map(&own);
    struct linear_kernel kernel = {0};
    struct linear_gradient gradient;
    struct linear_decode decode;
    sizes->saved_bytes = linear_saved_bytes(problem);
    sizes->forward_scratch_bytes = linear_plan(&kernel, problem, &map, threads, NULL);
    sizes->backward_scratch_bytes = linear_plan_gradient(&gradient, problem, &map, threads, NULL);
    sizes->decode_scratch_bytes = linear_plan_decode(&decode, problem, &map, threads, NULL);
    sizes->decode_state_bytes = linear_decode_state_bytes(&decode);
}

static enum fb_status linear_cpu_forward(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    const struct linear_own own = {problem->qk_dim};
    const struct linear_map map = linear_own_map(&own);
    struct linear_kernel kernel = {0};
    (void)linear_plan(&kernel, problem, &map, call->threads, call->scratch);
    linear_forward(&kernel, call);
    return FB_OK;
}

static enum fb_status linear_cpu_backward(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    const struct linear_own own = {problem->qk_dim};
    const struct linear_map map = linear_own_map(&own);
    struct linear_gradient gradient;
    (void)linear_plan_gradient(&gradient, problem, &map, call->threads, call->scratch);
    linear_backward(&gradient, call);
    return FB_OK;
}

static enum fb_status linear_cpu_decode(const struct fb_problem *problem,
                                        const struct fb_call *call, struct fb_error *error)
{
    const struct linear_own own = {problem->qk_dim};
    const struct linear_map map = linear_own_map(&own);
    struct linear_decode decode;
    (void)linear_plan_decode(&decode, problem, &map, call->threads, call->scratch);
    return linear_decode_token(&decode, call, error);
}

const struct fb_attention FB_ISA_SYMBOL(fb_linear_fused) = {
    .mechanism = &fb_linear,
    .variant = "fused",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = linear_cpu_supports,
    .sizes = linear_cpu_sizes,
    .forward = linear_cpu_forward,
    .backward = linear_cpu_backward,
    .decode = linear_cpu_decode,
};
