/* Valid suites: what each key means, layering, expansion, and the resolved text. */
#include "suite_fixture.h"

#include <stdlib.h>
#include <unistd.h>

static void test_suite_full_example_every_key_read(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_valid(&f, "suite: full_1-x\ntitle: A title\nkind: kernel\n"
                    "defaults: {batch: 2, heads: 4, head_dim: 32, value_dim: 16, dtype: f64, "
                    "layout: BNHD, seed: 7, pass: both}\n"
                    "sweep: {mechanism: flow, seq_len: 64, kv_len: 32, causal: true}\n"
                    "measure: {warmup: 0 s, precision: 2 %, min_samples: 9, samples: 3, "
                    "max_time: 2 min, cache: warm, processes: 5, counter: valgrind}\n"
                    "limits: {case_timeout: 1500 ms, memory: 2 GiB}\n"
                    "accuracy: {oracle: false}\n"
                    "expect: [{mechanism: flow, variant: plain, causal: true, pass: forward, "
                    "metric: time_exponent, is: 1.0 +- 0.1}, {metric: floor_ratio, at_most: 3}, "
                    "{metric: speedup_vs_softmax, at_least: 1.5}]\n"
                    "plots: [isa_bars, time_vs_seq_len]\n");
    const struct fb_suite *s = &f.suite;
    assert_string_equal(s->name, "full_1-x");
    assert_string_equal(s->title, "A title");
    assert_int_equal(s->factors_count, 1);
    const struct fb_factors *p = &s->factors[0];
    assert_string_equal(p->mechanism->name, "flow");
    assert_null(p->variant);
    assert_int_equal(p->device, FB_CPU);
    assert_int_equal(p->isa, -1);
    assert_int_equal(p->threads, 0);
    assert_int_equal(p->dtype, FB_F64);
    assert_int_equal(p->layout, FB_BNHD);
    assert_true(p->causal);
    assert_int_equal(p->pass, FB_BOTH);
    assert_int_equal(p->batch, 2);
    assert_int_equal(p->heads, 4);
    assert_int_equal(p->seq_len, 64);
    assert_int_equal(p->kv_len, 32);
    assert_int_equal(p->head_dim, 32);
    assert_int_equal(p->value_dim, 16);
    assert_int_equal(p->seed, 7);
    assert_int_equal(s->seed, 7);
    assert_true(s->measure.warmup_s == 0.0);
    assert_true(s->measure.precision > 0.0199 && s->measure.precision < 0.0201);
    assert_int_equal(s->measure.min_samples, 9);
    assert_int_equal(s->measure.samples, 3);
    assert_true(s->measure.max_time_s == 120.0);
    assert_int_equal(s->measure.cache, FB_CACHE_WARM);
    assert_int_equal(s->measure.processes, 5);
    assert_int_equal(s->measure.counter, FB_COUNTER_VALGRIND);
    assert_true(s->limits.case_timeout_s > 1.4999 && s->limits.case_timeout_s < 1.5001);
    assert_true(s->limits.memory_bytes == (size_t)2 << 30);
    assert_false(s->oracle);
    assert_int_equal(s->claims_count, 3);
    assert_string_equal(s->claims[0].text, "time_exponent is 1 +- 0.1");
    assert_string_equal(s->claims[0].variant, "plain");
    assert_int_equal(s->claims[0].causal, 1);
    assert_int_equal(s->claims[0].pass, FB_FORWARD);
    assert_null(s->claims[1].mechanism);
    assert_int_equal(s->claims[1].relation, FB_CLAIM_AT_MOST);
    assert_int_equal(s->claims[1].causal, -1);
    assert_true(s->claims[2].value == 1.5);
    assert_int_equal(s->plots_count, 2);
    assert_int_equal(s->plots[0], FB_PLOT_ISA_BARS);
    free_suite(&f);
}

static void test_suite_smallest_example_defaults_are_used(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_valid(&f, "suite: s\nsweep: {mechanism: softmax, seq_len: 8}\n");
    assert_string_equal(f.suite.title, "s");
    assert_true(f.suite.oracle);
    assert_int_equal(f.suite.factors[0].kv_len, 8);
    assert_int_equal(f.suite.factors[0].head_dim, 64);
    assert_int_equal(f.suite.factors[0].value_dim, 64);
    assert_int_equal(f.suite.measure.processes, 1);
    assert_true(f.suite.limits.memory_fraction > 0.79 && f.suite.limits.memory_fraction < 0.81);
    assert_string_equal(f.suite.factors[0].where, "t.yaml:2:1");
    free_suite(&f);
}

