/* Two stages: see gate.h. */
#include "gate.h"

#include "stats_infer.h"
#include "stats_rank.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char *fb_verdict_name(enum fb_verdict verdict)
{
    static const char *const names[FB_VERDICT_COUNT] = {
        [FB_VERDICT_PASS] = "PASS",
        [FB_VERDICT_FASTER] = "FASTER",
        [FB_VERDICT_FAIL] = "FAIL",
        [FB_VERDICT_AMBIGUOUS] = "AMBIGUOUS",
        [FB_VERDICT_INCOMPARABLE] = "INCOMPARABLE",
    };
    return names[verdict];
}

void fb_gate_rule_init(struct fb_gate_rule *rule)
{
    *rule = (struct fb_gate_rule){
        .threshold = 0.03,
        .alpha = 0.01,
        .screen_pairs = 10,
        .confirm_pairs = 30,
        .confirm_pairs_noisy = 60,
        .noisy_sigma = 0.04,
        .power = 0.8,
        .detectable_max = 0.25,
    };
}

/* Median, and the deviation that the middle half of normal values would have. */
static enum fb_status describe(const double *ratios, size_t count, double *median, double *sigma,
                               struct fb_error *error)
{
    const double quartile_of_normal = 0.6744897501960817;

    *median = (double)NAN;
    *sigma = (double)NAN;
    if (count == 0)
        return FB_OK;
    double *sorted = calloc(count, sizeof *sorted);
    if (sorted == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu ratios", count);
    memcpy(sorted, ratios, count * sizeof *sorted);
    fb_stats_sort(sorted, count);
    *median = fb_stats_median(sorted, count);
    const double range =
        fb_stats_quantile(sorted, count, 0.75) - fb_stats_quantile(sorted, count, 0.25);
    *sigma = range / (2.0 * quartile_of_normal) / sqrt(2.0);
    free(sorted);
    return FB_OK;
}

enum fb_status fb_gate_screen(const struct fb_gate_rule *rule, const double *ratios, size_t count,
                              struct fb_gate_screen *screen, struct fb_error *error)
{
    const double limit = log1p(rule->threshold);

    memset(screen, 0, sizeof *screen);
    const enum fb_status status = describe(ratios, count, &screen->median, &screen->sigma, error);
    if (status != FB_OK || count == 0)
        return status;
    if (screen->median > limit)
        screen->suspicion = FB_SUSPECT_SLOWER;
    else if (screen->median < -limit)
        screen->suspicion = FB_SUSPECT_FASTER;
    if (screen->suspicion != FB_SUSPECT_NOTHING)
        screen->confirm_pairs =
            screen->sigma > rule->noisy_sigma ? rule->confirm_pairs_noisy : rule->confirm_pairs;
    return FB_OK;
}

/* ---- power ------------------------------------------------------------------------------------
 */

/* Chance that an effect of this log ratio becomes a candidate and is confirmed. */
static double chance_of_finding(const struct fb_gate_rule *rule, double effect, double sigma,
                                size_t candidates)
{
    const double median_deviation_factor = 1.2533141373155001; /* sqrt(pi/2) */
    const double shift = effect - log1p(rule->threshold);
    const double deviation = sigma * sqrt(2.0);
    const double alpha = rule->alpha / (double)(candidates > 1 ? candidates : 1);
    const size_t fresh =
        sigma > rule->noisy_sigma ? rule->confirm_pairs_noisy : rule->confirm_pairs;

    if (deviation <= 0.0)
        return shift > 0.0 ? 1.0 : 0.0;
    const double screened = fb_stats_normal_cdf(
        shift / (median_deviation_factor * deviation / sqrt((double)rule->screen_pairs)));
    return screened * fb_stats_signed_rank_power(shift, deviation, fresh, alpha);
}

double fb_gate_detectable(const struct fb_gate_rule *rule, double sigma, size_t candidates)
{
    if (isnan(sigma))
        return (double)NAN;
    double low = log1p(rule->threshold);
    double high = low + 20.0 * sigma + 1e-9;
    for (int i = 0; i < 60; i++) {
        const double middle = low + (high - low) / 2.0;
        if (chance_of_finding(rule, middle, sigma, candidates) < rule->power)
            low = middle;
        else
            high = middle;
    }
    return expm1(high);
}

/* ---- deciding ---------------------------------------------------------------------------------
 */

static bool is_tested(const struct fb_gate_case *one)
{
    return one->screen.suspicion != FB_SUSPECT_NOTHING &&
           one->fresh_count >= one->screen.confirm_pairs;
}

/* Holm over the candidates of one direction. A candidate whose fresh pairs are not all there
 * counts, though it cannot be rejected: leaving it out would favour the others. */
static enum fb_status test_family(const struct fb_gate_rule *rule, enum fb_suspicion direction,
                                  struct fb_gate_case *cases, size_t count, struct fb_error *error)
{
    const double limit = log1p(rule->threshold);
    size_t members = 0;
    double *p = calloc(count + 1, sizeof *p);
    enum fb_status status = FB_OK;

