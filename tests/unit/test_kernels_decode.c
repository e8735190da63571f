/*
 * Decoding token by token, of every variant that can: equal to the causal form of the float64
 * oracle over ten thousand tokens, from a state of zeros, after a prefill, with grouped queries,
 * with the same bits for any number of threads; refusals.
 */
#include "cuda_staged.h"
#include "judge.h"
#include "kernel_case.h"
#include "registry.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Set by the argument `short`, for builds that sanitizers slow down. */
static bool short_run;

/* A case is the causal problem over all tokens; the problem of decoding is made from it. */
struct decoding {
    const struct kernel_case *c;
    const struct fb_attention *attention;
    struct fb_problem problem;
    struct fb_sizes sizes;
    int threads;
    unsigned char *state, *scratch;
    struct kernel_output out; /* of all tokens */
};

static struct fb_problem decode_problem(const struct kernel_case *c)
{
    struct fb_problem problem = c->problem;
    problem.q_len = 1;
    problem.causal = false;
    return problem;
}

static bool can_decode(const struct kernel_case *c, const struct fb_attention *attention)
{
    const struct fb_problem problem = decode_problem(c);
    struct fb_error why = {0};
    return attention->mechanism == c->mechanism && kernel_is_runnable(attention) &&
           fb_attention_supports(attention, &problem, FB_DECODE, &why) == FB_OK;
}

/* Performer: the maximum over the keys of u = W k D^(-1/4), of a problem with one head. */
static double key_stabiliser(const struct kernel_case *c)
{
    const int index = fb_param_index(c->mechanism, "features");
    if (index < 0 || !c->constants)
        return 0.0;
    const int64_t d = c->problem.qk_dim;
    const float *projection = c->constants;
    double max = -HUGE_VAL;
    for (int64_t t = 0; t < c->problem.kv_len; t++)
        for (int64_t f = 0; f < (int64_t)c->problem.params[index]; f++) {
            double u = 0.0;
            for (int64_t i = 0; i < d; i++)
                u += (double)projection[f * d + i] * fb_tensor_value(&c->k.view, 0, 0, t, i);
            max = fmax(max, u * pow((double)d, -0.25));
        }
    return max;
}

static void start(struct decoding *s, const struct kernel_case *c,
                  const struct fb_attention *attention, int threads)
{
    *s = (struct decoding){.c = c, .attention = attention, .threads = threads};
    s->problem = decode_problem(c);
    fb_attention_sizes(attention, &s->problem, threads, &s->sizes);
    s->state = kernel_guarded_allocate(s->sizes.decode_state_bytes, 0);
    s->scratch = kernel_guarded_allocate(s->sizes.decode_scratch_bytes, 0xff);
    kernel_output_init(c, &s->out, c->problem.heads, c->problem.q_len, c->problem.v_dim);
}

static void finish(struct decoding *s)
{
    if (!kernel_guard_is_intact(s->state, s->sizes.decode_state_bytes))
        kernel_report(s->c, s->attention, "wrote behind the %zu bytes of state",
                      s->sizes.decode_state_bytes);
    if (!kernel_guard_is_intact(s->scratch, s->sizes.decode_scratch_bytes))
        kernel_report(s->c, s->attention, "decode wrote behind the %zu bytes of scratch",
                      s->sizes.decode_scratch_bytes);
    if (kernel_output_overwritten(&s->out) > 0)
        kernel_report(s->c, s->attention, "decode wrote around its output");
    free(s->state);
    free(s->scratch);
    kernel_output_free(&s->out);
}

static struct fb_tensor tokens_of(const struct fb_tensor *all, int64_t first, int64_t count)
{
    struct fb_tensor view = *all;
    view.data = fb_tensor_row(all, 0, 0, first);
    view.shape[2] = count;
    return view;
}

static struct fb_call call_of(const struct decoding *s, int64_t first, int64_t count)
{
    return (struct fb_call){
        .q = tokens_of(&s->c->q.view, first, count),
        .k = tokens_of(&s->c->k.view, first, count),
        .v = tokens_of(&s->c->v.view, first, count),
        .out = tokens_of(&s->out.view, first, 1),
        .constants = s->c->constants,
        .scratch = s->sizes.decode_scratch_bytes > 0 ? s->scratch : NULL,
        .decode_state = s->state,
        .key_stabiliser = key_stabiliser(s->c),
        .threads = s->threads,
    };
}

static bool decode_tokens(struct decoding *s, int64_t first, int64_t last)
{
    struct fb_call call = call_of(s, first, 1);
    for (int64_t t = first; t < last; t++) {
        struct fb_error error = {0};
        call.q = tokens_of(&s->c->q.view, t, 1);
        call.k = tokens_of(&s->c->k.view, t, 1);
        call.v = tokens_of(&s->c->v.view, t, 1);
        call.out = tokens_of(&s->out.view, t, 1);
        if (fb_staged_decode(s->attention, &s->problem, &call, &error) != FB_OK) {
            kernel_report(s->c, s->attention, "decode of token %" PRId64 " failed: %s", t,
                          error.text);
            return false;
        }
    }
    return true;
}

