/* Fits: learning, selection, and the same bits after an interruption. */
#include "cpu_features.h"
#include "fit.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fb_arena arena;
static struct fb_error error;

struct subject {
    const struct fb_task *task;
    void *data;
    struct fb_recipe recipe;
    struct fb_fit_options options;
    int calls, stop_at; /* of should_stop */
};

static int set_up(void **state)
{
    (void)state;
    fb_arena_init(&arena, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fb_arena_free(&arena);
    return 0;
}

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static bool stops(void *context)
{
    struct subject *s = context;
    return ++s->calls == s->stop_at;
}

static void make(struct subject *s, enum fb_recipe_kind kind, const char *mechanism, int64_t steps)
{
    static const double digits[1] = {1.0};
    const struct fb_mechanism *m = fb_mechanism_find(mechanism);
    *s = (struct subject){.task = fb_task_find("adder")};
    const struct fb_task_options options = {NULL, 1337, digits, kind != FB_RECIPE_PAPER};
    check(s->task->open(s->task, &options, &arena, &s->data, &error));
    check(fb_recipe_find(s->task, kind, FB_RECIPE_SMALL, m, &s->recipe, &error));
    s->recipe.batch = 16;
    s->recipe.steps = steps;
    s->recipe.evaluate_steps = 10;
    s->options = (struct fb_fit_options){
        .task = s->task,
        .data = s->data,
        .recipe = &s->recipe,
        .attention = {.attention = fb_attention_find(m, NULL, FB_CPU, fb_cpu_best_isa()),
                      .causal = true},
        .seed = 5,
        .threads = 1,
        .checkpoint_every_s = 1e9,
        .should_stop = stops,
        .context = s,
    };
    for (int i = 0; i < m->param_count; i++)
        s->options.attention.params[i] = m->params[i].default_value;
}

static void test_one_digit_is_learnt_by_every_mechanism(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        struct subject s;
        struct fb_fit_result result;
        make(&s, FB_RECIPE_SAME, fb_mechanism_at(i)->name, 300);
        s.recipe.schedule.base = 1e-2;
        check(fb_fit(&s.options, &arena, &result, &error));
        assert_string_equal(result.split, "validation");
        assert_int_equal(result.points_count, 31);
        assert_int_equal(result.correct_count, 20);
        if (!(result.points[30].train_loss < 0.8 * result.points[1].train_loss))
            fail_msg("%s: the loss went from %g to %g", fb_mechanism_at(i)->name,
                     result.points[1].train_loss, result.points[30].train_loss);
        assert_true(result.parameters > 0 && result.steps_per_s > 0.0 && !result.stopped);
    }
}

static void compare(const struct fb_fit_result *a, const struct fb_fit_result *b)
{
    assert_int_equal(a->points_count, b->points_count);
    for (size_t i = 0; i < a->points_count; i++) {
        assert_int_equal(a->points[i].step, b->points[i].step);
        assert_memory_equal(&a->points[i].loss, &b->points[i].loss, sizeof(double));
        assert_memory_equal(&a->points[i].metric, &b->points[i].metric, sizeof(double));
        if (a->points[i].step > 0)
            assert_memory_equal(&a->points[i].train_loss, &b->points[i].train_loss, sizeof(double));
    }
    assert_true(a->metric == b->metric && a->metric_last == b->metric_last);
    assert_true(a->selected_step == b->selected_step && a->selected_trial == b->selected_trial);
    assert_memory_equal(a->correct, b->correct, (size_t)a->correct_count);
}

/* Stopped at every eleventh step, at evaluations and between them, over all trials. */
static void test_an_interrupted_fit_ends_with_the_same_bits(void **state)
{
    (void)state;
    char path[64];
    struct subject s;
    struct fb_fit_result whole, parts;
    snprintf(path, sizeof path, "/tmp/flowbench-fit-%d.safetensors", (int)getpid());
    make(&s, FB_RECIPE_TUNED, "flow", 25);
    check(fb_fit(&s.options, &arena, &whole, &error));
    assert_int_equal(whole.points_count, 4 * 4);
    s.options.checkpoint = path;
    int rounds = 0;
    do {
        s.calls = 0;
        s.stop_at = 11;
        check(fb_fit(&s.options, &arena, &parts, &error));
        assert_true(++rounds < 20);
    } while (parts.stopped);
    assert_true(rounds >= 9 && parts.resumed_step > 0);
    compare(&whole, &parts);
    unlink(path);
}

