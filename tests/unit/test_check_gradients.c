/*
 * Softmax gradients of long sequences: rows of dk and dv are too dear for the oracle, the sums over
 * all keys are not.
 */
#include "measure_check_parts.h"

#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS = 8192, DIM = 4, ELEMENTS = TOKENS * DIM };

static const struct fb_mechanism softmax_like = {.name = "softmax"};

struct fixture {
    float *room;
    struct fb_check_request request;
    struct fb_measure_result result;
};

/* Without dout every gradient is zero. */
static void set_up(struct fixture *f)
{
    f->room = calloc(8 * (size_t)ELEMENTS, sizeof *f->room);
    assert_non_null(f->room);
    f->request = (struct fb_check_request){
        .mechanism = &softmax_like, .rows = TOKENS, .gradients = true, .seed = 3, .threads = 2};
    fb_problem_init(&f->request.problem, &softmax_like, 1, 1, TOKENS, DIM);
    struct fb_call *call = &f->request.call;
    struct fb_tensor *const tensors[] = {&call->q,    &call->k,  &call->v,  &call->out,
                                         &call->dout, &call->dq, &call->dk, &call->dv};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        *tensors[i] = fb_tensor_dense(f->room + i * ELEMENTS, FB_F32, FB_BHND, 1, 1, TOKENS, DIM);
        if (i < 3)
            fb_random_fill_normal_f32(tensors[i]->data, ELEMENTS, 1.0F, 5, i, 2);
    }
    fb_measure_result_init(&f->result);
    f->result.status = FB_MEASURE_OK;
}

static void check(struct fixture *f)
{
    struct fb_error error;
    assert_int_equal(fb_check_gradients(&f->request, &f->result, &error), FB_OK);
}

static void test_gradients_right_sums_pass(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    check(&f);
    assert_string_equal(f.result.reason, "");
    assert_int_equal(f.result.status, FB_MEASURE_OK);
    free(f.room);
}

static void test_gradients_wrong_sum_is_wrong_and_named(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    for (int i = 0; i < ELEMENTS; i++)
        ((float *)f.request.call.dv.data)[i] = 1e-3F;
    check(&f);
    assert_int_equal(f.result.status, FB_MEASURE_WRONG);
    assert_int_equal(strncmp(f.result.reason, "dv: the sum over all keys is off by", 35), 0);
    free(f.room);
}

/* Over one key the weights are 1 whatever q and k are: dq and dk are zero but for rounding. */
static void test_gradients_zero_by_cancellation_may_be_rounding(void **state)
{
    (void)state;
    const float roundings[] = {1e-6F, 1e-2F};
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        set_up(&f);
        struct fb_call *call = &f.request.call;
        struct fb_tensor *const tensors[] = {&call->q,    &call->k,  &call->v,  &call->out,
                                             &call->dout, &call->dq, &call->dk, &call->dv};
        for (size_t t = 0; t < sizeof tensors / sizeof tensors[0]; t++)
            tensors[t]->shape[2] = 1;
        f.request.problem.q_len = f.request.problem.kv_len = f.request.rows = 1;
        for (int c = 0; c < DIM; c++) {
            ((float *)call->dout.data)[c] = ((float *)call->dv.data)[c] = 1.0F + (float)c;
            ((float *)call->dq.data)[c] = ((float *)call->dk.data)[c] = roundings[i];
        }
        check(&f);
        assert_int_equal(f.result.status, i == 0 ? FB_MEASURE_OK : FB_MEASURE_WRONG);
        assert_true(i == 1 || f.result.err_rel <= f.result.err_budget);
        free(f.room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_right_sums_pass),
        cmocka_unit_test(test_gradients_wrong_sum_is_wrong_and_named),
        cmocka_unit_test(test_gradients_zero_by_cancellation_may_be_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
