/* The summary along one factor: a column per value; then the missing rows and the claims. */
#include "missing.h"
#include "quantity.h"
#include "row_factor.h"
#include "summary.h"

#include <math.h>
#include <string.h>

static enum fb_status set_times(struct fb_text_table *table, const struct fb_series *series,
                                const struct fb_point *const *values, const size_t *at,
                                size_t values_count, struct fb_error *error)
{
    char text[FB_QUANTITY_SIZE];
    for (size_t v = 0; v < values_count; v++) {
        for (size_t i = 0; i < series->points_count; i++) {
            const struct fb_point *point = &series->points[i];
            if (point->x != values[v]->x) {
                continue;
            }
            const bool counted = point->row->instructions != FB_ROW_NONE;
            const char *cell = point->row->status;
            if (counted) {
                cell = fb_quantity_instructions((double)point->row->instructions, text);
            } else if (point->ok) {
                cell = fb_quantity_time(point->row->time_median_s, text);
            }
            cell = fb_arena_strdup(table->arena, cell, error);
            if (!cell) {
                return FB_ERROR_MEMORY;
            }
            fb_text_table_set(table, at[v], cell,
                              counted || point->ok ? FB_TEXT_PLAIN : FB_TEXT_WARNING);
        }
    }
    return FB_OK;
}

/* How much faster the last measured value of the axis is than the first. */
static enum fb_status set_speedup(struct fb_text_table *table, size_t column,
                                  const struct fb_series *series, struct fb_error *error)
{
    const struct fb_point *first = NULL, *last = fb_series_last_ok(series);
    for (size_t i = series->points_count; i > 0; i--) {
        first = series->points[i - 1].ok ? &series->points[i - 1] : first;
    }
    const char *text = "-";
    if (first && first != last) {
        char ratio[FB_QUANTITY_SIZE];
        text = fb_arena_printf(
            table->arena, error, "%sx",
            fb_quantity_ratio(first->row->time_median_s / last->row->time_median_s, ratio));
    }
    if (!text) {
        return FB_ERROR_MEMORY;
    }
    fb_text_table_set(table, column, text, FB_TEXT_PLAIN);
    return FB_OK;
}

enum fb_status fb_summary_add_values(struct fb_text_table *table, const struct fb_series_set *set,
                                     const struct fb_point *const *values, size_t values_count,
                                     size_t *at, struct fb_error *error)
{
    for (size_t v = 0; v < values_count; v++) {
        char phrase[FB_FACTOR_TEXT_SIZE];
        fb_factor_axis_phrase(values[v]->row, set->axis, phrase);
        const char *header = fb_arena_strdup(table->arena, phrase, error);
        if (!header) {
            return FB_ERROR_MEMORY;
        }
        at[v] = fb_text_table_column(table, header, true);
    }
    return FB_OK;
}

enum fb_status fb_summary_print_axis(const struct fb_summary_job *job,
                                     const struct fb_series_set *set, struct fb_error *error)
{
    const struct fb_point *values[FB_SUMMARY_VALUES_MAX + 1];
    size_t values_count = fb_series_axis_places(set, values, FB_SUMMARY_VALUES_MAX),
           at[FB_SUMMARY_VALUES_MAX];
    struct fb_text_table table;
    struct fb_summary_columns columns;
    bool speedup = set->axis == FB_AXIS_THREADS || set->axis == FB_AXIS_ISA;
    fb_text_table_init(&table, job->arena);
    fb_summary_add_columns(&table, set, &columns);
    if (fb_summary_add_values(&table, set, values, values_count, at, error) != FB_OK) {
        return FB_ERROR_MEMORY;
    }
    size_t speedup_at = speedup ? fb_text_table_column(&table, "speed-up", true) : 0;
    size_t error_at = fb_text_table_column(&table, "error", false);
    size_t cases_at = fb_text_table_column(&table, "cases", false);
    for (size_t i = 0; i < set->count; i++) {
        const struct fb_series *series = &set->items[i];
        enum fb_status status = fb_text_table_row(&table, error);
        if (status == FB_OK) {
            status = fb_summary_set_columns(&table, series, &columns, error);
        }
        if (status == FB_OK) {
            status = set_times(&table, series, values, at, values_count, error);
        }
        if (status == FB_OK && speedup) {
            status = set_speedup(&table, speedup_at, series, error);
        }
        if (status == FB_OK) {
            status = fb_summary_set_error(&table, error_at, series, error);
        }
        if (status == FB_OK) {
            status = fb_summary_set_cases(&table, cases_at, series, error);
        }
        if (status != FB_OK) {
            return status;
        }
    }
    fb_summary_print_heading(job, set);
    fb_text_table_print(&table, job->mode, job->out);
    return FB_OK;
}

