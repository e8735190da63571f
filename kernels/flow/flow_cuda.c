/* Flow-Attention on a GPU as a variant: what it serves, its sizes, its passes. */
#include "flow_cuda.h"

#include "cuda_device.h"
#include "cuda_limits.h"
#include "flow.h"
#include "flow_options.h"
#include "kernel_support.h"

static enum fb_status cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                    struct fb_error *why)
{
    const struct fb_flow_options options = fb_flow_options_of(p);
    const enum fb_status status = fb_cuda_supports(p, "flow/fused on cuda", why);
    if (status != FB_OK)
        return status;
    if (options.competition == FB_FLOW_OVER_HEADS && pass == FB_DECODE)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "decoding is causal, and causal flow has no competition over heads: "
                            "use competition tokens or off");
    if (options.online && (p->causal || pass == FB_DECODE))
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "causal flow/fused on cuda needs a clamp of at most %g: it is %g "
                            "(0 means none)",
                            (double)FB_FLOW_SAFE_CLAMP, p->params[FB_FLOW_PARAM_CLAMP]);
    if (pass == FB_DECODE && (p->q_lengths != NULL || p->kv_lengths != NULL))
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/fused on cuda has no padding while decoding: leave q_lengths and "
                            "kv_lengths unset");
    return FB_OK;
}

/* Whether clusters fit, or a team, the driver knows: it is asked for the one that the plan has. */
static bool forward_fits(const struct fb_problem *p, const struct fb_flow_cuda_plan *plan)
{
    switch (fb_flow_cuda_plan_forward(plan)) {
    case FB_FLOW_CUDA_STRIPS:
        return fb_flow_cuda_strips_fit(p, plan);
    case FB_FLOW_CUDA_CLUSTERS:
        return p->causal ? fb_flow_cuda_causal_cluster_fits(p, plan)
                         : fb_flow_cuda_cluster_fits(p, plan);
    case FB_FLOW_CUDA_PAIRS:
        return fb_flow_cuda_pair_fits(p, plan);
    case FB_FLOW_CUDA_TEAMS:
        return fb_flow_cuda_team_fits(p, plan);
    default:
        return false;
    }
}

static bool backward_fits(const struct fb_problem *p, const struct fb_flow_cuda_plan *plan)
{
    if (plan->sides_ranks > 0)
        return fb_flow_cuda_causal_sides_fit(p, plan);
    return plan->gradient_strips.ranks > 0 && fb_flow_cuda_cluster_gradient_fits(p, plan);
}

static void cuda_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct fb_flow_cuda_plan plan;
    (void)threads;
    fb_flow_cuda_plan_of(problem, &plan);
    struct fb_flow_cuda_room room = {.hopper = false};
    if (fb_cuda_is_present())
        fb_flow_cuda_read_room(&room);
    *sizes =
        (struct fb_sizes){.saved_bytes = plan.saved_bytes,
                          .forward_scratch_bytes = plan.forward_bytes,
                          .backward_scratch_bytes = fb_flow_cuda_plan_backward_bytes(&plan, &room),
                          .decode_state_bytes = plan.decode_bytes};
}

/* Whether every row of every tensor starts on 16 bytes, and the next one lies behind it, as tensor
 * maps want it. */
static bool has_whole_chunks(const struct fb_tensor *const tensors[], size_t count)
{
    const int64_t most = (int64_t)1 << 38;
    for (size_t i = 0; i < count; i++) {
        const struct fb_tensor *t = tensors[i];
        const int64_t chunk = 16 / (int64_t)fb_dtype_bytes(t->dtype);
        bool whole = (uintptr_t)t->data % 16 == 0;
        for (int d = 0; d < 3; d++)
            whole = whole && t->stride[d] % chunk == 0 &&
                    (t->shape[d] == 1 || (t->stride[d] > 0 && t->stride[d] < most));
        if (!whole)
            return false;
    }
    return true;
}

/* Causally by no cluster: what the gradient's clusters need, where they serve, is left by a kernel
 * of its own. */
