/* Pictures inside the page. See html_figures.h. */
#include "html_figures.h"

#include "csv.h"
#include "figure.h"
#include "gnuplot.h"
#include "html_svg.h"
#include "quantity.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More pictures than this are not looked at; `flowbench plot` draws them all. */
enum { FIGURES_MAX = 24, OF_A_KIND_MAX = 8 };

struct drawing {
    const struct fb_html_page *page;
    const char *dir, *scripts; /* temporary; of the gnuplot scripts */
    size_t drawn, left_out;
    struct fb_error missing; /* why there is no picture; code FB_OK: there are */
};

/* Markup of gnuplot's enhanced text taken off again: "N^{1.03}" reads "N^1.03". */
static void plain_text(const char *enhanced, char *text, size_t text_size)
{
    size_t length = 0;
    for (; *enhanced && length + 1 < text_size; enhanced++) {
        if (*enhanced == '\\' && enhanced[1] != '\0') {
            text[length++] = *++enhanced;
        } else if (*enhanced != '{' && *enhanced != '}') {
            text[length++] = *enhanced;
        }
    }
    text[length] = '\0';
}

static void write_value(FILE *out, enum fb_plot_kind kind, double value)
{
    if (kind == FB_PLOT_MEMORY_VS_SEQ_LEN) {
        fb_html_cell_bytes(out, value);
    } else if (fb_plot_is_ratio(kind)) {
        fb_html_cell_ratio(out, value);
    } else {
        fb_html_cell_time(out, value);
    }
}

/* ---- the numbers under a picture
 * ----------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t places_of(const struct fb_figure *figure, double *places, size_t places_max)
{
    size_t count = 0;
    for (size_t l = 0; l < figure->lines_count; l++) {
        for (size_t p = 0; p < figure->lines[l].points_count; p++) {
            size_t at = 0;
            while (at < count && places[at] != figure->lines[l].points[p].x) {
                at++;
            }
            if (at == count && count < places_max) {
                places[count++] = figure->lines[l].points[p].x;
            }
        }
    }
    qsort(places, count, sizeof *places, compare_doubles);
    return count;
}

static void write_place(FILE *out, const struct fb_figure *figure, double place)
{
    char text[FB_QUANTITY_SIZE];
    if (fb_plot_axis(figure->kind) == FB_AXIS_SEQ_LEN) {
        fb_quantity_count(place, text);
    } else {
        (void)snprintf(text, sizeof text, "%.0f", place);
    }
    fb_html_table_head(out, "", FB_HTML_NUMBER, text);
}

static void write_numbers(const struct drawing *drawing, const struct fb_figure *figure)
{
    enum { PLACES_MAX = 40 };
    double places[PLACES_MAX];
    char label[FB_HTML_LABEL_SIZE];
    FILE *out = drawing->page->out;
    size_t count = places_of(figure, places, PLACES_MAX);
    (void)snprintf(label, sizeof label, "figure-%zu-numbers", drawing->drawn + 1);
    (void)fputs("<details class=\"numbers\"><summary>The numbers of this figure</summary>\n", out);
    fb_html_table_begin(out, label, "", "The points of the lines above");
    fb_html_table_head(out, "", FB_HTML_TEXT, "line");
    for (size_t p = 0; p < count; p++) {
        write_place(out, figure, places[p]);
    }
    fb_html_table_body(out);
    for (size_t l = 0; l < figure->lines_count; l++) {
        const struct fb_figure_line *line = &figure->lines[l];
        plain_text(line->label, label, sizeof label);
        fb_html_printf(out, "<tr><th scope=\"row\">%s%s%s</th>", label,
                       figure->panels_count > 1 ? ", " : "",
                       figure->panels_count > 1 ? figure->panel_titles[line->panel] : "");
        for (size_t p = 0; p < count; p++) {
            double value = (double)NAN;
            for (size_t i = 0; i < line->points_count; i++) {
                value = line->points[i].x == places[p] ? line->points[i].y : value;
            }
            write_value(out, figure->kind, value);
        }
        (void)fputs("</tr>\n", out);
    }
    fb_html_table_end(out);
    (void)fputs("</details>\n", out);
}

/* ---- drawing
 * ------------------------------------------------------------------------------------- */

