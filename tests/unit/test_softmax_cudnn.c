/*
 * Softmax by cuDNN without cuDNN: what is refused in words, that plans are built once, and what a
 * call hands over. $1: a library that computes nothing (fake_cudnn.c). The library is loaded once
 * per process, so each test is a child of its own.
 */
#include "softmax/softmax.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>

static const char *fake;

/* Runs the checks in a child: its exit code is the line that failed. */
static void in_child(int (*check)(void))
{
    int status = 0;
    (void)fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(check());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 0)
        fail_msg("a check failed in line %d", WEXITSTATUS(status));
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__;                                                                       \
    } while (0)

static struct fb_problem a_problem(enum fb_dtype dtype)
{
    struct fb_problem problem;
    fb_problem_init(&problem, &fb_softmax, 2, 4, 40, 64);
    problem.dtype = dtype;
    return problem;
}

static int refuses(const struct fb_problem *problem, const char *words)
{
    struct fb_error why = {.code = FB_OK};
    return fb_attention_supports(&fb_softmax_cudnn, problem, FB_FORWARD, &why) ==
               FB_ERROR_UNSUPPORTED &&
           strstr(why.text, words) != NULL;
}

static int check_absent(void)
{
    const struct fb_problem problem = a_problem(FB_BF16);
    CHECK(setenv("FLOWBENCH_CUDNN", "/no/such/libcudnn.so.9", 1) == 0);
    CHECK(refuses(&problem, "/no/such/libcudnn.so.9 cannot be loaded"));
    CHECK(refuses(&problem, "FLOWBENCH_CUDNN"));
    CHECK(fb_softmax_cudnn_version() == 0);
    return 0;
}

static int check_old(void)
{
    const struct fb_problem problem = a_problem(FB_BF16);
    CHECK(setenv("FLOWBENCH_CUDNN", fake, 1) == 0);
    CHECK(setenv("FAKE_CUDNN_VERSION", "90500", 1) == 0);
    CHECK(refuses(&problem, "is cuDNN 90500, 90600 is the least that serves"));
    return 0;
}

/* Gradients of tails: see cudnn_api.h. */
static int check_tails(void)
{
    struct fb_problem problem = a_problem(FB_BF16);
    struct fb_error why = {.code = FB_OK};
    CHECK(setenv("FLOWBENCH_CUDNN", fake, 1) == 0);
    CHECK(setenv("FAKE_CUDNN_VERSION", "91500", 1) == 0);
    CHECK(fb_attention_supports(&fb_softmax_cudnn, &problem, FB_FORWARD, NULL) == FB_OK);
    CHECK(fb_attention_supports(&fb_softmax_cudnn, &problem, FB_BOTH, &why) ==
          FB_ERROR_UNSUPPORTED);
    CHECK(strstr(why.text, "seq_len is 40; install 91501 or newer") != NULL);
    CHECK(fb_attention_supports(&fb_softmax_cudnn, &problem, FB_BACKWARD, NULL) ==
          FB_ERROR_UNSUPPORTED);
    problem.q_len = problem.kv_len = 256;
    CHECK(fb_attention_supports(&fb_softmax_cudnn, &problem, FB_BOTH, NULL) == FB_OK);
    return 0;
}

static int check_problems(void)
{
    struct fb_problem problem = a_problem(FB_F32);
    static const int64_t lengths[2] = {40, 7};
    CHECK(setenv("FLOWBENCH_CUDNN", fake, 1) == 0);
    CHECK(refuses(&problem, "not f32"));
    problem = a_problem(FB_BF16);
    problem.qk_dim = problem.v_dim = 65;
    CHECK(refuses(&problem, "qk_dim is 65"));
    problem.qk_dim = problem.v_dim = 136;
    CHECK(refuses(&problem, "up to 128"));
    problem = a_problem(FB_BF16);
    problem.kv_heads = 2;
    CHECK(refuses(&problem, "kv_heads"));
    problem = a_problem(FB_BF16);
    problem.kv_lengths = lengths;
    CHECK(refuses(&problem, "lengths"));
    problem = a_problem(FB_F16);
    CHECK(fb_attention_supports(&fb_softmax_cudnn, &problem, FB_BOTH, NULL) == FB_OK);
    CHECK(fb_softmax_cudnn_version() == 91900);
    return 0;
}

static int *counter(const char *name)
{
    void *library = dlopen(fake, RTLD_NOW);
    return library != NULL ? (int *)dlsym(library, name) : NULL;
}

/* Nobody looks at what the pointers point to. */
static struct fb_call a_call(const struct fb_problem *p, unsigned char *memory)
{
    const struct fb_tensor tensor =
        fb_tensor_dense(memory, p->dtype, FB_BNHD, p->batch, p->heads, p->q_len, p->qk_dim);
    return (struct fb_call){.q = tensor,
                            .k = tensor,
                            .v = tensor,
                            .out = tensor,
                            .dout = tensor,
                            .dq = tensor,
                            .dk = tensor,
                            .dv = tensor,
                            .saved = memory,
                            .scratch = memory,
                            .threads = 1};
}