    if (p == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu candidates", count);
    for (size_t i = 0; i < count && status == FB_OK; i++) {
        struct fb_signed_rank test = {0, 0.0, 1.0, 1.0};
        if (cases[i].screen.suspicion != direction)
            continue;
        if (is_tested(&cases[i]))
            status = fb_stats_signed_rank(cases[i].fresh_ratios, cases[i].fresh_count,
                                          direction == FB_SUSPECT_SLOWER ? limit : -limit,
                                          FB_SIGNED_RANK_AUTO, &test, error);
        p[members++] = direction == FB_SUSPECT_SLOWER ? test.p_greater : test.p_less;
    }
    if (status == FB_OK)
        status = fb_stats_holm(p, members, p, error);
    members = 0;
    for (size_t i = 0; i < count && status == FB_OK; i++) {
        if (cases[i].screen.suspicion == direction)
            cases[i].p_adjusted = p[members++];
    }
    free(p);
    return status;
}

static void judge(const struct fb_gate_rule *rule, struct fb_gate_case *one)
{
    const double limit = log1p(rule->threshold);
    const bool confirmed = is_tested(one) && one->p_adjusted <= rule->alpha;

    one->verdict = FB_VERDICT_PASS;
    one->reason = "";
    if (one->screen_count < rule->screen_pairs) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        one->reason = "too few pairs of processes for a verdict";
    } else if (one->screen.suspicion == FB_SUSPECT_SLOWER && confirmed) {
        one->verdict = FB_VERDICT_FAIL;
        one->reason = "slower, confirmed by fresh pairs";
    } else if (one->screen.suspicion == FB_SUSPECT_FASTER && confirmed) {
        one->verdict = FB_VERDICT_FASTER;
        one->reason = "faster, confirmed by fresh pairs";
    } else if (one->screen.suspicion == FB_SUSPECT_SLOWER && !is_tested(one)) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        one->reason = "looks slower, too few fresh pairs to confirm it";
    } else if (one->screen.suspicion == FB_SUSPECT_SLOWER && one->interval.high >= limit) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        one->reason = "looks slower, fresh pairs neither confirm nor refute it";
    } else if (one->detectable > rule->detectable_max) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        one->reason = "too noisy: only a large slow-down could have been found";
    } else if (one->screen.suspicion == FB_SUSPECT_SLOWER) {
        one->reason = "looked slower at first, refuted by fresh pairs";
    } else if (one->screen.suspicion == FB_SUSPECT_FASTER) {
        one->reason = "looked faster at first, not confirmed";
    }
}

enum fb_status fb_gate_decide(const struct fb_gate_rule *rule, struct fb_gate_case *cases,
                              size_t count, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    size_t candidates = 0;

    for (size_t i = 0; i < count && status == FB_OK; i++) {
        struct fb_gate_case *one = &cases[i];
        one->p_adjusted = (double)NAN;
        status = fb_gate_screen(rule, one->screen_ratios, one->screen_count, &one->screen, error);
        candidates += one->screen.suspicion == FB_SUSPECT_SLOWER;
    }
    if (status == FB_OK)
        status = test_family(rule, FB_SUSPECT_SLOWER, cases, count, error);
    if (status == FB_OK)
        status = test_family(rule, FB_SUSPECT_FASTER, cases, count, error);
    for (size_t i = 0; i < count && status == FB_OK; i++) {
        struct fb_gate_case *one = &cases[i];
        const bool fresh = one->fresh_count > 0;
        const double *ratios = fresh ? one->fresh_ratios : one->screen_ratios;
        const size_t pairs = fresh ? one->fresh_count : one->screen_count;
        double median;
        status = describe(ratios, pairs, &median, &one->sigma, error);
        if (status == FB_OK)
            status = fb_stats_hodges_lehmann(ratios, pairs, rule->alpha, &one->estimate,
                                             &one->interval, error);
        if (status != FB_OK)
            break;
        one->detectable = fb_gate_detectable(rule, one->sigma, candidates);
        judge(rule, one);
    }
    return status;
}