/* A task of which it is counted how many test examples are asked for. */
static const struct fb_task *counted;
static int64_t tested;

static void fill_and_count(const void *data, enum fb_split split, const int64_t *chosen,
                           int64_t count, const struct fb_task_batch *batch)
{
    tested += split == FB_SPLIT_TEST ? count : 0;
    counted->fill(data, split, chosen, count, batch);
}

/* Twenty examples are two batches of sixteen. */
static void test_the_test_split_is_scored_once_and_as_it_was_selected(void **state)
{
    (void)state;
    struct subject s;
    struct fb_fit_result whole, shorter;
    make(&s, FB_RECIPE_SAME, "softmax", 120);
    s.recipe.schedule.base = 3e-2; /* so fast that the last step is not the best */
    struct fb_task task = *s.task;
    counted = s.task;
    task.fill = fill_and_count;
    s.options.task = &task;
    tested = 0;
    check(fb_fit(&s.options, &arena, &whole, &error));
    assert_in_range(whole.selected_step, 10, 110);
    assert_int_equal(tested, 2 * 32); /* as selected, and after the last step */
    s.recipe.steps = whole.selected_step;
    tested = 0;
    check(fb_fit(&s.options, &arena, &shorter, &error));
    assert_int_equal(tested, 32); /* the last step is the selected one */
    assert_int_equal(shorter.selected_step, whole.selected_step);
    assert_true(shorter.metric == whole.metric && shorter.metric_last == whole.metric);
    assert_memory_equal(shorter.correct, whole.correct, (size_t)whole.correct_count);
    s.recipe.best_on_test = true; /* the protocol of the released code scores it every time */
    s.recipe.steps = 120;
    tested = 0;
    check(fb_fit(&s.options, &arena, &shorter, &error));
    assert_int_equal(tested, 13 * 32);
    assert_string_equal(shorter.split, "test");
}

enum { WINDOW = 4, WINDOW_STEPS = 60 };
static int64_t first_of[WINDOW_STEPS], batches_seen;

static void fill_and_note(const void *data, enum fb_split split, const int64_t *chosen,
                          int64_t count, const struct fb_task_batch *batch)
{
    const int64_t all = counted->count(data, FB_SPLIT_TRAIN);
    counted->fill(data, split, chosen, count, batch);
    if (split != FB_SPLIT_TRAIN)
        return;
    for (int64_t i = 1; i < count; i++)
        assert_int_equal(chosen[i], (chosen[i - 1] + 1) % all);
    assert_true(batches_seen < WINDOW_STEPS);
    first_of[batches_seen++] = chosen[0];
}

/* The number of a batch from its first example, when it is one of WINDOW or fewer. */
static int64_t number_of(int64_t first, int64_t least, int64_t most, int64_t all)
{
    for (int64_t k = least; k < most; k++)
        if (k * 16 % all == first)
            return k;
    return -1;
}

