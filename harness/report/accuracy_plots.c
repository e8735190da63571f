/* Drawing training runs: see accuracy_plots.h. */
#include "accuracy_plots.h"

#include "accuracy_pair.h"
#include "accuracy_speed.h"
#include "accuracy_table.h"
#include "figure_builder.h"
#include "gnuplot.h"
#include "plots.h"
#include "suite.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct picture {
    const struct fb_accuracy_plots_request *request;
    const struct fb_plots_place *place;
    struct fb_arena *arena;
    const char *kind; /* name of the script */
    bool speed;       /* of steps per second: of a set of blocks, whose first is `block` */
    size_t block;
    const char *name;
    FILE *data;
    size_t lines; /* drawn so far */
};

/* ---- numbers --------------------------------------------------------------------------------- */

/* A point of the row's selected curve at a step; NULL when there is none. */
static const struct fb_curve_point *point_at(const struct fb_accuracy *accuracy,
                                             const struct fb_accuracy_row *row, int64_t trial,
                                             int64_t step)
{
    for (size_t i = 0; i < accuracy->points_count; i++) {
        const struct fb_curve_point *p = &accuracy->points[i];
        if (p->trial == trial && p->step == step && strcmp(p->case_id, row->case_id) == 0)
            return p;
    }
    return NULL;
}

/* The trial whose learning rate was selected: the one that holds the selected evaluation. */
static int64_t selected_trial(const struct fb_accuracy *accuracy, const struct fb_accuracy_row *row)
{
    for (size_t i = 0; i < accuracy->points_count; i++) {
        const struct fb_curve_point *p = &accuracy->points[i];
        const bool here = strcmp(p->case_id, row->case_id) == 0 && p->step == row->selected_step;
        if (here && !(p->metric < row->metric_best) && !(p->metric > row->metric_best))
            return p->trial;
    }
    return 0;
}

/* Step, mean, lowest and highest of the seeds that were evaluated at it. */
static void write_curve(struct picture *p, const struct fb_accuracy_group *g)
{
    const struct fb_accuracy *accuracy = p->request->accuracy;
    const int64_t first = selected_trial(accuracy, g->rows[0]);
    for (size_t i = 0; i < accuracy->points_count; i++) {
        const struct fb_curve_point *at = &accuracy->points[i];
        double sum = 0.0, low = (double)INFINITY, high = -(double)INFINITY;
        size_t seen = 0;
        if (at->trial != first || strcmp(at->case_id, g->rows[0]->case_id) != 0)
            continue;
        for (size_t r = 0; r < g->rows_count; r++) {
            const struct fb_curve_point *point =
                point_at(accuracy, g->rows[r], selected_trial(accuracy, g->rows[r]), at->step);
            if (!point)
                continue;
            const double value = fb_accuracy_shown(g->any, point->metric);
            sum += value;
            low = fmin(low, value);
            high = fmax(high, value);
            seen++;
        }
        (void)fprintf(p->data, "%" PRId64 "\t%.6g\t%.6g\t%.6g\n", at->step, sum / (double)seen, low,
                      high);
    }
}

/* Milliseconds of a step, mean, interval of the mean. */
static void write_speed(struct picture *p, const struct fb_accuracy_group *g)
{
    const bool few = isnan(g->interval.low);
    (void)fprintf(p->data, "%.6g\t%.6g\t%.6g\t%.6g\n", 1e3 / g->steps_per_s, g->mean,
                  few ? g->mean : g->interval.low, few ? g->mean : g->interval.high);
}

/* Tokens, steps per second, interval. */
static void write_lengths(struct picture *p, const struct fb_accuracy_group *first)
{
    int64_t lengths[FB_SPEED_LENGTHS_MAX];
    const struct fb_accuracy_groups *groups = p->request->groups;
    const size_t count = fb_accuracy_speed_lengths(groups, p->block, lengths);
    for (size_t i = 0; i < count; i++) {
        const struct fb_accuracy_group *g =
            fb_accuracy_speed_at(groups, p->block, first->label, lengths[i]);
        if (g)
            (void)fprintf(p->data, "%" PRId64 "\t%.6g\t%.6g\t%.6g\n", lengths[i], g->steps_per_s,
                          g->speed.low, g->speed.high);
    }
}

/* Whether a group has a line in the picture. */
static bool has_line(const struct picture *p, size_t index)
{
    const struct fb_accuracy_groups *groups = p->request->groups;
    return p->speed ? fb_accuracy_speed_starts(groups, p->block, index)
                    : groups->items[index].block == p->block && groups->items[index].rows_count > 0;
}

static size_t count_lines(const struct picture *p)
{
    size_t lines = 0;
    for (size_t i = 0; i < p->request->groups->count; i++)
        lines += has_line(p, i);
    return lines;
}

/* ---- files ----------------------------------------------------------------------------------- */

static FILE *open_file(struct picture *p, const char *extension, const char **path,
                       struct fb_error *error)
{
    *path = fb_arena_printf(p->arena, error, "%s/%s.%s", p->place->data_dir, p->name, extension);
    FILE *file = *path ? fopen(*path, "w") : NULL;
    if (*path && !file)
        (void)fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", *path, strerror(errno));
    return file;
}

static enum fb_status close_file(FILE *file, const char *path, struct fb_error *error)
{
    return fclose(file) == 0
               ? FB_OK
               : fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
}

static void write_assignment(FILE *file, const char *name, const char *value)
{
    (void)fprintf(file, "%s = ", name);
    fb_gnuplot_write_text(file, value);
    (void)fputc('\n', file);
}

