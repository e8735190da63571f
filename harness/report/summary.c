/* The summary of a sweep over sequence lengths, and the parts that all summaries share. */
#include "summary.h"

#include "crossover.h"
#include "missing.h"
#include "quantity.h"
#include "row_factor.h"
#include "scaling.h"

#include <math.h>
#include <string.h>

void fb_summary_print_heading(const struct fb_summary_job *job, const struct fb_series_set *set)
{
    const char *separator = "";
    char text[FB_FACTOR_TEXT_SIZE];
    if (job->title) {
        (void)fprintf(job->out, "%s\n", job->title);
    }
    for (int f = FB_FACTOR_DEVICE_NAME; f < FB_FACTOR_PARAMS; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        const struct fb_row *row = set->items[0].key;
        /* A variant that is compiled once says "any"; another series names the instruction set. */
        for (size_t i = 0; factor == FB_FACTOR_ISA && i < set->count; i++) {
            row = strcmp(row->isa, "any") == 0 ? set->items[i].key : row;
        }
        fb_factor_phrase(row, factor, text);
        if (text[0] && !fb_factor_is_plain(row, factor) && !fb_factor_is_axis(factor, set->axis) &&
            !fb_factor_varies(set, factor)) {
            (void)fprintf(job->out, "%s%s", separator, text);
            separator = ", ";
        }
    }
    (void)fputs("\n\n", job->out);
}

/* L = S and D = M everywhere: the second of the pair says nothing. */
static bool only_repeats(const struct fb_series_set *set, enum fb_factor factor)
{
    for (size_t i = 0; i < set->count; i++) {
        if (!fb_factor_is_plain(set->items[i].key, factor)) {
            return false;
        }
    }
    return true;
}

void fb_summary_add_columns(struct fb_text_table *table, const struct fb_series_set *set,
                            struct fb_summary_columns *columns)
{
    *columns = (struct fb_summary_columns){0};
    columns->mechanism = fb_text_table_column(table, "mechanism", false);
    columns->causal = fb_text_table_column(table, "causal", false);
    for (int f = FB_FACTOR_DEVICE; f < FB_FACTOR_COUNT; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        if (fb_factor_varies(set, factor) && !only_repeats(set, factor)) {
            columns->factors[columns->varying_count] = f;
            columns->varying[columns->varying_count++] =
                fb_text_table_column(table, fb_factor_name(factor), false);
        }
    }
}

enum fb_status fb_summary_set_columns(struct fb_text_table *table, const struct fb_series *series,
                                      const struct fb_summary_columns *columns,
                                      struct fb_error *error)
{
    char value[FB_FACTOR_TEXT_SIZE];
    const struct fb_row *row = series->key;
    const char *name = fb_arena_printf(table->arena, error, "%s/%s", row->mechanism, row->variant);
    if (!name) {
        return FB_ERROR_MEMORY;
    }
    fb_text_table_set(table, columns->mechanism, name, FB_TEXT_PLAIN);
    fb_text_table_set(table, columns->causal, strcmp(row->causal, "true") == 0 ? "yes" : "no",
                      FB_TEXT_PLAIN);
    for (size_t i = 0; i < columns->varying_count; i++) {
        fb_factor_value(row, (enum fb_factor)columns->factors[i], value);
        const char *copy = fb_arena_strdup(table->arena, value, error);
        if (!copy) {
            return FB_ERROR_MEMORY;
        }
        fb_text_table_set(table, columns->varying[i], copy, FB_TEXT_PLAIN);
    }
    return FB_OK;
}

enum fb_status fb_summary_set_cases(struct fb_text_table *table, size_t column,
                                    const struct fb_series *series, struct fb_error *error)
{
    size_t ok = 0, failed = 0, missing = 0;
    for (size_t i = 0; i < series->points_count; i++) {
        const char *status = series->points[i].row->status;
        bool is_failed = fb_status_is_failure(status);
        ok += strcmp(status, "ok") == 0;
        failed += is_failed;
        missing += strcmp(status, "ok") != 0 && !is_failed;
    }
    char missing_text[48] = "", failed_text[48] = "";
    if (missing > 0) {
        (void)snprintf(missing_text, sizeof missing_text, ", %zu not run", missing);
    }
    if (failed > 0) {
        (void)snprintf(failed_text, sizeof failed_text, ", %zu FAILED", failed);
    }
    const char *text =
        fb_arena_printf(table->arena, error, "%zu ok%s%s", ok, missing_text, failed_text);
    if (!text) {
        return FB_ERROR_MEMORY;
    }
    fb_text_table_set(table, column, text,
                      failed    ? FB_TEXT_BAD
                      : missing ? FB_TEXT_WARNING
                                : FB_TEXT_PLAIN);
    return FB_OK;
}

