/* Training runs in a page: tables with the paper's numbers, comparisons, learning curves. */
#include "accuracy_plots.h"
#include "accuracy_speed.h"
#include "accuracy_table.h"
#include "csv.h"
#include "html_figures.h"
#include "html_page.h"
#include "html_svg.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name, *title;
} kinds[] = {
    {"learning_curves", "Learning curves: the mean over seeds in their band"},
    {"accuracy_vs_step_time", "Test metric against the time of a training step"},
    {"steps_per_s_vs_tokens", "Training steps per second against the tokens of a sequence"},
};
enum { KINDS_COUNT = sizeof kinds / sizeof kinds[0], SEED = 1 };

struct section {
    const struct fb_html_page *page;
    const struct fb_html_source *source;
    struct fb_accuracy_groups groups;
    const char *dir; /* of the pictures; NULL: there are none */
    int figures;     /* in the page so far */
};

/* ---- tables ---------------------------------------------------------------------------------- */

static void write_cell(FILE *out, size_t column, const char *text,
                       const struct fb_accuracy_group *g)
{
    if (column != FB_ACCURACY_VERDICT_COLUMN || text[0] == '\0') {
        fb_html_cell_text(out, text);
        return;
    }
    (void)fputs("<td>", out);
    fb_html_tag(out,
                g->verdict == FB_VERDICT_REPRODUCED       ? "good"
                : g->verdict == FB_VERDICT_NOT_REPRODUCED ? "bad"
                                                          : "plain",
                text);
    (void)fputs("</td>", out);
}

static void write_table(const struct section *s, size_t block)
{
    char cells[FB_ACCURACY_COLUMNS_SHOWN][FB_ACCURACY_LABEL_SIZE];
    FILE *out = s->page->out;
    char id[48];
    (void)snprintf(id, sizeof id, "accuracy-%zu", block + 1);
    fb_html_table_begin(out, id, "sort", "Ours beside the paper's");
    for (size_t c = 0; c < FB_ACCURACY_COLUMNS_SHOWN; c++) {
        fb_html_table_head(out, "", fb_accuracy_column_is_number(c) ? FB_HTML_NUMBER : FB_HTML_TEXT,
                           fb_accuracy_headings[c]);
    }
    fb_html_table_body(out);
    for (size_t i = 0; i < s->groups.count; i++) {
        if (s->groups.items[i].block != block) {
            continue;
        }
        fb_accuracy_cells(&s->groups.items[i], cells);
        (void)fputs("<tr>", out);
        for (size_t c = 0; c < FB_ACCURACY_COLUMNS_SHOWN; c++) {
            write_cell(out, c, cells[c], &s->groups.items[i]);
        }
        (void)fputs("</tr>\n", out);
    }
    fb_html_table_end(out);
}

static void write_speed_table(const struct section *s, size_t block)
{
    int64_t lengths[FB_SPEED_LENGTHS_MAX];
    char text[64];
    FILE *out = s->page->out;
    const size_t count = fb_accuracy_speed_lengths(&s->groups, block, lengths);
    (void)snprintf(text, sizeof text, "speed-%zu", block + 1);
    fb_html_table_begin(out, text, "", "Training steps per second");
    fb_html_table_head(out, "", FB_HTML_TEXT, "mechanism");
    for (size_t c = 0; c < count; c++) {
        (void)snprintf(text, sizeof text, "%" PRId64 " tokens", lengths[c]);
        fb_html_table_head(out, "", FB_HTML_NUMBER, text);
    }
    fb_html_table_body(out);
    for (size_t i = 0; i < s->groups.count; i++) {
        const char *label = s->groups.items[i].label;
        if (!fb_accuracy_speed_starts(&s->groups, block, i)) {
            continue;
        }
        (void)fputs("<tr>", out);
        fb_html_cell_text(out, label);
        for (size_t c = 0; c < count; c++) {
            fb_accuracy_speed_cell(&s->groups, block, label, lengths[c], text, sizeof text);
            fb_html_cell_text(out, text);
        }
        (void)fputs("</tr>\n", out);
    }
    fb_html_table_end(out);
    fb_html_printf(out, "<p>%s.</p>\n", fb_accuracy_speed_legend);
}

static void write_remarks(const struct section *s, size_t block)
{
    FILE *out = s->page->out;
    char text[512];
    (void)fputs("<ul>\n", out);
    for (size_t i = 0; i < s->groups.count; i++) {
        const struct fb_accuracy_group *g = &s->groups.items[i];
        if (g->block == block && g->failed) {
            fb_html_printf(out, "<li>%s: %zu of %zu %s: %s</li>\n", g->label,
                           g->rows_all - g->rows_count, g->rows_all, g->failed->status,
                           g->failed->reason);
        }
    }
    for (size_t i = 0; i < s->groups.pairs_count; i++) {
        if (s->groups.items[s->groups.pairs[i].flow].block == block) {
            fb_accuracy_pair_text(&s->groups, &s->groups.pairs[i], text, sizeof text);
            fb_html_printf(out, "<li>%s</li>\n", text);
        }
    }
    (void)fputs("</ul>\n", out);
}

/* ---- pictures -------------------------------------------------------------------------------- */

