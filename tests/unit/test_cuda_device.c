/* The device of this process: an absent one is an error in words; a present one moves bytes. */
#include "cuda_device.h"
#include "cuda_limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_without_a_device_everything_refuses(void **state)
{
    (void)state;
    if (fb_cuda_is_present())
        skip();
    struct fb_cuda_facts facts;
    struct fb_cuda_timer *timer = NULL;
    struct fb_error error = {.code = FB_OK};
    void *data = &facts;
    assert_int_equal(fb_cuda_read_facts(&facts, &error), FB_ERROR_DEVICE);
    assert_true(strlen(error.text) > 0);
    assert_int_equal(fb_cuda_allocate(64, "x", &data, &error), FB_ERROR_DEVICE);
    assert_null(data);
    assert_int_equal(fb_cuda_timer_new(&timer, &error), FB_ERROR_DEVICE);
    assert_null(timer);
    fb_cuda_release(NULL);
    fb_cuda_timer_destroy(NULL);
}

/* Heads are counted by a grid's second or third dimension, which holds 65535: more are refused in
 * words, and with the remedy. */
static void test_more_heads_than_a_grid_holds_are_refused(void **state)
{
    (void)state;
    static const struct fb_mechanism any = {.name = "any"};
    struct fb_problem problem;
    struct fb_error why = {.code = FB_OK};
    fb_problem_init(&problem, &any, 65535, 1, 16, 8);
    assert_int_equal(fb_cuda_supports(&problem, "any", &why), FB_OK);
    problem.batch = 7000;
    problem.heads = problem.kv_heads = 10;
    assert_int_equal(fb_cuda_supports(&problem, "any", &why), FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "batch times heads is 70000"));
    assert_non_null(strstr(why.text, "split the batch"));
    problem.batch = problem.heads = problem.kv_heads = 1;
    problem.q_len = problem.kv_len = 1 << 24;
    assert_int_equal(fb_cuda_supports(&problem, "any", &why), FB_OK);
    problem.q_len++;
    assert_int_equal(fb_cuda_supports(&problem, "any", &why), FB_ERROR_UNSUPPORTED);
}

static void test_with_a_device_bytes_come_back(void **state)
{
    (void)state;
    if (!fb_cuda_is_present())
        skip();
    enum { BYTES = 1003 };
    unsigned char there[BYTES], back[BYTES];
    void *data = NULL;
    struct fb_error error = {.code = FB_OK};
    for (int i = 0; i < BYTES; i++)
        there[i] = (unsigned char)(i * 7);
    assert_int_equal(fb_cuda_allocate(BYTES, "x", &data, &error), FB_OK);
    assert_int_equal(fb_cuda_upload(data, there, BYTES, &error), FB_OK);
    assert_int_equal(fb_cuda_download(back, data, BYTES, &error), FB_OK);
    assert_memory_equal(there, back, BYTES);
    assert_int_equal(fb_cuda_fill(data, UINT32_C(0x04030201), BYTES, &error), FB_OK);
    assert_int_equal(fb_cuda_download(back, data, BYTES, &error), FB_OK);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(back[i], i % 4 + 1);
    fb_cuda_release(data);
}

/* What the device has not enough of is named, and costs nothing but the request. */
static void test_an_allocation_too_large_is_refused(void **state)
{
    (void)state;
    if (!fb_cuda_is_present())
        skip();
    void *data = NULL;
    struct fb_error error = {.code = FB_OK};
    assert_int_equal(fb_cuda_allocate((size_t)1 << 50, "everything", &data, &error),
                     FB_ERROR_MEMORY);
    assert_non_null(strstr(error.text, "everything"));
    assert_int_equal(fb_cuda_allocate(64, "x", &data, &error), FB_OK);
    fb_cuda_release(data);
}

static void test_a_timer_measures_what_is_between(void **state)
{
    (void)state;
#ifdef FB_CUDA_EMULATED
    skip(); /* there a launch ends before the next: none can wait for the host */
#endif
    if (!fb_cuda_is_present())
        skip();
    const size_t bytes = (size_t)256 << 20;
    struct fb_cuda_timer *timer = NULL;
    struct fb_error error = {.code = FB_OK};
    struct fb_cuda_traffic traffic = {.read = {{NULL, bytes}}};
    double nothing_s = 0.0, touch_s = 0.0;
    assert_int_equal(fb_cuda_timer_new(&timer, &error), FB_OK);
    assert_int_equal(fb_cuda_allocate(bytes, "x", &traffic.read[0].data, &error), FB_OK);
    assert_int_equal(fb_cuda_fill(traffic.read[0].data, 1, bytes, &error), FB_OK);
    assert_int_equal(fb_cuda_touch(&traffic, fb_cuda_timer_stream(timer), &error), FB_OK);
    assert_int_equal(fb_cuda_timer_begin(timer, &error), FB_OK);
    assert_int_equal(fb_cuda_timer_end(timer, &nothing_s, &error), FB_OK);
    assert_int_equal(fb_cuda_timer_evict(timer, &error), FB_OK);
    assert_int_equal(fb_cuda_timer_begin(timer, &error), FB_OK);
    assert_int_equal(fb_cuda_touch(&traffic, fb_cuda_timer_stream(timer), &error), FB_OK);
    assert_int_equal(fb_cuda_timer_end(timer, &touch_s, &error), FB_OK);
    assert_true(touch_s > nothing_s);
    fb_cuda_release(traffic.read[0].data);
    fb_cuda_timer_destroy(timer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_heads_than_a_grid_holds_are_refused),
        cmocka_unit_test(test_without_a_device_everything_refuses),
        cmocka_unit_test(test_with_a_device_bytes_come_back),
        cmocka_unit_test(test_an_allocation_too_large_is_refused),
        cmocka_unit_test(test_a_timer_measures_what_is_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
