/*
 * One worker's life for backward, both and decode, with a mechanism whose answers are the oracle's:
 * what is timed, what is kept, and that a wrong gradient or token is found and named.
 */
#include "measure.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum behaviour { RIGHT, WRONG_DK, UNWRITTEN_DV, DQ_DIFFERS_LATER, WRONG_TOKEN };

static const double forward_s = 0.05, backward_s = 0.01, decode_s = 0.001;
enum { SAVED_BYTES = 256, FORWARD_SCRATCH = 1024, BACKWARD_SCRATCH = 4096, CONSTANT_MARK = 77 };

/* The script of the fake mechanism: fb_attention carries no context of its own. */
static struct {
    enum behaviour behaviour;
    int forwards, backwards, decodes;
    int64_t most_tokens; /* that a state has held */
    struct fb_clock_fake clock;
} script;

static const struct fb_mechanism linear_like;

static int64_t *all_rows(int64_t count)
{
    int64_t *rows = calloc((size_t)count, sizeof *rows);
    assert_non_null(rows);
    for (int64_t i = 0; i < count; i++)
        rows[i] = i;
    return rows;
}

static void narrow(float *to, const double *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)from[i];
}

static enum fb_status fake_forward(const struct fb_problem *p, const struct fb_call *call,
                                   struct fb_error *error)
{
    script.forwards++;
    fb_clock_fake_advance(&script.clock, forward_s);
    int64_t *rows = all_rows(p->q_len);
    double *out = calloc((size_t)(p->q_len * p->v_dim), sizeof *out);
    assert_non_null(out);
    enum fb_status status = FB_OK;
    for (int64_t i = 0; i < p->batch * p->heads && status == FB_OK; i++) {
        const int64_t b = i / p->heads, h = i % p->heads;
        status =
            fb_oracle_forward_rows(&linear_like, p, call, b, h, rows, (size_t)p->q_len, out, error);
        for (int64_t t = 0; t < p->q_len; t++)
            narrow(fb_tensor_row_f32(&call->out, b, h, t), out + t * p->v_dim, p->v_dim);
    }
    if (call->saved)
        memset(call->saved, CONSTANT_MARK, SAVED_BYTES);
    free(rows);
    free(out);
    return status;
}

static void write_head(const struct fb_problem *p, const struct fb_call *call, int64_t b, int64_t h,
                       const struct fb_oracle_gradients *found)
{
    for (int64_t t = 0; t < p->q_len; t++)
        narrow(fb_tensor_row_f32(&call->dq, b, h, t), found->dq + t * p->qk_dim, p->qk_dim);
    const int64_t kv_h = h / (p->heads / p->kv_heads);
    const int64_t written = script.behaviour == UNWRITTEN_DV ? p->kv_len - 1 : p->kv_len;
    for (int64_t t = 0; t < p->kv_len; t++)
        narrow(fb_tensor_row_f32(&call->dk, b, kv_h, t), found->dk + t * p->qk_dim, p->qk_dim);
    for (int64_t t = 0; t < written; t++)
        narrow(fb_tensor_row_f32(&call->dv, b, kv_h, t), found->dv + t * p->v_dim, p->v_dim);
}

