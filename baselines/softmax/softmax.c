/*
 * Softmax attention as a mechanism: what it is and what it costs.
 * Vaswani et al., NeurIPS 2017, eq. 1; cost as PERFORMANCE.md, "The floor".
 */
#include "softmax/softmax.h"

#include "baseline_support.h"

/* Pairs (sink, source) that the floor counts: all of them, or the triangle j <= i, which is half
 * of them when L = S. */
static double softmax_pairs(const struct fb_problem *p)
{
    const double sinks = (double)p->q_len;
    const double sources = (double)p->kv_len;
    if (!p->causal) {
        return sinks * sources;
    }
    if (sinks <= sources) {
        return sinks * sinks / 2.0;
    }
    return sources * sources / 2.0 + (sinks - sources) * sources;
}

static enum fb_status softmax_supports(const struct fb_problem *problem, struct fb_error *why)
{
    (void)problem;
    (void)why;
    return FB_OK;
}

static void softmax_cost(const struct fb_problem *p, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)p->batch * (double)p->heads;
    const double forward = 2.0 * heads * softmax_pairs(p) * ((double)p->qk_dim + (double)p->v_dim);
    const double backward = 2.5 * forward;
    cost->bytes_min = fb_problem_bytes(p, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

const struct fb_mechanism fb_softmax = {
    .name = "softmax",
    .title = "Softmax",
    .reference = "Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1",
    .params = NULL,
    .param_count = 0,
    .recurrent = false,
    .sinks_alone = true,
    .supports = softmax_supports,
    .cost = softmax_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
