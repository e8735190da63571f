/* From series to the lines, marks and crossings of pictures. See figure.h. */
#include "figure_builder.h"

#include "crossover.h"
#include "quantity.h"
#include "row_factor.h"
#include "scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    enum fb_axis axis;
    const char *title;
} kinds[FB_PLOT_KIND_COUNT] = {
    [FB_PLOT_TIME_VS_SEQ_LEN] = {FB_AXIS_SEQ_LEN, "Time against sequence length"},
    [FB_PLOT_MEMORY_VS_SEQ_LEN] = {FB_AXIS_SEQ_LEN, "Memory against sequence length"},
    [FB_PLOT_SPEEDUP_VS_SOFTMAX] = {FB_AXIS_SEQ_LEN, "Speed-up over softmax"},
    [FB_PLOT_TIME_VS_HEADS] = {FB_AXIS_HEADS, "Time against heads"},
    [FB_PLOT_TIME_VS_HEAD_DIM] = {FB_AXIS_HEAD_DIM, "Time against head dimension"},
    [FB_PLOT_TIME_VS_THREADS] = {FB_AXIS_THREADS, "Time against threads"},
    [FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN] = {FB_AXIS_SEQ_LEN, "Distance to the floor"},
    [FB_PLOT_ISA_BARS] = {FB_AXIS_ISA, "Speed-up by instruction set"},
};

enum fb_axis fb_plot_axis(enum fb_plot_kind kind)
{
    return kinds[kind].axis;
}

bool fb_plot_is_ratio(enum fb_plot_kind kind)
{
    return kind == FB_PLOT_SPEEDUP_VS_SOFTMAX || kind == FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN ||
           kind == FB_PLOT_ISA_BARS;
}

/* The point of a series at a place of the axis, measured, or NULL. */
static const struct fb_point *ok_point_at(const struct fb_series *series, double x)
{
    for (size_t i = 0; series && i < series->points_count; i++) {
        if (series->points[i].ok && series->points[i].x == x) {
            return &series->points[i];
        }
    }
    return NULL;
}

/* The picture's quantity for one measured point; false when it has none (zero cannot be drawn on a
 * logarithmic axis). */
static bool point_value(enum fb_plot_kind kind, const struct fb_point *point,
                        const struct fb_series *reference, struct fb_figure_point *value)
{
    const struct fb_row *row = point->row;
    *value = (struct fb_figure_point){.x = point->x};
    if (kind == FB_PLOT_MEMORY_VS_SEQ_LEN) {
        value->y = value->low = value->high = fb_row_memory_bytes(row);
        return value->y > 0; /* NaN is not */
    }
    value->y = row->time_median_s;
    value->low = isnan(row->time_ci_low_s) ? value->y : row->time_ci_low_s;
    value->high = isnan(row->time_ci_high_s) ? value->y : row->time_ci_high_s;
    if (kind == FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN) {
        value->y /= row->floor_s;
        value->low /= row->floor_s;
        value->high /= row->floor_s;
    } else if (kind == FB_PLOT_SPEEDUP_VS_SOFTMAX) {
        const struct fb_point *other = ok_point_at(reference, point->x);
        if (!other) {
            return false;
        }
        double time = other->row->time_median_s, high = value->high;
        value->y = time / value->y;
        value->high = time / value->low;
        value->low = time / high;
    }
    return isfinite(value->y) && value->y > 0;
}

static enum fb_censoring censoring_of(const struct fb_row *row)
{
    if (strcmp(row->status, "timeout") == 0) {
        return FB_CENSORED_TIMEOUT;
    }
    if (strcmp(row->status, "oom") == 0) {
        return FB_CENSORED_MEMORY;
    }
    return strcmp(row->status, "skipped") == 0 ? FB_CENSORED_SKIPPED : FB_CENSORED_FAILED;
}

