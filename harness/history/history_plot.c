/* Numbers and settings for gnuplot: see history_plot.h. */
#include "history_plot.h"

#include "gnuplot.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Three blocks per panel, apart by two empty lines: points, levels, changes. An empty block gets a
 * line that draws nothing, or gnuplot would not count it. */
static void write_panel(FILE *data, const struct fb_history_view *view,
                        const struct fb_series_view *one)
{
    const struct fb_trend *trend = &one->trend;
    char commit[16];

    fprintf(data, "# run\tvalue\tlow\thigh\n");
    for (size_t i = 0; i < one->points_count; i++) {
        const struct fb_book_point *point = &one->series->points[one->points[i]];
        const double value = point->value[view->metric];
        const double low = point->low[view->metric], high = point->high[view->metric];
        fprintf(data, "%zu\t%.10g\t%.10g\t%.10g\n", one->points[i] + 1, value,
                low > 0.0 ? low : value, high > 0.0 && isfinite(high) ? high : value);
    }
    fprintf(data, "%s\n\n# run\tlevel\n", one->points_count == 0 ? "NaN\tNaN\tNaN\tNaN\n" : "");
    for (size_t s = 0; s < trend->segmentation.count; s++) {
        const struct fb_segment *segment = &trend->segmentation.segments[s];
        const size_t last = segment->first + segment->count - 1;
        fprintf(data, "%.1f\t%.10g\n%.1f\t%.10g\n\n", (double)one->points[segment->first] + 0.5,
                exp(segment->level), (double)one->points[last] + 1.5, exp(segment->level));
    }
    fprintf(data, "%s\n# run\tvalue\ttext\n", trend->segmentation.count == 0 ? "NaN\tNaN\n\n" : "");
    for (size_t c = 0; c < trend->changes.count; c++) {
        const struct fb_change *change = &trend->changes.changes[c];
        const struct fb_book_point *point = &one->series->points[one->points[change->at]];
        char label[64];
        (void)snprintf(label, sizeof label, "%+.1f %% %s", 100.0 * expm1(change->step),
                       fb_book_run_commit(&view->book->runs[point->run], commit));
        fprintf(data, "%.1f\t%.10g\t%d\t", (double)one->points[change->at] + 0.5,
                point->value[view->metric], change->step > 0.0);
        fb_gnuplot_write_text(data, label);
        fputc('\n', data);
    }
    fprintf(data, "%s\n\n", trend->changes.count == 0 ? "NaN\tNaN\t0\t\"\"\n" : "");
}

/* The range of a panel: of its points and intervals, at least 10 %, with room for the labels. */
static void find_range(const struct fb_history_view *view, const struct fb_series_view *one,
                       double *low, double *high)
{
    *low = HUGE_VAL;
    *high = 0.0;
    for (size_t i = 0; i < one->points_count; i++) {
        const struct fb_book_point *point = &one->series->points[one->points[i]];
        const double value = point->value[view->metric];
        *low = fmin(*low, value);
        *high = fmax(*high, value);
        if (point->low[view->metric] > 0.0)
            *low = fmin(*low, point->low[view->metric]);
        if (isfinite(point->high[view->metric]))
            *high = fmax(*high, point->high[view->metric]);
    }
    if (one->points_count == 0)
        *low = *high = 1.0;
    const double middle = sqrt(*low * *high);
    const double half = fmax(sqrt(*high / *low), 1.05);
    *low = middle / pow(half, 1.15);
    *high = middle * pow(half, 1.6);
}

/* The unit that fits, so that gnuplot has nothing to guess. */
static const char *unit_of(const struct fb_history_view *view, double value, double *scale)
{
    static const struct unit {
        const char *name;
        double scale;
    } times[] = {{"s", 1.0}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}},
      counts[] = {{"billions", 1e9}, {"millions", 1e6}, {"thousands", 1e3}, {"", 1.0}},
      sizes[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"KiB", 1024.0}, {"bytes", 1.0}};
    const struct unit *units = view->metric == FB_METRIC_TIME ? times : sizes;
    size_t i = 0;

    if (view->metric == FB_METRIC_INSTRUCTIONS)
        units = counts;
    while (i < 3 && value < units[i].scale)
        i++;
    *scale = units[i].scale;
    return units[i].name;
}

