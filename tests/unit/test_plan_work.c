/* The work of a case: lengths drawn from the seed, costs, bytes, and the younger factors. */
#include "plan.h"
#include "suite_fixture.h"

#include <math.h>
#include <string.h>

struct planned {
    struct suite_fixture suite;
    struct fb_plan plan;
};

static bool has_any_isa(enum fb_isa isa)
{
    return isa == FB_ISA_SCALAR;
}

static bool has_cpu(enum fb_backend backend)
{
    return backend == FB_CPU;
}

static void build(struct planned *p, const char *text, const char *filter)
{
    const struct fb_plan_machine machine = {
        .threads = 2, .best_isa = FB_ISA_SCALAR, .has_isa = has_any_isa, .has_device = has_cpu};
    struct fb_error error = {.text = ""};
    parse_valid(&p->suite, text);
    const enum fb_status status =
        fb_plan_build(&p->suite.suite, filter, &machine, &p->suite.arena, &p->plan, &error);
    if (status != FB_OK)
        print_message("%s\n", error.text);
    assert_int_equal(status, FB_OK);
}

static void release(struct planned *p)
{
    free_suite(&p->suite);
}

#define FLOW "suite: s\nsweep:\n  mechanism: flow\n  seq_len: 64\n  threads: 2\n"

static void test_id_says_nothing_of_younger_factors_at_their_defaults(void **state)
{
    (void)state;
    struct planned plain, written, other;
    build(&plain, FLOW, NULL);
    build(&written, FLOW "  kv_heads: 8\n  lengths: full\n", NULL);
    assert_string_equal(plain.plan.cases[0].id, written.plan.cases[0].id);
    build(&other, FLOW "  kv_heads: [2, 8]\n  lengths: [full, random]\n", NULL);
    assert_int_equal(other.plan.cases_count, 4);
    size_t equal = 0;
    for (size_t i = 0; i < 4; i++)
        equal += strcmp(other.plan.cases[i].id, plain.plan.cases[0].id) == 0;
    assert_int_equal(equal, 1);
    release(&plain);
    release(&written);
    release(&other);
}

static void test_filter_and_description_know_younger_factors(void **state)
{
    (void)state;
    struct planned p;
    char text[200];
    build(&p, FLOW "  kv_heads: [1, 2, 8]\n  lengths: [full, random]\n",
          "kv_heads<=2,lengths=random");
    assert_int_equal(p.plan.cases_count, 2);
    fb_case_describe(&p.plan.cases[1], text, sizeof text);
    assert_string_equal(text,
                        "flow/fused cpu:scalarx2 f32 BHND forward B1 H8/2 N64 D64 random lengths");
    release(&p);
}

static void test_case_json_round_trip_keeps_younger_factors(void **state)
{
    (void)state;
    struct planned p;
    struct fb_case back;
    struct fb_error error;
    build(&p, FLOW "  kv_heads: 2\n  lengths: random\n", NULL);
    json_t *json = fb_case_to_json(&p.plan.cases[0]);
    assert_int_equal(fb_case_from_json(json, &p.suite.arena, &back, &error), FB_OK);
    assert_int_equal(back.kv_heads, 2);
    assert_int_equal(back.lengths, FB_LENGTHS_RANDOM);
    json_decref(json);
    release(&p);
}

/* A row that an earlier version wrote says nothing of them. */
static void test_case_json_without_younger_factors_means_their_defaults(void **state)
{
    (void)state;
    struct planned p;
    struct fb_case back;
    struct fb_error error;
    build(&p, FLOW, NULL);
    json_t *json = fb_case_to_json(&p.plan.cases[0]);
    assert_int_equal(json_object_del(json, "kv_heads"), 0);
    assert_int_equal(json_object_del(json, "lengths"), 0);
    assert_int_equal(fb_case_from_json(json, &p.suite.arena, &back, &error), FB_OK);
    assert_string_equal(back.id, p.plan.cases[0].id);
    json_decref(json);
    release(&p);
}

static void draw(const struct fb_case *item, struct fb_arena *arena, struct fb_problem *problem)
{
    struct fb_error error;
    fb_case_problem(item, problem);
    assert_int_equal(fb_case_draw_lengths(item, arena, problem, &error), FB_OK);
}

static void test_lengths_depend_on_the_seed_and_stay_in_range(void **state)
{
    (void)state;
    struct planned p;
    struct fb_problem problem[3];
    build(&p, FLOW "  batch: 64\n  lengths: random\n  seed: [1, 2]\n", NULL);
    assert_int_equal(p.plan.cases_count, 2);
    for (int i = 0; i < 3; i++)
        draw(&p.plan.cases[i % 2], &p.suite.arena, &problem[i]);
    const size_t bytes = 64 * sizeof(int64_t);
    assert_memory_equal(problem[0].q_lengths, problem[2].q_lengths, bytes);
    assert_memory_not_equal(problem[0].q_lengths, problem[1].q_lengths, bytes);
    assert_memory_equal(problem[0].q_lengths, problem[0].kv_lengths, bytes);
    for (int b = 0; b < 64; b++)
        assert_in_range(problem[0].q_lengths[b], 1, 64);
    release(&p);
}

