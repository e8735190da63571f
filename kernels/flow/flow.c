/*
 * Flow-Attention as a mechanism: what it is and what it costs. The cost counts the two products
 * with the D x M state (forward 4NDM flop, backward 10NDM); the dot products with the flow sums and
 * the sigmoids score nothing.
 */
#include "flow.h"

#include "flow_options.h"
#include "kernel_support.h"

#include <inttypes.h>

static const char *const phi_names[] = {"sigmoid", "relu", "elu+1", NULL};
static const char *const competition_names[] = {"tokens", "heads", "off", NULL};

static const struct fb_param flow_params[FB_FLOW_PARAM_COUNT] = {
    [FB_FLOW_PARAM_PHI] = {"phi", FB_PARAM_CHOICE, FB_FLOW_SIGMOID, 0, 2, phi_names,
                           "the non-negative map of queries and keys; relu adds 1e-6"},
    [FB_FLOW_PARAM_CLAMP] = {"clamp", FB_PARAM_REAL, 1, 0, 1e6, NULL,
                             "limit of the conserved outgoing flow before the softmax; 0: none"},
    [FB_FLOW_PARAM_EXTRA_EPS] = {"extra_eps", FB_PARAM_REAL, 0, 0, 1, NULL,
                                 "added to each of the four inner products (vision code: 1e-6)"},
    [FB_FLOW_PARAM_COMPETITION] = {"competition", FB_PARAM_CHOICE, FB_FLOW_OVER_TOKENS, 0, 2,
                                   competition_names,
                                   "softmax over the sources, over the heads (released "
                                   "long-range code), or none (ablation)"},
    [FB_FLOW_PARAM_ALLOCATION] = {"allocation", FB_PARAM_BOOL, 1, 0, 1, NULL,
                                  "sigmoid of the conserved incoming flow; false: ablation"},
};

static enum fb_status flow_supports(const struct fb_problem *problem, struct fb_error *why)
{
    if (problem->causal && problem->q_len != problem->kv_len) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "causal flow needs as many queries as keys: seq_len is %" PRId64
                            ", kv_len is %" PRId64 "; make them equal",
                            problem->q_len, problem->kv_len);
    }
    const struct fb_flow_options options = fb_flow_options_of(problem);
    if (problem->causal && options.competition == FB_FLOW_OVER_HEADS) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "causal flow has no competition over heads: the released long-range "
                            "code is bidirectional; use competition tokens or off");
    }
    for (int64_t b = 0; problem->causal && b < problem->batch; b++) {
        const int64_t q = problem->q_lengths != NULL ? problem->q_lengths[b] : problem->q_len;
        const int64_t kv = problem->kv_lengths != NULL ? problem->kv_lengths[b] : problem->kv_len;
        if (q != kv) {
            return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                                "causal flow needs as many queries as keys: q_lengths[%" PRId64
                                "] is %" PRId64 ", kv_lengths is %" PRId64 "; make them equal",
                                b, q, kv);
        }
    }
    return FB_OK;
}

static void flow_cost(const struct fb_problem *problem, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)problem->batch * (double)problem->heads;
    const double state = (double)problem->qk_dim * (double)problem->v_dim;
    if (pass == FB_DECODE) { /* the state takes the token in, then answers its query */
        cost->flop = 4.0 * heads * state;
        cost->bytes_min = fb_decode_bytes(problem, problem->heads, state);
        return;
    }
    const double tokens = (double)problem->q_len + (double)problem->kv_len;
    const double product = heads * tokens * state;
    const double forward = 2.0 * product;
    const double backward = 5.0 * product;
    cost->bytes_min = fb_problem_bytes(problem, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

const struct fb_mechanism fb_flow = {
    .name = "flow",
    .title = "Flow-Attention",
    .reference = "Wu et al., Flowformer, ICML 2022, eqs. 4-8, released core module",
    .params = flow_params,
    .param_count = FB_FLOW_PARAM_COUNT,
    .recurrent = true,
    .sinks_alone = false,
    .supports = flow_supports,
    .cost = flow_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