static enum fb_status add_crossings(struct fb_figure_builder *builder,
                                    const struct fb_series *series, const char *color)
{
    struct fb_crossover crossover;
    struct fb_arena *arena = builder->job->arena;
    struct fb_figure *figure = builder->figure;
    char text[FB_QUANTITY_SIZE];
    enum fb_status status = fb_crossover_of(series, fb_series_softmax(builder->set, series),
                                            builder->job->seed, arena, &crossover, builder->error);
    if (status != FB_OK || crossover.crossings_count == 0) {
        return status;
    }
    size_t total = figure->crossings_count + crossover.crossings_count;
    struct fb_figure_crossing *grown = fb_arena_alloc(arena, total, sizeof *grown, builder->error);
    if (!grown) {
        return FB_ERROR_MEMORY;
    }
    if (figure->crossings_count > 0) {
        memcpy(grown, figure->crossings, figure->crossings_count * sizeof *grown);
    }
    for (size_t c = 0; c < crossover.crossings_count; c++) {
        double x = crossover.crossings[c].size, y = (double)NAN;
        const struct fb_point *before = NULL;
        for (size_t i = 0; i < crossover.reference->points_count; i++) {
            const struct fb_point *point = &crossover.reference->points[i];
            if (point->ok && before && point->x >= x && isnan(y)) {
                double share = log(x / before->x) / log(point->x / before->x);
                y = exp((1 - share) * log(before->row->time_median_s) +
                        share * log(point->row->time_median_s));
            }
            before = point->ok ? point : before;
        }
        char *label = fb_arena_strdup(arena, fb_quantity_count(x, text), builder->error);
        if (!label) {
            return FB_ERROR_MEMORY;
        }
        grown[figure->crossings_count + c] =
            (struct fb_figure_crossing){.panel = fb_figure_panel_of(builder, series),
                                        .x = x,
                                        .y = y,
                                        .label = label,
                                        .color = color};
    }
    figure->reference = fb_arena_printf(arena, builder->error, "crossing with softmax (%s)",
                                        crossover.reference->key->variant);
    figure->crossings = grown;
    figure->crossings_count = total;
    return figure->reference ? FB_OK : FB_ERROR_MEMORY;
}

/* One series becomes a line and its marks, or a note. */
static enum fb_status add_series(struct fb_figure_builder *builder, const struct fb_series *series,
                                 size_t *order)
{
    struct fb_figure *figure = builder->figure;
    struct fb_figure_line *line = &figure->lines[figure->lines_count];
    const struct fb_series *reference = fb_series_softmax(builder->set, series);
    if (figure->kind == FB_PLOT_SPEEDUP_VS_SOFTMAX && !reference) {
        return FB_OK;
    }
    line->points = fb_arena_alloc(builder->job->arena, series->points_count, sizeof *line->points,
                                  builder->error);
    if (!line->points) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < series->points_count; i++) {
        line->points_count +=
            series->points[i].ok && point_value(figure->kind, &series->points[i], reference,
                                                &line->points[line->points_count]);
    }
    if (line->points_count == 0) {
        const char *why = series->ok_count == 0 ? series->points[0].row->status
                          : figure->kind == FB_PLOT_MEMORY_VS_SEQ_LEN ? "no workspace"
                                                                      : "no value";
        char name[FB_FIGURE_LABEL_SIZE], text[FB_FIGURE_LABEL_SIZE + 64];
        fb_figure_name_series(builder, series, name);
        (void)snprintf(text, sizeof text, "not drawn: %s (%s)", name, why);
        return fb_figure_add_note(builder, fb_figure_panel_of(builder, series), text);
    }
    line->panel = fb_figure_panel_of(builder, series);
    fb_figure_style(builder, series, *order, line);
    line->label = fb_figure_legend(builder, series);
    figure->lines_count++;
    (*order)++;
    for (size_t i = 0; i < series->points_count; i++) {
        if (!series->points[i].ok) {
            figure->marks[figure->marks_count++] =
                (struct fb_figure_mark){.panel = line->panel,
                                        .why = censoring_of(series->points[i].row),
                                        .x = series->points[i].x,
                                        .color = line->color};
        }
    }
    if (!line->label) {
        return FB_ERROR_MEMORY;
    }
    return figure->kind == FB_PLOT_TIME_VS_SEQ_LEN ? add_crossings(builder, series, line->color)
                                                   : FB_OK;
}

