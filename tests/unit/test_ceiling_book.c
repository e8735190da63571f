/* Which kernels OpenBLAS is told to use, so that a plain variant is no straw man. */
#include "ceiling_book.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_core_that_serves_is_left_alone(void **state)
{
    (void)state;
    assert_null(fb_ceiling_openblas_core(FB_ISA_AVX512, FB_ISA_AVX512, "Cooperlake"));
    assert_null(fb_ceiling_openblas_core(FB_ISA_AVX2, FB_ISA_AVX2, "Zen"));
    assert_null(fb_ceiling_openblas_core(FB_ISA_NEON, FB_ISA_NEON, "neoversen1"));
    assert_null(fb_ceiling_openblas_core(FB_ISA_AVX512, FB_ISA_AVX512, ""));
    assert_null(fb_ceiling_openblas_core(FB_ISA_ANY, FB_ISA_AVX512, "Prescott"));
}

static void test_core_of_an_older_processor_is_replaced(void **state)
{
    (void)state;
    assert_string_equal(fb_ceiling_openblas_core(FB_ISA_AVX512, FB_ISA_AVX512, "Prescott"),
                        "SkylakeX");
    assert_string_equal(fb_ceiling_openblas_core(FB_ISA_AVX512, FB_ISA_AVX512, "Zen"), "SkylakeX");
    assert_string_equal(fb_ceiling_openblas_core(FB_ISA_AVX2, FB_ISA_AVX2, "Prescott"), "Haswell");
}

static void test_weaker_instruction_set_has_its_own_core(void **state)
{
    (void)state;
    assert_string_equal(fb_ceiling_openblas_core(FB_ISA_AVX2, FB_ISA_AVX512, "SkylakeX"),
                        "Haswell");
#if defined(__x86_64__)
    assert_string_equal(fb_ceiling_openblas_core(FB_ISA_SCALAR, FB_ISA_AVX512, "SkylakeX"),
                        "Prescott");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core_that_serves_is_left_alone),
        cmocka_unit_test(test_core_of_an_older_processor_is_replaced),
        cmocka_unit_test(test_weaker_instruction_set_has_its_own_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