static void test_batches_of_neighbours_are_drawn_from_a_window(void **state)
{
    (void)state;
    char path[64];
    struct subject s;
    struct fb_fit_result whole, parts;
    make(&s, FB_RECIPE_SAME, "linear", WINDOW_STEPS);
    struct fb_task task = *s.task;
    const int64_t all = s.task->count(s.data, FB_SPLIT_TRAIN);
    counted = s.task;
    task.fill = fill_and_note;
    s.options.task = &task;
    s.recipe.replacement = false;
    s.recipe.batch_window = WINDOW;
    batches_seen = 0;
    check(fb_fit(&s.options, &arena, &whole, &error));
    assert_int_equal(batches_seen, WINDOW_STEPS);
    /* the first draws are of the first batches, and no batch comes twice while it can be told */
    int64_t moved = 0;
    for (int64_t step = 0; step < WINDOW; step++) {
        const int64_t k = number_of(first_of[step], 0, step + WINDOW, all);
        assert_true(k >= 0);
        moved += k != step;
        for (int64_t before = 0; before < step; before++)
            assert_true(first_of[before] != first_of[step]);
    }
    assert_true(moved > 0);
    snprintf(path, sizeof path, "/tmp/flowbench-window-%d.safetensors", (int)getpid());
    s.options.task = s.task;
    s.options.checkpoint = path;
    do {
        s.calls = 0;
        s.stop_at = 17;
        check(fb_fit(&s.options, &arena, &parts, &error));
    } while (parts.stopped);
    compare(&whole, &parts);
    unlink(path);
}

static void test_the_released_pipelines_of_images_batch_before_they_shuffle(void **state)
{
    (void)state;
    static const struct {
        const char *task;
        int64_t window;
    } wanted[] = {{"image", 256}, {"pathfinder", 2048}, {"text", 0}, {"listops", 0}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        for (size_t m = 0; m < fb_mechanism_count(); m++) {
            struct fb_recipe recipe;
            const struct fb_task *task = fb_task_find(wanted[i].task);
            check(fb_recipe_find(task, FB_RECIPE_PAPER, FB_RECIPE_FULL, fb_mechanism_at(m), &recipe,
                                 &error));
            assert_int_equal(recipe.batch_window, wanted[i].window);
            check(fb_recipe_find(task, FB_RECIPE_SAME, FB_RECIPE_FULL, fb_mechanism_at(m), &recipe,
                                 &error));
            assert_int_equal(recipe.batch_window, 0);
        }
}

static void test_a_length_replaces_the_recipes_but_never_lengthens_the_released_one(void **state)
{
    (void)state;
    const struct fb_task *task = fb_task_find("listops");
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    struct fb_recipe recipe, released;
    check(fb_recipe_find(task, FB_RECIPE_PAPER, FB_RECIPE_FULL, flow, &released, &error));
    recipe = released;
    assert_int_equal(fb_recipe_set_length(&recipe, FB_RECIPE_PAPER, 0, released.steps + 1, &error),
                     FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "trained for 5000 steps, so 5001"));
    check(fb_recipe_set_length(&recipe, FB_RECIPE_PAPER, 0, 40, &error));
    assert_int_equal(recipe.steps, 40);
    check(fb_recipe_find(task, FB_RECIPE_SAME, FB_RECIPE_FULL, flow, &recipe, &error));
    check(fb_recipe_set_length(&recipe, FB_RECIPE_SAME, 0, 20000, &error));
    assert_int_equal(recipe.steps, 20000);
    assert_int_equal(recipe.epochs, 0);
    /* the same rates at the same steps, whatever the length */
    assert_memory_equal(&recipe.schedule, &released.schedule, sizeof recipe.schedule);
    check(fb_recipe_find(fb_task_find("JapaneseVowels"), FB_RECIPE_SAME, FB_RECIPE_FULL, flow,
                         &recipe, &error));
    check(fb_recipe_set_length(&recipe, FB_RECIPE_SAME, 0, 30, &error));
    assert_int_equal(recipe.epochs, 0);
    check(fb_recipe_find(fb_task_find("JapaneseVowels"), FB_RECIPE_PAPER, FB_RECIPE_FULL, flow,
                         &recipe, &error));
    check(fb_recipe_set_length(&recipe, FB_RECIPE_PAPER, 0, 30, &error));
    assert_int_equal(recipe.epochs, 100); /* whichever ends first */
}

static void test_a_corrupt_checkpoint_is_told_of_and_costs_time_only(void **state)
{
    (void)state;
    char path[64];
    struct subject s;
    struct fb_fit_result whole, again;
    snprintf(path, sizeof path, "/tmp/flowbench-fit-%d.safetensors", (int)getpid());
    make(&s, FB_RECIPE_SAME, "linear", 12);
    check(fb_fit(&s.options, &arena, &whole, &error));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("no checkpoint at all", file) >= 0);
    assert_int_equal(fclose(file), 0);
    s.options.checkpoint = path;
    check(fb_fit(&s.options, &arena, &again, &error));
    assert_non_null(again.warning);
    assert_non_null(strstr(again.warning, "began anew"));
    compare(&whole, &again);
    unlink(path);
}