static void assert_lengths(const char *axis, const int64_t *wanted, size_t count)
{
    struct suite_fixture f;
    char text[256];
    (void)snprintf(text, sizeof text, "suite: s\nsweep: {mechanism: flow, seq_len: %s}\n", axis);
    parse_valid(&f, text);
    assert_int_equal(f.suite.factors_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(f.suite.factors[i].seq_len, wanted[i]);
    }
    free_suite(&f);
}

static void test_suite_ranges_expand(void **state)
{
    (void)state;
    assert_lengths("{from: 256, to: 2048, times: 2}", (int64_t[]){256, 512, 1024, 2048}, 4);
    assert_lengths("{from: 256, to: 2047, times: 2}", (int64_t[]){256, 512, 1024}, 3);
    assert_lengths("{from: 5, to: 12, step: 3}", (int64_t[]){5, 8, 11}, 3);
    assert_lengths("{from: 7, to: 7, step: 1}", (int64_t[]){7}, 1);
    assert_lengths("{from: 1, to: 4, times: 1.5}", (int64_t[]){1, 2, 3}, 3);
    assert_lengths("[3, 1e3]", (int64_t[]){3, 1000}, 2);
}

static void test_suite_product_last_axis_is_fastest(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_valid(&f,
                "suite: s\nsweep:\n  mechanism: [flow, {name: performer, features: [64, 128]}]\n"
                "  seq_len: [16, 32]\n");
    assert_int_equal(f.suite.factors_count, 6);
    assert_string_equal(f.suite.factors[1].mechanism->name, "flow");
    assert_int_equal(f.suite.factors[1].seq_len, 32);
    assert_string_equal(f.suite.factors[4].mechanism->name, "performer");
    assert_true(f.suite.factors[2].params[0] == 64.0);
    assert_true(f.suite.factors[4].params[0] == 128.0);
    free_suite(&f);
}

static void test_suite_zip_walks_axes_together(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_valid(&f, "suite: s\nsweep: {mechanism: flow, zip: {seq_len: [16, 32], batch: [2, 1]}, "
                    "causal: [false, true]}\n");
    assert_int_equal(f.suite.factors_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(f.suite.factors[i].seq_len * f.suite.factors[i].batch, 32);
        assert_int_equal(f.suite.factors[i].causal, i % 2);
    }
    free_suite(&f);
}

static void test_suite_hardware_overrides_axes(void **state)
{
    (void)state;
    struct suite_fixture f;
    parse_valid(&f, "suite: s\ndefaults: {threads: 3}\nsweep: {mechanism: flow, seq_len: 8}\n"
                    "hardware:\n  - {device: cpu, threads: [1, max], isa: scalar}\n"
                    "  - {device: cuda, dtype: bf16, optional: true}\n");
    assert_int_equal(f.suite.factors_count, 3);
    assert_int_equal(f.suite.factors[0].threads, 1);
    assert_int_equal(f.suite.factors[1].threads, 0);
    assert_int_equal(f.suite.factors[1].isa, FB_ISA_SCALAR);
    assert_false(f.suite.factors[1].optional_hardware);
    assert_int_equal(f.suite.factors[2].device, FB_CUDA);
    assert_int_equal(f.suite.factors[2].dtype, FB_BF16);
    assert_int_equal(f.suite.factors[2].threads, 3);
    assert_true(f.suite.factors[2].optional_hardware);
    assert_string_equal(f.suite.factors[0].where, "t.yaml:5:43");
    assert_string_equal(f.suite.factors[2].where, "t.yaml:6:14");
    free_suite(&f);
}

static size_t count_points(const char *exclude)
{
    struct suite_fixture f;
    char text[512];
    (void)snprintf(text, sizeof text,
                   "suite: s\nsweep: {mechanism: [flow, softmax], variant: [fused, plain, tiled], "
                   "seq_len: [8, 16, 32], causal: [false, true]}\nexclude: %s\n",
                   exclude);
    parse_valid(&f, text);
    size_t count = f.suite.factors_count;
    free_suite(&f);
    return count;
}

