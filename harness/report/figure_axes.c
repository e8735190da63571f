/* Ranges, tics, stacked marks and label rows of a picture. Axes are logarithmic except for bars. */
#include "figure.h"

#include "quantity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TICS_MAX = 64, TICS_WANTED = 9 };

/* Labels nearer than this share of the x axis do not share a row. */
static const double LABEL_WIDTH = 0.13;
static const double ROW_SHARE = 0.055;  /* of the axis' height, per row of labels */
static const double MARK_SHARE = 0.045; /* per stacked mark */

static bool is_byte_axis(enum fb_plot_kind kind)
{
    return kind == FB_PLOT_MEMORY_VS_SEQ_LEN;
}

static const char *tic_text(enum fb_plot_kind kind, double value, char *text)
{
    if (is_byte_axis(kind)) {
        return fb_quantity_bytes(value, text);
    }
    if (fb_plot_is_ratio(kind)) {
        (void)snprintf(text, FB_QUANTITY_SIZE, "%g", value);
        return text;
    }
    double scaled = value;
    static const char *const units[] = {"s", "ms", "\xc2\xb5s", "ns"};
    size_t unit = 0;
    while (scaled < 0.9995 && unit < 3) {
        scaled *= 1e3;
        unit++;
    }
    (void)snprintf(text, FB_QUANTITY_SIZE, "%g %s", scaled, units[unit]);
    return text;
}

/* "('text' value, ...)" from ascending values; minor ones, or all without texts, are bare. */
static char *join_tics(const double *values, const bool *minor, char (*texts)[FB_QUANTITY_SIZE],
                       size_t count, struct fb_arena *arena, struct fb_error *error)
{
    char *joined = fb_arena_alloc(arena, count * (FB_QUANTITY_SIZE + 40) + 3, 1, error);
    size_t length = 0;
    if (!joined) {
        return NULL;
    }
    joined[length++] = '(';
    for (size_t i = 0; i < count; i++) {
        length +=
            (size_t)sprintf(joined + length, "%s'%s' %.10g%s", i ? ", " : "",
                            minor[i] || !texts ? "" : texts[i], values[i], minor[i] ? " 1" : "");
    }
    joined[length] = ')';
    return joined;
}

/* Powers of two that leave at most TICS_WANTED of them. */
static size_t binary_tics(double low, double high, double *values)
{
    int first = (int)ceil(log2(low) - 1e-9), last = (int)floor(log2(high) + 1e-9), step = 1;
    while ((last - first) / step + 1 > TICS_WANTED) {
        step *= 2;
    }
    size_t count = 0;
    for (int e = first; e <= last; e++) {
        if (((e % step) + step) % step == 0 && count < TICS_MAX) {
            values[count++] = exp2(e);
        }
    }
    return count;
}

/* Decades with minor tics, or 1-2-5 where the range spans less than two decades. */
static size_t decimal_tics(double low, double high, double *values, bool *minor)
{
    double decades = log10(high / low);
    size_t count = 0;
    for (int e = (int)floor(log10(low)); e <= (int)ceil(log10(high)); e++) {
        for (int m = 1; m < 10; m++) {
            double value = m * pow(10, e);
            if (value < low * (1 - 1e-9) || value > high * (1 + 1e-9) || count >= TICS_MAX) {
                continue;
            }
            bool labelled = m == 1 || (decades < 2 && (m == 2 || m == 5)) || decades < 0.6;
            if (!labelled && decades > 6) {
                continue;
            }
            minor[count] = !labelled;
            values[count++] = value;
        }
    }
    return count;
}

static enum fb_status set_y_tics(struct fb_figure *figure, struct fb_arena *arena,
                                 struct fb_error *error)
{
    double values[TICS_MAX];
    bool minor[TICS_MAX] = {false};
    char texts[TICS_MAX][FB_QUANTITY_SIZE];
    size_t count = is_byte_axis(figure->kind)
                       ? binary_tics(figure->y_min, figure->y_max, values)
                       : decimal_tics(figure->y_min, figure->y_max, values, minor);
    for (size_t i = 0; i < count; i++) {
        (void)tic_text(figure->kind, values[i], texts[i]);
    }
    figure->y_tics = join_tics(values, minor, texts, count, arena, error);
    figure->y_tics_blank = join_tics(values, minor, NULL, count, arena, error);
    return figure->y_tics && figure->y_tics_blank ? FB_OK : FB_ERROR_MEMORY;
}

/* One tic per place that occurs, thinned out when there are too many. */
static enum fb_status set_x_tics(struct fb_figure *figure, const double *places, size_t count,
                                 struct fb_arena *arena, struct fb_error *error)
{
    double values[TICS_MAX];
    bool minor[TICS_MAX] = {false};
    char texts[TICS_MAX][FB_QUANTITY_SIZE];
    bool tokens = fb_plot_axis(figure->kind) == FB_AXIS_SEQ_LEN;
    size_t step = (count + 6) / 7, used = 0; /* labelled; the others are minor */
    for (size_t i = 0; i < count && used < TICS_MAX; i++) {
        values[used] = places[i];
        minor[used] = i % (step ? step : 1) != 0;
        if (tokens) {
            (void)fb_quantity_count(places[i], texts[used]);
        } else {
            (void)snprintf(texts[used], FB_QUANTITY_SIZE, "%g", places[i]);
        }
        used++;
    }
    figure->x_tics = join_tics(values, minor, texts, used, arena, error);
    return figure->x_tics ? FB_OK : FB_ERROR_MEMORY;
}

static size_t insert_place(double *places, size_t count, double x)
{
    size_t at = 0;
    while (at < count && places[at] < x) {
        at++;
    }
    if ((at < count && places[at] == x) || count >= TICS_MAX) {
        return count;
    }
    memmove(places + at + 1, places + at, (count - at) * sizeof *places);
    places[at] = x;
    return count + 1;
}

