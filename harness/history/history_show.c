/* Trends as a table and as CSV: see history_show.h. */
#include "history_show.h"

#include "csv.h"
#include "quantity.h"
#include "sparkline.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SPARKLINE_WIDTH = 40 };

const char *fb_change_text(const struct fb_series_book *book, const struct fb_book_series *series,
                           const size_t *points, const struct fb_change *change, char *text)
{
    char commit[16], before[16];
    const struct fb_book_run *at = &book->runs[series->points[points[change->at]].run];
    const struct fb_book_run *last = &book->runs[series->points[points[change->at - 1]].run];

    (void)snprintf(
        text, FB_CHANGE_TEXT_SIZE, "%+.1f %% at %s (after %s)%s", 100.0 * expm1(change->step),
        fb_book_run_commit(at, commit), fb_book_run_commit(last, before),
        fb_change_is_of_compilers(book, series, points, change) ? ", another compiler" : "");
    return text;
}

bool fb_change_is_of_compilers(const struct fb_series_book *book,
                               const struct fb_book_series *series, const size_t *points,
                               const struct fb_change *change)
{
    const struct fb_book_run *at = &book->runs[series->points[points[change->at]].run];
    const struct fb_book_run *last = &book->runs[series->points[points[change->at - 1]].run];

    return strcmp(at->compiler, last->compiler) != 0;
}

/* ---- the views ------------------------------------------------------------------------------ */

static int compare_views(const void *a, const void *b)
{
    const struct fb_series_view *x = a, *y = b;
    const struct fb_row *p = &x->series->row, *q = &y->series->row;

    if (x->series->machine != y->series->machine)
        return x->series->machine < y->series->machine ? -1 : 1;
    int order = strcmp(p->mechanism, q->mechanism);
    if (order == 0)
        order = strcmp(p->variant, q->variant);
    if (order == 0)
        order = strcmp(p->causal, q->causal);
    if (order == 0)
        order = strcmp(p->pass, q->pass);
    if (order == 0 && p->seq_len != q->seq_len)
        order = p->seq_len < q->seq_len ? -1 : 1;
    return order != 0 ? order : strcmp(p->case_id, q->case_id);
}

enum fb_status fb_series_views_make(const struct fb_series_book *book, size_t metric,
                                    struct fb_arena *arena, struct fb_series_view **views,
                                    struct fb_error *error)
{
    struct fb_series_labels labels;

    *views = fb_arena_alloc(arena, book->series_count + 1, sizeof **views, error);
    if (*views == NULL)
        return FB_ERROR_MEMORY;
    fb_series_labels_init(&labels, book, SIZE_MAX);
    for (size_t i = 0; i < book->series_count; i++) {
        struct fb_series_view *view = &(*views)[i];
        view->series = book->series[i];
        (void)fb_series_label(&labels, view->series, view->label);
        const enum fb_status status =
            fb_history_trend(book, view->series, metric, 1, arena, &view->trend, &view->points,
                             &view->points_count, error);
        if (status != FB_OK)
            return status;
    }
    qsort(*views, book->series_count, sizeof **views, compare_views);
    return FB_OK;
}

/* ---- text ----------------------------------------------------------------------------------- */

static const char *keep(const struct fb_history_view *view, const char *text,
                        struct fb_error *error)
{
    return fb_arena_strdup(view->arena, text, error);
}

static const char *draw_sparkline(const struct fb_history_view *view,
                                  const struct fb_book_series *series, struct fb_error *error)
{
    char text[FB_SPARKLINE_SIZE];
    double *values = fb_arena_alloc(view->arena, series->count + 1, sizeof *values, error);

    if (values == NULL)
        return NULL;
    for (size_t i = 0; i < series->count; i++)
        values[i] = fb_book_point_usable(series, i, view->metric)
                        ? log(series->points[i].value[view->metric])
                        : (double)NAN;
    return keep(view,
                fb_sparkline(values, series->count, SPARKLINE_WIDTH, view->mode.unicode, text),
                error);
}

enum { CELL_CASE, CELL_RUNS, CELL_TREND, CELL_LATEST, CELL_BEST, CELL_RATIO, CELL_CHANGE, CELLS };

