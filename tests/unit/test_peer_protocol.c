/* What an external program is told, and how its answers are read, hostile ones included. */
#include "peer_protocol.h"

#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fb_peer_tensors some_tensors(void)
{
    struct fb_peer_tensors tensors = {.count = 2, .total_bytes = 8192};
    tensors.items[0] = (struct fb_peer_tensor){
        .name = "q",
        .view = fb_tensor_dense(NULL, FB_F32, FB_BNHD, 1, 2, 8, 16),
        .bytes = 1024,
    };
    tensors.items[1] = tensors.items[0];
    tensors.items[1].name = "out";
    tensors.items[1].written = true;
    tensors.items[1].offset_bytes = 4096;
    return tensors;
}

static enum fb_status parse(enum fb_peer_request request, const char *line,
                            struct fb_peer_answer *answer, struct fb_error *error)
{
    const struct fb_peer_tensors tensors = some_tensors();
    return fb_peer_parse(request, line, strlen(line), &tensors, answer, error);
}

static void test_prepare_names_case_memory_and_tensors(void **state)
{
    (void)state;
    const struct fb_case item = {.id = "0123456789abcdef",
                                 .mechanism = fb_mechanism_find("softmax"),
                                 .variant = "torch-sdpa",
                                 .program = "torch",
                                 .isa = FB_ISA_SCALAR,
                                 .threads = 3,
                                 .batch = 1,
                                 .heads = 2,
                                 .seq_len = 8,
                                 .kv_len = 8,
                                 .head_dim = 16,
                                 .value_dim = 16};
    const struct fb_peer_tensors tensors = some_tensors();
    const char *variant, *role;
    int fd, threads, offset, stride;
    json_t *json = fb_peer_say_prepare(&item, &tensors, 3);
    assert_non_null(json);
    assert_int_equal(json_unpack(json, "{s:{s:s, s:i}, s:{s:i}, s:{s:{s:s, s:i, s:[i]}}}", "case",
                                 "variant", &variant, "threads", &threads, "memory", "fd", &fd,
                                 "tensors", "out", "role", &role, "offset", &offset, "strides",
                                 &stride),
                     0);
    assert_string_equal(variant, "torch-sdpa");
    assert_string_equal(role, "out");
    assert_int_equal(threads, 3);
    assert_int_equal(fd, 3);
    assert_int_equal(offset, 4096);
    assert_int_equal(stride, 8 * 2 * 16);
    json_decref(json);
}

static void test_good_answers_are_read(void **state)
{
    (void)state;
    struct fb_peer_answer answer;
    struct fb_error error;
    assert_int_equal(
        parse(FB_PEER_HELLO, "{\"protocol\": 1, \"version\": \"T 2\"}", &answer, &error), FB_OK);
    assert_string_equal(answer.text, "T 2");
    assert_int_equal(parse(FB_PEER_PREPARE, "{\"ready\":true}", &answer, &error), FB_OK);
    assert_int_equal(answer.device_peak_bytes, -1);
    assert_int_equal(
        parse(FB_PEER_PREPARE, "{\"ready\":true,\"device_peak_bytes\":7}", &answer, &error), FB_OK);
    assert_int_equal(answer.device_peak_bytes, 7);
    assert_int_equal(parse(FB_PEER_CALL, "{\"time_s\": 1e-3, \"other\": [1]}", &answer, &error),
                     FB_OK);
    assert_true(answer.time_s > 0.9e-3 && answer.time_s < 1.1e-3);
    assert_true(isnan(answer.device_time_s));
    assert_int_equal(parse(FB_PEER_CALL, "{\"time_s\": 2, \"device_time_s\": 1}", &answer, &error),
                     FB_OK);
    assert_true(answer.device_time_s > 0.9 && answer.time_s > 1.9);
    assert_int_equal(parse(FB_PEER_STORE, "{\"stored\":{\"out\":[1,2,8,16]}}", &answer, &error),
                     FB_OK);
    assert_int_equal(answer.verdict, FB_PEER_DONE);
}

/* Whatever was asked; and its words are fit for a table and a terminal. */
static void test_refusals_answer_every_request(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum fb_peer_verdict verdict;
    } cases[] = {{"{\"skip\": \"a\\n\\u001b[31mb\\u00e9\"}", FB_PEER_SKIP},
                 {"{\"oom\": \"a\\n\\u001b[31mb\\u00e9\"}", FB_PEER_OOM},
                 {"{\"error\": \"a\\n\\u001b[31mb\\u00e9\"}", FB_PEER_FAILED}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int request = FB_PEER_HELLO; request <= FB_PEER_STORE; request++) {
            struct fb_peer_answer answer;
            struct fb_error error;
            assert_int_equal(parse((enum fb_peer_request)request, cases[i].line, &answer, &error),
                             FB_OK);
            assert_int_equal(answer.verdict, cases[i].verdict);
            assert_string_equal(answer.text, "a ?[31mb??");
        }
    }
}

