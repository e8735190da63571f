/*
 * Linear attention as a mechanism: what it is and what it costs.
 * Katharopoulos et al., ICML 2020; cost as PERFORMANCE.md, "The floor".
 */
#include "linear/linear.h"

#include "baseline_support.h"

static enum fb_status linear_supports(const struct fb_problem *problem, struct fb_error *why)
{
    (void)problem;
    (void)why;
    return FB_OK;
}

/* Forward: the state sum phi(k) v^T and the product phi(q) state. Backward: both again transposed,
 * for each factor, and the state once more. Causal counts the recurrence, which is the same. */
static void linear_cost(const struct fb_problem *p, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)p->batch * (double)p->heads;
    const double state = (double)p->qk_dim * (double)p->v_dim;
    if (pass == FB_DECODE) { /* keys go into the state of their head, every query reads it */
        cost->flop = 2.0 * state * (heads + (double)p->batch * (double)p->kv_heads);
        cost->bytes_min = fb_decode_bytes(p, p->kv_heads, state);
        return;
    }
    const double tokens = (double)p->q_len + (double)p->kv_len;
    const double product = heads * tokens * state;
    const double forward = 2.0 * product;
    const double backward = 5.0 * product;
    cost->bytes_min = fb_problem_bytes(p, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

const struct fb_mechanism fb_linear = {
    .name = "linear",
    .title = "Linear",
    .reference = "Katharopoulos et al., Transformers are RNNs, ICML 2020, phi = elu + 1",
    .params = NULL,
    .param_count = 0,
    .recurrent = true,
    .sinks_alone = true,
    .supports = linear_supports,
    .cost = linear_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
