/* Escaping, numbers and shell words of reports: no foreign text becomes markup. */
#include "html_out.h"

#include "quantity.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BROKEN "\xef\xbf\xbd"

/* What write(out, text) writes. */
static void assert_written(void (*write)(FILE *, const char *), const char *text,
                           const char *expected)
{
    char *written = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&written, &length);
    assert_non_null(out);
    write(out, text);
    (void)fclose(out);
    assert_string_equal(written, expected);
    free(written);
}

static void test_text_markup_is_escaped(void **state)
{
    (void)state;
    assert_written(fb_html_text, "<script>alert(\"1\" & '2')</script>",
                   "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;");
    assert_written(fb_html_text, "", "");
    assert_written(fb_html_text, "caf\xc3\xa9 \xe2\x89\x88 \xf0\x9f\x98\x80\t\n",
                   "caf\xc3\xa9 \xe2\x89\x88 \xf0\x9f\x98\x80\t\n");
}

static void test_text_unprintable_is_replaced(void **state)
{
    (void)state;
    assert_written(fb_html_text,
                   "a\x01"
                   "b\x7f"
                   "c",
                   "a" BROKEN "b" BROKEN "c");
    /* Cut, overlong, a surrogate, beyond Unicode, a lone continuation. */
    assert_written(fb_html_text, "x\xe2\x89", "x" BROKEN BROKEN);
    assert_written(fb_html_text, "\xc0\xbc", BROKEN BROKEN);
    assert_written(fb_html_text, "\xed\xa0\x80", BROKEN BROKEN BROKEN);
    assert_written(fb_html_text, "\x80<", BROKEN "&lt;");
    /* What turns the direction of writing, a byte-order mark, a noncharacter. */
    assert_written(fb_html_text,
                   "\xe2\x80\xae"
                   "evil",
                   BROKEN "evil");
    assert_written(fb_html_text, "\xef\xbb\xbf\xef\xbf\xbf", BROKEN BROKEN);
}

static void write_values(FILE *out, const char *text)
{
    fb_html_printf(out, "<b title=\"%s\">%d %zu %lld %.2f %.3g %%</b>", text, -3, (size_t)7,
                   (long long)1 << 40, 1.005, 1234567.0);
}

static void test_printf_escapes_texts_only(void **state)
{
    (void)state;
    assert_written(write_values, "\"><i>%d",
                   "<b title=\"&quot;&gt;&lt;i&gt;%d\">-3 7 1099511627776 1.00 1.23e+06 %</b>");
}

static void test_time_reads_well(void **state)
{
    (void)state;
    char text[2 * FB_QUANTITY_SIZE];
    assert_string_equal(fb_html_time(1.234e-6, text), "1.23 \xc2\xb5s");
    assert_string_equal(fb_html_time(0.5, text), "500 ms");
    assert_string_equal(fb_html_time(0, text), "0");
    assert_string_equal(fb_html_time((double)NAN, text), "-");
    assert_string_equal(fb_html_time_range(0.00120, 0.00125, text), "1.20\xe2\x80\x93"
                                                                    "1.25 ms");
    assert_string_equal(fb_html_time_range(9.5e-4, 0.00125, text), "950 \xc2\xb5s\xe2\x80\x93"
                                                                   "1.25 ms");
}

static void test_utc_is_readable_or_left_alone(void **state)
{
    (void)state;
    assert_written(fb_html_utc, "2026-11-24T03:15:59Z",
                   "<time datetime=\"2026-11-24T03:15:59Z\">2026-11-24 03:15 UTC</time>");
    assert_written(fb_html_utc, "<yesterday>", "&lt;yesterday&gt;");
}

static void test_shell_word_is_one_word(void **state)
{
    (void)state;
    assert_written(fb_html_shell_word, "results/a-b_1.csv", "results/a-b_1.csv");
    assert_written(fb_html_shell_word, "my run", "&#39;my run&#39;");
    assert_written(fb_html_shell_word, "", "&#39;&#39;");
    assert_written(fb_html_shell_word, "$(rm)'s", "&#39;$(rm)&#39;\\&#39;&#39;s&#39;");
    assert_written(fb_html_shell_word, "\xc3\xa9", "&#39;\xc3\xa9&#39;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_markup_is_escaped),
        cmocka_unit_test(test_text_unprintable_is_replaced),
        cmocka_unit_test(test_printf_escapes_texts_only),
        cmocka_unit_test(test_time_reads_well),
        cmocka_unit_test(test_utc_is_readable_or_left_alone),
        cmocka_unit_test(test_shell_word_is_one_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
