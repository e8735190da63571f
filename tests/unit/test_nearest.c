/* Did-you-mean: distances and what is near enough. */
#include "nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_edit_distance_known_pairs_expected(void **state)
{
    (void)state;
    assert_int_equal(fb_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(fb_edit_distance("", "abc"), 3);
    assert_int_equal(fb_edit_distance("flow", "flow"), 0);
    assert_int_equal(fb_edit_distance("Flow", "flow"), 0);
    assert_int_equal(fb_edit_distance("flwo", "flow"), 1);
    assert_int_equal(fb_edit_distance("seqlen", "seq_len"), 1);
}

static void test_edit_distance_long_text_is_infinite(void **state)
{
    (void)state;
    char text[80];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = i + 1 < sizeof text ? 'a' : '\0';
    }
    assert_true(fb_edit_distance(text, "aaa") == SIZE_MAX);
    assert_true(fb_edit_distance("aaa", text) == SIZE_MAX);
}

static void test_nearest_name_near_and_far(void **state)
{
    (void)state;
    static const char *const names[] = {"flow", "softmax", "linear", "performer", "local"};
    assert_string_equal(fb_nearest_name("sofmax", names, 5), "softmax");
    assert_string_equal(fb_nearest_name("FLOW", names, 5), "flow");
    assert_string_equal(fb_nearest_name("loca", names, 5), "local");
    assert_null(fb_nearest_name("zebra", names, 5));
    static const char *const devices[] = {"cpu", "cuda"};
    assert_null(fb_nearest_name("gpu", devices, 2));
    assert_string_equal(fb_nearest_name("cpi", devices, 2), "cpu");
    assert_null(fb_nearest_name("", names, 5));
    assert_null(fb_nearest_name("flow", names, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edit_distance_known_pairs_expected),
        cmocka_unit_test(test_edit_distance_long_text_is_infinite),
        cmocka_unit_test(test_nearest_name_near_and_far),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
