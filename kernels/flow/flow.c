/*
 * Flow-Attention as a mechanism: what it is and what it costs. The cost counts the two products
 * with the D x M state (forward 4NDM flop, backward 10NDM); the dot products with the flow sums and
 * the sigmoids score nothing.
 */
#include "flow.h"

#include "kernel_support.h"

#include <inttypes.h>

static enum fb_status flow_supports(const struct fb_problem *problem, struct fb_error *why)
{
    if (problem->causal && problem->q_len != problem->kv_len) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "causal flow needs as many queries as keys: seq_len is %" PRId64
                            ", kv_len is %" PRId64 "; make them equal",
                            problem->q_len, problem->kv_len);
    }
    return FB_OK;
}

static void flow_cost(const struct fb_problem *problem, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)problem->batch * (double)problem->heads;
    const double tokens = (double)problem->q_len + (double)problem->kv_len;
    const double product = heads * tokens * (double)problem->qk_dim * (double)problem->v_dim;
    const double forward = 2.0 * product;
    const double backward = 5.0 * product;
    cost->bytes_min = fb_problem_bytes(problem, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

const struct fb_mechanism fb_flow = {
    .name = "flow",
    .title = "Flow-Attention",
    .reference = "Wu et al., Flowformer, ICML 2022, eqs. 4-8, released core module",
    .params = NULL,
    .param_count = 0,
    .recurrent = true,
    .supports = flow_supports,
    .cost = flow_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
