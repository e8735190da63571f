/* Verdicts as a table and as CSV: see history_show.h. */
#include "history_show.h"

#include "csv.h"
#include "quantity.h"

#include <math.h>
#include <string.h>

static enum fb_text_style style_of(enum fb_verdict verdict)
{
    static const enum fb_text_style styles[FB_VERDICT_COUNT] = {
        [FB_VERDICT_PASS] = FB_TEXT_PLAIN,
        [FB_VERDICT_FASTER] = FB_TEXT_GOOD,
        [FB_VERDICT_FAIL] = FB_TEXT_BAD,
        [FB_VERDICT_AMBIGUOUS] = FB_TEXT_WARNING,
        [FB_VERDICT_INCOMPARABLE] = FB_TEXT_FAINT};

    return styles[verdict];
}

enum { CELL_VERDICT, CELL_CASE, CELL_NOW, CELL_BEST, CELL_CHANGE, CELL_LIMIT, CELL_REASON, CELLS };

static bool fill_cells(const struct fb_history_view *view, const struct fb_history_verdict *verdict,
                       const struct fb_series_labels *labels, const char *cells[CELLS],
                       struct fb_error *error)
{
    const struct fb_trend *trend = &verdict->trend;
    const struct fb_history_metric *metric = fb_history_metric_at(verdict->metric);
    const bool judged = verdict->points_count > 0;
    char label[FB_SERIES_LABEL_SIZE], number[FB_QUANTITY_SIZE];

    cells[CELL_VERDICT] = fb_verdict_name(verdict->verdict);
    cells[CELL_CASE] =
        fb_arena_strdup(view->arena, fb_series_label(labels, verdict->series, label), error);
    cells[CELL_NOW] = cells[CELL_BEST] = cells[CELL_CHANGE] = cells[CELL_LIMIT] = "-";
    if (judged && !isnan(trend->now))
        cells[CELL_NOW] =
            fb_arena_strdup(view->arena, metric->print(exp(trend->now), number), error);
    if (judged && !isnan(trend->step)) {
        cells[CELL_BEST] =
            fb_arena_strdup(view->arena, metric->print(exp(trend->best), number), error);
        cells[CELL_CHANGE] =
            fb_arena_printf(view->arena, error, "%+.1f %%", 100.0 * expm1(trend->step));
        cells[CELL_LIMIT] =
            fb_arena_printf(view->arena, error, "%+.1f %%", 100.0 * expm1(trend->threshold));
    }
    cells[CELL_REASON] = verdict->reason;
    for (int c = 0; c < CELLS; c++) {
        if (cells[c] == NULL)
            return false;
    }
    return true;
}

static enum fb_status print_table(const struct fb_history_view *view,
                                  const struct fb_history_check *check,
                                  const struct fb_series_labels *labels, struct fb_error *error)
{
    static const char *const headers[CELLS] = {"verdict", "case",  "now",   "best level",
                                               "change",  "limit", "reason"};
    struct fb_text_table table;

    fb_text_table_init(&table, view->arena);
    for (int c = 0; c < CELLS; c++)
        (void)fb_text_table_column(&table, headers[c], c >= CELL_NOW && c <= CELL_LIMIT);
    for (size_t i = 0; i < check->count; i++) {
        const struct fb_history_verdict *verdict = &check->verdicts[i];
        const char *cells[CELLS];
        const enum fb_status status = fb_text_table_row(&table, error);
        if (status != FB_OK || !fill_cells(view, verdict, labels, cells, error))
            return FB_ERROR_MEMORY;
        for (size_t c = 0; c < CELLS; c++)
            fb_text_table_set(&table, c, cells[c],
                              c == CELL_VERDICT ? style_of(verdict->verdict) : FB_TEXT_PLAIN);
    }
    fb_text_table_print(&table, view->mode, view->out);
    return FB_OK;
}