/* The texts of one line; false when memory is short. */
static bool fill_cells(const struct fb_history_view *view, const struct fb_series_view *series,
                       const char *cells[CELLS], struct fb_error *error)
{
    const struct fb_history_metric *metric = fb_history_metric_at(view->metric);
    const struct fb_trend *trend = &series->trend;
    const bool has_level = trend->segmentation.count > 0;
    const double latest =
        has_level ? trend->segmentation.segments[trend->segmentation.count - 1].level : 0.0;
    const bool has_best = trend->best_segment != SIZE_MAX;
    char number[FB_QUANTITY_SIZE], change[FB_CHANGE_TEXT_SIZE];

    cells[CELL_CASE] = series->label;
    cells[CELL_RUNS] = fb_arena_printf(view->arena, error, "%zu", series->series->count);
    cells[CELL_TREND] = draw_sparkline(view, series->series, error);
    cells[CELL_LATEST] = has_level ? keep(view, metric->print(exp(latest), number), error) : "-";
    cells[CELL_BEST] = has_best ? keep(view, metric->print(exp(trend->best), number), error) : "-";
    cells[CELL_RATIO] =
        has_best ? fb_arena_printf(view->arena, error, "%.3f", exp(latest - trend->best)) : "-";
    cells[CELL_CHANGE] = "";
    if (trend->changes.count > 0)
        cells[CELL_CHANGE] =
            keep(view,
                 fb_change_text(view->book, series->series, series->points,
                                &trend->changes.changes[trend->changes.count - 1], change),
                 error);
    for (int c = 0; c < CELLS; c++) {
        if (cells[c] == NULL)
            return false;
    }
    return true;
}

static enum fb_status print_machine(const struct fb_history_view *view,
                                    const struct fb_series_view *views, size_t count,
                                    struct fb_error *error)
{
    static const char *const headers[CELLS] = {"case",       "runs",        "trend",      "latest",
                                               "best level", "latest/best", "last change"};
    struct fb_text_table table;
    enum fb_status status = FB_OK;

    fb_text_table_init(&table, view->arena);
    for (int c = 0; c < CELLS; c++)
        (void)fb_text_table_column(&table, headers[c],
                                   c != CELL_CASE && c != CELL_TREND && c != CELL_CHANGE);
    for (size_t i = 0; i < count && status == FB_OK; i++) {
        const char *cells[CELLS];
        status = fb_text_table_row(&table, error);
        if (status == FB_OK && !fill_cells(view, &views[i], cells, error))
            status = FB_ERROR_MEMORY;
        if (status != FB_OK)
            break;
        const struct fb_changes *changes = &views[i].trend.changes;
        for (size_t c = 0; c < CELLS; c++) {
            enum fb_text_style style = FB_TEXT_PLAIN;
            if (c == CELL_CHANGE && changes->count > 0)
                style =
                    changes->changes[changes->count - 1].step > 0.0 ? FB_TEXT_BAD : FB_TEXT_GOOD;
            fb_text_table_set(&table, c, cells[c], style);
        }
    }
    if (status == FB_OK)
        fb_text_table_print(&table, view->mode, view->out);
    return status;
}

/* Where the series of a machine end that begin at first. */
static size_t machine_end(const struct fb_series_view *views, size_t first, size_t count)
{
    size_t end = first;

    while (end < count && views[end].series->machine == views[first].series->machine)
        end++;
    return end;
}

static void print_heading(const struct fb_history_view *view, size_t machine)
{
    const struct fb_series_book *book = view->book;
    const struct fb_book_run *newest = NULL;
    size_t runs = 0;
    char commit[16];

    for (size_t i = 0; i < book->runs_count; i++) {
        if (book->runs[i].machine != machine)
            continue;
        newest = &book->runs[i];
        runs++;
    }
    fprintf(view->out, "%s (%s): %zu run%s", book->machines[machine].name,
            book->machines[machine].identity, runs, runs == 1 ? "" : "s");
    if (newest != NULL)
        fprintf(view->out, ", the newest %s of commit %s", newest->started_utc,
                fb_book_run_commit(newest, commit));
    fputc('\n', view->out);
}

