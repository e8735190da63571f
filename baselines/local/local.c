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
    const double window = (double)fb_problem_int_param(p, FB_LOCAL_WINDOW);
    const double ahead = p->causal ? 0.0 : window;
    return pairs_up_to(sinks, sources, ahead) - pairs_up_to(sinks, sources, -window - 1.0);
}

/* Pairs of the strided pattern: the sequences of the tokens that see each other, squared. */
static double strided_pairs(const struct fb_problem *p)
{
    const int64_t stride = fb_local_stride(p);
    const int64_t longer = p->q_len % stride, tokens = p->q_len / stride;
    const double rest = (double)longer, whole = (double)tokens;
    return rest * (whole + 1.0) * (whole + 1.0) + ((double)stride - rest) * whole * whole;
}

static enum fb_status local_supports(const struct fb_problem *problem, struct fb_error *why)
{
    if (!fb_local_is_strided(problem)) {
        return FB_OK;
    }
    if (problem->causal || problem->q_len != problem->kv_len) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "local: the strided pattern is bidirectional self-attention: leave "
                            "causal unset and make seq_len (%lld) equal kv_len (%lld)",
                            (long long)problem->q_len, (long long)problem->kv_len);
    }
    if (problem->q_lengths != NULL || problem->kv_lengths != NULL) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "local: the strided pattern depends on the length, and the released "
                            "code's padding mask belongs to other tokens; leave lengths unset");
    }
    return FB_OK;
}

static void local_cost(const struct fb_problem *p, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)p->batch * (double)p->heads;
    if (pass == FB_DECODE) { /* the window behind the token, and the token */
        struct fb_problem window = *p;
        const int64_t keys = fb_problem_int_param(p, FB_LOCAL_WINDOW) + 1;
        window.kv_len = keys < p->kv_len ? keys : p->kv_len;
        cost->flop = 2.0 * heads * (double)window.kv_len * ((double)p->qk_dim + (double)p->v_dim);
        cost->bytes_min = fb_problem_bytes(&window, pass);
        return;
    }
    const double pairs = fb_local_is_strided(p) ? strided_pairs(p) : local_pairs(p);
    const double forward = 2.0 * heads * pairs * ((double)p->qk_dim + (double)p->v_dim);
    const double backward = 2.5 * forward;
    cost->bytes_min = fb_problem_bytes(p, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

static const char *const pattern_names[] = {"window", "strided", NULL};

static const struct fb_param local_params[FB_LOCAL_PARAM_COUNT] = {
    [FB_LOCAL_WINDOW] = {"window", FB_PARAM_INT, 128, 0, 1 << 30, NULL,
                         "a sink sees the sources at a distance up to this; causal: only "
                         "backwards"},
    [FB_LOCAL_PATTERN] = {"pattern", FB_PARAM_CHOICE, FB_LOCAL_PATTERN_WINDOW, 0, 1, pattern_names,
                          "window, or strided as in the released long-range code (see block)"},
    [FB_LOCAL_BLOCK] = {"block", FB_PARAM_INT, 64, 1, 1 << 20, NULL,
                        "pattern strided: tokens that see each other, appended ones included; "
                        "they lie seq_len / block + 1 apart"},
};

const struct fb_mechanism fb_local = {
    .name = "local",
    .title = "Local",
    .reference = "sliding window, Beltagy et al., Longformer, 2020, section 3.1",
    .params = local_params,
    .param_count = FB_LOCAL_PARAM_COUNT,
    .recurrent = true,
    .sinks_alone = true,
    .supports = local_supports,
    .cost = local_cost,
    .constants_bytes = NULL,
    .prepare = NULL,
};
