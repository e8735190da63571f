/* From the pairs of a live comparison to its verdicts: see ab_state.h. */
#include "ab_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- control legs -----------------------------------------------------------------------------
 */

enum fb_status fb_ab_control(const struct fb_ab_state *state, bool layout,
                             struct fb_compare_control *control, struct fb_error *error)
{
    struct fb_gate_rule rule = state->rule;
    double *sigmas = calloc(state->plan->cases_count + 1, sizeof *sigmas);
    enum fb_status status = FB_OK;

    memset(control, 0, sizeof *control);
    if (sigmas == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu cases",
                            state->plan->cases_count);
    rule.threshold = state->options->rule->threshold;
    for (size_t i = 0; i < state->plan->cases_count && status == FB_OK; i++) {
        const struct fb_ab_case *one = &state->cases[i];
        const size_t count = layout ? one->layout_count : one->same_count;
        struct fb_gate_screen found;
        if (count == 0)
            continue;
        status = fb_gate_screen(&rule, layout ? one->layout : one->same, count, &found, error);
        if (status != FB_OK)
            break;
        const double moved = expm1(fabs(found.median));
        sigmas[control->cases++] = found.sigma;
        control->pairs = count > control->pairs ? count : control->pairs;
        control->candidates += found.suspicion != FB_SUSPECT_NOTHING;
        if (moved >= control->largest) {
            control->largest = moved;
            control->largest_case = &one->rows[FB_AB_OLD];
        }
    }
    fb_stats_sort(sigmas, control->cases);
    control->spread = fb_stats_median(sigmas, control->cases);
    free(sigmas);
    return status;
}

/* ---- verdicts ---------------------------------------------------------------------------------
 */

static bool is_gated(const struct fb_ab_case *one)
{
    return one->running;
}

static void take_verdict(const struct fb_ab_state *state, const struct fb_ab_case *one,
                         const struct fb_gate_case *gated, struct fb_compared *compared)
{
    compared->unit = FB_UNIT_PAIRS;
    compared->verdict = gated->verdict;
    compared->slower = gated->verdict == FB_VERDICT_FAIL;
    compared->base_count = compared->fresh_count = one->screen_count + one->fresh_count;
    compared->change = expm1(gated->estimate);
    compared->change_low = expm1(gated->interval.low);
    compared->change_high = expm1(gated->interval.high);
    compared->detectable = gated->detectable;
    compared->p_adjusted = gated->p_adjusted;
    compared->sigma = gated->sigma;
    compared->threshold = state->rule.threshold;
    compared->screen_ratios = one->screen;
    compared->screen_ratios_count = one->screen_count;
    compared->fresh_ratios = one->fresh;
    compared->fresh_ratios_count = one->fresh_count;
    if (gated->reason[0] != '\0')
        fb_compared_explain(compared, "%s", gated->reason);
    if (one->left_over)
        fb_compared_explain(compared, "cut short by --budget");
}

static enum fb_status gate_all(const struct fb_ab_state *state, struct fb_gate_case *gated,
                               struct fb_error *error)
{
    size_t count = 0;

    for (size_t i = 0; i < state->plan->cases_count; i++) {
        const struct fb_ab_case *one = &state->cases[i];
        if (!is_gated(one))
            continue;
        gated[count++] = (struct fb_gate_case){.screen_ratios = one->screen,
                                               .screen_count = one->screen_count,
                                               .fresh_ratios = one->fresh,
                                               .fresh_count = one->fresh_count};
    }
    return fb_gate_decide(&state->rule, gated, count, error);
}

enum fb_status fb_ab_decide(struct fb_ab_state *state, struct fb_arena *arena,
                            struct fb_comparison *comparison, struct fb_error *error)
{
    size_t next = 0;
    struct fb_gate_case *gated = calloc(state->plan->cases_count + 1, sizeof *gated);
    enum fb_status status = fb_comparison_init(comparison, state->plan->cases_count, arena, error);

    if (gated == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu cases",
                            state->plan->cases_count);
    comparison->live = true;
    comparison->suite = state->suite->name;
    comparison->rule = state->rule;
    if (status == FB_OK)
        status = gate_all(state, gated, error);
    for (size_t i = 0; i < state->plan->cases_count && status == FB_OK; i++) {
        struct fb_ab_case *one = &state->cases[i];
        struct fb_compared *compared =
            fb_comparison_add(comparison, &one->rows[FB_AB_OLD], &one->rows[FB_AB_NEW]);
        const struct fb_gate_case *verdict = is_gated(one) ? &gated[next++] : NULL;
        if (one->left_over && verdict == NULL) {
            compared->verdict = FB_VERDICT_AMBIGUOUS;
            fb_compared_explain(compared, "left over by --budget");
            continue;
        }
        if (!fb_compare_rows_match(compared))
            continue;
        if (fb_compare_rows_count(comparison, compared)) {
            fb_compare_rows_gate(compared);
            continue;
        }
        if (verdict == NULL)
            continue;
        take_verdict(state, one, verdict, compared);
        fb_compare_rows_gate(compared);
    }
    if (status == FB_OK)
        status = fb_ab_control(state, false, &comparison->same, error);
    if (status == FB_OK && state->options->layout)
        status = fb_ab_control(state, true, &comparison->layout, error);
    if (status == FB_OK)
        fb_comparison_finish(comparison);
    free(gated);
    return status;
}