static enum fb_status show_text(const struct fb_history_view *view,
                                const struct fb_series_view *views, struct fb_error *error)
{
    struct fb_series_labels labels;
    char common[512];
    enum fb_status status = FB_OK;

    fb_series_labels_init(&labels, view->book, SIZE_MAX);
    fb_series_common(&labels, common, sizeof common);
    fprintf(view->out, "%s%s%s\n", fb_history_metric_at(view->metric)->name,
            *common != '\0' ? "; " : "", common);
    for (size_t i = 0; i < view->book->series_count && status == FB_OK;) {
        const size_t end = machine_end(views, i, view->book->series_count);
        fputc('\n', view->out);
        print_heading(view, views[i].series->machine);
        status = print_machine(view, views + i, end - i, error);
        i = end;
    }
    return status;
}

/* ---- CSV ------------------------------------------------------------------------------------ */

static void add_point(struct fb_csv_line *line, const struct fb_history_view *view,
                      const struct fb_series_view *series, size_t at, size_t trend_at)
{
    const struct fb_book_point *point = &series->series->points[at];
    const struct fb_book_run *run = &view->book->runs[point->run];
    const struct fb_book_machine *machine = &view->book->machines[series->series->machine];
    const struct fb_segmentation *s = &series->trend.segmentation;
    const char *const texts[] = {machine->identity,
                                 machine->name,
                                 series->series->row.case_id,
                                 series->label,
                                 fb_history_metric_at(view->metric)->name,
                                 run->run,
                                 run->started_utc,
                                 run->git_sha,
                                 run->git_time_utc,
                                 point->status};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        fb_csv_add_text(line, texts[i]);
    fb_csv_add_real(line, point->value[view->metric]);
    fb_csv_add_real(line, point->low[view->metric]);
    fb_csv_add_real(line, point->high[view->metric]);
    size_t segment = 0;
    while (trend_at != SIZE_MAX && segment + 1 < s->count &&
           s->segments[segment + 1].first <= trend_at)
        segment++;
    if (trend_at == SIZE_MAX) {
        for (int i = 0; i < 3; i++)
            fb_csv_add_text(line, "");
    } else {
        double step = (double)NAN;
        for (size_t c = 0; c < series->trend.changes.count; c++) {
            if (series->trend.changes.changes[c].at == trend_at)
                step = expm1(series->trend.changes.changes[c].step);
        }
        fb_csv_add_int(line, (int64_t)segment + 1);
        fb_csv_add_real(line, exp(s->segments[segment].level));
        fb_csv_add_real(line, step);
    }
    fb_csv_end_line(line);
}

static enum fb_status show_csv(const struct fb_history_view *view,
                               const struct fb_series_view *views, struct fb_error *error)
{
    struct fb_csv_line line;

    fb_csv_line_init(&line);
    fputs("machine,machine_name,case_id,case,metric,run,started_utc,git_sha,git_time_utc,status,"
          "value,low,high,segment,level,change\n",
          view->out);
    for (size_t i = 0; i < view->book->series_count; i++) {
        size_t next = 0;
        for (size_t at = 0; at < views[i].series->count; at++) {
            const bool usable = next < views[i].points_count && views[i].points[next] == at;
            add_point(&line, view, &views[i], at, usable ? next++ : SIZE_MAX);
        }
    }
    const bool failed = line.failed;
    if (!failed && line.length > 0)
        (void)fwrite(line.data, 1, line.length, view->out);
    fb_csv_line_free(&line);
    return failed ? fb_error_set(error, FB_ERROR_MEMORY, "no memory for the table") : FB_OK;
}

enum fb_status fb_history_show(const struct fb_history_view *view, struct fb_error *error)
{
    struct fb_series_view *views;
    enum fb_status status =
        fb_series_views_make(view->book, view->metric, view->arena, &views, error);

    if (status != FB_OK)
        return status;
    switch (view->format) {
    case FB_HISTORY_CSV:
        return show_csv(view, views, error);
    case FB_HISTORY_JSON:
        return fb_history_show_json(view, views, error);
    default:
        return show_text(view, views, error);
    }
}
