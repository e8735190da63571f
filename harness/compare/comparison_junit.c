/* A comparison as JUnit XML, a test case per case: see comparison_print.h. */
#include "comparison_print.h"

#include <string.h>

/* The length of the UTF-8 sequence of a character that XML 1.0 allows; 0 when there is none. */
static size_t character_length(const unsigned char *text)
{
    static const unsigned char first_low[] = {0x20, 0xC2, 0xE0, 0xF0};
    static const unsigned char first_high[] = {0x7E, 0xDF, 0xEF, 0xF4};

    if (text[0] == '\t' || text[0] == '\n' || text[0] == '\r')
        return 1;
    for (size_t length = 1; length <= 4; length++) {
        if (text[0] < first_low[length - 1] || text[0] > first_high[length - 1])
            continue;
        for (size_t i = 1; i < length; i++) {
            if ((text[i] & 0xC0) != 0x80)
                return 0;
        }
        /* Overlong forms, surrogates, beyond U+10FFFF, U+FFFE and U+FFFF. */
        if ((text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xED && text[1] > 0x9F) ||
            (text[0] == 0xF0 && text[1] < 0x90) || (text[0] == 0xF4 && text[1] > 0x8F) ||
            (text[0] == 0xEF && text[1] == 0xBF && text[2] >= 0xBE))
            return 0;
        return length;
    }
    return 0;
}

static void print_escaped(const char *text, FILE *out)
{
    while (*text != '\0') {
        const size_t length = character_length((const unsigned char *)text);
        if (length == 0)
            (void)fputc('?', out);
        else if (*text == '&')
            (void)fputs("&amp;", out);
        else if (*text == '<')
            (void)fputs("&lt;", out);
        else if (*text == '>')
            (void)fputs("&gt;", out);
        else if (*text == '"')
            (void)fputs("&quot;", out);
        else if (length == 1 && (unsigned char)*text < 0x20)
            (void)fputc(' ', out);
        else
            (void)fprintf(out, "%.*s", (int)length, text);
        text += length == 0 ? 1 : length;
    }
}

/* Which element a case gets; NULL: it passed. */
static const char *element_of(const struct fb_compared *one, bool strict)
{
    if (one->broken)
        return "error";
    if (one->verdict == FB_VERDICT_FAIL || (one->verdict == FB_VERDICT_AMBIGUOUS && strict))
        return "failure";
    if (one->verdict == FB_VERDICT_AMBIGUOUS || one->verdict == FB_VERDICT_INCOMPARABLE)
        return "skipped";
    return NULL;
}

static void print_case(const struct fb_compared *one, const char *suite, bool strict, FILE *out)
{
    char text[1024];
    const char *element = element_of(one, strict);

    (void)fputs("    <testcase classname=\"", out);
    print_escaped(suite, out);
    (void)fputs("\" name=\"", out);
    print_escaped(one->name, out);
    (void)fprintf(out, " [%s]\"", fb_compared_id(one));
    (void)fb_compared_sentence(one, text, sizeof text);
    if (element == NULL) {
        (void)fputs(">\n      <system-out>", out);
        print_escaped(text, out);
        (void)fputs("</system-out>\n    </testcase>\n", out);
        return;
    }
    (void)fprintf(out, ">\n      <%s message=\"", element);
    print_escaped(text, out);
    if (strcmp(element, "skipped") != 0)
        (void)fprintf(out, "\" type=\"%s", fb_verdict_name(one->verdict));
    (void)fputs("\"/>\n    </testcase>\n", out);
}

void fb_comparison_print_junit(const struct fb_comparison *comparison, bool strict, FILE *out)
{
    size_t failures = 0;
    size_t errors = 0;
    size_t skipped = 0;
    size_t tests = comparison->cases_count;
    const bool nothing = fb_comparison_outcome(comparison) == FB_COMPARISON_NOTHING;
    const char *suite =
        comparison->suite != NULL && comparison->suite[0] != '\0' ? comparison->suite : "flowbench";

    for (size_t i = 0; i < comparison->cases_count; i++) {
        const char *element = element_of(&comparison->cases[i], strict);
        failures += element != NULL && strcmp(element, "failure") == 0;
        errors += element != NULL && strcmp(element, "error") == 0;
        skipped += element != NULL && strcmp(element, "skipped") == 0;
    }
    tests += nothing;
    errors += nothing;
    (void)fprintf(out,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<testsuites tests=\"%zu\" failures=\"%zu\" errors=\"%zu\">\n"
                  "  <testsuite name=\"flowbench compare\" tests=\"%zu\" failures=\"%zu\" "
                  "errors=\"%zu\" skipped=\"%zu\" time=\"%.3f\">\n",
                  tests, failures, errors, tests, failures, errors, skipped, comparison->seconds);
    /* A comparison of nothing must not look green. */
    if (nothing)
        (void)fputs("    <testcase classname=\"flowbench\" name=\"comparison\">\n"
                    "      <error message=\"nothing could be compared\" type=\"INCOMPARABLE\"/>\n"
                    "    </testcase>\n",
                    out);
    for (size_t i = 0; i < comparison->cases_count; i++)
        print_case(&comparison->cases[i], suite, strict, out);
    (void)fputs("  </testsuite>\n</testsuites>\n", out);
}
