/* Rows of 16-bit tensors as floats: the conversions of every instruction set are those of dtype.h,
 * bit for bit, and only the rows asked for are touched. */
#include "cpu_features.h"
#include "dtype.h"
#include "random.h"
#include "row_block_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct probe {
    enum fb_isa isa;
    void (*widen)(enum fb_dtype dtype, const void *from, int64_t count, float *to);
    void (*narrow)(enum fb_dtype dtype, const float *from, int64_t count, void *to);
    void (*copy)(const struct fb_tensor *from, const struct fb_tensor *to, int64_t first,
                 int64_t step, int64_t count, float *room);
    struct probe_range (*range)(const struct fb_tensor *t, int64_t first, int64_t step,
                                int64_t count);
} probes[] = {
#define PROBE(value, isa)                                                                          \
    {                                                                                              \
        value, probe_row_widen_##isa, probe_row_narrow_##isa, probe_copy_rows_##isa,               \
            probe_rows_range_##isa                                                                 \
    }
    PROBE(FB_ISA_SCALAR, scalar),
#if defined(FB_BUILT_NEON)
    PROBE(FB_ISA_NEON, neon),
#endif
#if defined(FB_BUILT_AVX2)
    PROBE(FB_ISA_AVX2, avx2),
#endif
#if defined(FB_BUILT_AVX512)
    PROBE(FB_ISA_AVX512, avx512),
#endif
};
enum { PROBES = sizeof probes / sizeof probes[0], ALL = 65536, COUNT = ALL + 5 };

static const enum fb_dtype dtypes[] = {FB_BF16, FB_F16};

static void test_widen_of_every_value_is_that_of_dtype(void **state)
{
    (void)state;
    static uint16_t from[COUNT];
    static float wanted[COUNT], found[COUNT];
    for (int i = 0; i < COUNT; i++)
        from[i] = (uint16_t)i;
    for (int d = 0; d < 2; d++) {
        fb_dtype_widen(dtypes[d], from, COUNT, wanted);
        for (int p = 0; p < PROBES; p++) {
            if (!fb_cpu_has(probes[p].isa))
                continue;
            probes[p].widen(dtypes[d], from, COUNT, found);
            for (int i = 0; i < COUNT; i++) {
                /* hardware makes a signalling NaN quiet; that it is a NaN is all that counts */
                const bool both_nan = wanted[i] != wanted[i] && found[i] != found[i];
                assert_true(both_nan || memcmp(&wanted[i], &found[i], sizeof wanted[i]) == 0);
            }
        }
    }
}

static void test_narrow_of_random_bits_is_that_of_dtype(void **state)
{
    (void)state;
    static float from[COUNT];
    static uint16_t wanted[COUNT], found[COUNT];
    struct fb_random random;
    fb_random_init(&random, 11, 0);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < COUNT; i++) {
            uint32_t bits = (uint32_t)fb_random_next(&random);
            if (round % 2 == 0) /* halfway between two numbers of either dtype, or beside it */
                bits = (bits & UINT32_C(0xfffff000)) + (uint32_t)fb_random_below(&random, 3) - 1U;
            if (round % 4 == 2)
                bits = (bits & UINT32_C(0x80ffffff)) | UINT32_C(0x38000000); /* f16's subnormals */
            from[i] = fb_f32_from_bits(bits);
        }
        for (int d = 0; d < 2; d++) {
            fb_dtype_narrow(dtypes[d], from, COUNT, wanted);
            for (int p = 0; p < PROBES; p++) {
                if (!fb_cpu_has(probes[p].isa))
                    continue;
                probes[p].narrow(dtypes[d], from, COUNT, found);
                assert_memory_equal(found, wanted, sizeof found);
            }
        }
    }
}

static void test_rows_in_steps_are_copied_and_no_others(void **state)
{
    (void)state;
    enum { HEADS = 2, TOKENS = 11, DIM = 21, SIZE = HEADS * TOKENS * DIM };
    for (int d = 0; d < 3; d++)
        for (int p = 0; p < PROBES; p++) {
            const enum fb_dtype dtype = d < 2 ? dtypes[d] : FB_F32;
            float values[SIZE], from[SIZE], to[SIZE], room[2 * TOKENS * 32];
            if (!fb_cpu_has(probes[p].isa))
                continue;
            for (int i = 0; i < SIZE; i++)
                values[i] = (float)(i % 251) - 100.0F;
            fb_dtype_narrow(dtype, values, SIZE, from);
            memset(to, 0, sizeof to);
            const struct fb_tensor x = fb_tensor_dense(from, dtype, FB_BNHD, 1, HEADS, TOKENS, DIM);
            const struct fb_tensor y = fb_tensor_dense(to, dtype, FB_BHND, 1, HEADS, TOKENS, DIM);
            probes[p].copy(&x, &y, 1, 3, 3, room);
            for (int64_t h = 0; h < HEADS; h++)
                for (int64_t t = 0; t < TOKENS; t++)
                    for (int64_t c = 0; c < DIM; c++) {
                        const bool copied = h == 1 && t >= 1 && t <= 7 && (t - 1) % 3 == 0;
                        assert_true(fb_tensor_value(&y, 0, h, t, c) ==
                                    (copied ? fb_tensor_value(&x, 0, h, t, c) : 0.0));
                    }
        }
}

static void test_range_of_rows_covers_them_or_nothing(void **state)
{
    (void)state;
    static float data[2 * 7 * 12];
    const struct fb_tensor together = fb_tensor_dense(data, FB_F32, FB_BHND, 1, 2, 7, 12);
    const struct fb_tensor half = fb_tensor_dense(data, FB_BF16, FB_BHND, 1, 2, 7, 12);
    const struct fb_tensor apart = fb_tensor_dense(data, FB_F32, FB_BNHD, 1, 2, 7, 12);
    for (int p = 0; p < PROBES; p++) {
        const struct probe_range all = probes[p].range(&together, 2, 1, 5);
        assert_ptr_equal(all.at, data + (7 + 2) * 12);
        assert_int_equal(all.bytes, 5 * 12 * 4);
        const struct probe_range halves = probes[p].range(&half, 0, 1, 7);
        assert_ptr_equal(halves.at, (const char *)data + 7 * 12 * 2);
        assert_int_equal(halves.bytes, 7 * 12 * 2);
        assert_int_equal(probes[p].range(&together, 7, 1, 0).bytes, 0);
        assert_int_equal(probes[p].range(&together, 9, 1, -2).bytes, 0);
        assert_int_equal(probes[p].range(&together, 0, 2, 3).bytes, 0);
        assert_int_equal(probes[p].range(&apart, 0, 1, 3).bytes, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widen_of_every_value_is_that_of_dtype),
        cmocka_unit_test(test_narrow_of_random_bits_is_that_of_dtype),
        cmocka_unit_test(test_rows_in_steps_are_copied_and_no_others),
        cmocka_unit_test(test_range_of_rows_covers_them_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
