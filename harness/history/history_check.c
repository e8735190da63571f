/* Judging the newest run: see history_check.h. */
#include "history_check.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one metric over time ------------------------------------------------------------------- */

/* An interval that is absent or no interval has width 0: fb_segments_weights knows what to do. */
static double log_width(const struct fb_book_point *point, size_t metric)
{
    const double low = point->low[metric], high = point->high[metric];

    return low > 0.0 && high > low && isfinite(high) ? log(high / low) : 0.0;
}

enum fb_status fb_history_trend(const struct fb_series_book *book,
                                const struct fb_book_series *series, size_t metric,
                                size_t cases_count, struct fb_arena *arena, struct fb_trend *trend,
                                const size_t **points, size_t *points_count, struct fb_error *error)
{
    double *values = fb_arena_alloc(arena, series->count + 1, sizeof *values, error);
    double *widths = fb_arena_alloc(arena, series->count + 1, sizeof *widths, error);
    size_t *commits = fb_arena_alloc(arena, series->count + 1, sizeof *commits, error);
    size_t *kept = fb_arena_alloc(arena, series->count + 1, sizeof *kept, error);
    size_t count = 0;

    if (values == NULL || widths == NULL || commits == NULL || kept == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < series->count; i++) {
        const struct fb_book_point *point = &series->points[i];
        if (!fb_book_point_usable(series, i, metric))
            continue;
        values[count] = log(point->value[metric]);
        widths[count] = log_width(point, metric);
        commits[count] = book->runs[point->run].commit;
        kept[count++] = i;
    }
    *points = kept;
    *points_count = count;
    const struct fb_trend_points trend_points = {values, widths, commits, count,
                                                 fb_history_metric_at(metric)->least_step};
    return fb_trend_judge(&trend_points, cases_count, arena, trend, error);
}

/* ---- one case ------------------------------------------------------------------------------- */

/* FAIL, AMBIGUOUS, INCOMPARABLE, FASTER, PASS. */
static int severity(enum fb_verdict verdict)
{
    static const int severities[FB_VERDICT_COUNT] = {
        [FB_VERDICT_PASS] = 0,      [FB_VERDICT_FASTER] = 1, [FB_VERDICT_INCOMPARABLE] = 2,
        [FB_VERDICT_AMBIGUOUS] = 3, [FB_VERDICT_FAIL] = 4,
    };
    return severities[verdict];
}

/* A worse verdict takes over; one that is as bad adds its reason. */
static void FB_PRINTF(3, 4)
    note(struct fb_history_verdict *verdict, enum fb_verdict worse, const char *format, ...)
{
    char reason[FB_HISTORY_REASON_SIZE];
    va_list arguments;

    if (severity(worse) < severity(verdict->verdict) || worse == FB_VERDICT_PASS)
        return;
    va_start(arguments, format);
    (void)vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    const bool adds = worse == verdict->verdict && *verdict->reason != '\0';
    const size_t used = adds ? strlen(verdict->reason) : 0;
    (void)snprintf(verdict->reason + used, sizeof verdict->reason - used, "%s%s", adds ? "; " : "",
                   reason);
    verdict->verdict = worse;
}

/* False when there is nothing of the newest run to compare. */
static bool judge_status(struct fb_history_verdict *verdict)
{
    const struct fb_book_series *series = verdict->series;
    const struct fb_book_point *newest = &series->points[series->count - 1];
    const char *status = newest->status;

    if (strcmp(status, "ok") == 0) {
        if (newest->err_rel > newest->err_budget)
            note(verdict, FB_VERDICT_FAIL, "error %.2g is outside its budget of %.2g",
                 newest->err_rel, newest->err_budget);
        return true;
    }
    const bool failed = strcmp(status, "wrong") == 0 || strcmp(status, "crash") == 0 ||
                        strcmp(status, "error") == 0;
    note(verdict, failed ? FB_VERDICT_FAIL : FB_VERDICT_INCOMPARABLE, "%s%s%.200s", status,
         *series->row.reason != '\0' ? ": " : "", series->row.reason);
    return false;
}