static enum fb_status fake_backward(const struct fb_problem *p, const struct fb_call *call,
                                    struct fb_error *error)
{
    script.backwards++;
    fb_clock_fake_advance(&script.clock, backward_s);
    for (int i = 0; i < SAVED_BYTES; i++)
        if (((const unsigned char *)call->saved)[i] != CONSTANT_MARK)
            return fb_error_set(error, FB_ERROR_INTERNAL, "saved is not what forward saved");
    int64_t *q_rows = all_rows(p->q_len), *kv_rows = all_rows(p->kv_len);
    double *room =
        calloc((size_t)(p->q_len * p->qk_dim + p->kv_len * (p->qk_dim + p->v_dim)), sizeof *room);
    assert_non_null(room);
    const struct fb_oracle_gradients wanted = {
        q_rows,
        (size_t)p->q_len,
        room,
        kv_rows,
        (size_t)p->kv_len,
        room + p->q_len * p->qk_dim,
        room + (p->q_len + p->kv_len) * p->qk_dim,
        NULL,
        0.0,
    };
    enum fb_status status = FB_OK;
    for (int64_t i = 0; i < p->batch * p->heads && status == FB_OK; i++) {
        status = fb_oracle_backward_rows(&linear_like, p, call, i / p->heads, i % p->heads, &wanted,
                                         error);
        write_head(p, call, i / p->heads, i % p->heads, &wanted);
    }
    if (script.behaviour == WRONG_DK)
        fb_tensor_row_f32(&call->dk, 0, 0, p->kv_len - 1)[0] += 0.5F;
    if (script.behaviour == DQ_DIFFERS_LATER && script.backwards >= 4)
        fb_tensor_row_f32(&call->dq, 0, 0, 0)[0] += 1e-6F;
    free(q_rows);
    free(kv_rows);
    free(room);
    return status;
}

/* ---- decoding: a cache of keys and values, and the oracle's causal forward over it -------------
 */

static int64_t cache_floats(const struct fb_problem *p)
{
    return p->batch * p->heads * p->kv_len * (p->qk_dim + p->v_dim);
}

/* Appends the token and answers its query; all heads have as many keys as queries here. */
static enum fb_status answer_token(const struct fb_problem *p, const struct fb_call *call,
                                   float *cache, int64_t token, struct fb_error *error)
{
    const int64_t heads = p->batch * p->heads;
    float *keys = cache, *values = cache + heads * p->kv_len * p->qk_dim;
    float *queries = calloc((size_t)(heads * p->kv_len * p->qk_dim), sizeof *queries);
    double *out = calloc((size_t)p->v_dim, sizeof *out);
    assert_non_null(queries);
    assert_non_null(out);
    struct fb_problem prefix = *p;
    prefix.q_len = prefix.kv_len = token + 1;
    prefix.causal = true;
    struct fb_call whole = *call;
    whole.q = fb_tensor_dense(queries, FB_F32, FB_BHND, p->batch, p->heads, p->kv_len, p->qk_dim);
    whole.k = fb_tensor_dense(keys, FB_F32, FB_BHND, p->batch, p->heads, p->kv_len, p->qk_dim);
    whole.v = fb_tensor_dense(values, FB_F32, FB_BHND, p->batch, p->heads, p->kv_len, p->v_dim);
    whole.q.shape[2] = whole.k.shape[2] = whole.v.shape[2] = token + 1;
    enum fb_status status = FB_OK;
    for (int64_t i = 0; i < heads && status == FB_OK; i++) {
        const int64_t b = i / p->heads, h = i % p->heads;
        const size_t qk_bytes = (size_t)p->qk_dim * sizeof(float);
        memcpy(fb_tensor_row_f32(&whole.q, b, h, token), fb_tensor_row_f32(&call->q, b, h, 0),
               qk_bytes);
        memcpy(fb_tensor_row_f32(&whole.k, b, h, token), fb_tensor_row_f32(&call->k, b, h, 0),
               qk_bytes);
        memcpy(fb_tensor_row_f32(&whole.v, b, h, token), fb_tensor_row_f32(&call->v, b, h, 0),
               (size_t)p->v_dim * sizeof(float));
        status = fb_oracle_forward_rows(&linear_like, &prefix, &whole, b, h, &token, 1, out, error);
        narrow(fb_tensor_row_f32(&call->out, b, h, 0), out, p->v_dim);
    }
    free(queries);
    free(out);
    return status;
}

