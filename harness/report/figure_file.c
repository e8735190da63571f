/* Writes a picture for gnuplot: <name>.tsv holds the numbers, blocks apart by two empty lines, and
 * <name>.gp sets what plots/<kind>.gp draws with. Every text is escaped by fb_gnuplot_write_text: a
 * row's text can never become a command. */
#include "figure.h"

#include "gnuplot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A legend of more rows gets two columns, if its labels are so short that they fit; one that
 * gnuplot could not hold in one column gets them anyway, in a smaller font. */
enum { ROWS_WANTED = 11, ROWS_MAX = 16, SHORT_LABEL = 28 };

static const char *const censoring_names[FB_CENSORED_COUNT] = {
    [FB_CENSORED_TIMEOUT] = "over the time limit",
    [FB_CENSORED_MEMORY] = "out of memory",
    [FB_CENSORED_SKIPPED] = "skipped",
    [FB_CENSORED_FAILED] = "failed",
};
/* gnuplot's open circle, square, triangle and diamond. */
static const int censoring_symbols[FB_CENSORED_COUNT] = {6, 4, 8, 12};

static void write_string(FILE *file, const char *name, const char *text)
{
    (void)fprintf(file, "%s = ", name);
    fb_gnuplot_write_text(file, text);
    (void)fputc('\n', file);
}

static size_t count_marks(const struct fb_figure *figure, int panel, int why)
{
    size_t count = 0;
    for (size_t i = 0; i < figure->marks_count; i++) {
        count += figure->marks[i].panel == panel &&
                 (why < 0 || figure->marks[i].why == (enum fb_censoring)why);
    }
    return count;
}

static size_t count_crossings(const struct fb_figure *figure, int panel)
{
    size_t count = 0;
    for (size_t i = 0; i < figure->crossings_count; i++) {
        count += figure->crossings[i].panel == panel;
    }
    return count;
}

/* Blocks in the order in which the script counts them: lines, then marks per panel. */
static void write_numbers(const struct fb_figure *figure, FILE *file)
{
    for (size_t i = 0; i < figure->lines_count; i++) {
        const struct fb_figure_line *line = &figure->lines[i];
        (void)fprintf(file, "# %s, %s\n# x\ty\tlow\thigh\ttext\n", line->label,
                      figure->panel_titles[line->panel]);
        for (size_t j = 0; j < line->points_count; j++) {
            const struct fb_figure_point *point = &line->points[j];
            (void)fprintf(file, "%.10g\t%.10g\t%.10g\t%.10g\t\"%s\"\n", point->x, point->y,
                          point->low, point->high, point->text ? point->text : "");
        }
        (void)fputs("\n\n", file);
    }
    for (int panel = 0; panel < (int)figure->panels_count; panel++) {
        if (count_marks(figure, panel, -1) == 0) {
            continue;
        }
        (void)fprintf(file, "# not measured, %s\n# x\ty\tsymbol\tcolour\n",
                      figure->panel_titles[panel]);
        for (size_t i = 0; i < figure->marks_count; i++) {
            const struct fb_figure_mark *mark = &figure->marks[i];
            if (mark->panel == panel) {
                (void)fprintf(file, "%.10g\t%.10g\t%d\t0x%s\n", mark->x, mark->y,
                              censoring_symbols[mark->why], mark->color + 1);
            }
        }
        (void)fputs("\n\n", file);
    }
}

/* Arrays of one entry per line. */
static void write_lines(const struct fb_figure *figure, FILE *file)
{
    (void)fprintf(file, "array fb_line_label[%zu]\narray fb_line_color[%zu]\n", figure->lines_count,
                  figure->lines_count);
    (void)fprintf(file, "array fb_line_dash[%zu]\narray fb_line_symbol[%zu]\n", figure->lines_count,
                  figure->lines_count);
    for (size_t i = 0; i < figure->lines_count; i++) {
        const struct fb_figure_line *line = &figure->lines[i];
        (void)fprintf(file, "fb_line_color[%zu] = '%s'; fb_line_dash[%zu] = %d; ", i + 1,
                      line->color, i + 1, line->dash);
        (void)fprintf(file, "fb_line_symbol[%zu] = %d; fb_line_label[%zu] = ", i + 1, line->symbol,
                      i + 1);
        fb_gnuplot_write_text(file, line->label);
        (void)fputc('\n', file);
    }
}

