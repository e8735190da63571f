/* Cases without a time, grouped by cause: failures first. */
#include "missing.h"

#include "html_page.h"

#include <string.h>

static void write_group(const struct fb_html_page *page, size_t run, const struct fb_missing *group)
{
    char name[FB_HTML_LABEL_SIZE];
    FILE *out = page->out;
    (void)fputs("<tr>", out);
    fb_html_cell_status(out, group->row);
    if (page->sources->count > 1) {
        fb_html_name_run(page, run, name);
        fb_html_cell_text(out, name);
    }
    if (group->one_name) {
        fb_html_name_mechanism(group->row, name);
    } else {
        (void)snprintf(name, sizeof name, "several mechanisms on %s", group->row->device);
    }
    fb_html_cell_text(out, name);
    fb_html_cell_text(out, !group->one_causal                        ? "both"
                           : strcmp(group->row->causal, "true") == 0 ? "yes"
                                                                     : "no");
    fb_html_cell_count(out, (double)group->seq_len_min);
    fb_html_cell_count(out, (double)group->seq_len_max);
    fb_html_cell_count(out, (double)group->count);
    fb_html_cell_text(out, group->row->reason[0] ? group->row->reason : "no reason recorded");
    (void)fputs("</tr>\n", out);
}

static void write_heads(const struct fb_html_page *page)
{
    FILE *out = page->out;
    fb_html_table_begin(out, "missing-table", "sort",
                        "Causes; every case stands in the last table");
    fb_html_table_head(out, "status", FB_HTML_TEXT, "status");
    if (page->sources->count > 1) {
        fb_html_table_head(out, "run", FB_HTML_TEXT, "run");
    }
    fb_html_table_head(out, "mechanism", FB_HTML_TEXT, "mechanism");
    fb_html_table_head(out, "causal", FB_HTML_TEXT, "causal");
    fb_html_table_head(out, "from", FB_HTML_NUMBER, "from N");
    fb_html_table_head(out, "to", FB_HTML_NUMBER, "to N");
    fb_html_table_head(out, "cases", FB_HTML_NUMBER, "cases");
    fb_html_table_head(out, "reason", FB_HTML_TEXT, "reason (of the first)");
    fb_html_table_body(out);
}

enum fb_status fb_html_missing(const struct fb_html_page *page, struct fb_error *error)
{
    size_t runs = page->sources->count, total = 0;
    struct fb_missing **groups = fb_arena_alloc(page->arena, runs, sizeof(void *), error);
    size_t *counts = fb_arena_alloc(page->arena, runs, sizeof *counts, error);
    if (!groups || !counts) {
        return FB_ERROR_MEMORY;
    }
    for (size_t r = 0; r < runs; r++) {
        enum fb_status status = fb_missing_collect(&page->sources->results[r], page->arena,
                                                   &groups[r], &counts[r], error);
        if (status != FB_OK) {
            return status;
        }
        total += counts[r];
    }
    if (total == 0) {
        return FB_OK;
    }
    fb_html_section(page->out, "missing", "What has no time, and why");
    (void)fputs(
        "<p>A case that was skipped, ran out of memory or time, or computed something wrong "
        "keeps its row and its place on the figures. Only <em>wrong</em>, <em>crash</em> "
        "and <em>error</em> are failures.</p>\n",
        page->out);
    write_heads(page);
    for (int failures = 1; failures >= 0; failures--) {
        for (size_t r = 0; r < runs; r++) {
            for (size_t i = 0; i < counts[r]; i++) {
                if (groups[r][i].failure == (failures == 1)) {
                    write_group(page, r, &groups[r][i]);
                }
            }
        }
    }
    fb_html_table_end(page->out);
    (void)fputs("</section>\n", page->out);
    return FB_OK;
}