static enum fb_status fake_decode(const struct fb_problem *p, const struct fb_call *call,
                                  struct fb_error *error)
{
    int64_t *count = call->decode_state;
    script.decodes++;
    fb_clock_fake_advance(&script.clock, decode_s);
    if (*count >= p->kv_len)
        return fb_error_set(error, FB_ERROR_INPUT, "the state is full");
    float *cache = (float *)((unsigned char *)call->decode_state + FB_ALIGNMENT);
    const enum fb_status status = answer_token(p, call, cache, *count, error);
    ++*count;
    script.most_tokens = *count > script.most_tokens ? *count : script.most_tokens;
    if (script.behaviour == WRONG_TOKEN)
        fb_tensor_row_f32(&call->out, p->batch - 1, p->heads - 1, 0)[2] += 0.25F;
    return status;
}

static void fake_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    (void)threads;
    *sizes = (struct fb_sizes){
        .saved_bytes = SAVED_BYTES,
        .forward_scratch_bytes = FORWARD_SCRATCH,
        .backward_scratch_bytes = BACKWARD_SCRATCH,
        .decode_state_bytes = FB_ALIGNMENT + (size_t)cache_floats(problem) * sizeof(float),
    };
}

static void fake_cost(const struct fb_problem *problem, enum fb_pass pass, struct fb_cost *cost)
{
    *cost = (struct fb_cost){.flop = (pass == FB_DECODE ? 1.0 : 1000.0) * (double)problem->kv_len,
                             .bytes_min = 4096.0};
}

/* Only its oracle is that of linear attention. */
static const struct fb_mechanism linear_like = {
    .name = "linear", .title = "fake", .cost = fake_cost};

static const struct fb_attention fake = {
    .mechanism = &linear_like,
    .variant = "scripted",
    .backend = FB_CPU,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .sizes = fake_sizes,
    .forward = fake_forward,
    .backward = fake_backward,
    .decode = fake_decode,
};

/* ---- the tests ------------------------------------------------------------------------------- */

static struct fb_case case_of(enum fb_pass pass)
{
    return (struct fb_case){
        .id = "0123456789abcdef",
        .mechanism = &linear_like,
        .variant = "scripted",
        .device = FB_CPU,
        .threads = 2,
        .dtype = FB_F32,
        .layout = FB_BNHD,
        .pass = pass,
        .batch = 2,
        .heads = 2,
        .seq_len = 19,
        .kv_len = 19,
        .head_dim = 8,
        .value_dim = 6,
        .seed = 7,
    };
}

static void measure(const struct fb_case *item, enum behaviour behaviour, bool floor,
                    struct fb_measure_result *result)
{
    const struct fb_measure_settings settings = {.warmup_s = 0.0,
                                                 .precision = 0.01,
                                                 .min_samples = 6,
                                                 .samples = 7,
                                                 .max_time_s = 1000.0,
                                                 .cache = FB_CACHE_COLD,
                                                 .processes = 1};
    const struct fb_limits limits = {.memory_bytes = (size_t)256 << 20};
    struct fb_clock clock;
    memset(&script, 0, sizeof script);
    script.behaviour = behaviour;
    fb_clock_init_fake(&clock, &script.clock);
    struct fb_measure_options options;
    fb_measure_options_init(&options);
    options.attention = &fake;
    options.clock = floor ? NULL : &clock;
    options.floor = floor;
    struct fb_error error;
    assert_int_equal(fb_measure_case(item, &settings, &limits, &options, result, &error), FB_OK);
}

static void assert_ok(const struct fb_measure_result *result)
{
    assert_string_equal(result->reason, "");
    assert_int_equal(result->status, FB_MEASURE_OK);
}

static void assert_samples(const struct fb_measure_result *result, double wanted_s)
{
    assert_int_equal(result->samples_count, 7);
    for (size_t i = 0; i < result->samples_count; i++)
        assert_true(fabs(result->samples_s[i] - wanted_s) < 1e-12);
}

