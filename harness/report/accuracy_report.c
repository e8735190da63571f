/* The end of a training run: see accuracy_report.h. */
#include "accuracy_report.h"

#include "accuracy_plots.h"
#include "accuracy_table.h"
#include "missing.h"

#include <errno.h>
#include <string.h>

static int count_failed(const struct fb_accuracy *accuracy)
{
    int count = 0;
    for (size_t i = 0; i < accuracy->rows_count; i++)
        count += fb_status_is_failure(accuracy->rows[i].status);
    return count;
}

static enum fb_status write_markdown(const struct fb_accuracy *accuracy,
                                     const struct fb_accuracy_groups *groups, const char *title,
                                     struct fb_arena *arena, struct fb_error *error)
{
    const char *path = fb_arena_printf(arena, error, "%s/accuracy.md", accuracy->dir);
    if (!path)
        return FB_ERROR_MEMORY;
    FILE *file = fopen(path, "w");
    enum fb_status status = file ? fb_accuracy_markdown(groups, title, file, error) : FB_OK;
    const bool fine = file && fclose(file) == 0;
    if (status == FB_OK && !fine)
        status = fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    return status;
}

/* A gnuplot that is missing or fails costs the pictures, never the run. */
static enum fb_status draw(const struct fb_accuracy *accuracy,
                           const struct fb_accuracy_groups *groups, const struct fb_suite *suite,
                           const struct fb_report_options *options, struct fb_arena *arena,
                           struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_error why = {FB_OK, ""};
    const struct fb_accuracy_plots_request request = {
        .accuracy = accuracy,
        .groups = groups,
        .plots = suite ? suite->training.plots : FB_TRAINING_PLOT_ALL,
        .dir = options->plots_dir,
        .out = options->quiet ? NULL : options->out,
    };
    const enum fb_status status =
        fb_accuracy_plots_make(&request, arena, &verdict->plots_made, &why);
    if (status == FB_ERROR_MEMORY)
        return fb_error_set(error, status, "%s", why.text);
    verdict->plots_skipped = status != FB_OK;
    if (status != FB_OK && options->messages)
        (void)fprintf(options->messages, "flowbench: warning: no pictures: %s\n", why.text);
    return FB_OK;
}

static enum fb_status report(const struct fb_accuracy *accuracy, const struct fb_suite *suite,
                             const struct fb_report_options *options, struct fb_arena *arena,
                             struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_accuracy_groups groups;
    const char *title = suite ? suite->title : "Accuracy";
    enum fb_status status = fb_accuracy_group(accuracy, options->seed, arena, &groups, error);
    if (status == FB_OK && options->out && !options->quiet) {
        const struct fb_text_mode mode = {options->color, fb_text_locale_is_utf8()};
        status = fb_accuracy_table_print(&groups, title, mode, options->out, arena, error);
    }
    if (status == FB_OK && options->make_plots && accuracy->dir)
        status = write_markdown(accuracy, &groups, title, arena, error);
    if (status == FB_OK && options->make_plots && accuracy->points_count > 0)
        status = draw(accuracy, &groups, suite, options, arena, verdict, error);
    if (status == FB_OK && options->out && (fflush(options->out) != 0 || ferror(options->out)))
        status = fb_error_set(error, FB_ERROR_IO, "the summary could not be written: %s",
                              strerror(errno));
    return status;
}

enum fb_status fb_accuracy_report(const struct fb_accuracy *accuracy, const struct fb_suite *suite,
                                  const struct fb_report_options *options,
                                  struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    *verdict = (struct fb_report_verdict){.cases_failed = count_failed(accuracy)};
    const enum fb_status status = report(accuracy, suite, options, &arena, verdict, error);
    fb_arena_free(&arena);
    return status;
}