static int check_plans(void)
{
    static _Alignas(256) unsigned char memory[1 << 20];
    struct fb_problem problem = a_problem(FB_BF16);
    struct fb_sizes sizes;
    CHECK(setenv("FLOWBENCH_CUDNN", fake, 1) == 0);
    problem.causal = true;
    fb_attention_sizes(&fb_softmax_cudnn, &problem, 1, &sizes);
    const size_t rows = 2 * 4 * 40 * sizeof(float);
    CHECK(sizes.saved_bytes == rows);
    CHECK(sizes.forward_scratch_bytes == 256);
    CHECK(sizes.backward_scratch_bytes == rows + rows * 64 + 256);
    const int *plans = counter("fake_cudnn_plans"), *runs = counter("fake_cudnn_runs");
    const int *arguments = counter("fake_cudnn_arguments"), *alive = counter("fake_cudnn_alive");
    CHECK(plans != NULL && runs != NULL && arguments != NULL && alive != NULL);
    CHECK(*plans == 3); /* inference, training, backward */
    struct fb_call call = a_call(&problem, memory);
    for (int i = 0; i < 3; i++) {
        call.saved = i == 0 ? NULL : memory;
        CHECK(fb_attention_forward(&fb_softmax_cudnn, &problem, &call, NULL) == FB_OK);
        CHECK(*arguments == (i == 0 ? 6 : 7));
        CHECK(fb_attention_backward(&fb_softmax_cudnn, &problem, &call, NULL) ==
              (i == 0 ? FB_ERROR_INPUT : FB_OK));
    }
    CHECK(*arguments == 14);
    CHECK(*runs == 5);
    CHECK(*plans == 6); /* and those of the other strides */
    CHECK(*alive == 6); /* nothing else is kept */
    call.q.stride[2]++;
    struct fb_error error = {.code = FB_OK};
    CHECK(fb_attention_forward(&fb_softmax_cudnn, &problem, &call, &error) == FB_ERROR_UNSUPPORTED);
    CHECK(strstr(error.text, "rows of q") != NULL);
    for (int64_t n = 1; n <= 200; n++) {
        problem.q_len = problem.kv_len = n;
        fb_attention_sizes(&fb_softmax_cudnn, &problem, 1, &sizes);
    }
    CHECK(*alive == 48); /* the oldest have made room */
    return 0;
}

static int check_refused_plan(void)
{
    static _Alignas(256) unsigned char memory[1 << 17];
    const struct fb_problem problem = a_problem(FB_BF16);
    const struct fb_call call = a_call(&problem, memory);
    struct fb_error error = {.code = FB_OK};
    CHECK(setenv("FLOWBENCH_CUDNN", fake, 1) == 0);
    CHECK(setenv("FAKE_CUDNN_REFUSES", "1", 1) == 0);
    CHECK(fb_attention_forward(&fb_softmax_cudnn, &problem, &call, &error) == FB_ERROR_DEVICE);
    CHECK(strstr(error.text, "cuDNN 91900: no engine serves this attention on this device: "
                             "the fake refuses") != NULL);
    CHECK(*counter("fake_cudnn_alive") == 0);
    return 0;
}

static void test_absent_library_is_refused_with_the_remedy(void **state)
{
    (void)state;
    in_child(check_absent);
}

static void test_old_library_is_refused(void **state)
{
    (void)state;
    in_child(check_old);
}

static void test_gradients_of_tails_need_a_newer_library(void **state)
{
    (void)state;
    in_child(check_tails);
}

static void test_problems_it_lacks_are_refused_in_words(void **state)
{
    (void)state;
    in_child(check_problems);
}

static void test_plans_are_built_once_and_kept(void **state)
{
    (void)state;
    in_child(check_plans);
}

static void test_plan_that_cannot_be_built_is_told_in_cudnns_words(void **state)
{
    (void)state;
    in_child(check_refused_plan);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent_library_is_refused_with_the_remedy),
        cmocka_unit_test(test_old_library_is_refused),
        cmocka_unit_test(test_gradients_of_tails_need_a_newer_library),
        cmocka_unit_test(test_problems_it_lacks_are_refused_in_words),
        cmocka_unit_test(test_plans_are_built_once_and_kept),
        cmocka_unit_test(test_plan_that_cannot_be_built_is_told_in_cudnns_words),
    };
    if (argc != 2) {
        (void)fprintf(stderr, "usage: test_softmax_cudnn LIBRARY\n");
        return 2;
    }
    fake = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