static void test_suite_exclude_removes_what_matches(void **state)
{
    (void)state;
    assert_int_equal(count_points("[]"), 36);
    assert_int_equal(count_points("[{mechanism: softmax}]"), 18);
    assert_int_equal(count_points("[{mechanism: softmax, seq_len: '> 8'}]"), 24);
    assert_int_equal(count_points("[{seq_len: '<= 16'}]"), 12);
    assert_int_equal(count_points("[{seq_len: '< 16'}, {causal: true}]"), 12);
    assert_int_equal(count_points("[{seq_len: [8, 32]}]"), 12);
    assert_int_equal(count_points("[{seq_len: '!= 8'}]"), 12);
    assert_int_equal(count_points("[{seq_len: '>=32', causal: false}]"), 30);
    assert_int_equal(count_points("[{variant: '!= plain'}]"), 12);
    assert_int_equal(count_points("[{mechanism: [flow], variant: tiled}]"), 30);
}

static void test_suite_resolved_yaml_gives_the_same_suite(void **state)
{
    (void)state;
    static const char *const sets[] = {"measure.processes=5", "sweep.seq_len=[512, 1024]"};
    const struct fb_suite_options options = {.sets = sets, .sets_count = 2};
    struct suite_fixture f;
    struct suite_fixture again;
    parse_suite(&f,
                "suite: s\ntitle: 'It''s: a # title'\ndefaults: &d {batch: 2, heads: 4}\n"
                "sweep: {mechanism: [flow, softmax], seq_len: 4, <<: *d}\n"
                "exclude: [{mechanism: softmax, seq_len: '> 600'}]\n"
                "expect: [{metric: crossover, at_most: 4096}]\nmeasure: {warmup: 20 ms}\n",
                &options);
    assert_int_equal(f.status, FB_OK);
    parse_valid(&again, f.suite.resolved_yaml);
    assert_string_equal(again.suite.title, "It's: a # title");
    assert_int_equal(again.suite.factors_count, 3);
    assert_int_equal(f.suite.factors_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_ptr_equal(again.suite.factors[i].mechanism, f.suite.factors[i].mechanism);
        assert_int_equal(again.suite.factors[i].seq_len, f.suite.factors[i].seq_len);
        assert_int_equal(again.suite.factors[i].batch, 2);
    }
    assert_int_equal(again.suite.measure.processes, 5);
    assert_string_equal(again.suite.resolved_yaml, f.suite.resolved_yaml);
    assert_null(strchr(f.suite.resolved_yaml, '&'));
    free_suite(&f);
    free_suite(&again);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static enum fb_status read_file(struct suite_fixture *f, const char *folder, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    fb_arena_init(&f->arena, 0);
    f->status = fb_suite_read(path, NULL, &f->arena, &f->suite, &f->error);
    return f->status;
}

static void remove_folder(const char *folder, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char path[256];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void test_suite_include_layers_and_refusals(void **state)
{
    (void)state;
    static const char *const names[] = {"base.yaml", "mid.yaml",  "top.yaml", "loop.yaml",
                                        "back.yaml", "lost.yaml", "bad.yaml"};
    char folder[] = "/tmp/fb_suite_XXXXXX";
    assert_non_null(mkdtemp(folder));
    write_file(folder, "base.yaml",
               "suite: base\ndefaults: {batch: 2, heads: 4}\nmeasure: {processes: 3}\n"
               "sweep: {mechanism: [flow, softmax], seq_len: [8, 16]}\n");
    write_file(folder, "mid.yaml", "measure: {min_samples: 7}\n");
    write_file(folder, "top.yaml",
               "include: [base.yaml, mid.yaml]\nsuite: top\ndefaults: {heads: 1}\n"
               "sweep: {seq_len: [32]}\n");
    write_file(folder, "loop.yaml", "suite: loop\ninclude: back.yaml\n");
    write_file(folder, "back.yaml", "include: [base.yaml,\n  loop.yaml]\n");
    write_file(folder, "lost.yaml", "include: basee.yaml\nsuite: lost\n");
    write_file(folder, "bad.yaml", "include: base.yaml\nsuite: bad\nsweep: {heads: none}\n");

    struct suite_fixture f;
    assert_int_equal(read_file(&f, folder, "top.yaml"), FB_OK);
    assert_string_equal(f.suite.name, "top");
    assert_int_equal(f.suite.factors_count, 2);
    assert_int_equal(f.suite.factors[0].seq_len, 32);
    assert_int_equal(f.suite.factors[0].batch, 2);
    assert_int_equal(f.suite.factors[0].heads, 1);
    assert_int_equal(f.suite.measure.processes, 3);
    assert_int_equal(f.suite.measure.min_samples, 7);
    assert_null(strstr(f.suite.resolved_yaml, "include"));
    free_suite(&f);

    assert_int_equal(read_file(&f, folder, "loop.yaml"), FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "back.yaml:2:3: error: cannot include"));
    assert_non_null(strstr(f.error.text, "include each other in a loop"));
    free_suite(&f);
    assert_int_equal(read_file(&f, folder, "lost.yaml"), FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "lost.yaml:1:10: error: cannot include"));
    assert_non_null(strstr(f.error.text, "did you mean 'base.yaml'?"));
    free_suite(&f);
    assert_int_equal(read_file(&f, folder, "bad.yaml"), FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "bad.yaml:3:16: error: heads is a whole number"));
    free_suite(&f);
    assert_int_equal(read_file(&f, folder, "basse.yaml"), FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "basse.yaml: error: cannot read the suite: no such file; "
                                         "did you mean 'base.yaml'?"));
    free_suite(&f);
    assert_int_equal(read_file(&f, folder, "."), FB_ERROR_USAGE);
    assert_non_null(strstr(f.error.text, "it is a folder"));
    free_suite(&f);
    remove_folder(folder, names, sizeof names / sizeof names[0]);
}

