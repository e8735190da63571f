/* bf16 and f16: every value widened, and the rules of rounding. */
#include "dtype.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The value of a 16-bit number from its definition, with so many bits of fraction. */
static double value_of(uint32_t x, int fraction_bits)
{
    const int exponent_bits = 15 - fraction_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (int)(x >> fraction_bits & ((1U << exponent_bits) - 1U));
    const double fraction = ldexp((double)(x & ((1U << fraction_bits) - 1U)), -fraction_bits);
    const double sign = x & 0x8000U ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1)
        return fraction == 0.0 ? sign * HUGE_VAL : (double)NAN;
    return sign *
           (exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1.0 + fraction, exponent - bias));
}

static const struct {
    enum fb_dtype dtype;
    int fraction_bits;
} kinds[] = {{FB_BF16, 7}, {FB_F16, 10}};
enum { KINDS = sizeof kinds / sizeof kinds[0], ALL = 65536 };

static float widen(enum fb_dtype dtype, uint16_t x)
{
    float y;
    fb_dtype_widen(dtype, &x, 1, &y);
    return y;
}

static uint16_t narrow(enum fb_dtype dtype, float x)
{
    uint16_t y;
    fb_dtype_narrow(dtype, &x, 1, &y);
    return y;
}

static void test_widen_of_every_value_is_its_definition(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t x = 0; x < ALL; x++) {
            const double wanted = value_of(x, kinds[kind].fraction_bits);
            const double y = (double)widen(kinds[kind].dtype, (uint16_t)x);
            assert_true(isnan(wanted) ? isnan(y) : y == wanted);
            assert_int_equal(signbit(y) != 0, x >> 15);
        }
}

static void test_narrow_of_every_widened_value_gives_it_back(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t x = 0; x < ALL; x++) {
            const float y = widen(kinds[kind].dtype, (uint16_t)x);
            const uint32_t quiet = isnan(y) ? 1U << (kinds[kind].fraction_bits - 1) : 0;
            assert_int_equal(narrow(kinds[kind].dtype, y), x | quiet);
        }
}

/* Between two neighbours: the nearer one, and of two equally near ones the even one. */
static void test_narrow_between_neighbours_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        const enum fb_dtype dtype = kinds[kind].dtype;
        const uint32_t infinity = 0x7fffU >> kinds[kind].fraction_bits << kinds[kind].fraction_bits;
        for (uint32_t x = 0; x + 1 < infinity; x++) {
            const double low = (double)widen(dtype, (uint16_t)x);
            const double high = (double)widen(dtype, (uint16_t)(x + 1));
            const float middle = (float)(0.5 * (low + high));
            const uint32_t even = x % 2 == 0 ? x : x + 1;
            if (0.5 * (low + high) == (double)middle) /* bf16's least subnormal halves to zero */
                assert_int_equal(narrow(dtype, middle), even);
            assert_int_equal(narrow(dtype, nextafterf(middle, 0.0F)), x);
            assert_int_equal(narrow(dtype, nextafterf(middle, HUGE_VALF)), x + 1);
            assert_int_equal(narrow(dtype, -nextafterf(middle, HUGE_VALF)), (x + 1) | 0x8000U);
        }
    }
}

static void test_narrow_beyond_the_range_is_infinite_and_nan_stays_nan(void **state)
{
    (void)state;
    assert_int_equal(narrow(FB_F16, 65504.0F), 0x7bff);
    assert_int_equal(narrow(FB_F16, nextafterf(65520.0F, 0.0F)), 0x7bff);
    assert_int_equal(narrow(FB_F16, 65520.0F), 0x7c00);
    assert_int_equal(narrow(FB_F16, -1e30F), 0xfc00);
    assert_int_equal(narrow(FB_F16, 0x1p-25F), 0);
    assert_int_equal(narrow(FB_F16, 0x1.8p-25F), 1);
    assert_int_equal(narrow(FB_BF16, fb_f32_from_bits(0x7f7fffff)), 0x7f80);
    assert_int_equal(narrow(FB_BF16, -HUGE_VALF), 0xff80);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t payload = 1; payload < 0x800000; payload = payload * 2 + 1) {
            const uint16_t y = narrow(kinds[kind].dtype, fb_f32_from_bits(0xff800000U | payload));
            assert_true(isnan(widen(kinds[kind].dtype, y)));
            assert_true(y & 0x8000U);
        }
}

static void test_tensor_value_reads_every_dtype(void **state)
{
    (void)state;
    const float values[6] = {1.0F, -2.5F, 0.0F, 3.0F, 0.15625F, -7.0F};
    for (int dtype = 0; dtype < FB_DTYPE_COUNT; dtype++) {
        double data[6];
        fb_dtype_narrow((enum fb_dtype)dtype, values, 6, data);
        const struct fb_tensor t = fb_tensor_dense(data, (enum fb_dtype)dtype, FB_BNHD, 1, 2, 1, 3);
        for (int i = 0; i < 6; i++)
            assert_true(fb_tensor_value(&t, 0, i / 3, 0, i % 3) == (double)values[i]);
        assert_ptr_equal(fb_tensor_row(&t, 0, 1, 0),
                         (char *)data + 3 * fb_dtype_bytes((enum fb_dtype)dtype));
    }
}

static void test_random_fill_of_16_bits_is_the_f32_fill_rounded(void **state)
{
    (void)state;
    enum { COUNT = 9000 };
    static float wide[COUNT];
    static uint16_t half[COUNT];
    fb_random_fill_normal_f32(wide, COUNT, 2.0F, 5, 6, 1);
    fb_random_fill_normal(half, FB_BF16, COUNT, 2.0F, 5, 6, 2);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(half[i], fb_bf16_narrow(wide[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widen_of_every_value_is_its_definition),
        cmocka_unit_test(test_narrow_of_every_widened_value_gives_it_back),
        cmocka_unit_test(test_narrow_between_neighbours_rounds_to_nearest_even),
        cmocka_unit_test(test_narrow_beyond_the_range_is_infinite_and_nan_stays_nan),
        cmocka_unit_test(test_tensor_value_reads_every_dtype),
        cmocka_unit_test(test_random_fill_of_16_bits_is_the_f32_fill_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
