/* Malformed suites: where each mistake is reported, and what is said about it. */
#include "suite_fixture.h"

#define HEAD "suite: s\nsweep: {mechanism: flow, seq_len: 8}\n"

struct mistake {
    const char *text, *wanted; /* the message begins so */
};

static void check(const struct mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_refused(mistakes[i].text, NULL, mistakes[i].wanted);
    }
}
#define CHECK(mistakes) check(mistakes, sizeof(mistakes) / sizeof((mistakes)[0]))

static void test_errors_show_line_and_caret(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_suite(&f, HEAD "mesure: {warmup: 50 ms}\n", NULL);
    assert_string_equal(f.error.text,
                        "t.yaml:3:1: error: unknown key 'mesure' in the suite; did you mean "
                        "'measure'?\n    mesure: {warmup: 50 ms}\n    ^");
    free_suite(&f);
    parse_suite(&f, "suite: s\nsweep:\n  mechanism: \xC3\xA4\n  seq_len: 4\n", NULL);
    assert_non_null(strstr(f.error.text, "t.yaml:3:14: error: unknown mechanism"));
    assert_non_null(strstr(f.error.text, "\n      mechanism: \xC3\xA4\n                 ^"));
    free_suite(&f);
}

static void test_errors_several_are_reported_and_the_rest_counted(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_suite(&f, HEAD "titel: a\nkin: b\nplot: c\nlimit: d\n", NULL);
    assert_int_equal(f.status, FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "t.yaml:3:1: error: unknown key 'titel'"));
    assert_non_null(strstr(f.error.text, "t.yaml:6:1: error: unknown key 'limit'"));
    free_suite(&f);
    parse_suite(&f,
                HEAD "key_number_one: a\nkey_number_two: b\nkey_number_three: c\n"
                     "key_number_four: d\nkey_number_five: e\nkey_number_six: f\n"
                     "key_number_seven: g\n",
                NULL);
    assert_non_null(strstr(f.error.text, "\n... and "));
    assert_true(strlen(f.error.text) < FB_ERROR_TEXT_SIZE);
    free_suite(&f);
}

static void test_errors_keys(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"suite: s\nsuite: t\n", "t.yaml:2:1: error: key 'suite' is given twice, first in line 1"},
        {HEAD "measure: {cache: cold, cache: warm}\n",
         "t.yaml:3:24: error: key 'cache' is given twice"},
        {HEAD "hardware: [{device: cpu, device: cpu}]\n",
         "t.yaml:3:26: error: key 'device' is given twice"},
        {HEAD "measure: {precison: 1 %}\n",
         "t.yaml:3:11: error: unknown key 'precison' in measure; did you mean 'precision'?"},
        {HEAD "limits: {timeout: 1 s}\n", "t.yaml:3:10: error: unknown key 'timeout' in limits"},
        {HEAD "accuracy: {orcle: true}\n",
         "t.yaml:3:12: error: unknown key 'orcle' in accuracy; did you mean 'oracle'?"},
        {HEAD "defaults: {seqlen: 4}\n",
         "t.yaml:3:12: error: unknown key 'seqlen' in defaults; did you mean 'seq_len'?"},
        {HEAD "exclude: [{head: 4}]\n",
         "t.yaml:3:12: error: unknown key 'head' in exclude; did you mean 'heads'?"},
        {HEAD "hardware: [{optinal: true}]\n",
         "t.yaml:3:13: error: unknown key 'optinal' in an entry of hardware; did you mean "
         "'optional'?"},
        {"suite: s\nsweep: {mechanism: flow, seq_len: 8, zip: {hed_dim: 4}}\n",
         "t.yaml:2:44: error: unknown key 'hed_dim' in zip; did you mean 'head_dim'?"},
        {"sweep: {mechanism: flow, seq_len: 8}\n",
         "t.yaml:1:1: error: the required key 'suite' is missing"},
        {"suite: s\n", "t.yaml:1:1: error: the required key 'sweep' is missing"},
        {"suite: s\nsweep: {seq_len: 8}\n", "t.yaml:2:1: error: the sweep needs 'mechanism'"},
        {"suite: s\nsweep: {mechanism: flow}\n", "t.yaml:2:1: error: the sweep needs 'seq_len'"},
        {"suite: s\nsweep: {seq_len: 8}\nhardware: [{mechanism: flow}, {threads: 1}]\n",
         "t.yaml:2:1: error: the sweep needs 'mechanism'"},
        {HEAD "[a]: b\n", "t.yaml:3:1: error: a key must be a word"},
    };
    CHECK(mistakes);
}