/* What gnuplot drew of a block into the temporary folder, if it did. */
static enum fb_status write_figure(struct section *s, size_t kind, size_t block,
                                   struct fb_error *error)
{
    FILE *out = s->page->out;
    size_t length;
    char *svg = NULL;
    const char *path = fb_arena_printf(s->page->arena, error, "%s/%s_%zu.svg", s->dir,
                                       kinds[kind].name, block + 1);
    if (!path) {
        return FB_ERROR_MEMORY;
    }
    if (access(path, R_OK) != 0) {
        return FB_OK;
    }
    const enum fb_status status = fb_csv_load(path, s->page->arena, &svg, &length, error);
    if (status != FB_OK) {
        return status;
    }
    const char *title = kinds[kind].title;
    const struct fb_html_svg picture = {
        .svg = svg, .number = ++s->figures, .title = title, .desc = title, .path = path};
    fb_html_printf(out,
                   "<figure id=\"figure-%d\">\n<div class=\"picture\" tabindex=\"0\" "
                   "role=\"group\" aria-label=\"%s\">\n",
                   s->figures, title);
    const enum fb_status wrote = fb_html_svg_write(out, &picture, error);
    fb_html_printf(out, "</div>\n<figcaption><b>Figure %d.</b> %s.</figcaption>\n</figure>\n",
                   s->figures, title);
    return wrote;
}

/* Removes what the drawing left; names of files are ours alone. */
static void clear(const struct section *s)
{
    static const char *const suffixes[] = {".svg", ".png"};
    static const char *const data[] = {".gp", ".tsv"};
    char path[4200];
    for (size_t block = 0; block < s->groups.blocks; block++) {
        for (size_t k = 0; k < KINDS_COUNT; k++) {
            for (size_t i = 0; i < 2; i++) {
                (void)snprintf(path, sizeof path, "%s/%s_%zu%s", s->dir, kinds[k].name, block + 1,
                               suffixes[i]);
                (void)unlink(path);
                (void)snprintf(path, sizeof path, "%s/data/%s_%zu%s", s->dir, kinds[k].name,
                               block + 1, data[i]);
                (void)unlink(path);
            }
        }
    }
    (void)snprintf(path, sizeof path, "%s/data", s->dir);
    (void)rmdir(path);
    (void)rmdir(s->dir);
}

static enum fb_status draw(struct section *s, const char **why_missing, struct fb_error *error)
{
    struct fb_error why = {FB_OK, ""};
    int pictures = 0;
    s->dir = fb_html_temporary_folder(s->page->arena, error);
    if (!s->dir) {
        return error->code;
    }
    const struct fb_accuracy_plots_request request = {.accuracy = &s->source->accuracy,
                                                      .groups = &s->groups,
                                                      .plots = FB_TRAINING_PLOT_ALL,
                                                      .dir = s->dir};
    if (fb_accuracy_plots_make(&request, s->page->arena, &pictures, &why) != FB_OK) {
        *why_missing = fb_arena_strdup(s->page->arena, why.text, error);
        return *why_missing ? FB_OK : FB_ERROR_MEMORY;
    }
    return FB_OK;
}

/* ---- the section ----------------------------------------------------------------------------- */

static enum fb_status write_run(struct section *s, const char **why_missing, struct fb_error *error)
{
    FILE *out = s->page->out;
    char title[256];
    enum fb_status status =
        fb_accuracy_group(&s->source->accuracy, SEED, s->page->arena, &s->groups, error);
    if (status == FB_OK) {
        status = draw(s, why_missing, error);
    }
    for (size_t block = 0; status == FB_OK && block < s->groups.blocks; block++) {
        const bool timed = fb_accuracy_is_timed(&s->groups, block);
        if (timed && !fb_accuracy_leads_speed(&s->groups, block)) {
            continue;
        }
        if (timed) {
            fb_accuracy_speed_title(&s->groups, block, title, sizeof title);
        } else {
            fb_accuracy_block_title(fb_accuracy_block(&s->groups, block)->any, title, sizeof title);
        }
        fb_html_printf(out, "<h3>%s</h3>\n", title);
        if (timed) {
            write_speed_table(s, block);
        } else {
            write_table(s, block);
            write_remarks(s, block);
        }
        for (size_t k = 0; status == FB_OK && k < KINDS_COUNT; k++) {
            status = write_figure(s, k, block, error);
        }
    }
    if (s->dir) {
        clear(s);
    }
    return status;
}

enum fb_status fb_html_accuracy(const struct fb_html_page *page, const char **why_missing,
                                struct fb_error *error)
{
    FILE *out = page->out;
    int figures = 0;
    enum fb_status status = FB_OK;
    fb_html_section(out, "accuracy", "Accuracy");
    fb_html_printf(out, "<p>%s.</p>\n", fb_accuracy_legend);
    for (size_t i = 0; status == FB_OK && i < page->sources->count; i++) {
        struct section s = {.page = page, .source = &page->sources->items[i], .figures = figures};
        if (page->sources->count > 1) {
            fb_html_printf(out, "<h3>Run %zu: %s</h3>\n", i + 1, s.source->run);
        }
        status = write_run(&s, why_missing, error);
        figures = s.figures;
    }
    (void)fputs("</section>\n", out);
    return status;
}