static void write_crossings(const struct fb_figure *figure, FILE *file)
{
    size_t room = figure->crossings_count > 0 ? figure->crossings_count : 1;
    (void)fprintf(file,
                  "fb_crossings = %zu\narray fb_cross_panel[%zu]\narray fb_cross_x[%zu]\n"
                  "array fb_cross_y[%zu]\narray fb_cross_label_y[%zu]\n"
                  "array fb_cross_label[%zu]\narray fb_cross_color[%zu]\n",
                  figure->crossings_count, room, room, room, room, room, room);
    for (size_t i = 0; i < figure->crossings_count; i++) {
        const struct fb_figure_crossing *crossing = &figure->crossings[i];
        double label_y = figure->y_min * pow(figure->label_step, crossing->level + 0.7);
        (void)fprintf(file,
                      "fb_cross_panel[%zu] = %d; fb_cross_x[%zu] = %.10g; fb_cross_y[%zu] = %.10g; "
                      "fb_cross_label_y[%zu] = %.10g; fb_cross_color[%zu] = '%s'; "
                      "fb_cross_label[%zu] = ",
                      i + 1, crossing->panel + 1, i + 1, crossing->x, i + 1, crossing->y, i + 1,
                      label_y, i + 1, crossing->color, i + 1);
        fb_gnuplot_write_text(file, crossing->label);
        (void)fputc('\n', file);
    }
}

/* What a panel's legend holds and where its blocks stand; returns the rows of the legend. */
static size_t write_panel(const struct fb_figure *figure, int panel, size_t *first, size_t *block,
                          FILE *file)
{
    size_t last = *first, rows, marks = count_marks(figure, panel, -1);
    while (last < figure->lines_count && figure->lines[last].panel == panel) {
        last++;
    }
    rows = last - *first + (count_crossings(figure, panel) > 0) + (figure->reference != NULL);
    (void)fprintf(file, "fb_first[%d] = %zu; fb_last[%d] = %zu; ", panel + 1, *first + 1, panel + 1,
                  last);
    (void)fprintf(file, "fb_marks[%d] = %zu; fb_mark_block[%d] = %zu; ", panel + 1, marks,
                  panel + 1, *block);
    (void)fprintf(file, "fb_crossed[%d] = %d; fb_panel_title[%d] = ", panel + 1,
                  count_crossings(figure, panel) > 0, panel + 1);
    fb_gnuplot_write_text(file, figure->panel_titles[panel]);
    (void)fputc('\n', file);
    int reasons = 0;
    for (int why = 0; why < FB_CENSORED_COUNT; why++) {
        if (count_marks(figure, panel, why) > 0) {
            int at = panel * FB_CENSORED_COUNT + ++reasons;
            (void)fprintf(file, "fb_why_symbol[%d] = %d; fb_why_name[%d] = '%s'\n", at,
                          censoring_symbols[why], at, censoring_names[why]);
        }
    }
    (void)fprintf(file, "fb_whys[%d] = %d\n", panel + 1, reasons);
    rows += (size_t)reasons;
    *first = last;
    *block += marks > 0;
    return rows;
}

/* Notes are lines of text; returns the largest number of them under one panel. */
static size_t write_notes(const struct fb_figure *figure, FILE *file)
{
    size_t most = 0;
    for (size_t p = 0; p < figure->panels_count; p++) {
        size_t count = 0;
        const char *note = figure->panel_notes[p];
        while (*note) {
            size_t length = strcspn(note, "\n");
            char text[512];
            (void)snprintf(text, sizeof text, "%.*s", (int)(length < 500 ? length : 500), note);
            count++;
            (void)fprintf(file, "array fb_note_%zu_%zu[1]\nfb_note_%zu_%zu[1] = ", p + 1, count,
                          p + 1, count);
            fb_gnuplot_write_text(file, text);
            (void)fputc('\n', file);
            note += length + (note[length] == '\n');
        }
        (void)fprintf(file, "fb_notes_%zu = %zu\n", p + 1, count);
        most = count > most ? count : most;
    }
    return most;
}