/* gnuplot draws into the temporary folder; what it leaves there goes at once. */
static enum fb_status draw(struct drawing *drawing, const struct fb_figure *figure,
                           const char **svg, const char **path, struct fb_error *error)
{
    static const char *const suffixes[] = {".gp", ".tsv", ".svg"};
    struct fb_arena *arena = drawing->page->arena;
    char *stem = fb_arena_printf(arena, error, "%s/%s", drawing->dir, figure->name);
    char *settings = fb_arena_printf(arena, error, "%s/%s.gp", drawing->dir, figure->name);
    char *script = fb_arena_printf(arena, error, "%s.gp", fb_plot_kind_name(figure->kind));
    size_t length;
    char *text = NULL;
    *path = fb_arena_printf(arena, error, "%s/%s.svg", drawing->dir, figure->name);
    if (!stem || !settings || !script || !*path) {
        return FB_ERROR_MEMORY;
    }
    enum fb_status status = fb_figure_write(figure, drawing->dir, stem, arena, error);
    if (status == FB_OK) {
        status = fb_gnuplot_draw(settings, drawing->scripts, script, "svg", error);
    }
    if (status == FB_OK) {
        status = fb_csv_load(*path, arena, &text, &length, error);
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char name[4096];
        if (snprintf(name, sizeof name, "%s%s", stem, suffixes[i]) < (int)sizeof name) {
            (void)unlink(name);
        }
    }
    *svg = text;
    return status;
}

/* A gnuplot that is missing or fails is noted once, and nothing more is drawn. */
static enum fb_status put_figure(struct drawing *drawing, const struct fb_figure *figure,
                                 const char *run, struct fb_error *error)
{
    const char *svg = NULL, *path = NULL;
    char title[FB_HTML_LABEL_SIZE], subtitle[FB_HTML_LABEL_SIZE], desc[FB_HTML_LABEL_SIZE * 2];
    FILE *out = drawing->page->out;
    enum fb_status status = draw(drawing, figure, &svg, &path, error);
    if (status == FB_ERROR_MEMORY) {
        return status;
    }
    if (status != FB_OK) {
        drawing->missing = *error;
        drawing->left_out++;
        return FB_OK;
    }
    plain_text(figure->title, title, sizeof title);
    plain_text(figure->subtitle, subtitle, sizeof subtitle);
    (void)snprintf(desc, sizeof desc, "%s. %zu lines%s; the table below has their numbers.",
                   subtitle, figure->lines_count,
                   figure->panels_count > 1 ? " in two panels, not causal and causal" : "");
    const struct fb_html_svg picture = {
        .svg = svg, .number = (int)drawing->drawn + 1, .title = title, .desc = desc, .path = path};
    fb_html_printf(out,
                   "<figure id=\"figure-%zu\">\n<div class=\"picture%s\" tabindex=\"0\" "
                   "role=\"group\" aria-label=\"%s\">\n",
                   drawing->drawn + 1, figure->panels_count > 1 ? " wide" : "", title);
    status = fb_html_svg_write(out, &picture, error);
    fb_html_printf(out, "</div>\n<figcaption><b>Figure %zu.</b> %s%s%s: %s.</figcaption>\n",
                   drawing->drawn + 1, title, run[0] ? ", " : "", run, subtitle);
    write_numbers(drawing, figure);
    (void)fputs("</figure>\n", out);
    drawing->drawn++;
    return status;
}

static enum fb_status draw_kind(struct drawing *drawing, enum fb_plot_kind kind, size_t run,
                                size_t runs_count, struct fb_error *error)
{
    const struct fb_html_page *page = drawing->page;
    struct fb_figure_job job = {.runs = page->sources->results + run,
                                .runs_count = runs_count,
                                .seed = page->seed,
                                .arena = page->arena,
                                .figures_max = OF_A_KIND_MAX + 1};
    struct fb_figure *figures = NULL;
    char name[FB_HTML_LABEL_SIZE] = "";
    size_t count = 0;
    enum fb_status status = fb_figures_build(&job, kind, &figures, &count, error);
    if (runs_count == 1) {
        fb_html_name_run(page, run, name);
    }
    for (size_t i = 0; status == FB_OK && i < count; i++) {
        if (drawing->missing.code != FB_OK || drawing->drawn >= FIGURES_MAX || i >= OF_A_KIND_MAX) {
            drawing->left_out++;
            continue;
        }
        status = put_figure(drawing, &figures[i], name, error);
    }
    return status;
}

