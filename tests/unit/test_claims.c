/* Claims: judged with 5 processes, failed only when the whole interval lies outside. */
#include "claims.h"

#include "made_results.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct fb_claim linear = {.mechanism = "flow",
                                       .variant = "fused",
                                       .causal = 0,
                                       .pass = FB_FORWARD,
                                       .metric = FB_METRIC_TIME_EXPONENT,
                                       .relation = FB_CLAIM_WITHIN,
                                       .value = 1.0,
                                       .tolerance = 0.1,
                                       .text = "time_exponent is 1.0 +- 0.1"};

static void test_compare_follows_the_whole_interval(void **state)
{
    (void)state;
    struct fb_claim claim = linear;
    assert_int_equal(fb_claim_compare(&claim, 0.95, 1.05), FB_CLAIM_HELD);
    assert_int_equal(fb_claim_compare(&claim, 1.05, 1.15), FB_CLAIM_AMBIGUOUS);
    assert_int_equal(fb_claim_compare(&claim, 0.5, 1.5), FB_CLAIM_AMBIGUOUS);
    assert_int_equal(fb_claim_compare(&claim, 1.11, 1.2), FB_CLAIM_FAILED);
    assert_int_equal(fb_claim_compare(&claim, 0.1, 0.89), FB_CLAIM_FAILED);
    assert_int_equal(fb_claim_compare(&claim, (double)NAN, 1), FB_CLAIM_AMBIGUOUS);
    claim.relation = FB_CLAIM_AT_MOST;
    claim.value = 3;
    assert_int_equal(fb_claim_compare(&claim, 1, 3), FB_CLAIM_HELD);
    assert_int_equal(fb_claim_compare(&claim, 2, 4), FB_CLAIM_AMBIGUOUS);
    assert_int_equal(fb_claim_compare(&claim, 3.1, (double)INFINITY), FB_CLAIM_FAILED);
    claim.relation = FB_CLAIM_AT_LEAST;
    assert_int_equal(fb_claim_compare(&claim, 3, 9), FB_CLAIM_HELD);
    assert_int_equal(fb_claim_compare(&claim, 1, 2.9), FB_CLAIM_FAILED);
}

/* Judges one claim on the made scaling run; returns the only result. */
static struct fb_claim_result judge_one(const struct fb_claim *claim, int processes)
{
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 200, 20000);
    fb_made_scaling(&results, processes);
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(claim, 1, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 1);
    struct fb_claim_result result = judged.items[0];
    fb_made_free(&results);
    fb_arena_free(&arena);
    return result;
}

static void test_judge_true_claim_with_six_processes_holds(void **state)
{
    (void)state;
    struct fb_claim_result result = judge_one(&linear, 6);
    assert_int_equal(result.verdict, FB_CLAIM_HELD);
    assert_true(fabs(result.value - 1) < 0.03);
}

static void test_judge_false_claim_with_six_processes_fails(void **state)
{
    (void)state;
    struct fb_claim claim = linear;
    claim.value = 2.0;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_FAILED);
}

static void test_judge_false_claim_with_four_processes_is_reported_only(void **state)
{
    (void)state;
    struct fb_claim claim = linear;
    claim.value = 2.0;
    struct fb_claim_result result = judge_one(&claim, 4);
    assert_int_equal(result.verdict, FB_CLAIM_REPORTED_ONLY);
    assert_true(result.why[0] != '\0');
}

static void test_judge_each_metric_on_known_answers(void **state)
{
    (void)state;
    struct fb_claim claim = linear;
    claim.relation = FB_CLAIM_AT_MOST;
    claim.metric = FB_METRIC_CROSSOVER; /* 4e-7 N + 8e-6 meets 8e-10 N^2 near 507 */
    claim.value = 600;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_HELD);
    claim.value = 256;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_FAILED);
    claim.metric = FB_METRIC_FLOOR_RATIO; /* 1.3 + 20 / 256 at 65536 */
    claim.value = 1.6;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_HELD);
    claim.metric = FB_METRIC_SPEEDUP_VS_SOFTMAX; /* 65 at 32768 */
    claim.relation = FB_CLAIM_AT_LEAST;
    claim.value = 60;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_HELD);
    claim.value = 80;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_FAILED);
    claim.metric = FB_METRIC_MEMORY_EXPONENT;
    claim.relation = FB_CLAIM_WITHIN;
    claim.value = 1;
    assert_int_equal(judge_one(&claim, 6).verdict, FB_CLAIM_HELD);
}

/* A decoded token: constant for the recurrent state, growing with softmax's cache. */
static void make_decode(struct fb_results *results)
{
    for (int64_t n = 256; n <= 65536; n *= 4) {
        struct fb_row *rows[] = {
            fb_made_row(results, "flow", "fused", true, n, 6e-6),
            fb_made_row(results, "softmax", "tiled", true, n, 2e-9 * (double)n)};
        for (int i = 0; i < 2; i++) {
            (void)snprintf(rows[i]->pass, sizeof rows[i]->pass, "decode");
            rows[i]->mem_state_bytes = i == 0 ? 140000 : 4096 * n;
            fb_made_samples(results, rows[i], 6, 12, 0.01);
        }
    }
}