static void test_errors_values(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"suite: S t\n", "t.yaml:1:8: error: suite is a name of a to z"},
        {"suite: [a]\n", "t.yaml:1:8: error: suite is a text, not a list"},
        {"suite:\nsweep: {}\n", "t.yaml:1:7: error: suite is a text, not nothing"},
        {HEAD "kind: training\n", "t.yaml:2:1: error: the sweep needs 'task'"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: addr}\n",
         "t.yaml:3:32: error: unknown task 'addr'; did you mean 'adder'?"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: {name: adder, digit: 2}}\n",
         "t.yaml:3:46: error: unknown key 'digit' in the task adder; did you mean 'digits'?"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: {name: adder, digits: 9}}\n",
         "t.yaml:3:54: error: digits must be 1 to 3"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: adder, batch: 4}\n",
         "t.yaml:3:46: error: a suite of kind: training has no batch: task and recipe decide it; "
         "batch_size asks"},
        {"suite: s\nsweep: {mechanism: flow, seq_len: 8, batch_size: 4}\n",
         "t.yaml:2:50: error: batch_size belongs to a suite of `kind: training`"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: adder, precision: bf16}\n",
         "t.yaml:3:50: error: precision: bf16 is a GPU's; a processor trains in f32"},
        {"suite: s\nkind: training\ndefaults: {device: cuda}\n"
         "sweep: {mechanism: flow, task: adder, precision: f16}\n",
         "t.yaml:4:50: error: unknown precision 'f16'; did you mean 'bf16'?"},
        {"suite: s\nsweep: {mechanism: flow, seq_len: 8, precision: bf16}\n",
         "t.yaml:2:49: error: precision belongs to a suite of `kind: training`"},
        {"suite: s\nsweep: {mechanism: flow, seq_len: 8, recipe: same}\n",
         "t.yaml:2:46: error: recipe belongs to a suite of `kind: training`"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: adder}\nmeasure: {samples: 4}\n",
         "t.yaml:4:1: error: measure has no part in a suite of kind: training"},
        {"suite: s\nkind: training\nsweep: {mechanism: flow, task: adder}\nplots: [isa_bars]\n",
         "t.yaml:4:9: error: unknown plot 'isa_bars'"},
        {HEAD "training: {checkpoint: 1 s}\n",
         "t.yaml:3:1: error: training belongs to a suite of `kind: training`"},
        {HEAD "kind: kernal\n", "t.yaml:3:7: error: unknown kind 'kernal'; did you mean 'kernel'?"},
        {HEAD "measure: {warmup: 50}\n",
         "t.yaml:3:19: error: measure.warmup needs a unit: '50' is not a time such as '50 ms' "
         "(units: us, ms, s, min, h)"},
        {HEAD "measure: {warmup: -5 ms}\n",
         "t.yaml:3:19: error: measure.warmup must be zero or more"},
        {HEAD "measure: {max_time: 0 s}\n",
         "t.yaml:3:21: error: measure.max_time must be more than zero"},
        {HEAD "measure: {max_time: 5 mins}\n",
         "t.yaml:3:21: error: measure.max_time has the unknown unit 'mins'; did you mean 'min'?"},
        {HEAD "measure: {max_time: nan s}\n",
         "t.yaml:3:21: error: measure.max_time is a time such as '50 ms'"},
        {HEAD "measure: {max_time: 0x10 s}\n", "t.yaml:3:21: error: measure.max_time is a time"},
        {HEAD "measure: {max_time: 1e999 s}\n", "t.yaml:3:21: error: measure.max_time is a time"},
        {HEAD "measure: {precision: 1}\n", "t.yaml:3:22: error: measure.precision needs a unit"},
        {HEAD "measure: {precision: 200 %}\n",
         "t.yaml:3:22: error: measure.precision must be at most 100 %"},
        {HEAD "measure: {processes: 0}\n",
         "t.yaml:3:22: error: measure.processes must be 1 to 1000, not 0"},
        {HEAD "measure: {min_samples: 2.5}\n",
         "t.yaml:3:24: error: measure.min_samples is a whole number, not '2.5'"},
        {HEAD "measure: {cache: hot}\n", "t.yaml:3:18: error: unknown measure.cache 'hot'"},
        {HEAD "measure: fast\n", "t.yaml:3:10: error: measure is a map"},
        {HEAD "limits: {memory: 2}\n", "t.yaml:3:18: error: limits.memory needs a unit"},
        {HEAD "limits: {memory: 2 Gib}\n",
         "t.yaml:3:18: error: limits.memory has the unknown unit 'Gib'; did you mean 'GiB'?"},
        {HEAD "limits: {memory: 120 %}\n", "t.yaml:3:18: error: limits.memory must be at most"},
        {HEAD "accuracy: {oracle: yes}\n",
         "t.yaml:3:20: error: accuracy.oracle is true or false, not 'yes'; did you mean 'true'?"},
        {HEAD "accuracy: {oracle: off}\n",
         "t.yaml:3:20: error: accuracy.oracle is true or false, not 'off'; did you mean 'false'?"},
        {HEAD "accuracy: {oracle: 'true'}\n",
         "t.yaml:3:20: error: accuracy.oracle is true or false, not the text 'true'"},
        {HEAD "plots: [time_vs_seqlen]\n",
         "t.yaml:3:9: error: unknown plot 'time_vs_seqlen'; did you mean 'time_vs_seq_len'?"},
        {HEAD "plots: [isa_bars, isa_bars]\n", "t.yaml:3:19: error: plot 'isa_bars' is listed"},
        {HEAD "include_: a\n", "t.yaml:3:1: error: unknown key 'include_'"},
        {HEAD "include: nowhere/at_all.yaml\n",
         "t.yaml:3:10: error: cannot include 'nowhere/at_all.yaml': no such file"},
        {HEAD "include: {a: b}\n", "t.yaml:3:10: error: include is the path of a suite file"},
    };
    CHECK(mistakes);
}

