/* A comparison as a Markdown page, for a pull request or a job summary: see comparison_print.h. */
#include "comparison_print.h"

#include <string.h>

/* Names come from files: nothing in them may end a cell or become markup. */
static void print_escaped(const char *text, FILE *out)
{
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7F)
            (void)fputc(' ', out);
        else if (c == '&')
            (void)fputs("&amp;", out);
        else if (c == '<')
            (void)fputs("&lt;", out);
        else if (c == '>')
            (void)fputs("&gt;", out);
        else if (strchr("\\`*_{}[]|#~@", c) != NULL)
            (void)fprintf(out, "\\%c", c);
        else
            (void)fputc(c, out);
    }
}

static void print_case(const struct fb_compared *one, FILE *out)
{
    static const char *const marks[FB_VERDICT_COUNT] = {
        [FB_VERDICT_PASS] = "PASS",
        [FB_VERDICT_FASTER] = "**FASTER**",
        [FB_VERDICT_FAIL] = "**FAIL**",
        [FB_VERDICT_AMBIGUOUS] = "AMBIGUOUS",
        [FB_VERDICT_INCOMPARABLE] = "INCOMPARABLE",
    };
    char text[256];
    const struct fb_row *const rows[] = {one->base, one->fresh};

    (void)fprintf(out, "| %s | ", marks[one->verdict]);
    print_escaped(one->name, out);
    for (int i = 0; i < 2; i++)
        (void)fprintf(out, " | %s", fb_compared_value_text(one, rows[i], text, sizeof text));
    (void)fprintf(out, " | %s", fb_compare_change_text(one->change, text, sizeof text));
    (void)fprintf(out, " | %s",
                  fb_compare_interval_text(one->change_low, one->change_high, text, sizeof text));
    (void)fprintf(out, " | %s", fb_compare_change_text(one->detectable, text, sizeof text));
    (void)fprintf(out, " | %s | ", fb_compared_count_text(one, text, sizeof text));
    print_escaped(one->reason, out);
    (void)fputs(" |\n", out);
}

static const char *headline(const struct fb_comparison *comparison)
{
    switch (fb_comparison_outcome(comparison)) {
    case FB_COMPARISON_FAILED:
        return "failed";
    case FB_COMPARISON_NOTHING:
        return "nothing could be compared";
    case FB_COMPARISON_AMBIGUOUS:
        return "passed, but ambiguous in part";
    default:
        return "passed";
    }
}

void fb_comparison_print_markdown(const struct fb_comparison *comparison, FILE *out)
{
    char text[1024];

    (void)fprintf(out, "## Performance: %s\n\n", headline(comparison));
    (void)fprintf(out, "%s.\n\n", fb_comparison_counts_text(comparison, text, sizeof text));
    (void)fputs("- base: ", out);
    print_escaped(fb_compare_side_text(&comparison->base, text, sizeof text), out);
    (void)fputs("\n- new: ", out);
    print_escaped(fb_compare_side_text(&comparison->fresh, text, sizeof text), out);
    if (comparison->common[0] != '\0') {
        (void)fputs("\n- all cases: ", out);
        print_escaped(comparison->common, out);
    }
    if (comparison->same.cases > 0) {
        (void)fputs("\n- A/A, base against itself: ", out);
        print_escaped(fb_compare_control_text(comparison, &comparison->same, text, sizeof text),
                      out);
    }
    if (comparison->layout.cases > 0) {
        (void)fputs("\n- A/A′, base against its shuffled relink: ", out);
        print_escaped(fb_compare_control_text(comparison, &comparison->layout, text, sizeof text),
                      out);
    }
    (void)fprintf(out, "\n- %s\n\n", fb_comparison_rule_text(comparison, text, sizeof text));
    (void)fputs("| verdict | case | base | new | change | interval | detects | from | why |\n"
                "|---|---|---:|---:|---:|---:|---:|---|---|\n",
                out);
    for (size_t i = 0; i < comparison->cases_count; i++)
        print_case(&comparison->cases[i], out);
}