enum fb_status fb_summary_set_error(struct fb_text_table *table, size_t column,
                                    const struct fb_series *series, struct fb_error *error)
{
    double worst = (double)NAN;
    bool over = false;
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_row *row = series->points[i].row;
        if (!isnan(row->err_rel)) {
            over = over || row->err_rel > row->err_budget;
            worst = isnan(worst) ? row->err_rel : fmax(worst, row->err_rel);
        }
    }
    char value[FB_QUANTITY_SIZE];
    const char *text = "-";
    if (!isnan(worst)) {
        fb_quantity_small(worst, value);
        text = fb_arena_strdup(table->arena, value, error);
        if (!text) {
            return FB_ERROR_MEMORY;
        }
    }
    fb_text_table_set(table, column, text, over ? FB_TEXT_BAD : FB_TEXT_PLAIN);
    return FB_OK;
}

static const char *exponent_text(const struct fb_series *series, const struct fb_scaling *scaling,
                                 struct fb_arena *arena, struct fb_error *error)
{
    if (fb_scaling_is_constant(series, scaling)) {
        return fb_arena_printf(arena, error, "constant: x%.2f in all",
                               scaling->values[scaling->count - 1] / scaling->values[0]);
    }
    char from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    switch (scaling->verdict) {
    case FB_SCALING_TOO_FEW:
        return "too few sizes";
    case FB_SCALING_NONE:
        if (scaling->fixed_cost_dominates) {
            return "no single exponent: fixed cost dominates";
        }
        fb_quantity_count(scaling->sizes[scaling->break_index], from);
        fb_quantity_count(scaling->sizes[scaling->break_index + 1], to);
        return fb_arena_printf(arena, error, "no single exponent: %.2f at %s-%s, else %.2f",
                               scaling->slopes[scaling->break_index], from, to,
                               scaling->typical_slope);
    case FB_SCALING_SINGLE:
        break;
    }
    char range[FB_QUANTITY_SIZE + 8] = "";
    if (scaling->first > 0) {
        (void)snprintf(range, sizeof range, " from %s",
                       fb_quantity_count(scaling->sizes[scaling->first], from));
    }
    if (scaling->p.kind == FB_SPREAD_NONE) {
        return fb_arena_printf(arena, error, "%.2f%s", scaling->fit.p, range);
    }
    return fb_arena_printf(arena, error, "%.2f [%.2f, %.2f]%s", scaling->fit.p, scaling->p.low,
                           scaling->p.high, range);
}

/* Every sign change, the side outside the range, or nothing to compare with. */
static const char *crossover_text(const struct fb_crossover *crossover, struct fb_arena *arena,
                                  struct fb_error *error)
{
    char size[FB_QUANTITY_SIZE], list[256] = "";
    if (crossover->kind == FB_CROSSOVER_NONE) {
        return "-";
    }
    size_t length = 0;
    for (size_t i = 0; i < crossover->crossings_count && length < sizeof list - 48; i++) {
        bool faster = crossover->crossings[i].becomes_faster;
        int written = snprintf(list + length, sizeof list - length, "%s%s%s", i ? ", " : "",
                               fb_quantity_count(crossover->crossings[i].size, size),
                               faster ? "" : " (slower again)");
        length += written > 0 ? (size_t)written : 0;
    }
    if (crossover->kind == FB_CROSSOVER_BELOW && length == 0) {
        return fb_arena_printf(arena, error, "< %s", fb_quantity_count(crossover->size_min, size));
    }
    if (crossover->kind == FB_CROSSOVER_ABOVE) {
        return fb_arena_printf(arena, error, "> %s%s%s",
                               fb_quantity_count(crossover->size_max, size), length ? "; " : "",
                               list);
    }
    return fb_arena_strdup(arena, list, error);
}

