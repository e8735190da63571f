/* gnuplot's pictures inside a page: what stays, what goes, what is renamed. */
#include "html_svg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD                                                                                       \
    "<?xml version=\"1.0\"?>\n<svg\n width=\"700\" height=\"400\"\n viewBox=\"0 0 700 400\"\n "    \
    "xmlns=\"http://www.w3.org/2000/svg\">\n<title>Gnuplot</title><desc>Produced</desc>\n"

/* The page's form of a picture with this content; NULL when it was refused. */
static char *convert(const char *content, enum fb_status *status)
{
    char *svg = NULL, *written = NULL;
    size_t svg_length = 0, length = 0;
    FILE *file = open_memstream(&svg, &svg_length), *out = open_memstream(&written, &length);
    struct fb_error error;
    assert_non_null(file);
    assert_non_null(out);
    (void)fputs(content, file);
    (void)fclose(file);
    const struct fb_html_svg picture = {
        .svg = svg, .number = 3, .title = "T<", .desc = "D", .path = "made.svg"};
    *status = fb_html_svg_write(out, &picture, &error);
    (void)fclose(out);
    free(svg);
    return written;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("'%s' lacks '%s'", text, part);
    }
}

static void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part)) {
        fail_msg("'%s' has '%s'", text, part);
    }
}

static void test_svg_is_named_and_recoloured(void **state)
{
    (void)state;
    enum fb_status status;
    char *written = convert(
        HEAD "<defs><circle id='gpDot' r='0.5'/></defs><g color=\"black\" "
             "stroke=\"rgb(213,  94,   0)\" fill='#FFFFFF' stroke-width=\"1.80\" "
             "stroke-linecap=\"butt\"><use xlink:href='#gpDot' color='rgb(1,2,3)'/>"
             "<text><tspan font-family=\"Sans\" >10 \xc2\xb5s &lt; 1</tspan></text></g></svg>\n",
        &status);
    assert_int_equal(status, FB_OK);
    assert_has(written, "<title id=\"f3-title\">T&lt;</title>");
    assert_has(written, "aria-labelledby=\"f3-title f3-desc\"");
    assert_has(written, "<circle id=\"f3-gpDot\" r=\"0.5\"/>");
    assert_has(written, "<use href=\"#f3-gpDot\" color=\"rgb(1,2,3)\"/>");
    assert_has(written, "color=\"var(--fig-ink)\" stroke=\"var(--fig-vermilion)\" "
                        "fill=\"var(--fig-paper)\" stroke-width=\"1.80\">");
    assert_has(written, "<text><tspan>10 \xc2\xb5s &lt; 1</tspan></text>");
    assert_lacks(written, "Gnuplot");
    assert_lacks(written, "font-family");
    free(written);
}

static void test_svg_scripts_and_links_are_left_out(void **state)
{
    (void)state;
    enum fb_status status;
    char *written = convert(HEAD "<script>alert(1)</script><style>*{}</style>"
                                 "<a href=\"http://x\"><path d='M0,0' onclick='alert(1)' "
                                 "style='x'/></a><image href='http://x'/>"
                                 "<use xlink:href='http://x#y'/><foreignObject>f</foreignObject>"
                                 "<g fill=\"none\">\n</g></svg>",
                            &status);
    assert_int_equal(status, FB_OK);
    assert_has(written, "<path d=\"M0,0\"/>");
    static const char *const gone[] = {"alert", "http",  "onclick", "style",
                                       "<a",    "image", "foreign", "<g"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        assert_lacks(written, gone[i]);
    }
    free(written);
}

static void test_svg_broken_is_refused(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "",
        "no picture",
        "<svg>",
        HEAD,
        HEAD "<g fill=\"none",
        HEAD "<g fill=none>1</g></svg>",
        HEAD "<title>never closed",
        HEAD "<",
        HEAD "<path d='M0,0'/>text",
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        enum fb_status status;
        free(convert(broken[i], &status));
        assert_int_equal(status, FB_ERROR_IO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svg_is_named_and_recoloured),
        cmocka_unit_test(test_svg_scripts_and_links_are_left_out),
        cmocka_unit_test(test_svg_broken_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