static void test_errors_factors(void **state)
{
    (void)state;
#define SWEEP(axes) "suite: s\nsweep:\n  mechanism: flow\n  seq_len: 8\n" axes "\n"
    static const struct mistake mistakes[] = {
        {SWEEP("  heads: 0"), "t.yaml:5:10: error: heads must be 1 to"},
        {SWEEP("  heads: -4"), "t.yaml:5:10: error: heads must be 1 to"},
        {SWEEP("  heads: '4'"), "t.yaml:5:10: error: heads is a whole number, not the text '4'"},
        {SWEEP("  heads: 010"), "t.yaml:5:10: error: heads is a whole number, not '010'"},
        {SWEEP("  heads: 99999999999999999999"), "t.yaml:5:10: error: heads must be 1 to"},
        {SWEEP("  heads: []"), "t.yaml:5:10: error: heads has an empty list"},
        {SWEEP("  heads: [4, [5]]"), "t.yaml:5:14: error: heads is a whole number, not a list"},
        {SWEEP("  head_dim: 257"), "t.yaml:5:13: error: head_dim must be 1 to 256, not 257"},
        {SWEEP("  causal: [yes]"), "t.yaml:5:12: error: causal is true or false, not 'yes'"},
        {SWEEP("  pass: decode"), "t.yaml:5:9: error: pass: decode belongs to a suite of"},
        {SWEEP("  pass: foward"),
         "t.yaml:5:9: error: unknown pass 'foward'; did you mean 'forward'?"},
        {SWEEP("  dtype: fp32"), "t.yaml:5:10: error: unknown dtype 'fp32'; did you mean 'f32'?"},
        {SWEEP("  isa: avx51"), "t.yaml:5:8: error: unknown isa 'avx51'; did you mean 'avx512'?"},
        {SWEEP("  isa: any"), "t.yaml:5:8: error: unknown isa 'any'"},
        {SWEEP("  device: gpu"), "t.yaml:5:11: error: unknown device 'gpu' (valid: cpu, cuda)"},
        {SWEEP("  threads: maxx"),
         "t.yaml:5:12: error: unknown threads 'maxx'; did you mean 'max'?"},
        {SWEEP("  threads: 0"), "t.yaml:5:12: error: threads must be 1 to 4096, not 0"},
        {SWEEP("  layout: bhnd"),
         "t.yaml:5:11: error: unknown layout 'bhnd'; did you mean 'BHND'?"},
        {SWEEP("  variant: fsued"),
         "t.yaml:5:12: error: unknown variant 'fsued'; did you mean 'fused'?"},
        {SWEEP("  seed: -1"), "t.yaml:5:9: error: seed must be 0 to"},
        {SWEEP("  zip: {heads: [1, 2], batch: [1]}"),
         "t.yaml:5:31: error: zip walks lists together: batch has 1 values, heads has 2"},
        {SWEEP("  zip: {seq_len: [1, 2]}"),
         "t.yaml:5:9: error: factor 'seq_len' is given twice, first in line 4"},
        {SWEEP("  zip: 5"), "t.yaml:5:8: error: zip is a map of factors"},
        {"suite: s\nsweep: [a]\n", "t.yaml:2:8: error: sweep is a map of factors"},
        {HEAD "defaults: {heads: [1, 2]}\n",
         "t.yaml:3:19: error: defaults holds one value of each factor: move the 2 values of heads"},
        {HEAD "hardware: {device: cpu}\n", "t.yaml:3:11: error: hardware is a list of maps"},
        {HEAD "exclude: [{seq_len: '> x'}]\n",
         "t.yaml:3:24: error: seq_len is a whole number, not 'x'"},
        {HEAD "exclude: [{causal: '> true'}]\n", "t.yaml:3:23: error: causal has no order"},
        {HEAD "exclude: [{threads: '> 4'}]\n", "t.yaml:3:24: error: threads may be 'max'"},
        {HEAD "exclude: [{mechanism: '!= flwo'}]\n",
         "t.yaml:3:27: error: unknown mechanism 'flwo'; did you mean 'flow'?"},
        {HEAD "exclude: [{}]\n", "t.yaml:3:11: error: an entry of exclude is a map of conditions"},
        {HEAD "exclude: [{seq_len: 8}]\n", "t.yaml:2:1: error: exclude leaves none of the 1 cases"},
    };
    CHECK(mistakes);
}

