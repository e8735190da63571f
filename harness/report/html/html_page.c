/* Names, headings and cells that the sections of a report share. See html_page.h. */
#include "html_page.h"

#include "attention.h"
#include "missing.h"
#include "quantity.h"
#include "registry.h"

#include <math.h>
#include <string.h>

void fb_html_name_mechanism(const struct fb_row *row, char *label)
{
    const struct fb_mechanism *mechanism = fb_mechanism_find(row->mechanism);
    (void)snprintf(label, FB_HTML_LABEL_SIZE, "%s (%s%s%.80s)",
                   mechanism ? mechanism->title : row->mechanism, row->variant,
                   row->program[0] ? ", " : "", row->program);
}

void fb_html_name_run(const struct fb_html_page *page, size_t run_index, char *label)
{
    label[0] = '\0';
    if (page->sources->count > 1) {
        (void)snprintf(label, FB_HTML_LABEL_SIZE, "run %zu", run_index + 1);
    }
}

void fb_html_name_series(const struct fb_html_page *page, const struct fb_series *series,
                         char *label)
{
    char phrase[FB_FACTOR_TEXT_SIZE], run[FB_HTML_LABEL_SIZE];
    const struct fb_row *row = series->key;
    fb_html_name_mechanism(row, label);
    size_t length = strlen(label);
    if (strcmp(row->causal, "true") == 0) {
        length += (size_t)snprintf(label + length, FB_HTML_LABEL_SIZE - length, ", causal");
    }
    for (int f = 0; f < FB_FACTOR_COUNT && length < FB_HTML_LABEL_SIZE; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        if (page->varies[f] && factor != FB_FACTOR_RUN && !fb_factor_is_plain(row, factor)) {
            fb_factor_phrase(row, factor, phrase);
            length += (size_t)snprintf(label + length, FB_HTML_LABEL_SIZE - length, "%s%s",
                                       phrase[0] ? ", " : "", phrase);
        }
    }
    fb_html_name_run(page, series->run_index, run);
    if (run[0] && length < FB_HTML_LABEL_SIZE) {
        (void)snprintf(label + length, FB_HTML_LABEL_SIZE - length, ", %.20s", run);
    }
}

void fb_html_section(FILE *out, const char *id, const char *title)
{
    fb_html_printf(out, "<section id=\"%s\" aria-labelledby=\"%s-h\">\n<h2 id=\"%s-h\">%s</h2>\n",
                   id, id, id, title);
}

void fb_html_table_begin(FILE *out, const char *id, const char *kinds, const char *caption)
{
    fb_html_printf(out,
                   "<div class=\"box\" role=\"region\" aria-labelledby=\"%s-cap\" tabindex=\"0\">\n"
                   "<table id=\"%s\" class=\"%s\">\n<caption id=\"%s-cap\">",
                   id, id, kinds, id);
    (void)fprintf(out, "<span>%s</span>", caption);
    (void)fputs("</caption>\n<thead><tr>", out);
}

void fb_html_table_head(FILE *out, const char *key, enum fb_html_order order, const char *title)
{
    fb_html_printf(out, "<th scope=\"col\"%s", order == FB_HTML_NUMBER ? " class=n" : "");
    if (key[0]) {
        fb_html_printf(out, " data-key=\"%s\"", key);
    }
    fb_html_printf(out, ">%s</th>", title);
}

void fb_html_table_body(FILE *out)
{
    (void)fputs("</tr></thead>\n<tbody>\n", out);
}

void fb_html_table_end(FILE *out)
{
    (void)fputs("</tbody></table></div>\n", out);
}

void fb_html_cell_text(FILE *out, const char *text)
{
    fb_html_printf(out, "<td>%s</td>", text);
}

void fb_html_cell_number(FILE *out, double value, const char *text)
{
    if (isnan(value)) {
        (void)fputs("<td></td>", out);
    } else {
        fb_html_printf(out, "<td class=n data-v=\"%.6g\">%s</td>", value, text);
    }
}

void fb_html_cell_time(FILE *out, double seconds)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, seconds, fb_html_time(seconds, text));
}

void fb_html_cell_bytes(FILE *out, double bytes)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, bytes, fb_quantity_bytes(bytes, text));
}

void fb_html_cell_count(FILE *out, double count)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, count, fb_quantity_count(count, text));
}

void fb_html_cell_ratio(FILE *out, double ratio)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, ratio, fb_quantity_ratio(ratio, text));
}

void fb_html_tag(FILE *out, const char *tone, const char *text)
{
    fb_html_printf(out, "<span class=\"tag %s\">%s</span>", tone, text);
}

void fb_html_cell_status(FILE *out, const struct fb_row *row)
{
    bool ok = strcmp(row->status, "ok") == 0;
    (void)fputs("<td>", out);
    fb_html_tag(out, ok ? "good" : fb_status_is_failure(row->status) ? "bad" : "warn", row->status);
    (void)fputs("</td>", out);
}

double fb_html_speedup(const struct fb_html_series *series, const struct fb_point *point)
{
    for (size_t i = 0; series->softmax && i < series->softmax->points_count; i++) {
        const struct fb_point *other = &series->softmax->points[i];
        if (other->x == point->x && other->ok && point->ok) {
            return other->row->time_median_s / point->row->time_median_s;
        }
    }
    return (double)NAN;
}
