/* Exponents with their intervals, crossovers, distance to the floor; then the slope of each octave.
 */
#include "html_page.h"

#include "quantity.h"
#include "row_bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OCTAVES_MAX = 24 };

static bool is_shown(const struct fb_html_page *page, size_t index)
{
    return page->series[index].series->ok_count > 0 &&
           fb_series_is_swept(page->series[index].series);
}

/* Exponent, interval, where it holds. */
static void write_exponent(FILE *out, const struct fb_html_series *found)
{
    char text[FB_QUANTITY_SIZE], from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    const struct fb_scaling *scaling = &found->scaling;
    if (fb_scaling_is_constant(found->series, scaling)) {
        fb_html_printf(
            out, "<td class=n data-v=\"0\">constant</td><td></td><td>\xc3\x97%.2f in all</td>",
            scaling->values[scaling->count - 1] / scaling->values[0]);
        return;
    }
    if (scaling->verdict == FB_SCALING_TOO_FEW) {
        (void)fputs("<td></td><td></td><td>too few sizes</td>", out);
        return;
    }
    if (scaling->verdict == FB_SCALING_NONE) {
        (void)fputs("<td></td><td></td><td>no single exponent: ", out);
        if (scaling->fixed_cost_dominates) {
            (void)fputs("a fixed cost dominates</td>", out);
            return;
        }
        fb_html_printf(out, "%.2f at %s\xe2\x80\x93%s, else %.2f</td>",
                       scaling->slopes[scaling->break_index],
                       fb_quantity_count(scaling->sizes[scaling->break_index], from),
                       fb_quantity_count(scaling->sizes[scaling->break_index + 1], to),
                       scaling->typical_slope);
        return;
    }
    (void)snprintf(text, sizeof text, "%.2f", scaling->fit.p);
    fb_html_cell_number(out, scaling->fit.p, text);
    if (scaling->p.kind == FB_SPREAD_NONE) {
        (void)fputs("<td></td>", out);
    } else {
        fb_html_printf(out, "<td>[%.2f, %.2f]</td>", scaling->p.low, scaling->p.high);
    }
    fb_html_printf(out, "<td>%s\xe2\x80\x93%s</td>",
                   fb_quantity_count(scaling->sizes[scaling->first], from),
                   fb_quantity_count(scaling->sizes[scaling->count - 1], to));
}

/* "< 256", "> 8K", or each sign change with the interval of the last. */
static void write_crossover(FILE *out, const struct fb_crossover *crossover)
{
    char size[FB_QUANTITY_SIZE];
    if (crossover->kind == FB_CROSSOVER_NONE) {
        (void)fputs("<td></td>", out);
        return;
    }
    fb_html_printf(out, "<td class=n data-v=\"%.6g\">", fmin(crossover->size, 1e300));
    if (crossover->kind == FB_CROSSOVER_BELOW) {
        fb_html_printf(out, "&lt; %s", fb_quantity_count(crossover->size_min, size));
    } else if (crossover->kind == FB_CROSSOVER_ABOVE) {
        fb_html_printf(out, "&gt; %s", fb_quantity_count(crossover->size_max, size));
    }
    const char *separator = crossover->kind == FB_CROSSOVER_INSIDE ? "" : "; ";
    for (size_t i = 0; i < crossover->crossings_count && i < 6; i++) {
        fb_html_printf(out, "%s%.0f%s", separator, crossover->crossings[i].size,
                       crossover->crossings[i].becomes_faster ? "" : " (slower again)");
        separator = ", ";
    }
    if (crossover->kind == FB_CROSSOVER_INSIDE && crossover->interval.low > 0 &&
        isfinite(crossover->interval.high)) {
        fb_html_printf(out, " [%.0f, %.0f]", crossover->interval.low, crossover->interval.high);
    }
    (void)fputs("</td>", out);
}

static void write_row(const struct fb_html_page *page, const struct fb_html_series *found)
{
    char label[FB_HTML_LABEL_SIZE];
    double best = (double)NAN, speedup = (double)NAN;
    const struct fb_point *last = fb_series_last_ok(found->series);
    FILE *out = page->out;
    for (size_t i = 0; i < found->series->points_count; i++) {
        const struct fb_point *point = &found->series->points[i];
        double here = fb_html_speedup(found, point);
        speedup = isnan(here) ? speedup : here;
        best = point->ok ? fmin(best, point->row->floor_ratio) : best;
    }
    fb_html_name_series(page, found->series, label);
    fb_html_printf(out, "<tr><th scope=\"row\">%s</th>", label);
    write_exponent(out, found);
    write_crossover(out, &found->crossover);
    fb_html_cell_ratio(out, speedup);
    fb_html_cell_ratio(out, last->row->floor_ratio);
    fb_html_cell_ratio(out, best);
    fb_html_cell_bytes(out, fb_row_memory_bytes(last->row));
    fb_html_cell_count(out, last->x);
    (void)fputs("</tr>\n", out);
}

