/*
 * Linear attention for one instruction set: phi(x) = elu(x) + 1, eps = 1e-6. See linear_core.h for
 * the method.
 */
#include "linear/linear.h"

#include "linear/linear_core.h"

struct linear_own {
    int64_t dim;
};

/* elu(x) + 1; exp is held at the smallest normal number, which is 0 to every sum here. */
FB_ALWAYS_INLINE fb_vf linear_phi(fb_vf x)
{
    const fb_vf zero = fb_vf_zero();
    const fb_vf exponent = fb_vf_max(fb_vf_set1(FB_EXP_LOWEST), fb_vf_min(zero, x));
    return fb_vf_select_lt(zero, x, fb_vf_add(x, fb_vf_set1(1.0F)), fb_vf_exp_in_range(exponent));
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
    };
}

static enum fb_status linear_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                          struct fb_error *why)
{
    (void)pass;
    return fb_baseline_cpu_supports(problem, "linear fused", why);
}

static void linear_cpu_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    const struct linear_own own = {problem->qk_dim};
    const struct linear_map map = linear_own_map(&own);
    struct linear_kernel kernel = {0};
    *sizes = (struct fb_sizes){0};
    sizes->forward_scratch_bytes = linear_plan(&kernel, problem, &map, threads, NULL);
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

const struct fb_attention FB_ISA_SYMBOL(fb_linear_fused) = {
    .mechanism = &fb_linear,
    .variant = "fused",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = linear_cpu_supports,
    .sizes = linear_cpu_sizes,
    .forward = linear_cpu_forward,
    .backward = NULL,
    .decode = NULL,
};