static enum fb_status forward_anywhere(const struct fb_problem *problem, const struct fb_call *call,
                                       const struct fb_flow_cuda_plan *plan,
                                       struct fb_flow_cuda_room *room, bool whole,
                                       struct fb_error *error)
{
    if (!problem->causal)
        return fb_flow_cuda_wide(problem, call, plan, error);
    const enum fb_status status = fb_flow_cuda_causal(problem, call, error);
    if (status != FB_OK || call->saved == NULL || plan->sides_ranks == 0)
        return status;
    room->backward = room->hopper && backward_fits(problem, plan);
    if (fb_flow_cuda_backward_way(plan, room, whole) != FB_FLOW_CUDA_CLUSTERS)
        return FB_OK;
    return fb_flow_cuda_causal_save(problem, call, plan, whole, error);
}

static enum fb_status cuda_forward(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    struct fb_flow_cuda_plan plan;
    struct fb_flow_cuda_room room;
    fb_flow_cuda_plan_of(problem, &plan);
    fb_flow_cuda_read_room(&room);
    room.forward = room.hopper && forward_fits(problem, &plan);
    const struct fb_tensor *const tensors[] = {&call->q, &call->k, &call->v, &call->out};
    const bool whole = has_whole_chunks(tensors, sizeof tensors / sizeof tensors[0]);
    switch (fb_flow_cuda_forward_way(&plan, &room, whole)) {
    case FB_FLOW_CUDA_CHUNKS:
        return fb_flow_cuda_causal_split(problem, call, &plan, error);
    case FB_FLOW_CUDA_STRIPS:
        return fb_flow_cuda_strips(problem, call, &plan, error);
    case FB_FLOW_CUDA_PAIRS:
        return fb_flow_cuda_pair(problem, call, &plan, error);
    case FB_FLOW_CUDA_TEAMS:
        return fb_flow_cuda_team(problem, call, &plan, error);
    case FB_FLOW_CUDA_CLUSTERS:
        return problem->causal ? fb_flow_cuda_causal_cluster(problem, call, &plan, error)
                               : fb_flow_cuda_cluster(problem, call, &plan, error);
    default:
        return forward_anywhere(problem, call, &plan, &room, whole, error);
    }
}

static enum fb_status cuda_backward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    struct fb_flow_cuda_plan plan;
    struct fb_flow_cuda_room room;
    fb_flow_cuda_plan_of(problem, &plan);
    fb_flow_cuda_read_room(&room);
    room.backward = room.hopper && backward_fits(problem, &plan);
    const struct fb_tensor *const tensors[] = {&call->q,  &call->k,  &call->v, &call->dout,
                                               &call->dq, &call->dk, &call->dv};
    const bool whole = has_whole_chunks(tensors, sizeof tensors / sizeof tensors[0]);
    const enum fb_flow_cuda_way way = fb_flow_cuda_backward_way(&plan, &room, whole);
    if (way == FB_FLOW_CUDA_CLUSTERS)
        return problem->causal ? fb_flow_cuda_causal_sides(problem, call, &plan, whole, error)
                               : fb_flow_cuda_cluster_gradient(problem, call, &plan, whole, error);
    if (way == FB_FLOW_CUDA_CHUNKS)
        return fb_flow_cuda_causal_split_gradient(problem, call, &plan, error);
    if (problem->causal)
        return fb_flow_cuda_causal_gradient(problem, call, &plan, plan.strips && whole, error);
    return plan.strips ? fb_flow_cuda_gradient(problem, call, &plan, whole, error)
                       : fb_flow_cuda_wide_gradient(problem, call, &plan, error);
}

const struct fb_attention fb_flow_fused_cuda = {
    .mechanism = &fb_flow,
    .variant = "fused",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = cuda_supports,
    .sizes = cuda_sizes,
    .forward = cuda_forward,
    .backward = cuda_backward,
    .decode = fb_flow_cuda_continue,
    .prefill = fb_flow_cuda_continue,
};