static void test_backward_times_only_the_backward_call(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_BACKWARD);
    struct fb_measure_result result;
    measure(&item, RIGHT, false, &result);
    assert_ok(&result);
    assert_samples(&result, backward_s);
    assert_int_equal(script.forwards, 1);
    assert_int_equal(result.mem_saved_bytes, SAVED_BYTES);
    assert_int_equal(result.mem_workspace_bytes, BACKWARD_SCRATCH);
    assert_int_equal(result.mem_state_bytes, -1);
    assert_true(result.err_rel >= 0.0 && result.err_rel < 1e-6);
    assert_int_equal(strlen(result.output_hash), 16);
    fb_measure_result_free(&result);
}

static void test_both_times_the_two_calls_in_one_sample(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_BOTH);
    struct fb_measure_result result;
    measure(&item, RIGHT, false, &result);
    assert_ok(&result);
    assert_samples(&result, forward_s + backward_s);
    assert_int_equal(script.forwards, script.backwards);
    assert_int_equal(result.mem_saved_bytes, SAVED_BYTES);
    fb_measure_result_free(&result);
}

static void test_forward_saves_nothing(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_FORWARD);
    struct fb_measure_result result;
    measure(&item, RIGHT, false, &result);
    assert_ok(&result);
    assert_samples(&result, forward_s);
    assert_int_equal(result.mem_saved_bytes, 0);
    assert_int_equal(result.mem_workspace_bytes, FORWARD_SCRATCH);
    fb_measure_result_free(&result);
}

static void test_hash_covers_every_output_of_the_pass(void **state)
{
    (void)state;
    char hashes[3][FB_MEASURE_HASH_SIZE];
    const enum fb_pass passes[3] = {FB_FORWARD, FB_BACKWARD, FB_BOTH};
    for (int i = 0; i < 3; i++) {
        const struct fb_case item = case_of(passes[i]);
        struct fb_measure_result result;
        measure(&item, RIGHT, false, &result);
        memcpy(hashes[i], result.output_hash, sizeof hashes[i]);
        fb_measure_result_free(&result);
    }
    assert_string_not_equal(hashes[0], hashes[1]);
    assert_string_not_equal(hashes[0], hashes[2]);
    assert_string_not_equal(hashes[1], hashes[2]);
}

static void assert_wrong(const struct fb_case *item, enum behaviour behaviour, const char *reason)
{
    struct fb_measure_result result;
    measure(item, behaviour, false, &result);
    assert_int_equal(result.status, FB_MEASURE_WRONG);
    if (strncmp(result.reason, reason, strlen(reason)) != 0 && !strstr(result.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", result.reason, reason);
    assert_int_equal(result.samples_count, 0);
    fb_measure_result_free(&result);
}

static void test_wrong_gradient_is_named_and_gets_no_time(void **state)
{
    (void)state;
    const enum fb_pass passes[] = {FB_BACKWARD, FB_BOTH};
    for (int i = 0; i < 2; i++) {
        const struct fb_case item = case_of(passes[i]);
        assert_wrong(&item, WRONG_DK, "dk: err_max");
        assert_wrong(&item, UNWRITTEN_DV, "24 of 456 elements of dv were never written");
        assert_wrong(&item, DQ_DIFFERS_LATER, "differs from the first's");
    }
}

static void test_error_of_the_row_is_the_worst_relative_to_its_budget(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_BOTH);
    struct fb_measure_result result;
    measure(&item, WRONG_DK, false, &result);
    assert_true(result.err_budget > 4e-5); /* that of gradients */
    assert_true(result.err_max > result.err_budget);
    fb_measure_result_free(&result);
}

static void test_grouped_queries_and_random_lengths_are_right(void **state)
{
    (void)state;
    struct fb_case item = case_of(FB_BOTH);
    item.heads = 4;
    item.kv_heads = 2;
    item.lengths = FB_LENGTHS_RANDOM;
    struct fb_measure_result result;
    measure(&item, RIGHT, false, &result);
    assert_ok(&result);
    assert_true(result.flop < 2.0 * 19000.0 + 1.0); /* of the valid tokens only */
    fb_measure_result_free(&result);
}

static void test_decode_times_one_token_against_seq_len_others(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_DECODE);
    struct fb_measure_result result;
    measure(&item, RIGHT, false, &result);
    assert_ok(&result);
    assert_samples(&result, decode_s);
    assert_true(result.err_rel >= 0.0 && result.err_rel < 1e-6);
    /* the state of seq_len + 1 tokens: two matrices of 2 x 2 heads, and the count */
    assert_int_equal(result.mem_state_bytes, FB_ALIGNMENT + 4 * 20 * (8 + 6) * 4);
    assert_int_equal(result.mem_saved_bytes, 0);
    assert_true(result.flop == 20.0);
    fb_measure_result_free(&result);
}

