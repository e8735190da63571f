/* The error bounds that fast_exp.h promises, against double precision, on every instruction set. */
#include "cpu_features.h"
#include "fast_exp_probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    enum fb_isa isa;
    void (*exp)(const float *x, float *y, int64_t count);
} probes[] = {
    {FB_ISA_SCALAR, probe_exp_fast_scalar},
#if defined(FB_BUILT_NEON)
    {FB_ISA_NEON, probe_exp_fast_neon},
#endif
#if defined(FB_BUILT_AVX2)
    {FB_ISA_AVX2, probe_exp_fast_avx2},
#endif
#if defined(FB_BUILT_AVX512)
    {FB_ISA_AVX512, probe_exp_fast_avx512},
#endif
};
enum { PROBES = sizeof probes / sizeof probes[0], COUNT = 1 << 16 };

static void expect_within_bound(size_t probe, float low, float high)
{
    static float x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = low + (high - low) * ((float)i / (float)(COUNT - 1));
    probes[probe].exp(x, y, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double want = exp((double)x[i]);
        const double bound = 2.5e-7 + 1.4e-8 * fabs((double)x[i]);
        const double error = fabs((double)y[i] - want) / want;
        if (!(error <= bound))
            fail_msg("exp(%.9g) of probe %zu: error %.3g exceeds %.3g", (double)x[i], probe, error,
                     bound);
    }
}

static void test_exp_fast_stays_within_its_bound(void **state)
{
    (void)state;
    for (size_t p = 0; p < PROBES; p++)
        if (fb_cpu_has(probes[p].isa)) {
            expect_within_bound(p, -87.3F, 88.3F);
            expect_within_bound(p, -5.0F, 5.0F);
            expect_within_bound(p, -0.1F, 0.1F);
        }
}

static void test_exp_fast_of_zero_is_one_and_far_below_nothing(void **state)
{
    (void)state;
    const float x[4] = {0.0F, -88.0F, -1e30F, -HUGE_VALF};
    for (size_t p = 0; p < PROBES; p++)
        if (fb_cpu_has(probes[p].isa)) {
            float y[4], nan = (float)NAN, z;
            probes[p].exp(x, y, 4);
            assert_true(y[0] == 1.0F);
            for (int i = 1; i < 4; i++)
                assert_true(y[i] >= 0.0F && y[i] < 1.2e-38F);
            probes[p].exp(&nan, &z, 1);
            assert_true(isnan(z));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_fast_stays_within_its_bound),
        cmocka_unit_test(test_exp_fast_of_zero_is_one_and_far_below_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