static void write_table(const struct fb_html_page *page)
{
    static const struct {
        const char *key, *title;
        enum fb_html_order order;
    } columns[] = {{"series", "mechanism", FB_HTML_TEXT},
                   {"exponent", "exponent p", FB_HTML_NUMBER},
                   {"", "95 % interval", FB_HTML_TEXT},
                   {"", "holds for N", FB_HTML_TEXT},
                   {"crossover", "overtakes softmax at N", FB_HTML_NUMBER},
                   {"speedup", "\xc3\x97 as fast as softmax", FB_HTML_NUMBER},
                   {"floor", "\xc3\x97 floor", FB_HTML_NUMBER},
                   {"best", "best \xc3\x97 floor", FB_HTML_NUMBER},
                   {"memory", "memory", FB_HTML_NUMBER},
                   {"largest", "largest N", FB_HTML_NUMBER}};
    fb_html_table_begin(page->out, "scaling-table", "sort filter",
                        "Exponents, crossovers and floors. Speed-up and floor ratio at the largest "
                        "N measured (the speed-up where softmax was measured, too); memory beyond "
                        "inputs and outputs there");
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        fb_html_table_head(page->out, columns[i].key, columns[i].order, columns[i].title);
    }
    fb_html_table_body(page->out);
    for (size_t i = 0; i < page->set.count; i++) {
        if (is_shown(page, i)) {
            write_row(page, &page->series[i]);
        }
    }
    fb_html_table_end(page->out);
}

/* ---- slopes
 * -------------------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every measured size of any series, ascending, each once. */
static size_t collect_sizes(const struct fb_html_page *page, double *sizes)
{
    size_t count = 0;
    for (size_t i = 0; i < page->set.count; i++) {
        const struct fb_scaling *scaling = &page->series[i].scaling;
        for (size_t s = 0; is_shown(page, i) && s < scaling->count; s++) {
            size_t at = 0;
            while (at < count && sizes[at] != scaling->sizes[s]) {
                at++;
            }
            if (at == count && count <= OCTAVES_MAX) {
                sizes[count++] = scaling->sizes[s];
            }
        }
    }
    qsort(sizes, count, sizeof *sizes, compare_doubles);
    return count;
}

static void write_slopes(const struct fb_html_page *page)
{
    double sizes[OCTAVES_MAX + 1];
    char from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE], text[2 * FB_QUANTITY_SIZE];
    size_t count = collect_sizes(page, sizes);
    FILE *out = page->out;
    if (count < 3) {
        return;
    }
    (void)fputs("<h3>Local slopes</h3>\n<p>The slope of log time between neighbouring sizes. One "
                "exponent is claimed only where these agree; a step at a cache's edge shows as one "
                "steep octave.</p>\n",
                out);
    fb_html_table_begin(out, "slope-table", "sort", "Slope between neighbouring sizes N");
    fb_html_table_head(out, "series", FB_HTML_TEXT, "mechanism");
    for (size_t s = 0; s + 1 < count; s++) {
        (void)snprintf(text, sizeof text, "%s\xe2\x80\x93%s", fb_quantity_count(sizes[s], from),
                       fb_quantity_count(sizes[s + 1], to));
        fb_html_table_head(out, text, FB_HTML_NUMBER, text);
    }
    fb_html_table_body(out);
    for (size_t i = 0; i < page->set.count; i++) {
        const struct fb_scaling *scaling = &page->series[i].scaling;
        char label[FB_HTML_LABEL_SIZE];
        if (!is_shown(page, i) || scaling->count < 2) {
            continue;
        }
        fb_html_name_series(page, page->series[i].series, label);
        fb_html_printf(out, "<tr><th scope=\"row\">%s</th>", label);
        for (size_t s = 0; s + 1 < count; s++) {
            double slope = (double)NAN;
            for (size_t k = 0; k + 1 < scaling->count; k++) {
                slope = scaling->sizes[k] == sizes[s] && scaling->sizes[k + 1] == sizes[s + 1]
                            ? scaling->slopes[k]
                            : slope;
            }
            (void)snprintf(text, sizeof text, "%.2f", slope);
            fb_html_cell_number(out, slope, text);
        }
        (void)fputs("</tr>\n", out);
    }
    fb_html_table_end(out);
}

void fb_html_scaling(const struct fb_html_page *page)
{
    bool any = false;
    for (size_t i = 0; i < page->set.count; i++) {
        any = any || is_shown(page, i);
    }
    if (!any) {
        return;
    }
    fb_html_section(page->out, "scaling", "Scaling");
    (void)fputs("<p>From t\xc2\xa0=\xc2\xa0"
                "a\xc2\xa0+\xc2\xa0"
                "b\xc2\xb7N<sup>p</sup>, fitted "
                "to the largest sizes that agree on one p. Sizes outside the measured range are "
                "never extrapolated: \xe2\x80\x9c&lt;\xc2\xa0"
                "256\xe2\x80\x9d means faster from the "
                "smallest size on.</p>\n",
                page->out);
    write_table(page);
    write_slopes(page);
    (void)fputs("</section>\n", page->out);
}
