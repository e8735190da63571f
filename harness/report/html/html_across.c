/* The same cases in several runs. Seconds of different machines are not comparable; their ratios to
 * each machine's own floor and own softmax are. */
#include "html_page.h"

#include "quantity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A case in one run, with its ratios. */
struct entry {
    const struct fb_row *row;
    size_t run, order; /* order: in the tables of the page */
    double speedup;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = strcmp(x->row->case_id, y->row->case_id);
    return order ? order : (x->run > y->run) - (x->run < y->run);
}

/* Entries of one case, side by side. */
struct shared {
    const struct entry *entries;
    size_t count;
};

/* As in the other tables of the page, where the first run stands first. */
static int compare_shared(const void *a, const void *b)
{
    const struct shared *x = a, *y = b;
    return (x->entries->order > y->entries->order) - (x->entries->order < y->entries->order);
}

/* The cases that more than one run has. */
static enum fb_status share(const struct fb_html_page *page, const struct entry *entries,
                            size_t count, struct shared **shared, size_t *shared_count,
                            struct fb_error *error)
{
    *shared_count = 0;
    *shared = fb_arena_alloc(page->arena, count + 1, sizeof **shared, error);
    if (!*shared) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && strcmp(entries[end].row->case_id, entries[i].row->case_id) == 0) {
            end++;
        }
        if (entries[end - 1].run != entries[i].run) {
            (*shared)[(*shared_count)++] = (struct shared){&entries[i], end - i};
        }
        i = end;
    }
    qsort(*shared, *shared_count, sizeof **shared, compare_shared);
    return FB_OK;
}

static enum fb_status collect(const struct fb_html_page *page, struct entry **entries,
                              size_t *count, struct fb_error *error)
{
    size_t rows = 0;
    for (size_t r = 0; r < page->sources->count; r++) {
        rows += page->sources->results[r].rows_count;
    }
    *count = 0;
    *entries = fb_arena_alloc(page->arena, rows + 1, sizeof **entries, error);
    if (!*entries) {
        return FB_ERROR_MEMORY;
    }
    for (size_t s = 0; s < page->set.count; s++) {
        const struct fb_series *series = page->series[s].series;
        for (size_t i = 0; i < series->points_count; i++) {
            if (series->points[i].ok) {
                (*entries)[*count] =
                    (struct entry){series->points[i].row, series->run_index, *count,
                                   fb_html_speedup(&page->series[s], &series->points[i])};
                (*count)++;
            }
        }
    }
    qsort(*entries, *count, sizeof **entries, compare_entries);
    return FB_OK;
}

static void write_heads(const struct fb_html_page *page)
{
    char text[64], key[64];
    FILE *out = page->out;
    fb_html_table_begin(out, "across-table", "sort filter",
                        page->sources->several_machines
                            ? "Ratios within each run"
                            : "Ratios within each run, and times over those of run 1");
    fb_html_table_head(out, "case", FB_HTML_TEXT, "case");
    fb_html_table_head(out, "n", FB_HTML_NUMBER, "N");
    for (size_t r = 0; r < page->sources->count; r++) {
        (void)snprintf(text, sizeof text, "\xc3\x97 floor, run %zu", r + 1);
        (void)snprintf(key, sizeof key, "floor-%zu", r + 1);
        fb_html_table_head(out, key, FB_HTML_NUMBER, text);
        (void)snprintf(text, sizeof text, "\xc3\x97 as fast as softmax, run %zu", r + 1);
        (void)snprintf(key, sizeof key, "speedup-%zu", r + 1);
        fb_html_table_head(out, key, FB_HTML_NUMBER, text);
        if (r > 0 && !page->sources->several_machines) {
            (void)snprintf(text, sizeof text, "time, run %zu / run 1", r + 1);
            (void)snprintf(key, sizeof key, "time-%zu", r + 1);
            fb_html_table_head(out, key, FB_HTML_NUMBER, text);
        }
    }
    fb_html_table_body(out);
}

static void write_case(const struct fb_html_page *page, const struct entry *entries, size_t count)
{
    char label[FB_HTML_LABEL_SIZE];
    struct fb_html_page local = *page;
    struct fb_html_source source = {0};
    struct fb_html_sources one = {.items = &source, .count = 1};
    const struct fb_series named = {.key = entries[0].row};
    FILE *out = page->out;
    /* The name without its run. */
    local.sources = &one;
    fb_html_name_series(&local, &named, label);
    fb_html_printf(out, "<tr><th scope=\"row\">%s</th>", label);
    fb_html_cell_count(out, (double)entries[0].row->seq_len);
    const struct entry *base = entries[0].run == 0 ? &entries[0] : NULL;
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct entry *here = NULL;
        for (size_t i = 0; i < count; i++) {
            here = entries[i].run == r ? &entries[i] : here;
        }
        fb_html_cell_ratio(out, here ? here->row->floor_ratio : (double)NAN);
        fb_html_cell_ratio(out, here ? here->speedup : (double)NAN);
        if (r > 0 && !page->sources->several_machines) {
            fb_html_cell_ratio(out, here && base
                                        ? here->row->time_median_s / base->row->time_median_s
                                        : (double)NAN);
        }
    }
    (void)fputs("</tr>\n", out);
}

enum fb_status fb_html_across(const struct fb_html_page *page, struct fb_error *error)
{
    struct entry *entries = NULL;
    struct shared *shared = NULL;
    size_t count = 0, shared_count = 0;
    FILE *out = page->out;
    if (page->sources->count < 2) {
        return FB_OK;
    }
    enum fb_status status = collect(page, &entries, &count, error);
    if (status == FB_OK) {
        status = share(page, entries, count, &shared, &shared_count, error);
    }
    if (status != FB_OK || shared_count == 0) {
        return status;
    }
    fb_html_section(out, "across", "The same cases in several runs");
    (void)fputs(page->sources->several_machines
                    ? "<p>Different machines: seconds are not set against each other. A ratio to "
                      "the machine\xe2\x80\x99s own floor, or to softmax on the same machine, "
                      "travels better, but it is no measurement of the other machine either.</p>\n"
                    : "<p>One machine, different times: a ratio of times near 1 says that nothing "
                      "changed. Whether it is a regression is for <code>./bench compare</code> to "
                      "judge, which knows the noise.</p>\n",
                out);
    write_heads(page);
    for (size_t i = 0; i < shared_count; i++) {
        write_case(page, shared[i].entries, shared[i].count);
    }
    fb_html_table_end(out);
    (void)fputs("</section>\n", out);
    return FB_OK;
}
