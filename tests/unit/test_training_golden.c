/* The golden training runs, repeated with every variant of Flow-Attention that this machine has. */
#include "cpu_features.h"
#include "golden_training.h"
#include "registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct fb_error error;

static void check_file(const char *path)
{
    size_t runs = 0;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *a = fb_attention_at(i);
        struct fb_golden_training result;
        if (a->backend != FB_CPU || strcmp(a->mechanism->name, "flow") != 0 ||
            (a->isa != FB_ISA_ANY && !fb_cpu_has(a->isa)))
            continue;
        if (fb_golden_training_check(path, a, 2, &result, &error) != FB_OK)
            fail_msg("%s/%s: %s", a->mechanism->name, a->variant, error.text);
        if (!result.passed)
            fail_msg("%s/%s %s: losses %.2g, logits %.2g, gradient of %s %.2g, %s ended %.2g off",
                     a->mechanism->name, a->variant, fb_isa_name(a->isa), result.loss,
                     result.logits, result.gradient_name, result.gradient, result.weights_name,
                     result.weights);
        /* deviations of nothing would mean that nothing was compared */
        assert_true(result.loss > 0.0 && result.logits > 0.0 && result.gradient > 0.0 &&
                    result.weights > 0.0);
        runs++;
    }
    assert_true(runs > 0);
}

static void test_series_model_trains_as_the_official_one(void **state)
{
    (void)state;
    check_file("tests/golden/golden-training-uea.safetensors");
}

static void test_language_model_trains_as_the_official_one(void **state)
{
    (void)state;
    check_file("tests/golden/golden-training-gpt.safetensors");
}

static void test_what_is_no_training_run_is_refused(void **state)
{
    (void)state;
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    const struct fb_mechanism *linear = fb_mechanism_find("linear");
    struct fb_golden_training result;
    assert_int_equal(
        fb_golden_training_check("tests/golden/golden-flow-2.safetensors",
                                 fb_attention_find(flow, NULL, FB_CPU, fb_cpu_best_isa()), 1,
                                 &result, &error),
        FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "the metadata lack 'model'"));
    assert_false(result.passed);
    assert_int_equal(
        fb_golden_training_check("tests/golden/golden-training-gpt.safetensors",
                                 fb_attention_find(linear, NULL, FB_CPU, fb_cpu_best_isa()), 1,
                                 &result, &error),
        FB_ERROR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_model_trains_as_the_official_one),
        cmocka_unit_test(test_language_model_trains_as_the_official_one),
        cmocka_unit_test(test_what_is_no_training_run_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