/* Inputs and outputs as a grey line in each panel: what every mechanism must touch. */
static enum fb_status add_io_line(struct fb_figure_builder *builder, int panel)
{
    struct fb_figure *figure = builder->figure;
    const struct fb_series *longest = NULL;
    for (size_t i = 0; i < builder->members_count; i++) {
        if (fb_figure_panel_of(builder, builder->members[i]) == panel &&
            (!longest || builder->members[i]->points_count > longest->points_count)) {
            longest = builder->members[i];
        }
    }
    bool drawn = false;
    for (size_t i = 0; i < figure->lines_count; i++) {
        drawn = drawn || figure->lines[i].panel == panel;
    }
    if (!longest || !drawn || fb_row_is_decode(longest->key)) {
        return FB_OK; /* the tensors of one token are no size to compare with */
    }
    struct fb_figure_line *line = &figure->lines[figure->lines_count];
    line->points = fb_arena_alloc(builder->job->arena, longest->points_count, sizeof *line->points,
                                  builder->error);
    if (!line->points) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < longest->points_count; i++) {
        double bytes = fb_row_io_bytes(longest->points[i].row);
        if (bytes > 0) {
            line->points[line->points_count++] =
                (struct fb_figure_point){longest->points[i].x, bytes, bytes, bytes, NULL};
        }
    }
    line->panel = panel;
    line->color = "#808080";
    line->dash = 3;
    line->symbol = 0;
    line->label = "inputs and outputs";
    figure->lines_count += line->points_count > 0;
    return FB_OK;
}

/* Legends say "run 2"; the notes under the first panel say which run that is. */
static enum fb_status list_runs(struct fb_figure_builder *builder)
{
    enum fb_status status = FB_OK;
    for (size_t r = 0; r < builder->job->runs_count && status == FB_OK; r++) {
        const struct fb_results *run = &builder->job->runs[r];
        char text[FB_FIGURE_LABEL_SIZE];
        (void)snprintf(text, sizeof text, "run %zu: %s", r + 1,
                       run->rows_count > 0 ? run->rows[0].run : "no rows");
        status = fb_figure_add_note(builder, 0, text);
    }
    return status;
}

static bool is_first_of_program(const struct fb_figure_builder *builder, size_t member)
{
    const struct fb_row *row = builder->members[member]->key;
    for (size_t i = 0; i < member; i++) {
        const struct fb_row *before = builder->members[i]->key;
        if (strcmp(before->program, row->program) == 0 &&
            strcmp(before->program_version, row->program_version) == 0) {
            return false;
        }
    }
    return row->program_version[0] != '\0';
}

/* "torch: PyTorch 2.11.0, cuDNN 9.19.0": the versions of the programs that are not ours. */
static enum fb_status list_programs(struct fb_figure_builder *builder)
{
    enum fb_status status = FB_OK;
    for (size_t i = 0; i < builder->members_count && status == FB_OK; i++) {
        if (is_first_of_program(builder, i)) {
            const struct fb_row *row = builder->members[i]->key;
            char text[FB_FIGURE_LABEL_SIZE];
            (void)snprintf(text, sizeof text, "%s: %s", row->program, row->program_version);
            status = fb_figure_add_note(builder, 0, text);
        }
    }
    return status;
}