static const char *floor_text(const struct fb_series *series, struct fb_arena *arena,
                              struct fb_error *error)
{
    const struct fb_point *last = fb_series_last_ok(series);
    double best = (double)NAN;
    for (size_t i = 0; i < series->points_count; i++) {
        if (series->points[i].ok) {
            best = fmin(best, series->points[i].row->floor_ratio);
        }
    }
    if (!last || isnan(best)) {
        return "-";
    }
    char at_last[FB_QUANTITY_SIZE], at_best[FB_QUANTITY_SIZE];
    return fb_arena_printf(arena, error, "%s (%s)",
                           fb_quantity_ratio(last->row->floor_ratio, at_last),
                           fb_quantity_ratio(best, at_best));
}

static const char *memory_text(const struct fb_series *series, struct fb_arena *arena,
                               struct fb_error *error)
{
    const struct fb_point *last = fb_series_last_ok(series);
    char bytes[FB_QUANTITY_SIZE];
    return fb_arena_strdup(
        arena, fb_quantity_bytes(last ? fb_row_memory_bytes(last->row) : (double)NAN, bytes),
        error);
}

/* What the footnotes under the table have to say. */
struct notes {
    enum fb_spread_kind weakest, strongest;
    const struct fb_series *softmax;
    bool several_softmax;
};

static enum fb_status add_scaling_row(const struct fb_summary_job *job,
                                      const struct fb_series_set *set,
                                      const struct fb_series *series, struct fb_text_table *table,
                                      const size_t *at, struct notes *notes, struct fb_error *error)
{
    struct fb_scaling scaling;
    struct fb_crossover crossover;
    const struct fb_series *softmax = fb_series_softmax(set, series);
    enum fb_status status = fb_scaling_of_time(series, job->seed, job->arena, &scaling, error);
    if (status == FB_OK) {
        status = fb_crossover_of(series, softmax, job->seed, job->arena, &crossover, error);
    }
    if (status != FB_OK) {
        return status;
    }
    if (scaling.verdict == FB_SCALING_SINGLE) {
        notes->weakest = scaling.p.kind < notes->weakest ? scaling.p.kind : notes->weakest;
        notes->strongest = scaling.p.kind > notes->strongest ? scaling.p.kind : notes->strongest;
    }
    if (crossover.kind != FB_CROSSOVER_NONE) {
        notes->several_softmax =
            notes->several_softmax ||
            (notes->softmax && strcmp(notes->softmax->key->variant, softmax->key->variant) != 0);
        notes->softmax = softmax;
    }
    const char *texts[] = {exponent_text(series, &scaling, job->arena, error),
                           crossover_text(&crossover, job->arena, error),
                           floor_text(series, job->arena, error),
                           memory_text(series, job->arena, error)};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (!texts[i]) {
            return FB_ERROR_MEMORY;
        }
        fb_text_table_set(table, at[i], texts[i],
                          i == 0 && scaling.verdict == FB_SCALING_NONE &&
                                  !fb_scaling_is_constant(series, &scaling)
                              ? FB_TEXT_WARNING
                              : FB_TEXT_PLAIN);
    }
    return FB_OK;
}

static bool has_decode(const struct fb_series_set *set)
{
    return set->count > 0 && fb_row_is_decode(set->items[0].key);
}

static void print_notes(const struct fb_summary_job *job, const struct fb_series_set *set,
                        const struct notes *notes)
{
    if (notes->strongest == FB_SPREAD_SAMPLES || notes->weakest == FB_SPREAD_SAMPLES) {
        fb_text_print(job->out, job->mode, FB_TEXT_FAINT,
                      "exponent: of t = a + b N^p; [95 % over the samples of too few processes: "
                      "descriptive, a claim takes 5]\n");
    } else if (notes->strongest == FB_SPREAD_PROCESSES) {
        fb_text_print(job->out, job->mode, FB_TEXT_FAINT,
                      "exponent: of t = a + b N^p; [95 % bootstrap over processes]\n");
    }
    if (notes->softmax) {
        (void)fprintf(job->out,
                      "crossover: the N from which on it is faster than softmax/%s of the same "
                      "shape%s\n",
                      notes->softmax->key->variant,
                      notes->several_softmax ? " (or the variant that was stored)" : "");
    }
    fb_text_print(job->out, job->mode, FB_TEXT_FAINT,
                  has_decode(set)
                      ? "time: of one token, all heads, against the state of N others; expected: "
                        "constant for a recurrent state, N^1 for softmax's cache\n"
                        "x floor: time over the machine's least time for the work, at the largest "
                        "N (best N); memory: state and workspace at the largest N;\n"
                      : "x floor: time over the machine's least time for the work, at the largest "
                        "N (best N); memory: workspace, and what forward saves for backward, at "
                        "the largest N;\n");
    fb_text_print(job->out, job->mode, FB_TEXT_FAINT,
                  "error: largest relative error against float64, red when over its budget\n");
}