/* 19 tokens allow 16 more; what goes beyond starts again from the copy. */
static void test_decode_puts_the_state_back_before_it_is_full(void **state)
{
    (void)state;
    struct fb_case item = case_of(FB_DECODE);
    struct fb_measure_result result;
    const struct fb_measure_settings settings = {.warmup_s = 0.05,
                                                 .min_samples = 6,
                                                 .samples = 40,
                                                 .max_time_s = 0.5,
                                                 .cache = FB_CACHE_WARM,
                                                 .processes = 1};
    const struct fb_limits limits = {.memory_bytes = (size_t)256 << 20};
    struct fb_measure_options options;
    struct fb_clock clock;
    struct fb_error error;
    memset(&script, 0, sizeof script);
    fb_clock_init_fake(&clock, &script.clock);
    fb_measure_options_init(&options);
    options.attention = &fake;
    options.clock = &clock;
    options.floor = false;
    assert_int_equal(fb_measure_case(&item, &settings, &limits, &options, &result, &error), FB_OK);
    assert_ok(&result);
    assert_true(script.decodes > 19 + 40);
    assert_true(script.most_tokens > 20);
    assert_true(script.most_tokens <= 19 + fb_case_decode_slack(&item));
    fb_measure_result_free(&result);
}

static void test_decode_wrong_token_gets_no_time(void **state)
{
    (void)state;
    const struct fb_case item = case_of(FB_DECODE);
    assert_wrong(&item, WRONG_TOKEN, "out: err_max");
}

static void test_touch_moves_what_the_pass_moves(void **state)
{
    (void)state;
    const double qk = 4.0 * 19 * 8 * 4, v = 4.0 * 19 * 6 * 4; /* bytes of q or k, of v or out */
    const double forward = 2 * qk + 2 * v, backward = 2 * (2 * qk + v) + v;
    const double moved[] = {
        [FB_FORWARD] = forward, [FB_BACKWARD] = backward, [FB_BOTH] = forward + backward};
    for (int pass = FB_FORWARD; pass <= FB_BOTH; pass++) {
        const struct fb_case item = case_of((enum fb_pass)pass);
        struct fb_measure_result result;
        measure(&item, RIGHT, true, &result);
        assert_ok(&result);
        assert_true(result.touch_s > 0.0);
        assert_true(result.touch_bytes == moved[pass]);
        fb_measure_result_free(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backward_times_only_the_backward_call),
        cmocka_unit_test(test_both_times_the_two_calls_in_one_sample),
        cmocka_unit_test(test_forward_saves_nothing),
        cmocka_unit_test(test_hash_covers_every_output_of_the_pass),
        cmocka_unit_test(test_wrong_gradient_is_named_and_gets_no_time),
        cmocka_unit_test(test_error_of_the_row_is_the_worst_relative_to_its_budget),
        cmocka_unit_test(test_grouped_queries_and_random_lengths_are_right),
        cmocka_unit_test(test_decode_times_one_token_against_seq_len_others),
        cmocka_unit_test(test_decode_puts_the_state_back_before_it_is_full),
        cmocka_unit_test(test_decode_wrong_token_gets_no_time),
        cmocka_unit_test(test_touch_moves_what_the_pass_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