/* Panels, names and room; then everything that is drawn. */
static enum fb_status fill_figure(struct fb_figure_builder *builder)
{
    struct fb_figure *figure = builder->figure;
    struct fb_arena *arena = builder->job->arena;
    size_t marks = 0;
    bool causal = false, other = false;
    builder->one_mechanism = true;
    for (size_t i = 0; i < builder->members_count; i++) {
        marks += builder->members[i]->points_count;
        bool is_causal = strcmp(builder->members[i]->key->causal, "true") == 0;
        causal = causal || is_causal;
        other = other || !is_causal;
        builder->one_mechanism =
            builder->one_mechanism &&
            strcmp(builder->members[i]->key->mechanism, builder->members[0]->key->mechanism) == 0;
    }
    figure->panels_count = causal && other ? 2 : 1;
    figure->panel_titles[0] = other ? "not causal" : "causal";
    figure->panel_titles[1] = "causal";
    figure->panel_notes[0] = figure->panel_notes[1] = "";
    figure->lines = fb_arena_alloc(arena, builder->members_count + FB_FIGURE_PANELS_MAX,
                                   sizeof *figure->lines, builder->error);
    figure->marks = fb_arena_alloc(arena, marks + 1, sizeof *figure->marks, builder->error);
    const char *title = kinds[figure->kind].title;
    if (fb_row_is_decode(builder->members[0]->key)) {
        title = fb_arena_printf(arena, builder->error, "%s, one decoded token", title);
    }
    if (!title) {
        return FB_ERROR_MEMORY;
    }
    figure->title = fb_figure_escape(arena, title, builder->error);
    figure->subtitle = fb_figure_describe(builder);
    figure->name = fb_figure_name(builder);
    if (!figure->lines || !figure->marks || !figure->title || !figure->subtitle || !figure->name) {
        return FB_ERROR_MEMORY;
    }
    enum fb_status listed = builder->job->runs_count > 1 ? list_runs(builder) : FB_OK;
    listed = listed == FB_OK ? list_programs(builder) : listed;
    if (listed != FB_OK) {
        return listed;
    }
    if (figure->kind == FB_PLOT_ISA_BARS) {
        return fb_figure_fill_bars(builder);
    }
    for (int panel = 0; panel < (int)figure->panels_count; panel++) {
        enum fb_status status = FB_OK;
        size_t order = 0;
        for (size_t i = 0; status == FB_OK && i < builder->members_count; i++) {
            if (fb_figure_panel_of(builder, builder->members[i]) == panel) {
                status = add_series(builder, builder->members[i], &order);
            }
        }
        if (status == FB_OK && figure->kind == FB_PLOT_MEMORY_VS_SEQ_LEN) {
            status = add_io_line(builder, panel);
        }
        if (status != FB_OK) {
            return status;
        }
    }
    return FB_OK;
}

/* Collects the members of the facet that series `first` opens, in the order of the set. */
static enum fb_status build_facet(struct fb_figure_builder *builder, size_t first, bool *taken)
{
    const struct fb_series_set *set = builder->set;
    builder->members_count = 0;
    for (size_t i = first; i < set->count; i++) {
        if (!taken[i] &&
            fb_figure_same_facet(set->items[first].key, set->items[i].key, set->axis)) {
            taken[i] = true;
            builder->members[builder->members_count++] = &set->items[i];
        }
    }
    enum fb_status status = fill_figure(builder);
    if (status == FB_OK && builder->figure->lines_count > 0) {
        status = fb_figure_set_axes(builder->figure, builder->job->arena, builder->error);
    }
    return status;
}

/* A line needs two places; a picture of single points says nothing. */
static bool is_drawable(const struct fb_figure *figure)
{
    for (size_t i = 0; i < figure->lines_count; i++) {
        if (figure->lines[i].points_count >= 2 || figure->kind == FB_PLOT_ISA_BARS) {
            return true;
        }
    }
    return false;
}

enum fb_status fb_figures_build(const struct fb_figure_job *job, enum fb_plot_kind kind,
                                struct fb_figure **figures, size_t *count, struct fb_error *error)
{
    struct fb_series_set set;
    *count = 0;
    enum fb_status status =
        fb_series_collect(job->runs, job->runs_count, kinds[kind].axis, job->arena, &set, error);
    if (status != FB_OK || fb_series_axis_values(&set) < 2) {
        return status;
    }
    fb_series_filter(&set, fb_series_is_swept);
    enum fb_figure_differs differs[FB_FACTOR_COUNT] = {FB_FIGURE_UNKNOWN};
    struct fb_figure_builder builder = {
        .job = job, .set = &set, .differs = differs, .error = error};
    bool *taken = fb_arena_alloc(job->arena, set.count, sizeof *taken, error);
    builder.members = fb_arena_alloc(job->arena, set.count, sizeof(void *), error);
    *figures = fb_arena_alloc(job->arena, set.count, sizeof **figures, error);
    if (!taken || !builder.members || !*figures) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < set.count && (job->figures_max == 0 || *count < job->figures_max); i++) {
        if (taken[i]) {
            continue;
        }
        builder.figure = &(*figures)[*count];
        *builder.figure = (struct fb_figure){.kind = kind};
        status = build_facet(&builder, i, taken);
        if (status != FB_OK) {
            return status;
        }
        *count += is_drawable(builder.figure);
    }
    return FB_OK;
}