static enum fb_status print_scaling(const struct fb_summary_job *job,
                                    const struct fb_series_set *set, struct fb_error *error)
{
    struct fb_text_table table;
    struct fb_summary_columns columns;
    struct notes notes = {.weakest = FB_SPREAD_EXACT, .strongest = FB_SPREAD_NONE};
    fb_text_table_init(&table, job->arena);
    fb_summary_add_columns(&table, set, &columns);
    const size_t at[] = {fb_text_table_column(&table, "time ~ N^p", false),
                         fb_text_table_column(&table, "crossover", false),
                         fb_text_table_column(&table, "x floor", false),
                         fb_text_table_column(&table, "memory", false)};
    size_t error_at = fb_text_table_column(&table, "error", false);
    size_t cases_at = fb_text_table_column(&table, "cases", false);
    for (size_t i = 0; i < set->count; i++) {
        const struct fb_series *series = &set->items[i];
        enum fb_status status = fb_text_table_row(&table, error);
        if (status == FB_OK) {
            status = fb_summary_set_columns(&table, series, &columns, error);
        }
        if (status == FB_OK && series->ok_count > 0) {
            status = add_scaling_row(job, set, series, &table, at, &notes, error);
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
    print_notes(job, set, &notes);
    return FB_OK;
}

/* Series that were never tried (no such device) stand under "not measured" only. */
static void drop_untried(struct fb_series_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        if (fb_series_was_tried(&set->items[i])) {
            fb_series_filter(set, fb_series_was_tried);
            return;
        }
    }
}

/* Instructions instead of times: a table of them, no exponents. */
static bool is_counted(const struct fb_results *results)
{
    for (size_t i = 0; i < results->rows_count; i++) {
        if (results->rows[i].instructions != FB_ROW_NONE) {
            return true;
        }
    }
    return false;
}

enum fb_status fb_summary_print_results(const struct fb_summary_job *job, struct fb_error *error)
{
    static const enum fb_axis axes[] = {FB_AXIS_HEADS, FB_AXIS_HEAD_DIM, FB_AXIS_THREADS,
                                        FB_AXIS_ISA};
    struct fb_series_set set;
    if (job->results->rows_count == 0) {
        (void)fputs("no case was finished\n", job->out);
        return FB_OK;
    }
    enum fb_status status =
        fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &set, error);
    if (status != FB_OK) {
        return status;
    }
    drop_untried(&set);
    if (fb_series_axis_values(&set) >= 3 && !is_counted(job->results)) {
        return print_scaling(job, &set, error);
    }
    if (is_counted(job->results)) {
        (void)fputs("instructions of one call\n", job->out);
    }
    bool printed = false;
    for (size_t a = 0; status == FB_OK && a < sizeof axes / sizeof axes[0]; a++) {
        struct fb_series_set other;
        status = fb_series_collect(job->results, 1, axes[a], job->arena, &other, error);
        if (status != FB_OK) {
            return status;
        }
        drop_untried(&other);
        if (fb_series_axis_values(&other) >= 2 && other.axis != FB_AXIS_HEAD_DIM_TIED) {
            fb_series_filter(&other, fb_series_is_swept);
            (void)fputs(printed ? "\n" : "", job->out);
            status = fb_summary_print_axis(job, &other, error);
            printed = true;
        }
    }
    return printed || status != FB_OK ? status : fb_summary_print_axis(job, &set, error);
}
