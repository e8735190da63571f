/* Claims judged. See claims.h. */
#include "claims.h"

#include "attention.h"
#include "crossover.h"
#include "random.h"
#include "scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REPLICATES = 400 };

const char *fb_claim_verdict_name(enum fb_claim_verdict verdict)
{
    static const char *const names[] = {[FB_CLAIM_HELD] = "held",
                                        [FB_CLAIM_FAILED] = "failed",
                                        [FB_CLAIM_AMBIGUOUS] = "ambiguous",
                                        [FB_CLAIM_REPORTED_ONLY] = "reported only"};
    return names[verdict];
}

enum fb_claim_verdict fb_claim_compare(const struct fb_claim *claim, double low, double high)
{
    double from = -(double)INFINITY, to = (double)INFINITY;
    switch (claim->relation) {
    case FB_CLAIM_WITHIN:
        from = claim->value - claim->tolerance;
        to = claim->value + claim->tolerance;
        break;
    case FB_CLAIM_AT_MOST:
        to = claim->value;
        break;
    case FB_CLAIM_AT_LEAST:
        from = claim->value;
        break;
    }
    if (isnan(low) || isnan(high)) {
        return FB_CLAIM_AMBIGUOUS;
    }
    if (high < from || low > to) {
        return FB_CLAIM_FAILED;
    }
    return low >= from && high <= to ? FB_CLAIM_HELD : FB_CLAIM_AMBIGUOUS;
}

static bool matches_threads(const struct fb_claim *claim, const struct fb_row *row,
                            int64_t threads_max)
{
    int64_t wanted = claim->threads == FB_CLAIM_THREADS_MAX ? threads_max : claim->threads;
    return claim->threads == 0 || row->threads == wanted;
}

static bool matches_isa(const struct fb_claim *claim, const struct fb_row *row)
{
    return claim->isa == FB_ISA_ANY || strcmp(fb_isa_name(claim->isa), row->isa) == 0;
}

static bool matches(const struct fb_claim *claim, const struct fb_row *row, int64_t threads_max)
{
    static const char *const causal[] = {"false", "true"};
    return (!claim->mechanism || strcmp(claim->mechanism, row->mechanism) == 0) &&
           (claim->variant ? strcmp(claim->variant, row->variant) == 0 : !row->program[0]) &&
           (claim->causal < 0 || strcmp(causal[claim->causal != 0], row->causal) == 0) &&
           (claim->pass < 0 || strcmp(fb_pass_name((enum fb_pass)claim->pass), row->pass) == 0) &&
           (claim->head_dim == 0 || claim->head_dim == row->head_dim) && matches_isa(claim, row) &&
           matches_threads(claim, row, threads_max);
}

static int64_t most_threads(const struct fb_series_set *set)
{
    int64_t most = 0;
    for (size_t i = 0; i < set->count; i++) {
        most = set->items[i].ok_count > 0 && set->items[i].key->threads > most
                   ? set->items[i].key->threads
                   : most;
    }
    return most;
}

/* What is needed to find the value behind a claim. */
struct context {
    const struct fb_series_set *set;
    uint64_t seed;
    struct fb_arena *arena;
};

static enum fb_status find_exponent(const struct context *context, enum fb_metric metric,
                                    struct fb_claim_result *result, struct fb_error *error)
{
    struct fb_scaling scaling;
    enum fb_status status =
        metric == FB_METRIC_TIME_EXPONENT
            ? fb_scaling_of_time(result->series, context->seed, context->arena, &scaling, error)
            : fb_scaling_of_memory(result->series, context->arena, &scaling, error);
    if (status != FB_OK) {
        return status;
    }
    if (scaling.verdict == FB_SCALING_SINGLE) {
        result->value = scaling.fit.p;
        result->interval = scaling.p;
    } else {
        result->why = scaling.verdict == FB_SCALING_NONE ? "no single exponent"
                                                         : "too few sizes for an exponent";
    }
    return FB_OK;
}