/* Rows for the crossings' labels: the lowest row in which no neighbour is too near. */
static int place_labels(struct fb_figure *figure)
{
    int rows = 0;
    double width = log(figure->x_max / figure->x_min) * LABEL_WIDTH;
    for (size_t i = 0; i < figure->crossings_count; i++) {
        struct fb_figure_crossing *crossing = &figure->crossings[i];
        bool clash = true;
        for (crossing->level = -1; clash;) {
            crossing->level++;
            clash = false;
            for (size_t j = 0; j < i; j++) {
                const struct fb_figure_crossing *other = &figure->crossings[j];
                clash =
                    clash || (other->panel == crossing->panel && other->level == crossing->level &&
                              fabs(log(other->x / crossing->x)) < width);
            }
        }
        rows = crossing->level + 1 > rows ? crossing->level + 1 : rows;
    }
    return rows;
}

/* Marks of one place stand below each other. Returns the height of the tallest stack. */
static int stack_marks(struct fb_figure *figure)
{
    int tallest = 0;
    for (size_t i = 0; i < figure->marks_count; i++) {
        struct fb_figure_mark *mark = &figure->marks[i];
        mark->stack = 0;
        for (size_t j = 0; j < i; j++) {
            mark->stack += figure->marks[j].panel == mark->panel && figure->marks[j].x == mark->x;
        }
        tallest = mark->stack + 1 > tallest ? mark->stack + 1 : tallest;
    }
    return tallest;
}

static enum fb_status set_bar_axes(struct fb_figure *figure, struct fb_arena *arena,
                                   struct fb_error *error)
{
    double highest = 1;
    for (size_t i = 0; i < figure->lines_count; i++) {
        for (size_t j = 0; j < figure->lines[i].points_count; j++) {
            highest = fmax(highest, figure->lines[i].points[j].y);
        }
    }
    figure->y_min = 0;
    figure->y_max = 1.3 * highest; /* the times stand upright above the bars */
    double step = pow(10, floor(log10(highest)));
    step = highest / step < 2 ? step / 5 : highest / step < 5 ? step / 2 : step;
    figure->y_tics = fb_arena_printf(arena, error, "%g", step);
    figure->y_tics_blank = figure->y_tics;
    return figure->y_tics ? FB_OK : FB_ERROR_MEMORY;
}

/* The least time of the lines that the script draws beside those of threads. */
static double lowest_ideal(const struct fb_figure *figure)
{
    double low = (double)INFINITY;
    for (size_t i = 0; i < figure->lines_count; i++) {
        const struct fb_figure_line *line = &figure->lines[i];
        if (line->points_count > 0) {
            const struct fb_figure_point *first = &line->points[0];
            low = fmin(low, first->y * first->x / line->points[line->points_count - 1].x);
        }
    }
    return low;
}

enum fb_status fb_figure_set_axes(struct fb_figure *figure, struct fb_arena *arena,
                                  struct fb_error *error)
{
    if (figure->kind == FB_PLOT_ISA_BARS) {
        return set_bar_axes(figure, arena, error);
    }
    double places[TICS_MAX + 1], low = (double)INFINITY, high = 0;
    size_t places_count = 0;
    for (size_t i = 0; i < figure->lines_count; i++) {
        for (size_t j = 0; j < figure->lines[i].points_count; j++) {
            const struct fb_figure_point *point = &figure->lines[i].points[j];
            places_count = insert_place(places, places_count, point->x);
            low = fmin(low, point->low);
            high = fmax(high, point->high);
        }
    }
    for (size_t i = 0; i < figure->marks_count; i++) {
        places_count = insert_place(places, places_count, figure->marks[i].x);
    }
    if (places_count == 0) {
        return fb_error_set(error, FB_ERROR_INTERNAL, "the picture %s has no points", figure->name);
    }
    bool downward = figure->kind == FB_PLOT_SPEEDUP_VS_SOFTMAX; /* missing means no speed-up */
    if (fb_plot_is_ratio(figure->kind)) {
        low = fmin(low, 1);
        high = fmax(high, 1);
        figure->reference = downward ? "as fast as softmax" : "the floor";
    }
    if (figure->kind == FB_PLOT_TIME_VS_THREADS) {
        low = fmin(low, lowest_ideal(figure));
        figure->reference = "ideal: the first time shared out among the threads";
    }
    double x_room = pow(places[places_count - 1] / places[0], 0.04);
    figure->x_min = places[0] / x_room;
    figure->x_max = places[places_count - 1] * x_room;
    int rows = place_labels(figure), stacks = stack_marks(figure);
    /* The data keep what rows and stacks leave of the height. */
    double below = 0.05 + (rows > 0 ? 0.03 + ROW_SHARE * rows : 0);
    double above = 0.05, edge = stacks > 0 ? 0.03 + MARK_SHARE * stacks : 0;
    below += downward ? edge : 0;
    above += downward ? 0 : edge;
    double height = log(fmax(high / low, 1.5)) / fmax(1 - below - above, 0.3);
    figure->y_min = low * exp(-below * height);
    figure->y_max = figure->y_min * exp(height);
    figure->mark_step = exp(MARK_SHARE * height);
    figure->label_step = exp(ROW_SHARE * height);
    for (size_t i = 0; i < figure->marks_count; i++) {
        double step = pow(figure->mark_step, 0.7 + figure->marks[i].stack);
        figure->marks[i].y = downward ? figure->y_min * step : figure->y_max / step;
    }
    enum fb_status status = set_x_tics(figure, places, places_count, arena, error);
    return status == FB_OK ? set_y_tics(figure, arena, error) : status;
}
