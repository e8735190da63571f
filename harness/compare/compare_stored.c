/* Two stored runs: see compare_stored.h; docs/measuring.md for the rule. */
#include "compare_stored.h"

#include "stats_infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS_MIN = 6, RESAMPLES = 2000, BOOTSTRAP_SEED = 1 };

/* ---- samples of one case ----------------------------------------------------------------------
 */

struct side_times {
    double *samples;   /* all of the case, grouped by process; owned */
    double *processes; /* the median of each; owned */
    size_t samples_count, processes_count;
    double bad; /* a sample that is no time; NaN... else 0 */
    bool has_bad;
};

static void side_times_free(struct side_times *times)
{
    free(times->samples);
    free(times->processes);
}

/* Samples of all cases in the order of (case_id, process), so that a case is a stretch. */
struct sample_index {
    const struct fb_sample **samples; /* owned */
    size_t count;
};

static int compare_samples(const void *a, const void *b)
{
    const struct fb_sample *x = *(const struct fb_sample *const *)a;
    const struct fb_sample *y = *(const struct fb_sample *const *)b;
    const int order = strcmp(x->case_id, y->case_id);

    return order != 0 ? order : (x->process > y->process) - (x->process < y->process);
}

static enum fb_status index_samples(const struct fb_results *results, struct sample_index *index,
                                    struct fb_error *error)
{
    index->count = results->samples_count;
    index->samples = calloc(index->count + 1, sizeof(const struct fb_sample *));
    if (index->samples == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu samples", index->count);
    for (size_t i = 0; i < index->count; i++)
        index->samples[i] = &results->samples[i];
    if (index->count > 1)
        qsort(index->samples, index->count, sizeof(const struct fb_sample *), compare_samples);
    return FB_OK;
}

static size_t first_of(const struct sample_index *index, const char *case_id)
{
    size_t low = 0;
    size_t high = index->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (strcmp(index->samples[middle]->case_id, case_id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum fb_status gather(const struct sample_index *index, const char *case_id,
                             struct side_times *times, struct fb_error *error)
{
    const size_t first = first_of(index, case_id);
    size_t count = 0;

    memset(times, 0, sizeof *times);
    while (first + count < index->count &&
           strcmp(index->samples[first + count]->case_id, case_id) == 0)
        count++;
    times->samples = calloc(count + 1, sizeof *times->samples);
    times->processes = calloc(count + 1, sizeof *times->processes);
    if (times->samples == NULL || times->processes == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu samples", count);
    for (size_t i = 0; i < count; i++) {
        const double time_s = index->samples[first + i]->time_s;
        if (!isfinite(time_s) || time_s <= 0.0) {
            times->has_bad = true;
            times->bad = time_s;
            return FB_OK;
        }
        times->samples[i] = time_s;
    }
    times->samples_count = count;
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && index->samples[first + end]->process ==
                                                 index->samples[first + begin]->process;)
            end++;
        fb_stats_sort(&times->samples[begin], end - begin);
        times->processes[times->processes_count++] =
            fb_stats_median(&times->samples[begin], end - begin);
    }
    return FB_OK;
}

/* ---- one case ---------------------------------------------------------------------------------
 */

static void set_ratio(const struct fb_comparison *comparison, struct fb_compared *one,
                      const struct fb_stats_ratio *ratio)
{
    const struct fb_gate_rule *rule = &comparison->rule;
    const double found_from = -fb_stats_normal_quantile(rule->alpha / 2.0);

    one->change = expm1(ratio->log_ratio);
    one->change_low = expm1(ratio->interval.low);
    one->change_high = expm1(ratio->interval.high);
    one->detectable =
        expm1(log1p(one->threshold) +
              (found_from + fb_stats_normal_quantile(rule->power)) * ratio->deviation);
}

/* The whole interval beyond what is tolerated decides; the estimate alone only makes suspicious. */
static void judge_interval(const struct fb_comparison *comparison, struct fb_compared *one)
{
    if (one->change_low > one->threshold) {
        one->verdict = FB_VERDICT_FAIL;
        one->slower = true;
        fb_compared_explain(one, "slower");
    } else if (log1p(one->change_high) < -log1p(one->threshold)) {
        one->verdict = FB_VERDICT_FASTER;
        fb_compared_explain(one, "faster");
    } else if (one->change > one->threshold) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        fb_compared_explain(one, "looks slower, but the interval reaches what is tolerated");
    } else if (!(one->detectable <= comparison->rule.detectable_max)) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        fb_compared_explain(one, "too noisy: only a large slow-down could have been found");
    } else {
        one->verdict = FB_VERDICT_PASS;
    }
}

static enum fb_status bootstrap(const struct fb_comparison *comparison, struct fb_compared *one,
                                const struct side_times *base, const struct side_times *fresh,
                                struct fb_error *error)
{
    const bool processes = one->unit == FB_UNIT_PROCESSES;
    struct fb_stats_ratio ratio;

