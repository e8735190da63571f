/*
 * The floor is below every measured time, for every variant that this machine can run: a ratio
 * below 1 would be a bug in the floor. Both sides come from the same process; the floor from its
 * best moments, the time from its median, so that a busy machine cannot turn the comparison round.
 */
#include "ceilings.h"
#include "cpu_features.h"
#include "measure.h"
#include "registry.h"
#include "stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct fb_case case_of(const struct fb_attention *attention, enum fb_pass pass, bool causal)
{
    const struct fb_mechanism *mechanism = attention->mechanism;
    struct fb_case item = {
        .id = "floor",
        .mechanism = mechanism,
        .variant = attention->variant,
        .attention = attention,
        .device = FB_CPU,
        .isa = attention->isa,
        .threads = 1,
        .dtype = FB_F32,
        .layout = FB_BHND,
        .causal = causal,
        .pass = pass,
        .batch = 1,
        .heads = 2,
        .seq_len = 256,
        .kv_len = 256,
        .head_dim = 64,
        .value_dim = 64,
        .seed = 11,
    };
    for (int i = 0; i < mechanism->param_count; i++)
        item.params[i] = mechanism->params[i].default_value;
    return item;
}

static double floor_of(const struct fb_measure_result *result, double gemm_flop_per_s)
{
    const double bytes_s = result->bytes_min * result->touch_s / result->touch_bytes;
    const double flop_s = result->flop / fmax(result->gemm_flop_per_s, gemm_flop_per_s);
    return fmax(bytes_s, flop_s);
}

static void check_variant(const struct fb_attention *attention, enum fb_pass pass, bool causal,
                          enum fb_cache_mode cache, double gemm_flop_per_s)
{
    const struct fb_case item = case_of(attention, pass, causal);
    const struct fb_measure_settings settings = {.warmup_s = 0.005,
                                                 .min_samples = 6,
                                                 .samples = 7,
                                                 .max_time_s = 1.0,
                                                 .cache = cache,
                                                 .processes = 1};
    const struct fb_limits limits = {.memory_fraction = 0.5};
    struct fb_measure_options options;
    fb_measure_options_init(&options);
    struct fb_measure_result result;
    struct fb_error error;
    assert_int_equal(fb_measure_case(&item, &settings, &limits, &options, &result, &error), FB_OK);
    if (result.status != FB_MEASURE_OK)
        fail_msg("%s/%s/%s: %s", attention->mechanism->name, attention->variant,
                 fb_isa_name(attention->isa), result.reason);
    struct fb_summary summary;
    fb_stats_summarise(result.samples_s, result.samples_count, &summary);
    const double floor_s = floor_of(&result, gemm_flop_per_s);
    assert_true(floor_s > 0.0);
    if (!(summary.median >= floor_s))
        fail_msg("%s/%s/%s %s took %.4g s, below its floor of %.4g s", attention->mechanism->name,
                 attention->variant, fb_isa_name(attention->isa), fb_pass_name(pass),
                 summary.median, floor_s);
    fb_measure_result_free(&result);
}

static void test_floor_is_below_every_time(void **state)
{
    (void)state;
    size_t checked = 0;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->backend != FB_CPU ||
            (attention->isa != FB_ISA_ANY && !fb_cpu_has(attention->isa)))
            continue;
        struct fb_measure_ceilings ceilings;
        struct fb_error error;
        assert_int_equal(fb_ceilings_gemm(1, attention->isa, 0.1, &ceilings, &error), FB_OK);
        const double rate = ceilings.gemm_flop_per_s;
        const bool odd = checked % 2 == 1;
        check_variant(attention, FB_FORWARD, odd, FB_CACHE_COLD, rate);
        check_variant(attention, FB_FORWARD, !odd, FB_CACHE_WARM, rate);
        if (attention->backward) {
            check_variant(attention, FB_BACKWARD, odd, FB_CACHE_COLD, rate);
            check_variant(attention, FB_BOTH, !odd, FB_CACHE_WARM, rate);
        }
        if (attention->decode) {
            check_variant(attention, FB_DECODE, true, FB_CACHE_COLD, rate);
            check_variant(attention, FB_DECODE, true, FB_CACHE_WARM, rate);
        }
        checked++;
    }
    assert_true(checked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floor_is_below_every_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