static enum fb_status find_crossover(const struct context *context, struct fb_claim_result *result,
                                     struct fb_error *error)
{
    struct fb_crossover crossover;
    const struct fb_series *softmax = fb_series_softmax(context->set, result->series);
    enum fb_status status =
        fb_crossover_of(result->series, softmax, context->seed, context->arena, &crossover, error);
    if (status != FB_OK) {
        return status;
    }
    if (crossover.kind == FB_CROSSOVER_NONE) {
        result->why = "no softmax was measured at the same sizes";
        return FB_OK;
    }
    result->value = crossover.size;
    result->interval = crossover.interval;
    /* Outside the range only one side of the crossing is known. */
    if (result->interval.low == 0 && crossover.kind == FB_CROSSOVER_BELOW) {
        result->interval.high = fmax(result->interval.high, crossover.size_min);
    }
    if (isinf(result->interval.high) && crossover.kind == FB_CROSSOVER_ABOVE) {
        result->interval.low = fmin(result->interval.low, crossover.size_max);
    }
    return FB_OK;
}

/* A value made of one measured time, value = scale * time^sign, or of a ratio of two. */
static enum fb_status resample_ratio(const struct context *context, const struct fb_point *above,
                                     const struct fb_point *below, double scale,
                                     struct fb_claim_result *result, struct fb_error *error)
{
    size_t longest = above->times_count;
    if (below && below->times_count > longest) {
        longest = below->times_count;
    }
    uint32_t *counts = fb_arena_alloc(context->arena, longest + 1, sizeof *counts, error);
    double *values = fb_arena_alloc(context->arena, REPLICATES, sizeof *values, error);
    if (!counts || !values) {
        return FB_ERROR_MEMORY;
    }
    struct fb_random random;
    fb_random_init(&random, context->seed, 2000);
    bool over_processes = result->interval.kind == FB_SPREAD_PROCESSES;
    for (size_t i = 0; i < REPLICATES; i++) {
        values[i] = scale * fb_point_resample(above, over_processes, &random, counts);
        if (below) {
            values[i] /= fb_point_resample(below, over_processes, &random, counts);
        }
    }
    fb_spread_from_replicates(values, REPLICATES, &result->interval);
    return FB_OK;
}

/* The point with a floor that counts: the last one, or the one furthest from its floor. */
static const struct fb_point *floor_point(const struct fb_series *series, bool worst)
{
    const struct fb_point *found = NULL;
    double highest = (double)NAN;
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_point *point = &series->points[i];
        const double ratio = point->row->time_median_s / point->row->floor_s;
        if (point->ok && point->row->floor_s > 0 && (!worst || !(ratio <= highest))) {
            found = point;
            highest = ratio;
        }
    }
    return found;
}

static enum fb_status find_floor_ratio(const struct context *context, bool worst,
                                       struct fb_claim_result *result, struct fb_error *error)
{
    const struct fb_point *point = floor_point(result->series, worst);
    if (!point) {
        result->why = "no floor was measured";
        return FB_OK;
    }
    result->value = point->row->time_median_s / point->row->floor_s;
    result->interval.kind = fb_series_spread_kind(result->series);
    if (result->interval.kind == FB_SPREAD_NONE) {
        return FB_OK;
    }
    return resample_ratio(context, point, NULL, 1.0 / point->row->floor_s, result, error);
}

/* The largest size at which both were measured; false when there is none. */
static bool common_points(const struct fb_series *a, const struct fb_series *b,
                          const struct fb_point **point_a, const struct fb_point **point_b)
{
    *point_a = *point_b = NULL;
    for (size_t i = 0; b && i < a->points_count; i++) {
        for (size_t j = 0; j < b->points_count; j++) {
            if (a->points[i].ok && b->points[j].ok && a->points[i].x == b->points[j].x) {
                *point_a = &a->points[i];
                *point_b = &b->points[j];
            }
        }
    }
    return *point_a != NULL;
}