/* The commits to look at: every change since the best level, of each case that fails. */
static void print_changes(const struct fb_history_view *view, const struct fb_history_check *check,
                          const struct fb_series_labels *labels)
{
    char label[FB_SERIES_LABEL_SIZE], text[FB_CHANGE_TEXT_SIZE];

    for (size_t i = 0; i < check->count; i++) {
        const struct fb_history_verdict *verdict = &check->verdicts[i];
        const struct fb_trend *trend = &verdict->trend;
        size_t named = 0;
        if (verdict->verdict != FB_VERDICT_FAIL || verdict->points_count == 0 ||
            !(trend->step > trend->threshold))
            continue;
        fprintf(view->out, "\n%s\n", fb_series_label(labels, verdict->series, label));
        for (size_t c = 0; c < trend->changes.count; c++) {
            const struct fb_change *change = &trend->changes.changes[c];
            if (change->before < trend->best_segment)
                continue;
            fprintf(view->out, "  %s\n",
                    fb_change_text(view->book, verdict->series, verdict->points, change, text));
            named++;
        }
        if (named == 0 && trend->now_is_segment)
            fputs("  drift: no single step is large enough to name a commit; `flowbench history "
                  "show` has the trend\n",
                  view->out);
        else if (named == 0)
            fprintf(view->out, "  first seen at %s\n",
                    fb_book_run_commit(&view->book->runs[check->run], text));
    }
}

static enum fb_status show_text(const struct fb_history_view *view,
                                const struct fb_history_check *check, struct fb_error *error)
{
    const struct fb_book_run *run = &view->book->runs[check->run];
    struct fb_series_labels labels;
    char commit[16], common[512];

    fb_series_labels_init(&labels, view->book, view->book->runs[check->run].machine);
    fb_series_common(&labels, common, sizeof common);
    fprintf(view->out, "%s of commit %s on %s\n%s%s\n", run->run, fb_book_run_commit(run, commit),
            view->book->machines[run->machine].name, common, *common != '\0' ? "\n" : "");
    const enum fb_status status = print_table(view, check, &labels, error);
    if (status != FB_OK)
        return status;
    print_changes(view, check, &labels);
    fputc('\n', view->out);
    for (int v = 0, any = 0; v < FB_VERDICT_COUNT; v++) {
        if (check->counts[v] > 0)
            fprintf(view->out, "%s%zu %s", any++ > 0 ? ", " : "", check->counts[v],
                    fb_verdict_name((enum fb_verdict)v));
    }
    fputc('\n', view->out);
    return FB_OK;
}

static enum fb_status show_csv(const struct fb_history_view *view,
                               const struct fb_history_check *check, struct fb_error *error)
{
    struct fb_series_labels labels;
    struct fb_csv_line line;

    fb_series_labels_init(&labels, view->book, view->book->runs[check->run].machine);
    fb_csv_line_init(&line);
    fputs("verdict,case_id,case,metric,now,best,change,threshold,reason\n", view->out);
    for (size_t i = 0; i < check->count; i++) {
        const struct fb_history_verdict *verdict = &check->verdicts[i];
        const struct fb_trend *trend = &verdict->trend;
        const bool judged = verdict->points_count > 0;
        const double none = (double)NAN;
        char label[FB_SERIES_LABEL_SIZE];
        fb_csv_add_text(&line, fb_verdict_name(verdict->verdict));
        fb_csv_add_text(&line, verdict->series->row.case_id);
        fb_csv_add_text(&line, fb_series_label(&labels, verdict->series, label));
        fb_csv_add_text(&line, fb_history_metric_at(verdict->metric)->name);
        fb_csv_add_real(&line, judged ? exp(trend->now) : none);
        fb_csv_add_real(&line, judged ? exp(trend->best) : none);
        fb_csv_add_real(&line, judged ? expm1(trend->step) : none);
        fb_csv_add_real(&line, judged ? expm1(trend->threshold) : none);
        fb_csv_add_text(&line, verdict->reason);
        fb_csv_end_line(&line);
    }
    const bool failed = line.failed;
    if (!failed && line.length > 0)
        (void)fwrite(line.data, 1, line.length, view->out);
    fb_csv_line_free(&line);
    return failed ? fb_error_set(error, FB_ERROR_MEMORY, "no memory for the table") : FB_OK;
}

enum fb_status fb_history_check_show(const struct fb_history_view *view,
                                     const struct fb_history_check *check, struct fb_error *error)
{
    switch (view->format) {
    case FB_HISTORY_CSV:
        return show_csv(view, check, error);
    case FB_HISTORY_JSON:
        return fb_history_check_json(view, check, error);
    default:
        return show_text(view, check, error);
    }
}