/* Performer's stabiliser is one number for all heads, that of the causal form one per head. */
static void set_case(struct kernel_case *c, const struct fb_mechanism *mechanism, int64_t tokens,
                     int64_t dim, bool grouped)
{
    const bool one_head = fb_param_index(mechanism, "features") >= 0;
    *c = (struct kernel_case){.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 77};
    kernel_case_set_problem(c, mechanism, grouped && !one_head ? 2 : 1, one_head ? 1 : 4, tokens,
                            tokens, dim, dim == 8 ? 8 : dim - 3);
    if (!one_head)
        c->problem.kv_heads = grouped ? 2 : 4;
    kernel_case_shrink_parameters(c, 0);
    c->problem.causal = true;
}

static void test_decode_ten_thousand_tokens_agree_with_causal_form(void **state)
{
    (void)state;
    size_t executed = 0;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_case c;
        struct decoding s;
        struct fb_cost cost;
        /* A device's state travels there and back with every token here: a tenth will do, and a
         * tenth of that where a sanitizer is in the way. */
        int64_t tokens =
            attention->backend == FB_CPU ? (short_run ? 2000 : 20000) : (short_run ? 200 : 2000);
        do {
            tokens /= 2;
            set_case(&c, attention->mechanism, tokens, 8, false);
            const struct fb_problem problem = decode_problem(&c);
            attention->mechanism->cost(&problem, FB_DECODE, &cost);
        } while (cost.flop * (double)tokens > 4e8);
        if (!can_decode(&c, attention))
            continue;
        kernel_case_init(&c);
        kernel_case_reference(&c, 100);
        start(&s, &c, attention, 1);
        if (decode_tokens(&s, 0, tokens))
            kernel_case_judge(&c, attention, &s.out, fb_judge_budget(FB_F32, FB_DECODE));
        finish(&s);
        kernel_case_free(&c);
        executed++;
    }
    assert_true(executed > 0);
    kernel_expect_no_failures();
}

/* States and caches are kept in another dtype than the tokens, or in the same: what comes out is
 * rounded once. */