/* Time of `above` over time of `below`, at the largest size that both were measured at. */
static enum fb_status find_time_ratio(const struct context *context, const struct fb_series *above,
                                      const struct fb_series *below, const char *why_not,
                                      struct fb_claim_result *result, struct fb_error *error)
{
    const struct fb_point *numerator, *denominator;
    if (!above || !below || !common_points(above, below, &numerator, &denominator)) {
        result->why = why_not;
        return FB_OK;
    }
    result->value = numerator->row->time_median_s / denominator->row->time_median_s;
    enum fb_spread_kind kind = fb_series_spread_kind(above);
    enum fb_spread_kind other = fb_series_spread_kind(below);
    result->interval.kind = kind < other ? kind : other;
    if (result->interval.kind == FB_SPREAD_NONE) {
        return FB_OK;
    }
    return resample_ratio(context, numerator, denominator, 1.0, result, error);
}

/* The bidirectional forward pass of the same variant, everything else equal. */
static const struct fb_series *forward_of(const struct fb_series_set *set,
                                          const struct fb_series *series)
{
    struct fb_row wanted = *series->key;
    (void)snprintf(wanted.pass, sizeof wanted.pass, "%s", fb_pass_name(FB_FORWARD));
    (void)snprintf(wanted.causal, sizeof wanted.causal, "false");
    for (size_t i = 0; i < set->count; i++) {
        if (set->items[i].run_index == series->run_index && set->items[i].ok_count > 0 &&
            fb_series_same_factors(&wanted, set->items[i].key, set->axis)) {
            return &set->items[i];
        }
    }
    return NULL;
}

static const struct fb_point *first_ok(const struct fb_series *series)
{
    size_t i = 0;
    while (!series->points[i].ok) {
        i++;
    }
    return &series->points[i];
}

static bool check_growth(const struct fb_point *first, const struct fb_point *last,
                         struct fb_claim_result *result)
{
    if (first->x < last->x) {
        return true;
    }
    result->why = "only one size was measured";
    return false;
}

static enum fb_status find_time_growth(const struct context *context,
                                       struct fb_claim_result *result, struct fb_error *error)
{
    const struct fb_point *first = first_ok(result->series);
    const struct fb_point *last = fb_series_last_ok(result->series);
    if (!check_growth(first, last, result)) {
        return FB_OK;
    }
    result->value = last->row->time_median_s / first->row->time_median_s;
    result->interval.kind = fb_series_spread_kind(result->series);
    if (result->interval.kind == FB_SPREAD_NONE) {
        return FB_OK;
    }
    return resample_ratio(context, last, first, 1.0, result, error);
}

static void find_memory_growth(struct fb_claim_result *result)
{
    const struct fb_point *first = first_ok(result->series);
    const struct fb_point *last = fb_series_last_ok(result->series);
    if (!check_growth(first, last, result)) {
        return;
    }
    double value = (fb_row_io_bytes(last->row) + fb_row_memory_bytes(last->row)) /
                   (fb_row_io_bytes(first->row) + fb_row_memory_bytes(first->row));
    if (isnan(value)) {
        result->why = "no memory was measured";
        return;
    }
    result->value = value;
    result->interval = (struct fb_spread){value, value, FB_SPREAD_EXACT};
}

static const char no_peer[] = "the peer was not measured at the same sizes";

static enum fb_status find_value(const struct context *context, enum fb_metric metric,
                                 struct fb_claim_result *result, struct fb_error *error)
{
    switch (metric) {
    case FB_METRIC_TIME_EXPONENT:
    case FB_METRIC_MEMORY_EXPONENT:
        return find_exponent(context, metric, result, error);
    case FB_METRIC_CROSSOVER:
        return find_crossover(context, result, error);
    case FB_METRIC_FLOOR_RATIO:
        return find_floor_ratio(context, false, result, error);
    case FB_METRIC_FLOOR_RATIO_WORST:
        return find_floor_ratio(context, true, result, error);
    case FB_METRIC_TIME_VS_FORWARD:
        return find_time_ratio(context, result->series, forward_of(context->set, result->series),
                               "its bidirectional forward pass was not measured at the same sizes",
                               result, error);
    case FB_METRIC_SPEEDUP_VS_SOFTMAX:
        return find_time_ratio(context, fb_series_softmax(context->set, result->series),
                               result->series, "no softmax was measured at the same sizes", result,
                               error);
    case FB_METRIC_SPEEDUP_VS_PEER:
        return find_time_ratio(context,
                               fb_series_peer(context->set, result->series, result->claim->peer),
                               result->series, no_peer, result, error);
    case FB_METRIC_TIME_GROWTH:
        return find_time_growth(context, result, error);
    case FB_METRIC_MEMORY_GROWTH:
        find_memory_growth(result);
        return FB_OK;
    case FB_METRIC_COUNT:
        break;
    }
    return fb_error_set(error, FB_ERROR_INTERNAL, "a claim has the unknown metric %d", (int)metric);
}

