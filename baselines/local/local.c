/*
 * Local attention as a mechanism: its window and what it costs.
 * Beltagy et al., "Longformer", 2020, section 3.1; cost as PERFORMANCE.md, "The floor".
 */
#include "local/local.h"

#include "baseline_support.h"

/* Sum of min(max(t, 0), sources) over the integers t < x. */
static double ramp_sum(double x, double sources)
{
    if (x <= 0.0) {
        return 0.0;
    }
    if (x <= sources) {
        return x * (x - 1.0) / 2.0;
    }
    return sources * (sources - 1.0) / 2.0 + (x - sources) * sources;
}

/* Pairs with j - i <= ahead: sink i sees min(max(i + ahead + 1, 0), S) sources. */
static double pairs_up_to(double sinks, double sources, double ahead)
{
    return ramp_sum(sinks + ahead + 1.0, sources) - ramp_sum(ahead + 1.0, sources);
}

/* Pairs inside the window, exactly (below 2^53 pairs). */
static double local_pairs(const struct fb_problem *p)
{
    const double sinks = (double)p->q_len;
    const double sources = (double)p->kv_len;
    const double window = (double)fb_baseline_int_param(p, FB_LOCAL_WINDOW);
    const double ahead = p->causal ? 0.0 : window;
    return pairs_up_to(sinks, sources, ahead) - pairs_up_to(sinks, sources, -window - 1.0);
}

static enum fb_status local_supports(const struct fb_problem *problem, struct fb_error *why)
{
    (void)problem;
    (void)why;
    return FB_OK;
}

static void local_cost(const struct fb_problem *p, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)p->batch * (double)p->heads;
    const double forward = 2.0 * heads * local_pairs(p) * ((double)p->qk_dim + (double)p->v_dim);
    const double backward = 2.5 * forward;
    cost->bytes_min = fb_baseline_bytes(p, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

static const struct fb_param local_params[] = {
    {.name = "window",
     .type = FB_PARAM_INT,
     .default_value = 128,
     .min = 0,
     .max = 1 << 30,
     .choices = NULL,
     .help = "a sink sees the sources at a distance up to this; causal: only backwards"},
};

const struct fb_mechanism fb_local = {
    .name = "local",
    .title = "Local",
    .reference = "sliding window, Beltagy et al., Longformer, 2020, section 3.1",
    .params = local_params,
    .param_count = sizeof local_params / sizeof local_params[0],
    .recurrent = false,
    .supports = local_supports,
    .cost = local_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