    const enum fb_status status = fb_stats_bootstrap_ratio(
        (struct fb_stats_group){processes ? base->processes : base->samples, one->base_count},
        (struct fb_stats_group){processes ? fresh->processes : fresh->samples, one->fresh_count},
        comparison->rule.alpha, RESAMPLES, BOOTSTRAP_SEED, &ratio, error);
    if (status == FB_OK) {
        set_ratio(comparison, one, &ratio);
        judge_interval(comparison, one);
    }
    return status;
}

static bool has_interval(const struct fb_row *row)
{
    return row->samples >= UNITS_MIN && isfinite(row->time_ci_low_s) && row->time_ci_low_s > 0.0 &&
           isfinite(row->time_ci_high_s) && row->time_ci_high_s >= row->time_ci_low_s;
}

/* Without samples: the rows' own 95 % intervals, at their worst against each other. */
static void judge_rows(const struct fb_comparison *comparison, struct fb_compared *one)
{
    const struct fb_row *base = one->base;
    const struct fb_row *fresh = one->fresh;

    one->change = fresh->time_median_s / base->time_median_s - 1.0;
    if (!has_interval(base) || !has_interval(fresh)) {
        one->verdict = FB_VERDICT_AMBIGUOUS;
        fb_compared_explain(one, "too few samples for a verdict: %d are needed on each side",
                            UNITS_MIN);
        return;
    }
    one->unit = FB_UNIT_INTERVALS;
    one->base_count = (size_t)base->samples;
    one->fresh_count = (size_t)fresh->samples;
    one->change_low = fresh->time_ci_low_s / base->time_ci_high_s - 1.0;
    one->change_high = fresh->time_ci_high_s / base->time_ci_low_s - 1.0;
    one->detectable =
        (1.0 + one->threshold) * (1.0 + one->change_high) / (1.0 + one->change_low) - 1.0;
    judge_interval(comparison, one);
}

static enum fb_status compare_times(const struct fb_comparison *comparison, struct fb_compared *one,
                                    const struct side_times *base, const struct side_times *fresh,
                                    struct fb_error *error)
{
    if (base->has_bad || fresh->has_bad) {
        fb_compared_explain(one, "samples.csv of %s holds %g, which is no time",
                            base->has_bad ? "base" : "new", base->has_bad ? base->bad : fresh->bad);
        return FB_OK;
    }
    if (base->processes_count >= UNITS_MIN && fresh->processes_count >= UNITS_MIN) {
        one->unit = FB_UNIT_PROCESSES;
        one->base_count = base->processes_count;
        one->fresh_count = fresh->processes_count;
        return bootstrap(comparison, one, base, fresh, error);
    }
    one->threshold = comparison->sample_floor;
    if (base->samples_count >= UNITS_MIN && fresh->samples_count >= UNITS_MIN) {
        one->unit = FB_UNIT_SAMPLES;
        one->base_count = base->samples_count;
        one->fresh_count = fresh->samples_count;
        return bootstrap(comparison, one, base, fresh, error);
    }
    judge_rows(comparison, one);
    return FB_OK;
}

/* ---- all of them ------------------------------------------------------------------------------
 */

/* Why two sides are not of one machine, in words; false when they are, as far as can be told. */
static bool is_other_machine(const struct fb_comparison *comparison, struct fb_compared *one)
{
    const struct fb_compare_side *base = &comparison->base;
    const struct fb_compare_side *fresh = &comparison->fresh;

    if (base->identity[0] != '\0' && fresh->identity[0] != '\0') {
        if (strcmp(base->identity, fresh->identity) == 0)
            return false;
        fb_compared_explain(one, "other machine: %s (%s) and %s (%s)", base->machine_name,
                            base->identity, fresh->machine_name, fresh->identity);
        return true;
    }
    if (strcmp(one->base->device_name, one->fresh->device_name) == 0)
        return false;
    fb_compared_explain(one, "other machine: device_name '%s' and '%s'", one->base->device_name,
                        one->fresh->device_name);
    return true;
}

struct indexes {
    struct sample_index base, fresh;
};

static enum fb_status compare_case(const struct indexes *indexes, struct fb_comparison *comparison,
                                   const struct fb_row *base_row, const struct fb_row *fresh_row,
                                   struct fb_error *error)
{
    struct fb_compared *one = fb_comparison_add(comparison, base_row, fresh_row);
    struct side_times base = {0};
    struct side_times fresh = {0};