static void print_group(const struct fb_summary_job *job, const struct fb_missing *group)
{
    const struct fb_row *row = group->row;
    char from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    fb_text_print(job->out, job->mode, group->failure ? FB_TEXT_BAD : FB_TEXT_WARNING, row->status);
    (void)fputs(": ", job->out);
    if (group->one_name) {
        (void)fprintf(job->out, "%s/%s", row->mechanism, row->variant);
    } else {
        (void)fprintf(job->out, "several mechanisms on %s", row->device);
    }
    (void)fprintf(job->out, "%s, N %s",
                  group->one_causal && strcmp(row->causal, "true") == 0 ? " causal" : "",
                  fb_quantity_count((double)group->seq_len_min, from));
    if (group->seq_len_max != group->seq_len_min) {
        (void)fprintf(job->out, " to %s", fb_quantity_count((double)group->seq_len_max, to));
    }
    if (group->count > 1) {
        (void)fprintf(job->out, " (%zu cases)", group->count);
    }
    (void)fprintf(job->out, ": %s\n", row->reason[0] ? row->reason : "no reason recorded");
}

enum fb_status fb_summary_print_missing(const struct fb_summary_job *job, bool failures_only,
                                        struct fb_error *error)
{
    struct fb_missing *groups = NULL;
    size_t count = 0;
    bool any = false;
    enum fb_status status = fb_missing_collect(job->results, job->arena, &groups, &count, error);
    for (size_t i = 0; status == FB_OK && i < count; i++) {
        if (failures_only && !groups[i].failure) {
            continue;
        }
        if (!any && !failures_only) {
            (void)fputs("\nnot measured:\n", job->out);
        }
        any = true;
        print_group(job, &groups[i]);
    }
    return status;
}

static void print_claim(const struct fb_summary_job *job, const struct fb_claim_result *result)
{
    static const enum fb_text_style styles[] = {[FB_CLAIM_HELD] = FB_TEXT_GOOD,
                                                [FB_CLAIM_FAILED] = FB_TEXT_BAD,
                                                [FB_CLAIM_AMBIGUOUS] = FB_TEXT_WARNING,
                                                [FB_CLAIM_REPORTED_ONLY] = FB_TEXT_FAINT};
    const struct fb_claim *claim = result->claim;
    fb_text_print(job->out, job->mode, styles[result->verdict],
                  fb_claim_verdict_name(result->verdict));
    if (result->series) {
        const struct fb_row *row = result->series->key;
        (void)fprintf(job->out, ": %s/%s ", row->mechanism, row->variant);
        if (fb_factor_is_plain(row, FB_FACTOR_THREADS)) {
            (void)fputs(row->device, job->out);
        } else {
            (void)fprintf(job->out, "%s x%lld", row->isa, (long long)row->threads);
        }
        (void)fprintf(job->out, " %s d %lld%s %s: %s", row->dtype, (long long)row->head_dim,
                      strcmp(row->causal, "true") == 0 ? " causal" : "", row->pass, claim->text);
    } else {
        (void)fprintf(job->out, ": %s%s%s", claim->mechanism ? claim->mechanism : "",
                      claim->mechanism ? ": " : "", claim->text);
    }
    if (!isnan(result->value)) {
        (void)fprintf(job->out, "; measured %.4g", result->value);
    }
    if (result->interval.kind != FB_SPREAD_NONE && !isnan(result->interval.low)) {
        (void)fprintf(job->out, " [%.4g, %.4g]", result->interval.low, result->interval.high);
    }
    if (!isnan(result->value) && result->verdict == FB_CLAIM_REPORTED_ONLY) {
        (void)fputs(fb_claim_compare(claim, result->value, result->value) == FB_CLAIM_FAILED
                        ? ", outside"
                        : ", inside",
                    job->out);
    }
    (void)fprintf(job->out, "%s%s%s\n", result->why[0] ? " (" : "", result->why,
                  result->why[0] ? ")" : "");
}

void fb_summary_print_claims(const struct fb_summary_job *job,
                             const struct fb_claim_results *claims, bool failures_only)
{
    bool any = false;
    for (size_t i = 0; i < claims->count; i++) {
        const struct fb_claim_result *result = &claims->items[i];
        if (failures_only && result->verdict != FB_CLAIM_FAILED &&
            result->verdict != FB_CLAIM_AMBIGUOUS) {
            continue;
        }
        if (!any && !failures_only) {
            (void)fputs("\nclaims:\n", job->out);
        }
        any = true;
        print_claim(job, result);
    }
}
