/* Times along the factors other than the sequence length: a column per value. */
#include "html_page.h"

#include "quantity.h"

#include <math.h>
#include <string.h>

enum { PLACES_MAX = 12 };

static const struct {
    enum fb_axis axis;
    const char *id, *title;
} axes[] = {{FB_AXIS_HEADS, "heads", "Along the number of heads"},
            {FB_AXIS_HEAD_DIM, "head-dim", "Along the head dimension"},
            {FB_AXIS_THREADS, "threads", "Along the number of threads"},
            {FB_AXIS_ISA, "isa", "Along the instruction set"}};

static bool is_worth_a_row(const struct fb_series *series)
{
    return series->ok_count > 0 && fb_series_is_swept(series);
}

/* Grouping costs time, and most runs vary few factors. */
static bool is_varied(const struct fb_html_sources *sources, enum fb_axis axis)
{
    const struct fb_row *first = &sources->results[0].rows[0];
    for (size_t r = 0; r < sources->count; r++) {
        for (size_t i = 0; i < sources->results[r].rows_count; i++) {
            const struct fb_row *row = &sources->results[r].rows[i];
            if ((axis == FB_AXIS_HEADS && row->heads != first->heads) ||
                (axis == FB_AXIS_HEAD_DIM && row->head_dim != first->head_dim) ||
                (axis == FB_AXIS_THREADS && row->threads != first->threads) ||
                (axis == FB_AXIS_ISA && strcmp(row->isa, first->isa) != 0)) {
                return true;
            }
        }
    }
    return false;
}

/* The factors of the axis are in the columns; the others must stand in the row's name. */
static void name_row(const struct fb_html_page *page, const struct fb_series_set *set,
                     const bool *varies, const struct fb_series *series, char *label)
{
    struct fb_html_page local = *page;
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        local.varies[f] = varies[f] && !fb_factor_is_axis((enum fb_factor)f, set->axis);
    }
    fb_html_name_series(&local, series, label);
}

static void write_row(const struct fb_html_page *page, const struct fb_series *series,
                      const char *label, const struct fb_point *const *places, size_t places_count)
{
    FILE *out = page->out;
    const struct fb_point *first = NULL, *last = fb_series_last_ok(series);
    fb_html_printf(out, "<tr><th scope=\"row\">%s</th>", label);
    for (size_t p = 0; p < places_count; p++) {
        const struct fb_point *here = NULL;
        for (size_t i = 0; i < series->points_count; i++) {
            here = series->points[i].x == places[p]->x ? &series->points[i] : here;
        }
        if (here && !here->ok) {
            fb_html_cell_status(out, here->row);
        } else {
            fb_html_cell_time(out, here ? here->row->time_median_s : (double)NAN);
        }
        first = !first && here && here->ok ? here : first;
    }
    fb_html_cell_ratio(out, first && first != last
                                ? first->row->time_median_s / last->row->time_median_s
                                : (double)NAN);
    (void)fputs("</tr>\n", out);
}

static void write_axis(const struct fb_html_page *page, const struct fb_series_set *set,
                       const char *id, const char *title)
{
    const struct fb_point *places[PLACES_MAX + 1];
    char label[FB_HTML_LABEL_SIZE];
    bool varies[FB_FACTOR_COUNT];
    size_t count = fb_series_axis_places(set, places, PLACES_MAX);
    FILE *out = page->out;
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        varies[f] = fb_factor_varies(set, (enum fb_factor)f);
    }
    fb_html_printf(out, "<h3>%s</h3>\n", title);
    (void)snprintf(label, sizeof label, "axis-%s", id);
    fb_html_table_begin(out, label, "sort filter",
                        "Median time of one call; the last column is the first time over the last");
    fb_html_table_head(out, "series", FB_HTML_TEXT, "mechanism");
    for (size_t p = 0; p < count; p++) {
        fb_factor_axis_phrase(places[p]->row, set->axis, label);
        fb_html_table_head(out, label, FB_HTML_NUMBER, label);
    }
    fb_html_table_head(out, "ratio", FB_HTML_NUMBER, "first / last");
    fb_html_table_body(out);
    for (size_t i = 0; i < set->count; i++) {
        name_row(page, set, varies, &set->items[i], label);
        write_row(page, &set->items[i], label, places, count);
    }
    fb_html_table_end(out);
}

enum fb_status fb_html_axes(const struct fb_html_page *page, struct fb_error *error)
{
    bool any = false;
    for (size_t a = 0; a < sizeof axes / sizeof axes[0]; a++) {
        struct fb_series_set set;
        if (!is_varied(page->sources, axes[a].axis)) {
            continue;
        }
        enum fb_status status = fb_series_collect(page->sources->results, page->sources->count,
                                                  axes[a].axis, page->arena, &set, error);
        if (status != FB_OK) {
            return status;
        }
        fb_series_filter(&set, is_worth_a_row);
        if (set.count == 0 || set.axis == FB_AXIS_HEAD_DIM_TIED) {
            continue; /* the tied pair stands under heads */
        }
        if (!any) {
            fb_html_section(page->out, "axes", "Along other factors");
        }
        any = true;
        write_axis(page, &set, axes[a].id, axes[a].title);
    }
    if (any) {
        (void)fputs("</section>\n", page->out);
    }
    return FB_OK;
}
