/* How long will it take: see prediction.h. */
#include "prediction.h"

#include <math.h>
#include <string.h>

/* Scaling a time that is mostly fixed cost would overstate: below this, only near cases count. */
static const double telling_time_s = 1e-3;
static const double near_ratio = 16;

static bool same_kind(const struct fb_case *a, const struct fb_case *b)
{
    return a->mechanism == b->mechanism && strcmp(a->variant, b->variant) == 0 &&
           a->device == b->device && a->isa == b->isa && a->threads == b->threads &&
           a->dtype == b->dtype && a->causal == b->causal && a->pass == b->pass;
}

static double floor_s(const struct fb_cost *cost, const struct fb_ceiling *ceiling)
{
    if (ceiling == NULL)
        return (double)NAN;
    /* fmax passes over a NaN: one known ceiling is enough for a guess. */
    return fmax(cost->bytes_min / ceiling->copy_bytes_per_s, cost->flop / ceiling->gemm_flop_per_s);
}

void fb_predict_case(const struct fb_plan *plan, const struct fb_prediction_fact *facts,
                     size_t index, const struct fb_ceiling *ceiling,
                     struct fb_prediction *prediction)
{
    const struct fb_case *item = &plan->cases[index];
    struct fb_cost cost;
    double nearest = (double)INFINITY;

    fb_case_cost(item, &cost);
    *prediction = (struct fb_prediction){.call_s = (double)NAN};
    for (size_t i = 0; i < plan->cases_count; i++) {
        struct fb_cost other;
        if (i == index || plan->cases[i].skip_reason != NULL ||
            !(facts[i].finished || facts[i].timed_out) || !same_kind(item, &plan->cases[i]))
            continue;
        fb_case_cost(&plan->cases[i], &other);
        const double ratio = cost.flop / other.flop;
        if (facts[i].timed_out && ratio >= 1) {
            prediction->hopeless = true;
            prediction->after = &plan->cases[i];
        }
        const double distance = fabs(log(ratio));
        if (facts[i].finished && distance < nearest &&
            (facts[i].call_s >= telling_time_s || ratio <= near_ratio)) {
            nearest = distance;
            prediction->call_s = facts[i].call_s * ratio;
            prediction->measured = true;
        }
    }
    if (isnan(prediction->call_s))
        prediction->call_s = FB_PREDICT_FLOOR_MULTIPLE * floor_s(&cost, ceiling);
}

bool fb_prediction_is_too_long(const struct fb_prediction *prediction, double timeout_s)
{
    const double least_s =
        prediction->measured ? FB_PREDICT_CALLS_MIN * prediction->call_s : prediction->call_s;

    return timeout_s > 0 && least_s > timeout_s;
}

double fb_predict_worker_s(const struct fb_measure_settings *settings, double call_s)
{
    /* Start, inputs and oracle; then the first call, where calls are short a second one for the
     * memory, and the samples, each with an eviction of the caches before it. */
    const double fixed_s = 0.6;
    const double eviction_s = settings->cache == FB_CACHE_COLD ? 0.01 : 0;
    const double short_call_s = 0.25;
    const double usual_samples =
        settings->samples > 0 ? settings->samples : fmax(settings->min_samples, 30);
    const double sampling_s = fmin(settings->max_time_s, usual_samples * (call_s + eviction_s));

    if (isnan(call_s))
        return fixed_s + settings->warmup_s + settings->max_time_s;
    return fixed_s + settings->warmup_s + (call_s > short_call_s ? 1 : 2) * call_s +
           fmax(sampling_s, call_s);
}
