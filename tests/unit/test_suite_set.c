/* --set path=value: what it changes, and what it refuses. */
#include "suite_fixture.h"

static const char text[] =
    "suite: s\n"
    "sweep: {mechanism: [flow, softmax], seq_len: {from: 8, to: 32, times: 2}}\n"
    "hardware: [{device: cpu, threads: 1}, {device: cuda, optional: true}]\n"
    "measure: {processes: 2}\n";

static void parse_with(struct suite_fixture *f, const char *set)
{
    const char *const sets[] = {set};
    const struct fb_suite_options options = {.sets = sets, .sets_count = 1};
    parse_suite(f, text, &options);
    if (f->status != FB_OK) {
        print_message("%s\n", f->error.text);
    }
    assert_int_equal(f->status, FB_OK);
}

static void test_set_values_of_every_shape(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_with(&f, "sweep.seq_len=[512,1024]");
    assert_int_equal(f.suite.factors_count, 8);
    assert_int_equal(f.suite.factors[1].seq_len, 1024);
    free_suite(&f);
    parse_with(&f, "sweep.seq_len.times=4");
    assert_int_equal(f.suite.factors_count, 8);
    free_suite(&f);
    parse_with(&f, "defaults.isa=avx2");
    assert_int_equal(f.suite.factors[0].isa, FB_ISA_AVX2);
    free_suite(&f);
    parse_with(&f, "measure.processes=5");
    assert_int_equal(f.suite.measure.processes, 5);
    free_suite(&f);
    parse_with(&f, "hardware.0.threads=max");
    assert_int_equal(f.suite.factors[0].threads, 0);
    free_suite(&f);
    parse_with(&f, "hardware=[{device: cpu}]");
    assert_int_equal(f.suite.factors_count, 6);
    free_suite(&f);
    parse_with(&f, "sweep.mechanism.1={name: performer, features: [32, 64]}");
    assert_int_equal(f.suite.factors_count, 18);
    free_suite(&f);
    parse_with(&f, "measure.warmup=5 ms");
    assert_true(f.suite.measure.warmup_s > 0.0049 && f.suite.measure.warmup_s < 0.0051);
    free_suite(&f);
}

static void test_set_later_one_wins(void **state)
{
    (void)state;
    static const char *const sets[] = {"measure.processes=5", "measure.processes=7"};
    const struct fb_suite_options options = {.sets = sets, .sets_count = 2};
    struct suite_fixture f;
    parse_suite(&f, text, &options);
    assert_int_equal(f.status, FB_OK);
    assert_int_equal(f.suite.measure.processes, 7);
    free_suite(&f);
}

static void test_set_mistakes_point_into_the_argument(void **state)
{
    (void)state;
    static const struct {
        const char *set, *wanted;
    } cases[] = {
        {"sweep.seqlen=[5]", "--set:1:7: error: unknown key 'seqlen' in sweep; did you mean "
                             "'seq_len'?\n    sweep.seqlen=[5]\n          ^"},
        {"swep.seq_len=[5]", "--set:1:1: error: unknown key 'swep' in the suite; did you mean "},
        {"measure.proceses=5", "--set:1:9: error: unknown key 'proceses' in measure; did you mean"},
        {"sweep.seq_len=[512, oops]", "--set:1:21: error: seq_len is a whole number, not 'oops'"},
        {"sweep.seq_len=[512", "--set:1:19: error: did not find expected ',' or ']'"},
        {"sweep.seq_len=", "--set:1:15: error: there is no value after '='"},
        {"sweep.seq_len", "--set:1:1: error: --set takes path=value"},
        {"=5", "--set:1:1: error: a path has words between its dots"},
        {"sweep..seq_len=5", "--set:1:7: error: a path has words between its dots"},
        {"hardware.2.threads=1", "--set:1:10: error: 'hardware' has 2 items, counted from 0"},
        {"hardware.first.threads=1", "--set:1:10: error: 'hardware' is a list: name one"},
        {"sweep.mechanism.0.features=5", "--set:1:19: error: '0' is 'flow', not a map"},
        {"include=x.yaml", "--set:1:1: error: include cannot be set"},
        {"measure.processes=&a [*a]", "--set:1:23: error: alias *a stands inside"},
        {"a.b.c.d.e.f.g.h.i=1", "--set:1:17: error: a path has at most 8 words"},
        {"title=\xff", "--set:1:7: error: byte 0xFF is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const sets[] = {cases[i].set};
        const struct fb_suite_options options = {.sets = sets, .sets_count = 1};
        assert_refused(text, &options, cases[i].wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_values_of_every_shape),
        cmocka_unit_test(test_set_later_one_wins),
        cmocka_unit_test(test_set_mistakes_point_into_the_argument),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