    if (base_row != NULL && fresh_row != NULL && !fb_compare_rows_counted(one) &&
        is_other_machine(comparison, one))
        return FB_OK;
    if (!fb_compare_rows_match(one))
        return FB_OK;
    if (fb_compare_rows_count(comparison, one)) {
        fb_compare_rows_gate(one);
        return FB_OK;
    }
    enum fb_status status = gather(&indexes->base, base_row->case_id, &base, error);
    if (status == FB_OK)
        status = gather(&indexes->fresh, fresh_row->case_id, &fresh, error);
    if (status == FB_OK)
        status = compare_times(comparison, one, &base, &fresh, error);
    if (status == FB_OK)
        fb_compare_rows_gate(one);
    side_times_free(&base);
    side_times_free(&fresh);
    return status;
}

static enum fb_status compare_all(const struct fb_stored_run *base,
                                  const struct fb_stored_run *fresh, const struct indexes *indexes,
                                  struct fb_comparison *comparison, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    size_t i = 0;
    size_t j = 0;

    while (status == FB_OK && (i < base->results.rows_count || j < fresh->results.rows_count)) {
        const struct fb_row *left = i < base->results.rows_count ? base->rows[i] : NULL;
        const struct fb_row *right = j < fresh->results.rows_count ? fresh->rows[j] : NULL;
        const int order = left == NULL    ? 1
                          : right == NULL ? -1
                                          : strcmp(left->case_id, right->case_id);
        status = compare_case(indexes, comparison, order <= 0 ? left : NULL,
                              order >= 0 ? right : NULL, error);
        i += order <= 0;
        j += order >= 0;
    }
    return status;
}

enum fb_status fb_compare_stored(const struct fb_stored_run *base,
                                 const struct fb_stored_run *fresh, struct fb_arena *arena,
                                 struct fb_comparison *comparison, struct fb_error *error)
{
    struct indexes indexes = {0};
    enum fb_status status = fb_comparison_init(
        comparison, base->results.rows_count + fresh->results.rows_count, arena, error);

    if (status != FB_OK)
        return status;
    comparison->base = base->side;
    comparison->fresh = fresh->side;
    comparison->suite = fresh->suite != NULL ? fresh->suite : base->suite;
    status = index_samples(&base->results, &indexes.base, error);
    if (status == FB_OK)
        status = index_samples(&fresh->results, &indexes.fresh, error);
    if (status == FB_OK)
        status = compare_all(base, fresh, &indexes, comparison, error);
    free(indexes.base.samples);
    free(indexes.fresh.samples);
    if (status == FB_OK)
        fb_comparison_finish(comparison);
    return status;
}
