/* A comparison for people and for machines. docs/comparing.md describes the formats. */
#ifndef FB_COMPARISON_PRINT_H
#define FB_COMPARISON_PRINT_H

#include "comparison.h"

#include <stdio.h>

enum { FB_COMPARISON_SCHEMA = 1 }; /* of the JSON document */

enum fb_comparison_format {
    FB_COMPARISON_TEXT,
    FB_COMPARISON_MARKDOWN,
    FB_COMPARISON_JSON,
    FB_COMPARISON_JUNIT,
    FB_COMPARISON_GITHUB,
    FB_COMPARISON_FORMAT_COUNT
};

/* "text", "markdown", "json", "junit", "github". */
const char *fb_comparison_format_name(enum fb_comparison_format format);

struct fb_comparison_output {
    FILE *out;
    enum fb_comparison_format format;
    bool strict;         /* AMBIGUOUS counts as a failure: junit and github show it as one */
    bool color, unicode; /* of text */
    struct fb_arena *arena;
};

/* Fails only for want of memory; whether `out` took it all is the caller's to check. */
enum fb_status fb_comparison_print(const struct fb_comparison *comparison,
                                   const struct fb_comparison_output *output,
                                   struct fb_error *error) FB_MUST_CHECK;

/* ---- shared by the formats, in comparison_words.c ---------------------------------------------
 */

enum { FB_CHANGE_SIZE = 48 };

/* "+12.3 %", "-0.4 %", "-": of a fraction. */
char *fb_compare_change_text(double fraction, char *text, size_t text_size);
/* "[+10.1, +14.5] %", "-". */
char *fb_compare_interval_text(double low, double high, char *text, size_t text_size);
/* "7.21 ms", "12.3 M" (instructions), "-": of a side. */
char *fb_compared_value_text(const struct fb_compared *one, const struct fb_row *row, char *text,
                             size_t text_size);
/* "10 + 30 pairs", "6/6 processes". */
char *fb_compared_count_text(const struct fb_compared *one, char *text, size_t text_size);
/* "7 cases: 5 PASS, 1 FAIL, 1 INCOMPARABLE". */
char *fb_comparison_counts_text(const struct fb_comparison *comparison, char *text,
                                size_t text_size);
/* "base results/a (flowbench 0.2.0, 5adf94c, on amd-epyc-2c-1f2e3d)". */
char *fb_compare_side_text(const struct fb_compare_side *side, char *text, size_t text_size);
/* What an A/A or A/A' leg has shown, one sentence. */
char *fb_compare_control_text(const struct fb_comparison *comparison,
                              const struct fb_compare_control *control, char *text,
                              size_t text_size);
/* The rule in one sentence: what was tolerated, at which level. */
char *fb_comparison_rule_text(const struct fb_comparison *comparison, char *text, size_t text_size);
/* The whole finding of a case in one sentence, for annotations and test reports. */
char *fb_compared_sentence(const struct fb_compared *one, char *text, size_t text_size);

/* ---- one file each ----------------------------------------------------------------------------
 */

enum fb_status fb_comparison_print_text(const struct fb_comparison *comparison,
                                        const struct fb_comparison_output *output,
                                        struct fb_error *error) FB_MUST_CHECK;
void fb_comparison_print_markdown(const struct fb_comparison *comparison, FILE *out);
enum fb_status fb_comparison_print_json(const struct fb_comparison *comparison, FILE *out,
                                        struct fb_error *error) FB_MUST_CHECK;
void fb_comparison_print_junit(const struct fb_comparison *comparison, bool strict, FILE *out);
void fb_comparison_print_github(const struct fb_comparison *comparison, bool strict, FILE *out);

#endif
