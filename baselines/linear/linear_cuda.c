/* Linear attention on a GPU as a variant: phi(x) = elu(x) + 1, eps = 1e-6; see linear_cuda.h. */
#include "linear/linear_cuda.h"

#include "linear/linear.h"

static struct fb_linear_cuda_form linear_form(const struct fb_problem *p)
{
    return (struct fb_linear_cuda_form){
        .map = FB_LINEAR_CUDA_ELU,
        .epsilon = 1e-6F,
        .features = p->dtype,
        .feature_count = p->qk_dim,
    };
}

static enum fb_status linear_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                           struct fb_error *why)
{
    return fb_linear_cuda_supports(problem, pass, "linear fused on cuda", why);
}

static void linear_cuda_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    const struct fb_linear_cuda_form form = linear_form(problem);
    (void)threads;
    *sizes = (struct fb_sizes){.decode_state_bytes = fb_linear_cuda_state_bytes(problem, &form)};
    fb_linear_cuda_sizes(problem, &form, sizes);
}

static enum fb_status linear_cuda_forward(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    const struct fb_linear_cuda_form form = linear_form(problem);
    return fb_linear_cuda_forward(problem, &form, call, error);
}

static enum fb_status linear_cuda_backward(const struct fb_problem *problem,
                                           const struct fb_call *call, struct fb_error *error)
{
    const struct fb_linear_cuda_form form = linear_form(problem);
    return fb_linear_cuda_backward(problem, &form, call, error);
}

static enum fb_status linear_cuda_decode(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    const struct fb_linear_cuda_form form = linear_form(problem);
    return fb_linear_cuda_decode(problem, &form, call, NULL, error);
}

const struct fb_attention fb_linear_fused_cuda = {
    .mechanism = &fb_linear,
    .variant = "fused",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = linear_cuda_supports,
    .sizes = linear_cuda_sizes,
    .forward = linear_cuda_forward,
    .backward = linear_cuda_backward,
    .decode = linear_cuda_decode,
};
