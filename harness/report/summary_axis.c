/* The summary along one factor: a column per value; then the missing rows and the claims. */
#include "attention.h"
#include "quantity.h"
#include "row_factor.h"
#include "summary.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { VALUES_MAX = 12 };

/* What heads a column: the value of every factor that moves with the axis. */
static const char *column_title(const struct fb_series_set *set, const struct fb_row *row,
                                struct fb_arena *arena, struct fb_error *error)
{
    char phrase[FB_FACTOR_TEXT_SIZE];
    const char *title = "";
    for (int f = 0; f < FB_FACTOR_COUNT && title; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        if (fb_factor_is_axis(factor, set->axis) && !fb_factor_is_plain(row, factor)) {
            fb_factor_phrase(row, factor, phrase);
            title = fb_arena_printf(arena, error, "%s%s%s", title, title[0] ? ", " : "", phrase);
        }
    }
    return title;
}

/* The values of the axis over all series, ascending; more than VALUES_MAX are cut at the top. */
static size_t axis_values(const struct fb_series_set *set, const struct fb_point **values)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        for (size_t j = 0; j < set->items[i].points_count; j++) {
            const struct fb_point *point = &set->items[i].points[j];
            size_t at = 0;
            if (strcmp(point->row->status, "skipped") == 0) {
                continue; /* a value that no series was tried at stands under "not measured" */
            }
            while (at < count && values[at]->x < point->x) {
                at++;
            }
            if ((at < count && values[at]->x == point->x) || at >= VALUES_MAX) {
                continue;
            }
            count += count < VALUES_MAX;
            memmove(values + at + 1, values + at,
                    (count - at - 1) * sizeof(const struct fb_point *));
            values[at] = point;
        }
    }
    return count;
}

static char *time_text(const struct fb_point *point, char *text)
{
    return fb_quantity_time(point->row->time_median_s, text);
}

static char *floor_text(const struct fb_point *point, char *text)
{
    return fb_quantity_ratio(point->row->floor_ratio, text);
}

static enum fb_status set_cells(struct fb_text_table *table, const struct fb_series *series,
                                const struct fb_point *const *values, const size_t *at,
                                size_t values_count,
                                char *(*cell_text)(const struct fb_point *point, char *text),
                                struct fb_error *error)
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
                cell = cell_text(point, text);
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

/* A column per value of the axis; their places in `at`. */
static enum fb_status add_values(struct fb_text_table *table, const struct fb_series_set *set,
                                 const struct fb_point *const *values, size_t values_count,
                                 size_t *at, struct fb_error *error)
{
    for (size_t v = 0; v < values_count; v++) {
        const char *header = column_title(set, values[v]->row, table->arena, error);
        if (!header) {
            return FB_ERROR_MEMORY;
        }
        at[v] = fb_text_table_column(table, header, true);
    }
    return FB_OK;
}

enum fb_status fb_summary_print_floors(const struct fb_summary_job *job, struct fb_error *error)
{
    struct fb_series_set set;
    const struct fb_point *values[VALUES_MAX + 1];
    size_t at[VALUES_MAX];
    struct fb_text_table table;
    struct fb_summary_columns columns;
    enum fb_status status =
        fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &set, error);
    if (status != FB_OK) {
        return status;
    }
    fb_series_filter(&set, fb_series_has_floor);
    if (set.count == 0) {
        return FB_OK;
    }
    const size_t values_count = axis_values(&set, values);
    fb_text_table_init(&table, job->arena);
    fb_summary_add_columns(&table, &set, &columns);
    status = add_values(&table, &set, values, values_count, at, error);
    for (size_t i = 0; status == FB_OK && i < set.count; i++) {
        status = fb_text_table_row(&table, error);
        if (status == FB_OK) {
            status = fb_summary_set_columns(&table, &set.items[i], &columns, error);
        }
        if (status == FB_OK) {
            status = set_cells(&table, &set.items[i], values, at, values_count, floor_text, error);
        }
    }
    if (status == FB_OK) {
        (void)fputs("\nfloor ratio: time over the least time that this machine could take\n\n",
                    job->out);
        fb_text_table_print(&table, job->mode, job->out);
    }
    return status;
}