static void test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(void **state)
{
    (void)state;
    char path[64];
    struct subject s;
    struct fb_fit_result result;
    snprintf(path, sizeof path, "/tmp/flowbench-fit-%d.safetensors", (int)getpid());
    make(&s, FB_RECIPE_SAME, "softmax", 50);
    s.recipe.schedule.base = 1e30;
    s.recipe.clip_norm = 0.0;
    s.options.checkpoint = path;
    assert_int_equal(fb_fit(&s.options, &arena, &result, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "the gradient of "));
    assert_non_null(strstr(error.text, "the last good checkpoint is /tmp/flowbench-fit-"));
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
}

static void test_a_prediction_counts_steps_and_evaluations(void **state)
{
    (void)state;
    struct subject s;
    struct fb_fit_cost cost;
    make(&s, FB_RECIPE_TUNED, "softmax", 25);
    check(fb_fit_predict(&s.options, &cost, &error));
    assert_int_equal(cost.steps, 100);
    assert_int_equal(cost.evaluations, 16);
    assert_true(cost.flop > 0.0 && cost.bytes > 0.0 && cost.memory_bytes > 0);
}

static void test_recipes_exist_for_every_task(void **state)
{
    (void)state;
    struct fb_recipe recipe;
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    for (size_t i = 0; i < fb_task_count(); i++)
        for (int kind = 0; kind < FB_RECIPE_COUNT; kind++) {
            const struct fb_task *task = fb_task_at(i);
            const bool words = task->metric == FB_METRIC_PERPLEXITY && task->paper_area;
            const enum fb_status status = fb_recipe_find(task, (enum fb_recipe_kind)kind,
                                                         FB_RECIPE_FULL, flow, &recipe, &error);
            if (words && kind == FB_RECIPE_PAPER) {
                assert_int_equal(status, FB_ERROR_UNSUPPORTED);
                continue;
            }
            check(status);
            assert_int_equal((recipe.epochs > 0) + (recipe.steps > 0), 1);
            assert_int_equal((recipe.evaluate_epochs > 0) + (recipe.evaluate_steps > 0), 1);
            assert_int_equal(recipe.qkv_dim % recipe.heads, 0);
        }
    double params[FB_PARAMS_MAX];
    const int clamp = fb_param_index(flow, "clamp");
    for (int i = 0; i < flow->param_count; i++)
        params[i] = flow->params[i].default_value;
    fb_recipe_set_paper_params(fb_task_find("JapaneseVowels"), flow, params);
    assert_true(params[clamp] == 0.0);
    assert_int_equal(fb_recipe_find(fb_task_find("JapaneseVowels"), FB_RECIPE_PAPER, FB_RECIPE_FULL,
                                    fb_mechanism_find("local"), &recipe, &error),
                     FB_ERROR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_digit_is_learnt_by_every_mechanism),
        cmocka_unit_test(test_an_interrupted_fit_ends_with_the_same_bits),
        cmocka_unit_test(test_the_test_split_is_scored_once_and_as_it_was_selected),
        cmocka_unit_test(test_batches_of_neighbours_are_drawn_from_a_window),
        cmocka_unit_test(test_the_released_pipelines_of_images_batch_before_they_shuffle),
        cmocka_unit_test(test_a_length_replaces_the_recipes_but_never_lengthens_the_released_one),
        cmocka_unit_test(test_a_corrupt_checkpoint_is_told_of_and_costs_time_only),
        cmocka_unit_test(test_a_loss_that_is_not_finite_names_the_last_good_checkpoint),
        cmocka_unit_test(test_a_prediction_counts_steps_and_evaluations),
        cmocka_unit_test(test_recipes_exist_for_every_task),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
