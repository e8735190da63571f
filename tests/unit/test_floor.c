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
#include <time.h>

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

/* The best that the machine has shown so far: what a run's ceilings are, too. */
struct best {
    double gemm_flop_per_s, touch_bytes_per_s;
};

static double floor_of(const struct fb_measure_result *result, const struct best *best)
{
    return fmax(result->bytes_min / best->touch_bytes_per_s, result->flop / best->gemm_flop_per_s);
}

/* One measurement; true when its median is not below the floor that the best so far allows. */
static bool holds(const struct fb_attention *attention, enum fb_pass pass, bool causal,
                  enum fb_cache_mode cache, struct best *best, double *median_s, double *floor_s)
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
    best->gemm_flop_per_s = fmax(best->gemm_flop_per_s, result.gemm_flop_per_s);
    best->touch_bytes_per_s =
        fmax(best->touch_bytes_per_s, (double)result.touch_bytes / result.touch_s);
    *floor_s = floor_of(&result, best);
    *median_s = summary.median;
    assert_true(*floor_s > 0.0);
    fb_measure_result_free(&result);
    return *median_s >= *floor_s;
}

/* A processor that speeds up between the ceiling and the samples turns the comparison round once;
 * a floor that is wrong stays wrong however often the ceilings are looked at again. */
static void check_variant(const struct fb_attention *attention, enum fb_pass pass, bool causal,
                          enum fb_cache_mode cache)
{
    enum { TRIES = 8 };
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 100000000}; /* others may come to rest */
    struct best best = {0.0, 0.0};
    double median_s = 0.0, floor_s = 0.0;
    for (int i = 0; i < TRIES; i++) {
        struct fb_measure_ceilings ceilings;
        struct fb_error error;
        assert_int_equal(fb_ceilings_gemm(1, attention->isa, 0.05, &ceilings, &error), FB_OK);
        best.gemm_flop_per_s = fmax(best.gemm_flop_per_s, ceilings.gemm_flop_per_s);
        if (holds(attention, pass, causal, cache, &best, &median_s, &floor_s))
            return;
        nanosleep(&pause, NULL);
    }
    fail_msg("%s/%s/%s %s took %.4g s, below its floor of %.4g s, %d times",
             attention->mechanism->name, attention->variant, fb_isa_name(attention->isa),
             fb_pass_name(pass), median_s, floor_s, TRIES);
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
        const bool odd = checked % 2 == 1;
        check_variant(attention, FB_FORWARD, odd, FB_CACHE_COLD);
        check_variant(attention, FB_FORWARD, !odd, FB_CACHE_WARM);
        if (attention->backward) {
            check_variant(attention, FB_BACKWARD, odd, FB_CACHE_COLD);
            check_variant(attention, FB_BOTH, !odd, FB_CACHE_WARM);
        }
        if (attention->decode) {
            check_variant(attention, FB_DECODE, true, FB_CACHE_COLD);
            check_variant(attention, FB_DECODE, true, FB_CACHE_WARM);
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