enum fb_status fb_summary_print_axis(const struct fb_summary_job *job,
                                     const struct fb_series_set *set, struct fb_error *error)
{
    const struct fb_point *values[VALUES_MAX + 1];
    size_t values_count = axis_values(set, values), at[VALUES_MAX];
    struct fb_text_table table;
    struct fb_summary_columns columns;
    bool speedup = set->axis == FB_AXIS_THREADS || set->axis == FB_AXIS_ISA;
    fb_text_table_init(&table, job->arena);
    fb_summary_add_columns(&table, set, &columns);
    if (add_values(&table, set, values, values_count, at, error) != FB_OK) {
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
            status = set_cells(&table, series, values, at, values_count, time_text, error);
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

static bool is_failure(const struct fb_row *row)
{
    return strcmp(row->status, "wrong") == 0 || strcmp(row->status, "crash") == 0 ||
           strcmp(row->status, "error") == 0;
}

/* Equal but for the numbers in them: "predicted 93 s" and "predicted 370 s" are one reason. */
static bool same_reason(const char *a, const char *b)
{
    for (;;) {
        while (isdigit((unsigned char)*a) || *a == '.') {
            a++;
        }
        while (isdigit((unsigned char)*b) || *b == '.') {
            b++;
        }
        if (*a != *b || *a == '\0') {
            return *a == *b;
        }
        a++;
        b++;
    }
}

static bool same_name(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->mechanism, b->mechanism) == 0 && strcmp(a->variant, b->variant) == 0;
}

/* One cause: a device that is absent concerns every mechanism, a limit the ones that pass it. */
static bool same_group(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->status, b->status) == 0 && strcmp(a->device, b->device) == 0 &&
           same_reason(a->reason, b->reason);
}

static void print_group(const struct fb_summary_job *job, size_t first, bool *seen)
{
    const struct fb_results *results = job->results;
    const struct fb_row *row = &results->rows[first];
    int64_t low = row->seq_len, high = row->seq_len;
    size_t count = 0;
    bool one_name = true, one_causal = true;
    for (size_t i = first; i < results->rows_count; i++) {
        const struct fb_row *other = &results->rows[i];
        if (!seen[i] && same_group(row, other)) {
            seen[i] = true;
            count++;
            low = other->seq_len < low ? other->seq_len : low;
            high = other->seq_len > high ? other->seq_len : high;
            one_name = one_name && same_name(row, other);
            one_causal = one_causal && strcmp(row->causal, other->causal) == 0;
        }
    }
    char from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    fb_text_print(job->out, job->mode, is_failure(row) ? FB_TEXT_BAD : FB_TEXT_WARNING,
                  row->status);
    (void)fputs(": ", job->out);
    if (one_name) {
        (void)fprintf(job->out, "%s/%s", row->mechanism, row->variant);
    } else {
        (void)fprintf(job->out, "several mechanisms on %s", row->device);
    }
    (void)fprintf(job->out, "%s, N %s",
                  one_causal && strcmp(row->causal, "true") == 0 ? " causal" : "",
                  fb_quantity_count((double)low, from));
    if (high != low) {
        (void)fprintf(job->out, " to %s", fb_quantity_count((double)high, to));
    }
    if (count > 1) {
        (void)fprintf(job->out, " (%zu cases)", count);
    }
    (void)fprintf(job->out, ": %s\n", row->reason[0] ? row->reason : "no reason recorded");
}

enum fb_status fb_summary_print_missing(const struct fb_summary_job *job, bool failures_only,
                                        struct fb_error *error)
{
    bool *seen = fb_arena_alloc(job->arena, job->results->rows_count + 1, sizeof *seen, error);
    bool any = false;
    if (!seen) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < job->results->rows_count; i++) {
        const struct fb_row *row = &job->results->rows[i];
        if (strcmp(row->status, "ok") == 0 || seen[i] || (failures_only && !is_failure(row))) {
            continue;
        }
        if (!any && !failures_only) {
            (void)fputs("\nnot measured:\n", job->out);
        }
        any = true;
        print_group(job, i, seen);
    }
    return FB_OK;
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
        (void)fprintf(job->out, ": %s/%s %s x%lld d %lld%s %s: %s", row->mechanism, row->variant,
                      row->isa, (long long)row->threads, (long long)row->head_dim,
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