static size_t longest_label(const struct fb_figure *figure)
{
    size_t longest = 0;
    for (size_t i = 0; i < figure->lines_count; i++) {
        size_t length = strlen(figure->lines[i].label);
        longest = length > longest ? length : longest;
    }
    return longest;
}

static void write_settings(const struct fb_figure *figure, const char *dir, const char *out_stem,
                           FILE *file)
{
    char path[4096];
    size_t first = 0, block = figure->lines_count, rows = 0;
    (void)snprintf(path, sizeof path, "%s/%s.tsv", dir, figure->name);
    (void)fputs("# Written by flowbench; read by the script of the same kind in plots/.\n", file);
    write_string(file, "fb_data", path);
    write_string(file, "fb_out", out_stem);
    write_string(file, "fb_title", figure->title);
    write_string(file, "fb_subtitle", figure->subtitle);
    write_string(file, "fb_reference", figure->reference ? figure->reference : "");
    (void)fprintf(file, "fb_panels = %zu\n", figure->panels_count);
    (void)fprintf(file, "fb_x_min = %.10g; fb_x_max = %.10g\n", figure->x_min, figure->x_max);
    (void)fprintf(file, "fb_y_min = %.10g; fb_y_max = %.10g\n", figure->y_min, figure->y_max);
    (void)fprintf(file, "fb_bar_width = %.10g\n", figure->label_step);
    (void)fprintf(file, "set xtics %s\nset ytics %s\n", figure->x_tics, figure->y_tics);
    (void)fputs("fb_blank_y_tics = ", file);
    fb_gnuplot_write_text(file, figure->y_tics_blank);
    (void)fputc('\n', file);
    write_lines(figure, file);
    write_crossings(figure, file);
    (void)fprintf(file,
                  "array fb_first[2]\narray fb_last[2]\narray fb_marks[2]\n"
                  "array fb_mark_block[2]\narray fb_crossed[2]\narray fb_panel_title[2]\n"
                  "array fb_whys[2]\narray fb_why_name[%d]\narray fb_why_symbol[%d]\n",
                  FB_CENSORED_COUNT * FB_FIGURE_PANELS_MAX,
                  FB_CENSORED_COUNT * FB_FIGURE_PANELS_MAX);
    for (int i = 1; i <= FB_CENSORED_COUNT * FB_FIGURE_PANELS_MAX; i++) {
        (void)fprintf(file, "fb_why_symbol[%d] = 0; fb_why_name[%d] = ''\n", i, i);
    }
    for (int panel = 0; panel < (int)figure->panels_count; panel++) {
        size_t here = write_panel(figure, panel, &first, &block, file);
        rows = here > rows ? here : rows;
    }
    size_t notes = write_notes(figure, file);
    bool crowded = rows > ROWS_MAX;
    size_t columns =
        crowded || (rows > ROWS_WANTED && longest_label(figure) <= SHORT_LABEL) ? 2 : 1;
    (void)fprintf(file, "fb_crowded = %d\n", crowded);
    (void)fprintf(file, "fb_rows = %zu; fb_columns = %zu; fb_notes = %zu\n",
                  (rows + columns - 1) / columns, columns, notes);
}

static enum fb_status write_file(const struct fb_figure *figure, const char *dir,
                                 const char *suffix, const char *out_stem, struct fb_arena *arena,
                                 struct fb_error *error)
{
    char *path = fb_arena_printf(arena, error, "%s/%s%s", dir, figure->name, suffix);
    if (!path) {
        return FB_ERROR_MEMORY;
    }
    FILE *file = fopen(path, "w");
    if (!file) {
        return fb_error_set(error, FB_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    if (out_stem) {
        write_settings(figure, dir, out_stem, file);
    } else {
        write_numbers(figure, file);
    }
    bool failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    return failed ? fb_error_set(error, FB_ERROR_IO, "cannot write %s: %s", path, strerror(errno))
                  : FB_OK;
}

enum fb_status fb_figure_write(const struct fb_figure *figure, const char *dir,
                               const char *out_stem, struct fb_arena *arena, struct fb_error *error)
{
    enum fb_status status = write_file(figure, dir, ".tsv", NULL, arena, error);
    return status == FB_OK ? write_file(figure, dir, ".gp", out_stem, arena, error) : status;
}
