/* Trends and verdicts as JSON: see history_show.h. */
#include "history_show.h"

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static enum fb_status print(json_t *document, FILE *out, struct fb_error *error)
{
    const bool failed = document == NULL ||
                        json_dumpf(document, out, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) != 0;

    json_decref(document);
    if (failed)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the JSON document");
    fputc('\n', out);
    return FB_OK;
}

/* JSON has no NaN. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Texts of the history need not be UTF-8. */
static json_t *text(const char *value)
{
    json_t *json = json_string(value);

    return json != NULL ? json : json_string("(not UTF-8)");
}

static json_t *text_or_null(const char *value)
{
    return *value == '\0' ? json_null() : text(value);
}

static json_t *run_json(const struct fb_book_run *run)
{
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run", text(run->run), "suite", text(run->suite),
        "started_utc", text(run->started_utc), "git_sha", text_or_null(run->git_sha),
        "git_time_utc", text_or_null(run->git_time_utc), "git_dirty",
        run->git_dirty == FB_ROW_NONE ? json_null() : json_boolean(run->git_dirty == 1), "compiler",
        text_or_null(run->compiler));
}

static json_t *changes_json(const struct fb_series_book *book, const struct fb_book_series *series,
                            const size_t *points, const struct fb_trend *trend)
{
    json_t *array = json_array();

    for (size_t i = 0; i < trend->changes.count; i++) {
        const struct fb_change *change = &trend->changes.changes[i];
        const struct fb_book_run *at = &book->runs[series->points[points[change->at]].run];
        const struct fb_book_run *last = &book->runs[series->points[points[change->at - 1]].run];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "change", real(expm1(change->step)),
                             "threshold", real(expm1(change->threshold)), "git_sha",
                             text_or_null(at->git_sha), "run", text(at->run), "after_git_sha",
                             text_or_null(last->git_sha), "other_compiler",
                             fb_change_is_of_compilers(book, series, points, change)));
    }
    return array;
}

static json_t *segments_json(const struct fb_trend *trend)
{
    json_t *array = json_array();

    for (size_t i = 0; i < trend->segmentation.count; i++) {
        const struct fb_segment *segment = &trend->segmentation.segments[i];
        json_array_append_new(
            array,
            json_pack("{s:I, s:I, s:o, s:o, s:b}", "first", (json_int_t)segment->first, "count",
                      (json_int_t)segment->count, "level", real(exp(segment->level)), "error",
                      real(expm1(segment->error)), "blip", trend->changes.blips[i]));
    }
    return array;
}

static json_t *points_json(const struct fb_history_view *view, const struct fb_book_series *series)
{
    json_t *array = json_array();

    for (size_t i = 0; i < series->count; i++) {
        const struct fb_book_point *point = &series->points[i];
        json_t *object = run_json(&view->book->runs[point->run]);
        json_object_set_new(object, "status", json_string(point->status));
        json_object_set_new(object, "value", real(point->value[view->metric]));
        json_object_set_new(object, "low", real(point->low[view->metric]));
        json_object_set_new(object, "high", real(point->high[view->metric]));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *machine_json(const struct fb_book_machine *machine)
{
    return json_pack("{s:o, s:o}", "identity", text(machine->identity), "name",
                     text(machine->name));
}

enum fb_status fb_history_show_json(const struct fb_history_view *view,
                                    const struct fb_series_view *views, struct fb_error *error)
{
    json_t *series = json_array();

    for (size_t i = 0; i < view->book->series_count; i++) {
        const struct fb_series_view *one = &views[i];
        json_t *object =
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "machine",
                      machine_json(&view->book->machines[one->series->machine]), "case_id",
                      text(one->series->row.case_id), "case", text(one->label), "best",
                      real(exp(one->trend.best)), "points", points_json(view, one->series),
                      "segments", segments_json(&one->trend), "changes",
                      changes_json(view->book, one->series, one->points, &one->trend));
        json_array_append_new(series, object);
    }
    return print(json_pack("{s:i, s:s, s:o}", "schema", 1, "metric",
                           fb_history_metric_at(view->metric)->name, "series", series),
                 view->out, error);
}

static json_t *verdict_json(const struct fb_history_view *view,
                            const struct fb_history_verdict *verdict, const char *label)
{
    const bool judged = verdict->points_count > 0;
    const struct fb_trend *trend = &verdict->trend;
    const double none = (double)NAN;

    return json_pack(
        "{s:o, s:o, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "case_id",
        text(verdict->series->row.case_id), "case", text(label), "verdict",
        fb_verdict_name(verdict->verdict), "reason", text(verdict->reason), "metric",
        fb_history_metric_at(verdict->metric)->name, "now", real(judged ? exp(trend->now) : none),
        "best", real(judged ? exp(trend->best) : none), "change",
        real(judged ? expm1(trend->step) : none), "threshold",
        real(judged ? expm1(trend->threshold) : none), "scatter",
        real(judged ? trend->scatter : none), "changes",
        judged ? changes_json(view->book, verdict->series, verdict->points, trend) : json_array());
}

enum fb_status fb_history_check_json(const struct fb_history_view *view,
                                     const struct fb_history_check *check, struct fb_error *error)
{
    json_t *verdicts = json_array(), *counts = json_object();
    struct fb_series_labels labels;

    fb_series_labels_init(&labels, view->book, view->book->runs[check->run].machine);
    for (size_t i = 0; i < check->count; i++) {
        char label[FB_SERIES_LABEL_SIZE];
        json_array_append_new(
            verdicts, verdict_json(view, &check->verdicts[i],
                                   fb_series_label(&labels, check->verdicts[i].series, label)));
    }
    for (int v = 0; v < FB_VERDICT_COUNT; v++)
        json_object_set_new(counts, fb_verdict_name((enum fb_verdict)v),
                            json_integer((json_int_t)check->counts[v]));
    const struct fb_book_run *run = &view->book->runs[check->run];
    return print(json_pack("{s:i, s:o, s:o, s:b, s:o, s:o}", "schema", 1, "run", run_json(run),
                           "machine", machine_json(&view->book->machines[run->machine]),
                           "first_of_machine", check->first_of_machine, "counts", counts,
                           "verdicts", verdicts),
                 view->out, error);
}