/* Whether every measured case of the series has the processes that a verdict needs. */
static bool enough_processes(const struct fb_series *series)
{
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_point *point = &series->points[i];
        if (point->ok && point->row->processes < FB_CLAIM_PROCESSES_MIN) {
            return false;
        }
    }
    return series->ok_count > 0;
}

/* Softmax is not claimed to overtake itself. */
static bool is_against_softmax(enum fb_metric metric)
{
    return metric == FB_METRIC_CROSSOVER || metric == FB_METRIC_SPEEDUP_VS_SOFTMAX;
}

static void decide(struct fb_claim_result *result)
{
    if (!enough_processes(result->series)) {
        result->verdict = FB_CLAIM_REPORTED_ONLY;
        if (result->why[0] == '\0') {
            result->why = "judged from 5 processes on";
        }
        return;
    }
    if (!isnan(result->value) && result->interval.kind < FB_SPREAD_PROCESSES) {
        result->verdict = FB_CLAIM_REPORTED_ONLY;
        result->why = "samples.csv holds fewer than 5 processes";
        return;
    }
    result->verdict = fb_claim_compare(result->claim, result->interval.low, result->interval.high);
}

/* A claim against a peer is about the passes and dtypes that the peer was measured in: of the
 * results from `first` on, those without it go, unless none has it. */
static void drop_without_peer(struct fb_claim_results *results, size_t first)
{
    size_t kept = first;
    for (size_t i = first; i < results->count; i++) {
        if (results->items[i].why != no_peer) {
            results->items[kept++] = results->items[i];
        }
    }
    results->count = kept > first ? kept : results->count;
}

enum fb_status fb_claims_judge(const struct fb_claim *claims, size_t claims_count,
                               const struct fb_series_set *set, uint64_t seed,
                               struct fb_arena *arena, struct fb_claim_results *results,
                               struct fb_error *error)
{
    struct context context = {set, seed, arena};
    const int64_t threads_max = most_threads(set);
    results->count = 0;
    results->items =
        fb_arena_alloc(arena, claims_count * (set->count + 1) + 1, sizeof *results->items, error);
    if (!results->items) {
        return FB_ERROR_MEMORY;
    }
    for (size_t c = 0; c < claims_count; c++) {
        size_t before = results->count;
        const struct fb_claim_result empty = {
            .claim = &claims[c],
            .verdict = FB_CLAIM_REPORTED_ONLY,
            .value = (double)NAN,
            .interval = {(double)NAN, (double)NAN, FB_SPREAD_NONE},
            .why = ""};
        for (size_t s = 0; s < set->count; s++) {
            const struct fb_series *series = &set->items[s];
            if (series->ok_count == 0 || !matches(&claims[c], series->key, threads_max) ||
                (is_against_softmax(claims[c].metric) && !fb_series_softmax(set, series) &&
                 strcmp(series->key->mechanism, "softmax") == 0)) {
                continue;
            }
            struct fb_claim_result *result = &results->items[results->count++];
            *result = empty;
            result->series = series;
            enum fb_status status = find_value(&context, claims[c].metric, result, error);
            if (status != FB_OK) {
                return status;
            }
            decide(result);
        }
        drop_without_peer(results, before);
        if (results->count == before) {
            results->items[results->count] = empty;
            results->items[results->count++].why = "nothing measured matches it";
        }
    }
    return FB_OK;
}