static void test_suite_committed_files_are_valid(void **state)
{
    (void)state;
    static const char *const names[] = {"scaling.yaml", "quick.yaml", "heads.yaml",
                                        "hardware.yaml"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct suite_fixture f;
        assert_int_equal(read_file(&f, "suites", names[i]), FB_OK);
        assert_int_equal(strncmp(names[i], f.suite.name, strlen(f.suite.name)), 0);
        assert_true(f.suite.plots_count > 0);
        free_suite(&f);
    }
}

static void test_suite_allocation_failures_are_reported(void **state)
{
    (void)state;
    static const char text[] = "suite: s\ntitle: t\ndefaults: {batch: 2}\n"
                               "sweep: {mechanism: [flow, {name: performer, features: [1, 2]}], "
                               "seq_len: [4, 8]}\nexclude: [{seq_len: '> 4', batch: 1}]\n"
                               "hardware: [{threads: 1}]\n"
                               "expect: [{metric: crossover, at_most: 9}]\nplots: isa_bars\n";
    static const char *const sets[] = {"measure.processes=5"};
    const struct fb_suite_options options = {.sets = sets, .sets_count = 1};
    long successes = 0;
    for (;; successes++) {
        struct fb_arena arena;
        struct fb_suite suite;
        struct fb_error error;
        fb_arena_init(&arena, 0);
        fb_arena_fail_after(&arena, successes);
        enum fb_status status =
            fb_suite_parse(text, strlen(text), "t.yaml", &options, &arena, &suite, &error);
        fb_arena_free(&arena);
        if (status == FB_OK) {
            break;
        }
        assert_int_equal(status, FB_ERROR_MEMORY);
        assert_true(error.text[0] != '\0');
        assert_true(successes < 10000);
    }
    assert_true(successes > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite_full_example_every_key_read),
        cmocka_unit_test(test_suite_smallest_example_defaults_are_used),
        cmocka_unit_test(test_suite_ranges_expand),
        cmocka_unit_test(test_suite_product_last_axis_is_fastest),
        cmocka_unit_test(test_suite_zip_walks_axes_together),
        cmocka_unit_test(test_suite_hardware_overrides_axes),
        cmocka_unit_test(test_suite_exclude_removes_what_matches),
        cmocka_unit_test(test_suite_resolved_yaml_gives_the_same_suite),
        cmocka_unit_test(test_suite_include_layers_and_refusals),
        cmocka_unit_test(test_suite_committed_files_are_valid),
        cmocka_unit_test(test_suite_allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