static void test_decode_16_bit_dtypes_agree_with_causal_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (int half = 0; half < 2; half++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_case c;
            struct decoding s;
            set_case(&c, attention->mechanism, 300, 19, true);
            c.problem.dtype = half ? FB_BF16 : FB_F16;
            if (!can_decode(&c, attention))
                continue;
            kernel_case_init(&c);
            kernel_case_reference(&c, 0);
            start(&s, &c, attention, 2);
            if (decode_tokens(&s, 0, 300))
                kernel_case_judge(&c, attention, &s.out,
                                  0.6 * fb_judge_budget(c.problem.dtype, FB_DECODE));
            finish(&s);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

/* Odd dimensions, grouped queries, options; each token judged. */
static void test_decode_grouped_queries_and_options_agree_with_causal_form(void **state)
{
    (void)state;
    static const struct {
        const char *name, *choice;
        double value;
    } options[] = {
        {"", NULL, 0},           {"clamp", NULL, 0},        {"clamp", NULL, 5},
        {"phi", "relu", 0},      {"phi", "elu+1", 0},       {"competition", "off", 0},
        {"allocation", NULL, 0}, {"extra_eps", NULL, 1e-2}, {"kernel", "relu", 0},
        {"window", NULL, 0},     {"window", NULL, 1000},
    };
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (size_t o = 0; o < sizeof options / sizeof options[0]; o++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_case c;
            struct decoding s;
            set_case(&c, attention->mechanism, 200, 19, true);
            if ((options[o].name[0] != '\0' &&
                 !kernel_case_set_parameter(&c, options[o].name, options[o].value,
                                            options[o].choice)) ||
                !can_decode(&c, attention))
                continue;
            kernel_case_init(&c);
            kernel_case_reference(&c, 0);
            start(&s, &c, attention, 2);
            if (decode_tokens(&s, 0, 200))
                kernel_case_judge(&c, attention, &s.out, fb_judge_budget(FB_F32, FB_DECODE));
            finish(&s);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

static void test_decode_threads_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_case c;
        struct decoding one, other;
        set_case(&c, attention->mechanism, 100, 19, true);
        if (!can_decode(&c, attention) || !attention->deterministic)
            continue;
        kernel_case_init(&c);
        for (int threads = 1; threads <= 5; threads += 2) {
            start(&one, &c, attention, 1);
            start(&other, &c, attention, threads);
            memset(other.scratch, threads, other.sizes.decode_scratch_bytes);
            if (decode_tokens(&one, 0, 100) && decode_tokens(&other, 0, 100))
                kernel_case_compare(&c, attention, &one.out, &other.out,
                                    "decoding on more threads");
            finish(&one);
            finish(&other);
        }
        kernel_case_free(&c);
    }
    kernel_expect_no_failures();
}

/* A prefill of most tokens, one of them, none: then the rest token by token. */
static void test_prefill_then_decode_agrees_with_causal_form(void **state)
{
    (void)state;
    enum { TOKENS = 150 };
    static const int64_t filled[] = {140, 64, 1, TOKENS - 1};
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (size_t f = 0; f < sizeof filled / sizeof filled[0]; f++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_case c;
            struct decoding s;
            struct fb_error error = {0};
            set_case(&c, attention->mechanism, TOKENS, 19, true);
            if (!can_decode(&c, attention))
                continue;
            kernel_case_init(&c);
            kernel_case_reference(&c, 0);
            /* the prefilled rows of out may be written, but are of no interest */
            size_t first = 0;
            while (first < c.rows_count && c.rows[first] < filled[f])
                first++;
            start(&s, &c, attention, 2);
            const struct fb_call call = call_of(&s, 0, filled[f]);
            if (fb_staged_prefill(attention, &s.problem, &call, &error) != FB_OK)
                kernel_report(&c, attention, "prefill failed: %s", error.text);
            else if (decode_tokens(&s, filled[f], TOKENS)) {
                struct kernel_output all;
                kernel_output_init(&c, &all, c.problem.heads, TOKENS, c.problem.v_dim);
                struct decoding whole;
                start(&whole, &c, attention, 2);
                /* the rows before: decoded one by one, so that the judge sees a whole output */
                if (decode_tokens(&whole, 0, filled[f]))
                    for (int64_t b = 0; b < c.problem.batch; b++)
                        for (int64_t h = 0; h < c.problem.heads; h++)
                            for (int64_t t = 0; t < TOKENS; t++)
                                memcpy(fb_tensor_row(&all.view, b, h, t),
                                       fb_tensor_row(t < filled[f] ? &whole.out.view : &s.out.view,
                                                     b, h, t),
                                       (size_t)c.problem.v_dim * sizeof(float));
                kernel_case_judge(&c, attention, &all, fb_judge_budget(FB_F32, FB_DECODE));
                finish(&whole);
                kernel_output_free(&all);
            }
            finish(&s);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

/* A state that grows with kv_len holds so many tokens and refuses the next one; one that does not
 * may go on. What a mechanism or a call cannot mean is refused. */
static void test_decode_full_states_and_bad_calls_are_refused(void **state)
{
    (void)state;
    enum { TOKENS = 40 };
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_case c;
        struct decoding s;
        struct fb_error error = {0};
        set_case(&c, attention->mechanism, TOKENS, 8, false);
        if (!can_decode(&c, attention))
            continue;
        kernel_case_init(&c);
        start(&s, &c, attention, 1);
        struct fb_call call = call_of(&s, 0, 1);
        struct fb_sizes longer;
        struct fb_problem problem = s.problem;
        problem.kv_len = 64 * TOKENS;
        fb_attention_sizes(attention, &problem, 1, &longer);
        const bool grows = longer.decode_state_bytes > s.sizes.decode_state_bytes;
        /* a device counts its tokens itself and cannot refuse one */
        if (attention->backend == FB_CPU && decode_tokens(&s, 0, TOKENS) && grows) {
            const enum fb_status status = fb_attention_decode(attention, &s.problem, &call, &error);
            if (status != FB_ERROR_INPUT || !strstr(error.text, "full"))
                kernel_report(&c, attention, "a full state is not refused: %s", error.text);
        }
        problem = s.problem;
        problem.causal = true;
        if (fb_attention_decode(attention, &problem, &call, &error) == FB_OK)
            kernel_report(&c, attention, "a causal problem is decoded");
        problem.causal = false;
        problem.q_len = 2;
        if (fb_attention_decode(attention, &problem, &call, &error) == FB_OK)
            kernel_report(&c, attention, "two tokens are decoded at once");
        call.decode_state = NULL;
        if (fb_attention_decode(attention, &s.problem, &call, &error) == FB_OK)
            kernel_report(&c, attention, "a missing state is not refused");
        call = call_of(&s, 0, 1);
        call.q.shape[2] = call.k.shape[2] = call.v.shape[2] = TOKENS + 1;
        if (fb_attention_prefill(attention, &s.problem, &call, &error) == FB_OK)
            kernel_report(&c, attention, "a prefill of more tokens than the state holds");
        finish(&s);
        kernel_case_free(&c);
    }
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    short_run = argc > 1 && strcmp(argv[1], "short") == 0;
    cmocka_set_test_filter(getenv("KERNEL_CASE_TESTS")); /* a pattern; none: all */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_ten_thousand_tokens_agree_with_causal_form),
        cmocka_unit_test(test_decode_grouped_queries_and_options_agree_with_causal_form),
        cmocka_unit_test(test_decode_16_bit_dtypes_agree_with_causal_form),
        cmocka_unit_test(test_decode_threads_give_the_same_bits),
        cmocka_unit_test(test_prefill_then_decode_agrees_with_causal_form),
        cmocka_unit_test(test_decode_full_states_and_bad_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