static void test_errors_mechanisms(void **state)
{
    (void)state;
#define MECHANISM(value) "suite: s\nsweep:\n  seq_len: 8\n  mechanism: " value "\n"
    static const struct mistake mistakes[] = {
        {MECHANISM("[flow, softmx]"),
         "t.yaml:4:21: error: unknown mechanism 'softmx'; did you mean 'softmax'? (valid: flow,"},
        {MECHANISM("{features: 3}"), "t.yaml:4:14: error: a mechanism's map needs its name"},
        {MECHANISM("{name: performer, featurs: 3}"),
         "t.yaml:4:32: error: unknown key 'featurs' in the mechanism performer; did you mean "
         "'features'?"},
        {MECHANISM("{name: performer, features: 0}"), "t.yaml:4:42: error: features must be 1 to"},
        {MECHANISM("{name: performer, features: [8, x]}"),
         "t.yaml:4:46: error: features is a whole number, not 'x'"},
        {MECHANISM("{name: local, features: 3}"),
         "t.yaml:4:28: error: unknown key 'features' in the mechanism local"},
        {MECHANISM("{name: flow, variant: tiled}"),
         "t.yaml:4:36: error: unknown variant 'tiled' (valid: fused, plain)"},
        {MECHANISM("{name: flow, variant: fused}\n  variant: plain"),
         "t.yaml:4:36: error: factor 'variant' is given twice: here and in line 5"},
    };
    CHECK(mistakes);
}

static void test_errors_ranges_and_products(void **state)
{
    (void)state;
#define LENGTHS(value) "suite: s\nsweep:\n  mechanism: flow\n  seq_len: " value "\n"
    static const struct mistake mistakes[] = {
        {LENGTHS("{from: 512, to: 256, times: 2}"), "t.yaml:4:19: error: the range is empty"},
        {LENGTHS("{from: 8, to: 16, times: 1}"), "t.yaml:4:37: error: times must be above 1"},
        {LENGTHS("{from: 8, to: 16, times: -2}"), "t.yaml:4:37: error: times must be above 1"},
        {LENGTHS("{from: 8, to: 16, step: 0}"), "t.yaml:4:36: error: step must be a whole number"},
        {LENGTHS("{from: 0, to: 16, times: 2}"), "t.yaml:4:19: error: a range with times starts"},
        {LENGTHS("{from: 0, to: 16, step: 2}"), "t.yaml:4:19: error: seq_len must be 1 to"},
        {LENGTHS("{from: 8, to: 16}"), "t.yaml:4:12: error: a range of seq_len is {from: A"},
        {LENGTHS("{from: 8, to: 16, step: 1, times: 2}"), "t.yaml:4:12: error: a range of seq_len"},
        {LENGTHS("{from: 8, too: 16, step: 1}"),
         "t.yaml:4:22: error: unknown key 'too' in a range; did you mean 'to'?"},
        {LENGTHS("{from: 1, to: 1e18, step: 1}"), "t.yaml:4:12: error: the range has 1e+18 values"},
        {LENGTHS("{from: 1, to: 1e15, times: 1.0000001}"), "t.yaml:4:12: error: the range has"},
        {LENGTHS("{from: 1, to: .inf, step: 1}"), "t.yaml:4:26: error: to is a number, not '.inf'"},
        {LENGTHS("{from: 1, to: 400, step: 1}\n  batch: {from: 1, to: 400, step: 1}"),
         "t.yaml:2:1: error: the sweep has 160000 cases; the limit is 100000"},
        {LENGTHS("1099511627776"),
         "t.yaml:4:12: error: sizes overflow: batch 1 x heads 8 x length 1099511627776"},
        {LENGTHS("8\n  zip: {batch: [1, 1e14], heads: [1, 1e13]}"),
         "t.yaml:5:20: error: sizes overflow"},
    };
    CHECK(mistakes);
}