/* One line of the legend per group, and its numbers as a block of the data file. */
static void write_groups(struct picture *p, FILE *settings)
{
    const struct fb_accuracy_groups *groups = p->request->groups;
    for (size_t i = 0; i < groups->count; i++) {
        const struct fb_accuracy_group *g = &groups->items[i];
        if (!has_line(p, i))
            continue;
        size_t same = 0;
        for (size_t j = 0; j < i; j++)
            same +=
                has_line(p, j) && strcmp(groups->items[j].any->mechanism, g->any->mechanism) == 0;
        p->lines++;
        (void)fprintf(settings, "fb_label[%zu] = ", p->lines);
        fb_gnuplot_write_text(settings, g->label);
        (void)fprintf(settings, "\nfb_color[%zu] = '%s'\nfb_dash[%zu] = %zu\n", p->lines,
                      fb_figure_color(g->any->mechanism), p->lines, same + 1);
        if (p->speed)
            write_lengths(p, g);
        else if (strcmp(p->kind, "learning_curves") == 0)
            write_curve(p, g);
        else
            write_speed(p, g);
        (void)fputs("\n\n", p->data);
    }
}

static enum fb_status write_files(struct picture *p, const char **settings_path,
                                  struct fb_error *error)
{
    const struct fb_accuracy_groups *groups = p->request->groups;
    /* of a set of lengths, the first may have no result */
    const struct fb_accuracy_row *any = fb_accuracy_block(groups, p->block)->any;
    const char *data_path = NULL;
    char title[256], out[4300];
    const size_t lines = count_lines(p);
    for (size_t i = 0; i < groups->count; i++)
        if (groups->items[i].block == p->block && groups->items[i].rows_count > 0)
            any = groups->items[i].rows[0];
    p->data = open_file(p, "tsv", &data_path, error);
    FILE *settings = p->data ? open_file(p, "gp", settings_path, error) : NULL;
    if (!settings) {
        if (p->data)
            (void)fclose(p->data);
        return error->code;
    }
    if (p->speed)
        fb_accuracy_speed_title(groups, p->block, title, sizeof title);
    else
        fb_accuracy_block_title(any, title, sizeof title);
    (void)snprintf(out, sizeof out, "%s/%s", p->place->dir, p->name);
    write_assignment(settings, "fb_out", out);
    write_assignment(settings, "fb_data", data_path);
    write_assignment(settings, "fb_title", title);
    write_assignment(settings, "fb_metric",
                     strcmp(any->metric_name, "perplexity") == 0 ? "perplexity" : "accuracy, %");
    write_assignment(settings, "fb_split", any->selected_on);
    (void)fprintf(settings,
                  "fb_lines = %zu\narray fb_label[%zu]\narray fb_color[%zu]\narray fb_dash[%zu]\n",
                  lines, lines, lines, lines);
    write_groups(p, settings);
    const enum fb_status status = close_file(p->data, data_path, error);
    const enum fb_status second = close_file(settings, *settings_path, error);
    return status == FB_OK ? second : status;
}

/* ---- drawing --------------------------------------------------------------------------------- */

static enum fb_status draw(struct picture *p, int *pictures, struct fb_error *error)
{
    static const char *const formats[] = {"svg", "png"};
    const char *settings = NULL;
    char script[64];
    enum fb_status status = write_files(p, &settings, error);
    (void)snprintf(script, sizeof script, "%s.gp", p->kind);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0] && status == FB_OK; i++)
        status = fb_gnuplot_draw(settings, p->place->scripts_dir, script, formats[i], error);
    if (status == FB_OK && p->request->out)
        (void)fprintf(p->request->out, "  %s/%s.svg\n", p->place->dir, p->name);
    *pictures += status == FB_OK;
    return status;
}

/* Whether there is something to draw: times of times, the other pictures of metrics. */
static bool is_wanted(const struct picture *p)
{
    const struct fb_accuracy_groups *groups = p->request->groups;
    int64_t lengths[FB_SPEED_LENGTHS_MAX];
    if (p->speed)
        return fb_accuracy_leads_speed(groups, p->block) &&
               fb_accuracy_speed_lengths(groups, p->block, lengths) > 0;
    return !fb_accuracy_is_timed(groups, p->block) && count_lines(p) > 0;
}

enum fb_status fb_accuracy_plots_make(const struct fb_accuracy_plots_request *request,
                                      struct fb_arena *arena, int *pictures, struct fb_error *error)
{
    static const struct {
        unsigned bit;
        const char *kind;
    } kinds[] = {{FB_TRAINING_PLOT_CURVES, "learning_curves"},
                 {FB_TRAINING_PLOT_STEP_TIME, "accuracy_vs_step_time"},
                 {FB_TRAINING_PLOT_SPEED, "steps_per_s_vs_tokens"}};
    struct fb_plots_place place;
    const char *dir = request->dir
                          ? request->dir
                          : fb_arena_printf(arena, error, "%s/plots", request->accuracy->dir);
    enum fb_status status = dir ? fb_plots_prepare(dir, arena, &place, error) : FB_ERROR_MEMORY;
    if (status == FB_OK && request->out)
        (void)fputs("\npictures:\n", request->out);
    for (size_t block = 0; block < request->groups->blocks && status == FB_OK; block++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && status == FB_OK; k++) {
            struct picture picture = {.request = request,
                                      .place = &place,
                                      .arena = arena,
                                      .kind = kinds[k].kind,
                                      .speed = kinds[k].bit == FB_TRAINING_PLOT_SPEED,
                                      .block = block};
            if ((request->plots & kinds[k].bit) == 0 || !is_wanted(&picture))
                continue;
            picture.name = fb_arena_printf(arena, error, "%s_%zu", kinds[k].kind, block + 1);
            status = picture.name ? draw(&picture, pictures, error) : FB_ERROR_MEMORY;
        }
    return status;
}