static enum fb_claim_verdict judge_decode(const char *mechanism, enum fb_metric metric,
                                          enum fb_claim_relation relation, double value)
{
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    const struct fb_claim claim = {.mechanism = mechanism,
                                   .causal = -1,
                                   .pass = FB_DECODE,
                                   .metric = metric,
                                   .relation = relation,
                                   .value = value,
                                   .text = "growth"};
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 20, 2000);
    make_decode(&results);
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(&claim, 1, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 1);
    const enum fb_claim_verdict verdict = judged.items[0].verdict;
    fb_made_free(&results);
    fb_arena_free(&arena);
    return verdict;
}

static void test_judge_growth_tells_a_state_from_a_cache(void **state)
{
    (void)state;
    const enum fb_metric time = FB_METRIC_TIME_GROWTH, memory = FB_METRIC_MEMORY_GROWTH;
    const enum fb_claim_relation most = FB_CLAIM_AT_MOST, least = FB_CLAIM_AT_LEAST;
    assert_int_equal(judge_decode("flow", time, most, 1.5), FB_CLAIM_HELD);
    assert_int_equal(judge_decode("flow", memory, most, 1.0), FB_CLAIM_HELD);
    assert_int_equal(judge_decode("flow", time, least, 2.0), FB_CLAIM_FAILED);
    assert_int_equal(judge_decode("softmax", time, least, 200), FB_CLAIM_HELD);
    assert_int_equal(judge_decode("softmax", memory, least, 250), FB_CLAIM_HELD);
    assert_int_equal(judge_decode("softmax", memory, most, 250), FB_CLAIM_FAILED);
}

/* Forward is linear, both is not: a claim about one pass is not judged by the other. */
static void test_judge_claim_of_a_pass_leaves_others_alone(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    struct fb_claim claims[] = {linear, linear, linear};
    claims[1].pass = FB_BOTH;
    claims[2].pass = -1;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 40, 4000);
    for (int64_t n = 256; n <= 65536; n *= 2) {
        const double size = (double)n;
        struct fb_row *forward = fb_made_row(&results, "flow", "fused", false, n, 4e-7 * size);
        fb_made_samples(&results, forward, 6, 12, 0.01);
        struct fb_row *both = fb_made_row(&results, "flow", "fused", false, n, 1e-9 * size * size);
        (void)snprintf(both->pass, sizeof both->pass, "both");
        fb_made_samples(&results, both, 6, 12, 0.01);
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(set.count, 2);
    assert_int_equal(fb_claims_judge(claims, 3, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 4);
    assert_int_equal(judged.items[0].verdict, FB_CLAIM_HELD);
    assert_int_equal(judged.items[1].verdict, FB_CLAIM_FAILED);
    assert_string_equal(judged.items[1].series->key->pass, "both");
    fb_made_free(&results);
    fb_arena_free(&arena);
}

/* At 1.2 floors from 1 thread on, at 1.8 from 4; the small size is worse by a half. */
static void make_threads(struct fb_results *results, const char *isa, int64_t threads,
                         double floors)
{
    for (int64_t n = 1024; n <= 2048; n *= 2) {
        const double factor = n == 1024 ? 1.5 : 1.0;
        for (int causal = 0; causal < 2; causal++) {
            struct fb_row *row = fb_made_row(results, "flow", "fused", causal == 1, n,
                                             (1 + causal) * floors * factor * 1e-6 * (double)n);
            (void)snprintf(row->isa, sizeof row->isa, "%s", isa);
            row->threads = threads;
            row->floor_s = 1e-6 * (double)n;
            fb_made_samples(results, row, 6, 12, 0.001);
        }
    }
}

static void test_judge_floor_claims_by_isa_and_threads(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    struct fb_claim claims[] = {linear, linear, linear, linear};
    claims[0].metric = FB_METRIC_FLOOR_RATIO;
    claims[0].isa = FB_ISA_AVX512;
    claims[0].threads = FB_CLAIM_THREADS_MAX;
    claims[0].value = 1.8;
    claims[1].metric = FB_METRIC_FLOOR_RATIO_WORST;
    claims[1].threads = 1;
    claims[1].value = 1.8;
    claims[2].metric = FB_METRIC_TIME_VS_FORWARD;
    claims[2].causal = 1;
    claims[2].isa = FB_ISA_AVX2;
    claims[2].value = 2;
    claims[3].head_dim = 32;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 40, 4000);
    make_threads(&results, "avx512", 1, 1.2);
    make_threads(&results, "avx512", 4, 1.8);
    make_threads(&results, "avx2", 1, 1.2);
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(claims, 4, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count,
                     5); /* one, two (either isa), one, and one that matches nothing */
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(judged.items[i].verdict, FB_CLAIM_HELD);
    }
    assert_int_equal(judged.items[0].series->key->threads, 4);
    assert_string_equal(judged.items[3].series->key->isa, "avx2");
    assert_null(judged.items[4].series);
    fb_made_free(&results);
    fb_arena_free(&arena);
}