static void test_errors_of_kind_heads_and_lengths(void **state)
{
    (void)state;
#define POINT(kind, axes)                                                                          \
    "suite: s\nkind: " kind "\nsweep: {mechanism: flow, seq_len: 8, " axes "}\n"
    static const struct mistake mistakes[] = {
        {POINT("kernel", "pass: decode"),
         "t.yaml:3:44: error: pass: decode belongs to a suite of `kind: decode`"},
        {POINT("decode", "pass: both"),
         "t.yaml:3:44: error: a suite of kind: decode has the one pass decode"},
        {POINT("decode", "causal: [true, false]"),
         "t.yaml:3:53: error: decoding is causal by nature"},
        {POINT("decode", "kv_len: 4"), "t.yaml:3:46: error: decoding has one length"},
        {POINT("decode", "lengths: random"), "t.yaml:3:47: error: decoding has no padding"},
        {POINT("kernel", "lengths: rand"),
         "t.yaml:3:47: error: unknown lengths 'rand'; did you mean 'random'?"},
        {POINT("kernel", "lengths: random, batch: 4097"),
         "t.yaml:3:62: error: lengths: random draws a length for each"},
        {POINT("kernel", "kv_heads: [4, 3]"),
         "t.yaml:3:52: error: kv_heads 3 does not divide heads 8"},
        {POINT("kernel", "kv_heads: 0"), "t.yaml:3:48: error: kv_heads must be 1 to"},
        {POINT("kernel", "kv_heads: 16"),
         "t.yaml:3:48: error: kv_heads 16 does not divide heads 8"},
    };
    CHECK(mistakes);
}

static void test_errors_claims(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {HEAD "expect: {metric: crossover}\n", "t.yaml:3:9: error: expect is a list of claims"},
        {HEAD "expect: [{metric: crossover}]\n", "t.yaml:3:10: error: a claim needs metric and"},
        {HEAD "expect: [{metric: crossover, is: 1 +- 1, at_most: 2}]\n",
         "t.yaml:3:10: error: a claim needs metric and one of"},
        {HEAD "expect: [{metric: time_exponet, at_most: 2}]\n",
         "t.yaml:3:19: error: unknown metric 'time_exponet'; did you mean 'time_exponent'?"},
        {HEAD "expect: [{isa: best, metric: floor_ratio, at_most: 2}]\n",
         "t.yaml:3:16: error: a claim names an instruction set, not 'best'"},
        {HEAD "expect: [{threads: 0, metric: floor_ratio, at_most: 2}]\n",
         "t.yaml:3:20: error: threads must be 1 to 4096"},
        {HEAD "expect: [{metric: speedup_vs_peer, at_least: 2}]\n",
         "t.yaml:3:10: error: peer and the metric speedup_vs_peer belong together"},
        {HEAD "expect: [{peer: fussed, metric: speedup_vs_peer, at_least: 2}]\n",
         "t.yaml:3:17: error: unknown variant 'fussed'"},
        {HEAD "expect: [{metric: crossover, is: 1.0}]\n",
         "t.yaml:3:34: error: is takes a value and its tolerance, such as 1.0 +- 0.1, not '1.0'"},
        {HEAD "expect: [{metric: crossover, is: 1 +- -1}]\n", "t.yaml:3:34: error: is takes"},
        {HEAD "expect: [{metric: crossover, atmost: 3}]\n",
         "t.yaml:3:30: error: unknown key 'atmost' in a claim; did you mean 'at_most'?"},
        {HEAD "expect: [{mechanism: flow, variant: tiled, metric: crossover, at_most: 3}]\n",
         "t.yaml:3:37: error: unknown variant 'tiled' (valid: fused, plain)"},
        {HEAD "expect: [{metric: crossover, at_most: soon}]\n",
         "t.yaml:3:39: error: at_most is a number, not 'soon'"},
    };
    CHECK(mistakes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_show_line_and_caret),
        cmocka_unit_test(test_errors_several_are_reported_and_the_rest_counted),
        cmocka_unit_test(test_errors_keys),
        cmocka_unit_test(test_errors_values),
        cmocka_unit_test(test_errors_factors),
        cmocka_unit_test(test_errors_mechanisms),
        cmocka_unit_test(test_errors_ranges_and_products),
        cmocka_unit_test(test_errors_of_kind_heads_and_lengths),
        cmocka_unit_test(test_errors_claims),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