static void test_hostile_answers_are_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        enum fb_peer_request request;
        const char *line, *words;
    } cases[] = {
        {FB_PEER_HELLO, "", "one JSON object"},
        {FB_PEER_HELLO, "\x1b]0;x\x07", "not '?]0;x?'"},
        {FB_PEER_HELLO, "[1]", "one JSON object"},
        {FB_PEER_HELLO, "{\"protocol\":1}", "a version"},
        {FB_PEER_HELLO, "{\"protocol\":1.0,\"version\":\"x\"}", "integer"},
        {FB_PEER_HELLO, "{\"protocol\":9,\"version\":\"x\"}", "speaks protocol 9"},
        {FB_PEER_HELLO, "{\"protocol\":1,\"protocol\":1,\"version\":\"x\"}", "one JSON object"},
        {FB_PEER_PREPARE, "{\"ready\":1}", "ready: true"},
        {FB_PEER_PREPARE, "{\"ready\":true,\"device_peak_bytes\":-1}", "at least 0"},
        {FB_PEER_PREPARE, "{\"ready\":true,\"device_peak_bytes\":1.5}", "an integer"},
        {FB_PEER_PREPARE, "{\"ready\":true,\"device_peak_bytes\":1e30}", "an integer"},
        {FB_PEER_CALL, "{\"time_s\":0}", "above 0"},
        {FB_PEER_CALL, "{\"time_s\":-1}", "above 0"},
        {FB_PEER_CALL, "{\"time_s\":\"1\"}", "above 0"},
        {FB_PEER_CALL, "{\"time_s\":1e999}", "one JSON object"},
        {FB_PEER_CALL, "{\"time_s\":NaN}", "one JSON object"},
        {FB_PEER_CALL, "{\"time_s\":1,\"device_time_s\":null}", "device_time_s"},
        {FB_PEER_CALL, "{\"error\":5}", "time_s"},
        {FB_PEER_STORE, "{\"stored\":[]}", "the shape of each output"},
        {FB_PEER_STORE, "{\"stored\":{}}", "out does not have the shape [1, 2, 8, 16]"},
        {FB_PEER_STORE, "{\"stored\":{\"out\":[1,2,8]}}", "does not have the shape"},
        {FB_PEER_STORE, "{\"stored\":{\"out\":[1,2,16,8]}}", "does not have the shape"},
        {FB_PEER_STORE, "{\"stored\":{\"out\":[1,2,8,16.0]}}", "does not have the shape"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fb_peer_answer answer;
        struct fb_error error = {FB_OK, ""};
        assert_int_equal(parse(cases[i].request, cases[i].line, &answer, &error), FB_ERROR_INPUT);
        if (!strstr(error.text, cases[i].words)) {
            fail_msg("'%s' is refused with: %s", cases[i].line, error.text);
        }
    }
}

static void test_requests_name_device_and_eviction(void **state)
{
    (void)state;
    const char *device;
    int calls, evict;
    json_t *json = fb_peer_say_hello(FB_CUDA);
    assert_int_equal(json_unpack(json, "{s:s}", "device", &device), 0);
    assert_string_equal(device, "cuda");
    json_decref(json);
    json = fb_peer_say_call(3, true);
    assert_int_equal(json_unpack(json, "{s:i, s:b}", "calls", &calls, "evict", &evict), 0);
    assert_int_equal(calls, 3);
    assert_true(evict);
    json_decref(json);
}

/* A device has a clock of its own, a CPU has not. */
static void test_times_fit_the_device(void **state)
{
    (void)state;
    struct fb_peer_answer answer;
    struct fb_error error;
    assert_int_equal(parse(FB_PEER_CALL, "{\"time_s\": 2}", &answer, &error), FB_OK);
    assert_int_equal(fb_peer_check_times(FB_CPU, &answer, &error), FB_OK);
    assert_int_equal(fb_peer_check_times(FB_CUDA, &answer, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "tells no device_time_s: on device: cuda"));
    assert_int_equal(parse(FB_PEER_CALL, "{\"time_s\": 2, \"device_time_s\": 1}", &answer, &error),
                     FB_OK);
    assert_int_equal(fb_peer_check_times(FB_CUDA, &answer, &error), FB_OK);
    assert_int_equal(fb_peer_check_times(FB_CPU, &answer, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "device: cpu does not have"));
}

/* A line ends where its length says: sanitizers see a byte too much. */
static void test_no_byte_beyond_the_line_is_read(void **state)
{
    (void)state;
    static const char text[] = "{\"time_s\": 0.1true}";
    struct fb_peer_answer answer;
    struct fb_error error = {FB_OK, ""};
    const size_t length = sizeof text - 1;
    char *line = malloc(length);
    assert_non_null(line);
    memcpy(line, text, length);
    assert_int_equal(fb_peer_parse(FB_PEER_CALL, line, length, NULL, &answer, &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, text));
    free(line);
}

static void test_deep_and_long_answers_are_refused(void **state)
{
    (void)state;
    struct fb_peer_answer answer;
    struct fb_error error;
    char *line = malloc(FB_PEER_LINE_MAX);
    assert_non_null(line);
    memset(line, '[', FB_PEER_LINE_MAX);
    assert_int_equal(fb_peer_parse(FB_PEER_CALL, line, FB_PEER_LINE_MAX, NULL, &answer, &error),
                     FB_ERROR_INPUT);
    memset(line, 0, FB_PEER_LINE_MAX);
    assert_int_equal(fb_peer_parse(FB_PEER_CALL, line, FB_PEER_LINE_MAX, NULL, &answer, &error),
                     FB_ERROR_INPUT);
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepare_names_case_memory_and_tensors),
        cmocka_unit_test(test_good_answers_are_read),
        cmocka_unit_test(test_refusals_answer_every_request),
        cmocka_unit_test(test_hostile_answers_are_refused_in_words),
        cmocka_unit_test(test_requests_name_device_and_eviction),
        cmocka_unit_test(test_times_fit_the_device),
        cmocka_unit_test(test_no_byte_beyond_the_line_is_read),
        cmocka_unit_test(test_deep_and_long_answers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
