/* The claims of each run's suite, with their verdicts. */
#include "html_page.h"

#include <math.h>

static void write_interval(FILE *out, const struct fb_claim_result *result)
{
    if (result->interval.kind == FB_SPREAD_NONE || isnan(result->interval.low)) {
        (void)fputs("<td></td>", out);
        return;
    }
    fb_html_printf(out, "<td>[%.4g, %.4g]</td>", result->interval.low, result->interval.high);
}

static void write_value(FILE *out, double value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.4g", value);
    fb_html_cell_number(out, value, text);
}

static void write_claim(const struct fb_html_page *page, const struct fb_claim_result *result)
{
    static const char *const tones[] = {[FB_CLAIM_HELD] = "good",
                                        [FB_CLAIM_FAILED] = "bad",
                                        [FB_CLAIM_AMBIGUOUS] = "warn",
                                        [FB_CLAIM_REPORTED_ONLY] = "plain"};
    char label[FB_HTML_LABEL_SIZE];
    FILE *out = page->out;
    if (result->series) {
        fb_html_name_series(page, result->series, label);
    } else {
        (void)snprintf(label, sizeof label, "%s",
                       result->claim->mechanism ? result->claim->mechanism : "every mechanism");
    }
    fb_html_printf(out, "<tr><th scope=\"row\">%s</th><td>%s</td><td>", label, result->claim->text);
    fb_html_tag(out, tones[result->verdict], fb_claim_verdict_name(result->verdict));
    (void)fputs("</td>", out);
    write_value(out, result->value);
    write_interval(out, result);
    fb_html_cell_text(out, result->why);
    (void)fputs("</tr>\n", out);
}

void fb_html_claims(const struct fb_html_page *page)
{
    size_t total = 0;
    FILE *out = page->out;
    for (size_t r = 0; r < page->sources->count; r++) {
        total += page->claims[r].count;
    }
    if (total == 0) {
        return;
    }
    fb_html_section(out, "claims", "Claims");
    (void)fputs(
        "<p>What the suite expected before anything was measured. A claim fails only if its "
        "whole interval lies outside, holds only if all of it lies inside, and is judged "
        "from five processes on.</p>\n",
        out);
    fb_html_table_begin(out, "claim-table", "sort", "Claims and verdicts");
    fb_html_table_head(out, "series", FB_HTML_TEXT, "mechanism");
    fb_html_table_head(out, "claim", FB_HTML_TEXT, "claim");
    fb_html_table_head(out, "verdict", FB_HTML_TEXT, "verdict");
    fb_html_table_head(out, "value", FB_HTML_NUMBER, "measured");
    fb_html_table_head(out, "", FB_HTML_TEXT, "95 % interval");
    fb_html_table_head(out, "", FB_HTML_TEXT, "remark");
    fb_html_table_body(out);
    for (size_t r = 0; r < page->sources->count; r++) {
        for (size_t i = 0; i < page->claims[r].count; i++) {
            write_claim(page, &page->claims[r].items[i]);
        }
    }
    fb_html_table_end(out);
    (void)fputs("</section>\n", out);
}