static int compare_sizes(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sizes are declared, not measured: more than 1 % above the least that two earlier runs had (or the
 * only one) is growth. */
static enum fb_status judge_sizes(struct fb_history_verdict *verdict, struct fb_arena *arena,
                                  struct fb_error *error)
{
    const struct fb_book_series *series = verdict->series;
    const struct fb_book_point *newest = &series->points[series->count - 1];
    int64_t *earlier = fb_arena_alloc(arena, series->count, sizeof *earlier, error);

    if (earlier == NULL)
        return FB_ERROR_MEMORY;
    for (size_t s = 0; s < FB_HISTORY_SIZES; s++) {
        size_t count = 0;
        for (size_t i = 0; i + 1 < series->count; i++) {
            if (strcmp(series->points[i].status, "ok") == 0 &&
                series->points[i].sizes[s] != FB_ROW_NONE)
                earlier[count++] = series->points[i].sizes[s];
        }
        if (count == 0 || newest->sizes[s] == FB_ROW_NONE)
            continue;
        qsort(earlier, count, sizeof *earlier, compare_sizes);
        const int64_t best = earlier[count > 1 ? 1 : 0];
        if ((double)newest->sizes[s] > 1.01 * (double)best)
            note(verdict, FB_VERDICT_FAIL, "%s grew from %" PRId64 " to %" PRId64,
                 fb_history_size_columns[s], best, newest->sizes[s]);
    }
    return FB_OK;
}

/* What is measured beside the time fails as the time does, but what it cannot tell is not held
 * against a case. */
static enum fb_status judge_others(const struct fb_series_book *book,
                                   struct fb_history_verdict *verdict, size_t cases_count,
                                   struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_book_series *series = verdict->series;

    for (size_t m = 0; m < fb_history_metric_count(); m++) {
        struct fb_trend trend;
        const size_t *points;
        size_t count;
        if (m == verdict->metric || !fb_book_point_usable(series, series->count - 1, m))
            continue;
        const enum fb_status status =
            fb_history_trend(book, series, m, cases_count, arena, &trend, &points, &count, error);
        if (status != FB_OK)
            return status;
        if (trend.verdict == FB_VERDICT_FAIL)
            note(verdict, FB_VERDICT_FAIL, "%s: %s", fb_history_metric_at(m)->name, trend.reason);
    }
    return FB_OK;
}

static enum fb_status judge_case(const struct fb_series_book *book,
                                 struct fb_history_verdict *verdict, size_t cases_count,
                                 struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_book_series *series = verdict->series;
    const struct fb_book_point *newest = &series->points[series->count - 1];

    if (!judge_status(verdict))
        return FB_OK;
    const bool has_time = fb_book_point_usable(series, series->count - 1, FB_METRIC_TIME);
    const bool has_count = fb_book_point_usable(series, series->count - 1, FB_METRIC_INSTRUCTIONS);
    verdict->metric = has_time || !has_count ? FB_METRIC_TIME : FB_METRIC_INSTRUCTIONS;
    enum fb_status status = judge_sizes(verdict, arena, error);
    if (status == FB_OK)
        status = judge_others(book, verdict, cases_count, arena, error);
    if (status != FB_OK)
        return status;
    if (!has_time && !has_count) {
        if (isnan(newest->value[FB_METRIC_TIME]))
            note(verdict, FB_VERDICT_INCOMPARABLE, "the row has no time");
        else
            note(verdict, FB_VERDICT_INCOMPARABLE, "its time of %g s is none",
                 newest->value[FB_METRIC_TIME]);
        return FB_OK;
    }
    status = fb_history_trend(book, series, verdict->metric, cases_count, arena, &verdict->trend,
                              &verdict->points, &verdict->points_count, error);
    if (status == FB_OK && verdict->points_count == 1 && series->count > 1)
        note(verdict, FB_VERDICT_INCOMPARABLE, "no earlier run measured it in the same way");
    else if (status == FB_OK)
        note(verdict, verdict->trend.verdict, "%s", verdict->trend.reason);
    return status;
}

/* ---- the run -------------------------------------------------------------------------------- */

static bool holds_run(const struct fb_book_series *series, size_t run)
{
    return series->count > 0 && series->points[series->count - 1].run == run;
}

/* The run before `newest` of the same suite and machine; SIZE_MAX: none. */
static size_t find_previous(const struct fb_series_book *book, size_t newest)
{
    for (size_t i = newest; i-- > 0;) {
        if (book->runs[i].machine == book->runs[newest].machine &&
            strcmp(book->runs[i].suite, book->runs[newest].suite) == 0)
            return i;
    }
    return SIZE_MAX;
}

static int compare_verdicts(const void *a, const void *b)
{
    const struct fb_history_verdict *x = a, *y = b;
    const int worse = severity(y->verdict) - severity(x->verdict);

    if (worse != 0)
        return worse;
    /* NaN, where nothing was judged, comes last. */
    const double p = x->points_count > 0 && !isnan(x->trend.step) ? x->trend.step : -HUGE_VAL;
    const double q = y->points_count > 0 && !isnan(y->trend.step) ? y->trend.step : -HUGE_VAL;
    if (p != q)
        return p > q ? -1 : 1;
    return strcmp(x->series->row.case_id, y->series->row.case_id);
}

static enum fb_status judge_all(const struct fb_series_book *book, size_t cases_count,
                                size_t previous, struct fb_arena *arena,
                                struct fb_history_check *check, struct fb_error *error)
{
    for (size_t i = 0; i < book->series_count; i++) {
        const struct fb_book_series *series = book->series[i];
        struct fb_history_verdict *verdict = &check->verdicts[check->count];
        if (series->machine != book->runs[check->run].machine)
            continue;
        *verdict = (struct fb_history_verdict){.series = series, .verdict = FB_VERDICT_PASS};
        if (holds_run(series, check->run)) {
            const enum fb_status status = judge_case(book, verdict, cases_count, arena, error);
            if (status != FB_OK)
                return status;
            check->measured +=
                fb_book_point_usable(series, series->count - 1, FB_METRIC_TIME) ||
                fb_book_point_usable(series, series->count - 1, FB_METRIC_INSTRUCTIONS);
        } else if (previous != SIZE_MAX && holds_run(series, previous)) {
            note(verdict, FB_VERDICT_INCOMPARABLE, "not in the newest run, but in the one before");
        } else {
            continue;
        }
        check->counts[verdict->verdict]++;
        check->count++;
    }
    qsort(check->verdicts, check->count, sizeof *check->verdicts, compare_verdicts);
    return FB_OK;
}

enum fb_status fb_history_check(const struct fb_series_book *book, struct fb_arena *arena,
                                struct fb_history_check *check, struct fb_error *error)
{
    size_t cases_count = 0;

    *check = (struct fb_history_check){.run = book->runs_count - 1};
    if (book->runs_count == 0)
        return FB_OK;
    check->verdicts = fb_arena_alloc(arena, book->series_count + 1, sizeof *check->verdicts, error);
    if (check->verdicts == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < book->series_count; i++)
        cases_count += holds_run(book->series[i], check->run);
    check->first_of_machine = true;
    for (size_t i = 0; i < check->run; i++)
        check->first_of_machine &= book->runs[i].machine != book->runs[check->run].machine;
    return judge_all(book, cases_count, find_previous(book, check->run), arena, check, error);
}