/* What some run's suite asks for; all kinds where no suite is known. The distance to the floor is
 * always of interest. */
static bool is_wanted(const struct fb_html_page *page, enum fb_plot_kind kind)
{
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_html_source *source = &page->sources->items[r];
        if (!source->has_suite || source->suite.plots_count == 0 ||
            kind == FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN) {
            return true;
        }
        for (size_t i = 0; i < source->suite.plots_count; i++) {
            if (source->suite.plots[i] == kind) {
                return true;
            }
        }
    }
    return false;
}

/* Seconds and bytes of different machines get pictures of their own, ratios share one. */
static enum fb_status draw_all(struct drawing *drawing, struct fb_error *error)
{
    const struct fb_html_sources *sources = drawing->page->sources;
    enum fb_status status = FB_OK;
    for (int k = 0; k < FB_PLOT_KIND_COUNT && status == FB_OK; k++) {
        enum fb_plot_kind kind = (enum fb_plot_kind)k;
        bool apart = sources->several_machines && !fb_plot_is_ratio(kind);
        if (!is_wanted(drawing->page, kind)) {
            continue;
        }
        for (size_t r = 0; r < (apart ? sources->count : 1) && status == FB_OK; r++) {
            status = draw_kind(drawing, kind, r, apart ? 1 : sources->count, error);
        }
    }
    return status;
}

static void say_left_out(const struct drawing *drawing)
{
    FILE *out = drawing->page->out;
    if (drawing->missing.code != FB_OK) {
        fb_html_printf(out, "<p class=\"note\">Figures are missing here: %s.</p>\n",
                       drawing->missing.text);
    } else if (drawing->left_out > 0) {
        (void)fputs("<p class=\"note\">Not all figures are shown; <code>./bench plot</code> draws "
                    "every one.</p>\n",
                    out);
    }
}

const char *fb_html_temporary_folder(struct fb_arena *arena, struct fb_error *error)
{
    const char *root = getenv("TMPDIR");
    char *path = fb_arena_printf(arena, error, "%s/flowbench-report-XXXXXX",
                                 root && root[0] == '/' ? root : "/tmp");
    if (path && !mkdtemp(path)) {
        (void)fb_error_set(error, FB_ERROR_IO, "cannot create a folder like %s: %s", path,
                           strerror(errno));
        return NULL;
    }
    return path;
}

enum fb_status fb_html_figures(const struct fb_html_page *page, const char **why_missing,
                               struct fb_error *error)
{
    struct drawing drawing = {.page = page, .scripts = fb_gnuplot_scripts_dir()};
    *why_missing = "";
    if (!drawing.scripts) {
        drawing.missing.code = FB_ERROR_IO;
        (void)snprintf(drawing.missing.text, sizeof drawing.missing.text,
                       "the gnuplot scripts of flowbench (plots/*.gp) are not installed");
    }
    drawing.dir = fb_html_temporary_folder(page->arena, error);
    if (!drawing.dir) {
        return error->code;
    }
    /* Into memory first: without a figure there is no section. */
    char *content = NULL;
    size_t length = 0;
    struct fb_html_page local = *page;
    local.out = open_memstream(&content, &length);
    if (!local.out) {
        (void)rmdir(drawing.dir);
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the figures");
    }
    drawing.page = &local;
    enum fb_status status = draw_all(&drawing, error);
    say_left_out(&drawing);
    (void)rmdir(drawing.dir);
    if (fclose(local.out) != 0 && status == FB_OK) {
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the figures");
    }
    if (status == FB_OK && length > 0) {
        fb_html_section(page->out, "figures", "Figures");
        (void)fwrite(content, 1, length, page->out);
        (void)fputs("</section>\n", page->out);
    }
    free(content);
    if (status == FB_OK && drawing.missing.code != FB_OK && drawing.left_out > 0) {
        *why_missing = fb_arena_strdup(page->arena, drawing.missing.text, error);
        status = *why_missing ? FB_OK : FB_ERROR_MEMORY;
    }
    return status;
}