static void write_settings(FILE *file, const struct fb_history_view *view,
                           const struct fb_series_view *views, const char *data, const char *stem)
{
    const size_t count = view->book->series_count;

    fprintf(file, "fb_data = ");
    fb_gnuplot_write_text(file, data);
    fprintf(file, "\nfb_out = ");
    fb_gnuplot_write_text(file, stem);
    fprintf(file,
            "\nfb_panels = %zu\narray fb_title[%zu]\narray fb_machine[%zu]\narray fb_low[%zu]\n"
            "array fb_high[%zu]\narray fb_scale[%zu]\narray fb_unit[%zu]\narray fb_runs[%zu]\n",
            count, count, count, count, count, count, count, count);
    for (size_t i = 0; i < count; i++) {
        double low, high, scale;
        find_range(view, &views[i], &low, &high);
        const char *unit = unit_of(view, sqrt(low * high), &scale);
        fprintf(file, "fb_title[%zu] = ", i + 1);
        fb_gnuplot_write_text(file, views[i].label);
        fprintf(file, "\nfb_machine[%zu] = ", i + 1);
        fb_gnuplot_write_text(file, view->book->machines[views[i].series->machine].name);
        fprintf(file,
                "\nfb_low[%zu] = %.10g; fb_high[%zu] = %.10g; fb_scale[%zu] = %.10g; fb_unit[%zu] "
                "= '%s'; fb_runs[%zu] = %zu\n",
                i + 1, low / scale, i + 1, high / scale, i + 1, scale, i + 1, unit, i + 1,
                views[i].series->count);
    }
}

/* The files that gnuplot reads: a folder of their own. */
struct scratch {
    char folder[4096], data[4120], settings[4120];
};

static enum fb_status make_scratch(struct scratch *scratch, struct fb_error *error)
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(scratch->folder, sizeof scratch->folder, "%.4000s/flowbench-history-XXXXXX",
                   base != NULL && *base != '\0' ? base : "/tmp");
    if (mkdtemp(scratch->folder) == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot make the folder '%s': %s", scratch->folder,
                            strerror(errno));
    (void)snprintf(scratch->data, sizeof scratch->data, "%s/history.tsv", scratch->folder);
    (void)snprintf(scratch->settings, sizeof scratch->settings, "%s/history.gp", scratch->folder);
    return FB_OK;
}

static void remove_scratch(const struct scratch *scratch)
{
    (void)unlink(scratch->data);
    (void)unlink(scratch->settings);
    (void)rmdir(scratch->folder);
}

static enum fb_status write_files(const struct scratch *scratch, const struct fb_history_view *view,
                                  const struct fb_series_view *views, const char *stem,
                                  struct fb_error *error)
{
    FILE *data = fopen(scratch->data, "w");
    FILE *settings = fopen(scratch->settings, "w");
    bool failed = data == NULL || settings == NULL;

    if (!failed) {
        for (size_t i = 0; i < view->book->series_count; i++)
            write_panel(data, view, &views[i]);
        write_settings(settings, view, views, scratch->data, stem);
        failed = ferror(data) != 0 || ferror(settings) != 0;
    }
    failed |= data != NULL && fclose(data) != 0;
    failed |= settings != NULL && fclose(settings) != 0;
    return failed ? fb_error_set(error, FB_ERROR_IO, "cannot write to '%s': %s", scratch->folder,
                                 strerror(errno))
                  : FB_OK;
}

enum fb_status fb_history_plot(const struct fb_history_view *view, const char *path,
                               struct fb_error *error)
{
    struct fb_series_view *views;
    struct scratch scratch;
    const char *scripts = fb_gnuplot_scripts_dir();
    const char *format = path + strlen(path) - 3;

    if (scripts == NULL)
        return fb_error_set(error, FB_ERROR_IO,
                            "the gnuplot scripts are not installed: install flowbench again");
    if (view->book->series_count > FB_HISTORY_PANELS_MAX)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%zu cases do not fit into one picture, %d do: choose some with "
                            "--filter or --case",
                            view->book->series_count, FB_HISTORY_PANELS_MAX);
    char *stem = fb_arena_printf(view->arena, error, "%.*s", (int)(strlen(path) - 4), path);
    enum fb_status status =
        stem == NULL ? FB_ERROR_MEMORY
                     : fb_series_views_make(view->book, view->metric, view->arena, &views, error);
    if (status == FB_OK)
        status = make_scratch(&scratch, error);
    if (status != FB_OK)
        return status;
    status = write_files(&scratch, view, views, stem, error);
    if (status == FB_OK)
        status = fb_gnuplot_draw(scratch.settings, scripts, "history.gp", format, error);
    remove_scratch(&scratch);
    return status;
}
