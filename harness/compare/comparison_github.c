/* A comparison as workflow commands of GitHub Actions, worst first: see comparison_print.h. */
#include "comparison_print.h"

#include <string.h>

/* GitHub shows ten annotations of a kind per step. */
enum { ANNOTATIONS_MAX = 10 };

/* The value of a property, or the message, as the runner unescapes it. */
static void print_escaped(const char *text, bool property, FILE *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '%' || *text == '\r' || *text == '\n' ||
            (property && (*text == ':' || *text == ',')))
            (void)fprintf(out, "%%%02X", (unsigned)(unsigned char)*text);
        else
            (void)fputc(*text, out);
    }
}

static void print_annotation(const char *kind, const char *title, const char *message, FILE *out)
{
    (void)fprintf(out, "::%s title=", kind);
    print_escaped(title, true, out);
    (void)fputs("::", out);
    print_escaped(message, false, out);
    (void)fputc('\n', out);
}

static bool is_error(const struct fb_compared *one, bool strict)
{
    return one->verdict == FB_VERDICT_FAIL || one->broken ||
           (strict && one->verdict == FB_VERDICT_AMBIGUOUS);
}

static bool is_warning(const struct fb_compared *one, bool strict)
{
    return !strict && one->verdict == FB_VERDICT_AMBIGUOUS;
}

/* The last annotation of a kind that has too many speaks for the rest. */
static void print_kind(const struct fb_comparison *comparison, const char *kind, bool strict,
                       bool (*wanted)(const struct fb_compared *one, bool strict), FILE *out)
{
    char title[320];
    char message[1024];
    size_t total = 0;
    size_t shown = 0;

    for (size_t i = 0; i < comparison->cases_count; i++)
        total += wanted(&comparison->cases[i], strict);
    for (size_t i = 0; i < comparison->cases_count; i++) {
        const struct fb_compared *one = &comparison->cases[i];
        if (!wanted(one, strict))
            continue;
        if (total > ANNOTATIONS_MAX && shown == ANNOTATIONS_MAX - 1) {
            (void)snprintf(message, sizeof message, "and %zu more cases: see the job summary",
                           total - shown);
            print_annotation(kind, "flowbench compare", message, out);
            return;
        }
        (void)snprintf(title, sizeof title, "%s %s", fb_verdict_name(one->verdict), one->name);
        print_annotation(kind, title, fb_compared_sentence(one, message, sizeof message), out);
        shown++;
    }
}

void fb_comparison_print_github(const struct fb_comparison *comparison, bool strict, FILE *out)
{
    char text[1024];
    const size_t apart = comparison->counts[FB_VERDICT_INCOMPARABLE] - comparison->broken_count;

    if (fb_comparison_outcome(comparison) == FB_COMPARISON_NOTHING)
        print_annotation("error", "flowbench compare", "nothing could be compared", out);
    print_kind(comparison, "error", strict, is_error, out);
    print_kind(comparison, "warning", strict, is_warning, out);
    if (apart > 0 && apart < comparison->cases_count) {
        (void)snprintf(text, sizeof text, "%zu of %zu cases could not be compared", apart,
                       comparison->cases_count);
        print_annotation("notice", "flowbench compare", text, out);
    }
    print_annotation("notice", "flowbench compare",
                     fb_comparison_counts_text(comparison, text, sizeof text), out);
}