/* A peer three times as slow; claims about flow are not about it. */
static void test_judge_speedup_over_a_peer(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    struct fb_claim claims[] = {linear, linear, linear};
    for (int i = 0; i < 3; i++) {
        claims[i].metric = FB_METRIC_SPEEDUP_VS_PEER;
        claims[i].relation = FB_CLAIM_AT_LEAST;
        claims[i].variant = NULL;
        claims[i].peer = i < 2 ? "torch-official" : "torch-other";
        claims[i].value = i == 1 ? 3.5 : 2.5;
    }
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 40, 4000);
    for (int64_t n = 1024; n <= 4096; n *= 2) {
        struct fb_row *ours = fb_made_row(&results, "flow", "fused", false, n, 1e-6 * (double)n);
        fb_made_samples(&results, ours, 6, 12, 0.001);
        struct fb_row *peer =
            fb_made_row(&results, "flow", "torch-official", false, n, 3e-6 * (double)n);
        (void)snprintf(peer->program, sizeof peer->program, "torch");
        fb_made_samples(&results, peer, 6, 12, 0.001);
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(claims, 3, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 3);
    assert_int_equal(judged.items[0].verdict, FB_CLAIM_HELD);
    assert_int_equal(judged.items[1].verdict, FB_CLAIM_FAILED);
    assert_int_equal(judged.items[2].verdict, FB_CLAIM_AMBIGUOUS);
    assert_string_equal(judged.items[0].series->key->variant, "fused");
    fb_made_free(&results);
    fb_arena_free(&arena);
}

/* The peer was measured forward only: nothing is said of both passes. */
static void test_judge_speedup_only_where_the_peer_was_measured(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    struct fb_claim claims[] = {linear, linear};
    for (int i = 0; i < 2; i++) {
        claims[i].metric = FB_METRIC_SPEEDUP_VS_PEER;
        claims[i].relation = FB_CLAIM_AT_LEAST;
        claims[i].variant = NULL;
        claims[i].pass = -1;
        claims[i].peer = i == 0 ? "torch-official" : "torch-other";
        claims[i].value = 2.5;
    }
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 40, 4000);
    for (int64_t n = 1024; n <= 4096; n *= 2) {
        struct fb_row *ours = fb_made_row(&results, "flow", "fused", false, n, 1e-6 * (double)n);
        fb_made_samples(&results, ours, 6, 12, 0.001);
        struct fb_row *both = fb_made_row(&results, "flow", "fused", false, n, 4e-6 * (double)n);
        (void)snprintf(both->pass, sizeof both->pass, "both");
        fb_made_samples(&results, both, 6, 12, 0.001);
        struct fb_row *peer =
            fb_made_row(&results, "flow", "torch-official", false, n, 3e-6 * (double)n);
        (void)snprintf(peer->program, sizeof peer->program, "torch");
        fb_made_samples(&results, peer, 6, 12, 0.001);
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(claims, 1, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 1);
    assert_string_equal(judged.items[0].series->key->pass, "forward");
    assert_int_equal(judged.items[0].verdict, FB_CLAIM_HELD);
    assert_int_equal(fb_claims_judge(&claims[1], 1, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 2);
    assert_true(isnan(judged.items[0].value));
    fb_made_free(&results);
    fb_arena_free(&arena);
}

static void test_judge_claim_that_matches_nothing_says_so(void **state)
{
    (void)state;
    struct fb_claim claim = linear;
    claim.mechanism = "reformer";
    struct fb_claim_result result = judge_one(&claim, 6);
    assert_null(result.series);
    assert_int_equal(result.verdict, FB_CLAIM_REPORTED_ONLY);
}

static void test_judge_claim_without_variant_covers_every_variant(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_arena arena;
    struct fb_series_set set;
    struct fb_claim_results judged;
    struct fb_claim claim = linear;
    claim.variant = NULL;
    claim.causal = -1;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 200, 20000);
    fb_made_scaling(&results, 5);
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_claims_judge(&claim, 1, &set, 1, &arena, &judged, NULL), FB_OK);
    assert_int_equal(judged.count, 4);
    for (size_t i = 0; i < judged.count; i++) {
        assert_int_equal(judged.items[i].verdict, FB_CLAIM_HELD);
    }
    fb_made_free(&results);
    fb_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare_follows_the_whole_interval),
        cmocka_unit_test(test_judge_true_claim_with_six_processes_holds),
        cmocka_unit_test(test_judge_false_claim_with_six_processes_fails),
        cmocka_unit_test(test_judge_false_claim_with_four_processes_is_reported_only),
        cmocka_unit_test(test_judge_each_metric_on_known_answers),
        cmocka_unit_test(test_judge_growth_tells_a_state_from_a_cache),
        cmocka_unit_test(test_judge_claim_of_a_pass_leaves_others_alone),
        cmocka_unit_test(test_judge_floor_claims_by_isa_and_threads),
        cmocka_unit_test(test_judge_speedup_over_a_peer),
        cmocka_unit_test(test_judge_speedup_only_where_the_peer_was_measured),
        cmocka_unit_test(test_judge_claim_that_matches_nothing_says_so),
        cmocka_unit_test(test_judge_claim_without_variant_covers_every_variant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