static void test_lengths_of_other_keys_are_drawn_on_their_own(void **state)
{
    (void)state;
    struct planned p;
    struct fb_problem problem;
    build(&p, FLOW "  batch: 64\n  lengths: random\n  kv_len: 16\n", NULL);
    draw(&p.plan.cases[0], &p.suite.arena, &problem);
    for (int b = 0; b < 64; b++)
        assert_in_range(problem.kv_lengths[b], 1, 16);
    release(&p);
}

static void test_full_lengths_are_none(void **state)
{
    (void)state;
    struct planned p;
    struct fb_problem problem;
    build(&p, FLOW, NULL);
    draw(&p.plan.cases[0], &p.suite.arena, &problem);
    assert_null(problem.q_lengths);
    assert_null(problem.kv_lengths);
    release(&p);
}

/* Work in proportion to the valid tokens; every row of the output is written all the same. */
static void test_cost_of_random_lengths_is_that_of_the_valid_tokens(void **state)
{
    (void)state;
    struct planned p;
    struct fb_problem problem;
    struct fb_cost cost, full;
    build(&p, FLOW "  batch: 8\n  lengths: [random, full]\n", NULL);
    draw(&p.plan.cases[0], &p.suite.arena, &problem);
    int64_t tokens = 0;
    for (int b = 0; b < 8; b++)
        tokens += problem.q_lengths[b];
    fb_case_cost(&p.plan.cases[0], &cost);
    fb_case_cost(&p.plan.cases[1], &full);
    const double share = (double)tokens / (8.0 * 64.0);
    assert_true(fabs(cost.flop / full.flop - share) < 1e-12);
    /* three inputs of the valid rows, one output of all of them */
    assert_true(fabs(cost.bytes_min / full.bytes_min - (3.0 * share + 1.0) / 4.0) < 1e-12);
    release(&p);
}

#define DECODE "suite: s\nkind: decode\nsweep:\n  mechanism: flow\n  threads: 2\n"

static void test_decode_problem_is_one_token_with_room_for_more(void **state)
{
    (void)state;
    struct planned p;
    struct fb_problem problem;
    char text[200];
    build(&p, DECODE "  seq_len: [256, 6400]\n", NULL);
    const struct fb_case *item = &p.plan.cases[1];
    assert_null(item->skip_reason);
    fb_case_problem(item, &problem);
    assert_int_equal(problem.q_len, 1);
    assert_int_equal(problem.kv_len, 6500);
    assert_false(problem.causal);
    fb_case_describe(item, text, sizeof text);
    assert_string_equal(text, "flow/fused cpu:scalarx2 f32 BHND causal decode B1 H8 N6400 D64");
    assert_int_equal(fb_case_decode_slack(&p.plan.cases[0]), 16);
    release(&p);
}

static void test_decode_cost_of_a_recurrent_state_does_not_grow(void **state)
{
    (void)state;
    struct planned p;
    struct fb_cost near, far;
    build(&p, DECODE "  seq_len: [256, 65536]\n", NULL);
    fb_case_cost(&p.plan.cases[0], &near);
    fb_case_cost(&p.plan.cases[1], &far);
    assert_true(near.flop == 8.0 * 4.0 * 64.0 * 64.0);
    assert_true(near.flop == far.flop && near.bytes_min == far.bytes_min);
    assert_int_equal(fb_case_state_bytes(&p.plan.cases[0], p.plan.cases[0].attention),
                     fb_case_state_bytes(&p.plan.cases[1], p.plan.cases[1].attention));
    release(&p);
}

static void test_bytes_of_gradients_count_saved_and_the_larger_scratch(void **state)
{
    (void)state;
    struct planned p;
    struct fb_case_bytes forward, both;
    struct fb_sizes sizes;
    struct fb_problem problem;
    build(&p, FLOW "  kv_heads: 2\n  pass: [forward, both]\n", NULL);
    fb_case_bytes(&p.plan.cases[0], &forward);
    fb_case_bytes(&p.plan.cases[1], &both);
    /* q and out of 8 heads, k and v of 2 */
    assert_int_equal(forward.io_bytes, 64 * 64 * 4 * (8 + 8 + 2 + 2));
    assert_int_equal(both.io_bytes, 2 * forward.io_bytes);
    fb_case_problem(&p.plan.cases[1], &problem);
    fb_attention_sizes(p.plan.cases[1].attention, &problem, 2, &sizes);
    assert_int_equal(forward.saved_bytes, 0);
    assert_int_equal(both.saved_bytes, sizes.saved_bytes);
    assert_true(both.workspace_bytes >= sizes.forward_scratch_bytes &&
                both.workspace_bytes >= sizes.backward_scratch_bytes);
    release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_id_says_nothing_of_younger_factors_at_their_defaults),
        cmocka_unit_test(test_filter_and_description_know_younger_factors),
        cmocka_unit_test(test_case_json_round_trip_keeps_younger_factors),
        cmocka_unit_test(test_case_json_without_younger_factors_means_their_defaults),
        cmocka_unit_test(test_lengths_depend_on_the_seed_and_stay_in_range),
        cmocka_unit_test(test_lengths_of_other_keys_are_drawn_on_their_own),
        cmocka_unit_test(test_full_lengths_are_none),
        cmocka_unit_test(test_cost_of_random_lengths_is_that_of_the_valid_tokens),
        cmocka_unit_test(test_decode_problem_is_one_token_with_room_for_more),
        cmocka_unit_test(test_decode_cost_of_a_recurrent_state_does_not_grow),
        cmocka_unit_test(test_bytes_of_gradients_count_saved_and_the_larger_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
