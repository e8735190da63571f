/*
 * Checking a variant against a golden file, with variants that are made up: one that copies the
 * file's own answers passes, gradients included, and any planted fault fails. Also that a file
 * which contradicts itself is refused.
 */
#include "golden.h"

#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *golden_path = "tests/golden/golden-flow-0.safetensors";

/* What the made-up variants compute: the answers of the file, and which of them is spoilt. The
 * interface hands no context to a variant, hence globals. */
enum fault { NO_FAULT, FAULT_OUT, FAULT_DQ, FAULT_DK, FAULT_DV, FAULT_NAN, FAULT_UNWRITTEN };
static const struct fb_golden *answers;
static enum fault planted;

static void copy_answer(const struct fb_tensor *to, const struct fb_tensor *from, bool spoil)
{
    const int64_t count = fb_tensor_count(from);
    for (int64_t i = 0; i < count; i++)
        ((float *)to->data)[i] = (float)((const double *)from->data)[i];
    if (spoil)
        ((float *)to->data)[count / 2] += 0.01f;
}

static void fake_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    (void)problem;
    (void)threads;
    *sizes = (struct fb_sizes){.saved_bytes = 64, .backward_scratch_bytes = 128};
}

static enum fb_status fake_forward(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    (void)problem;
    (void)error;
    copy_answer(&call->out, &answers->out, planted == FAULT_OUT);
    float *last = (float *)call->out.data + fb_tensor_count(&call->out) - 1;
    if (planted == FAULT_NAN)
        *last = NAN;
    if (planted == FAULT_UNWRITTEN)
        memset(last, 0xff, sizeof *last);
    if (call->saved)
        memcpy(call->saved, "saved by forward", 16);
    return FB_OK;
}

static enum fb_status fake_backward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    (void)problem;
    if (!call->saved || memcmp(call->saved, "saved by forward", 16) != 0)
        return fb_error_set(error, FB_ERROR_INTERNAL, "backward did not get what forward saved");
    copy_answer(&call->dq, &answers->dq, planted == FAULT_DQ);
    copy_answer(&call->dk, &answers->dk, planted == FAULT_DK);
    copy_answer(&call->dv, &answers->dv, planted == FAULT_DV);
    return FB_OK;
}

static enum fb_status fake_refusal(const struct fb_problem *problem, enum fb_pass pass,
                                   struct fb_error *why)
{
    (void)problem;
    (void)pass;
    return fb_error_set(why, FB_ERROR_UNSUPPORTED, "not today");
}

struct fixture {
    struct fb_arena arena;
    struct fb_golden golden;
    struct fb_attention with_gradients, forward_only;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct fb_error error = {0};
    if (!f)
        return -1;
    fb_arena_init(&f->arena, 0);
    if (fb_golden_read(&f->golden, golden_path, &f->arena, &error) != FB_OK) {
        printf("%s\n", error.text);
        fb_arena_free(&f->arena);
        free(f);
        return -1;
    }
    f->with_gradients = (struct fb_attention){.mechanism = f->golden.mechanism,
                                              .variant = "fake",
                                              .backend = FB_CPU,
                                              .sizes = fake_sizes,
                                              .forward = fake_forward,
                                              .backward = fake_backward};
    f->forward_only = f->with_gradients;
    f->forward_only.backward = NULL;
    answers = &f->golden;
    planted = NO_FAULT;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fb_arena_free(&f->arena);
    free(f);
    return 0;
}

static void test_read_golden_has_its_problem(void **state)
{
    const struct fixture *f = *state;
    const struct fb_problem *p = &f->golden.problem;
    assert_string_equal(f->golden.mechanism->name, "flow");
    assert_false(p->causal);
    assert_true(p->batch == 2 && p->heads == 3 && p->kv_heads == 3);
    assert_true(p->q_len == 37 && p->kv_len == 53 && p->qk_dim == 16 && p->v_dim == 24);
}

static void test_check_right_answers_pass_with_gradients(void **state)
{
    struct fixture *f = *state;
    struct fb_golden_check check;
    struct fb_error error = {0};
    if (fb_golden_check_variant(&f->golden, &f->with_gradients, 1, &check, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_true(check.passed && check.has_gradients);
    assert_true(check.dq.elements > 0 && check.dk.elements > 0 && check.dv.elements > 0);
    assert_true(check.out.budget == 1e-5 && check.dv.budget == 5e-5);
}

static void test_check_variant_without_backward_has_no_gradients(void **state)
{
    struct fixture *f = *state;
    struct fb_golden_check check;
    struct fb_error error = {0};
    assert_int_equal(fb_golden_check_variant(&f->golden, &f->forward_only, 1, &check, &error),
                     FB_OK);
    assert_true(check.passed);
    assert_false(check.has_gradients);
}

static void test_check_every_planted_fault_fails(void **state)
{
    struct fixture *f = *state;
    for (int fault = FAULT_OUT; fault <= FAULT_UNWRITTEN; fault++) {
        struct fb_golden_check check;
        struct fb_error error = {0};
        planted = (enum fault)fault;
        assert_int_equal(fb_golden_check_variant(&f->golden, &f->with_gradients, 1, &check, &error),
                         FB_OK);
        assert_false(check.passed);
        assert_true(check.out.passed_golden == (fault >= FAULT_DQ && fault <= FAULT_DV));
        assert_true(check.dq.passed_golden == (fault != FAULT_DQ));
        assert_true(check.dk.passed_golden == (fault != FAULT_DK));
        assert_true(check.dv.passed_golden == (fault != FAULT_DV));
    }
}

static void test_check_refusal_is_passed_on(void **state)
{
    struct fixture *f = *state;
    struct fb_golden_check check;
    struct fb_error error = {0};
    f->forward_only.supports = fake_refusal;
    assert_int_equal(fb_golden_check_variant(&f->golden, &f->forward_only, 1, &check, &error),
                     FB_ERROR_UNSUPPORTED);
    assert_string_equal(error.text, "not today");
}

/* A file with the tensors of the golden file, but for one whose last dimension is one shorter. */
static void test_read_shapes_that_contradict_are_refused(void **state)
{
    (void)state;
    struct fb_error error = {0};
    struct fb_safetensors file;
    assert_int_equal(fb_safetensors_open(&file, golden_path, &error), FB_OK);
    char path[] = "/tmp/test_golden.XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < file.tensor_count; i++) {
        struct fb_safetensors_tensor *t = &file.tensors[i];
        struct fb_arena arena;
        struct fb_golden golden;
        fb_arena_init(&arena, 0);
        t->shape[3]--;
        assert_int_equal(fb_safetensors_write(path, file.tensors, file.tensor_count, file.metadata,
                                              file.metadata_count, &error),
                         FB_OK);
        assert_int_equal(fb_golden_read(&golden, path, &arena, &error), FB_ERROR_INPUT);
        assert_non_null(strstr(error.text, path));
        t->shape[3]++;
        fb_arena_free(&arena);
    }
    unlink(path);
    fb_safetensors_close(&file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_read_golden_has_its_problem),
        TEST(test_check_right_answers_pass_with_gradients),
        TEST(test_check_variant_without_backward_has_no_gradients),
        TEST(test_check_every_planted_fault_fails),
        TEST(test_check_refusal_is_passed_on),
        TEST(test_read_shapes_that_contradict_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
