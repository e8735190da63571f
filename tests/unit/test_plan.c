/* Plans: resolution against a machine, identity, filters, order, and the JSON of a case. */
#include "cpu_features.h"
#include "plan.h"
#include "registry.h"
#include "suite_fixture.h"

/* A machine of four processors with everything but NEON and CUDA, whatever this one has. */
static bool has_isa(enum fb_isa isa)
{
    return isa == FB_ISA_SCALAR || isa == FB_ISA_AVX2 || isa == FB_ISA_AVX512;
}

static bool has_scalar_only(enum fb_isa isa)
{
    return isa == FB_ISA_SCALAR;
}

static bool has_device(enum fb_backend backend)
{
    return backend == FB_CPU;
}

static bool has_every_device(enum fb_backend backend)
{
    (void)backend;
    return true;
}

static const struct fb_plan_machine gpu_machine = {
    .threads = 4, .best_isa = FB_ISA_AVX512, .has_isa = has_isa, .has_device = has_every_device};
static const struct fb_plan_machine scalar_machine = {
    .threads = 4, .best_isa = FB_ISA_SCALAR, .has_isa = has_scalar_only, .has_device = has_device};
static const struct fb_plan_machine wide_machine = {
    .threads = 4, .best_isa = FB_ISA_AVX512, .has_isa = has_isa, .has_device = has_device};

struct planned {
    struct suite_fixture f;
    struct fb_plan plan;
    struct fb_error error;
    enum fb_status status;
};

static void build(struct planned *p, const char *text, const char *filter,
                  const struct fb_plan_machine *machine)
{
    parse_valid(&p->f, text);
    p->status = fb_plan_build(&p->f.suite, filter, machine, &p->f.arena, &p->plan, &p->error);
}

static void build_valid(struct planned *p, const char *text, const char *filter)
{
    build(p, text, filter, &scalar_machine);
    if (p->status != FB_OK) {
        print_message("%s\n", p->error.text);
    }
    assert_int_equal(p->status, FB_OK);
}

static void free_plan(struct planned *p)
{
    free_suite(&p->f);
}

static void test_plan_resolves_machine_and_defaults(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p, "suite: s\nsweep: {mechanism: flow, seq_len: 8, threads: [max, 2]}\n", NULL);
    assert_int_equal(p.plan.cases_count, 2);
    const struct fb_case *item = &p.plan.cases[0];
    assert_string_equal(item->variant, "fused");
    assert_int_equal(item->threads, 4);
    assert_int_equal(p.plan.cases[1].threads, 2);
    assert_int_equal(item->isa, FB_ISA_SCALAR);
    assert_non_null(item->attention);
    assert_int_equal(item->attention->isa, FB_ISA_SCALAR);
    assert_null(item->skip_reason);
    char text[128];
    fb_case_describe(item, text, sizeof text);
    assert_string_equal(text, "flow/fused cpu:scalarx4 f32 BHND forward B1 H8 N8 D64");
    free_plan(&p);
}

static void test_plan_duplicates_are_dropped(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p,
                "suite: s\nsweep: {mechanism: [flow, {name: flow, variant: fused}], "
                "seq_len: [8, 8]}\nhardware: [{threads: [4, max]}, {isa: scalar}]\n",
                NULL);
    assert_int_equal(p.plan.cases_count, 1);
    free_plan(&p);
}

static void test_plan_id_depends_on_factors_only(void **state)
{
    (void)state;
    struct planned a;
    struct planned b;
    build_valid(&a, "suite: one\nsweep: {mechanism: [performer, flow], seq_len: [8, 16]}\n", NULL);
    build_valid(&b,
                "suite: two\nsweep: {seq_len: [16, 8], mechanism: [flow, {name: performer, "
                "features: 256}]}\nhardware: [{device: cpu, optional: true}]\n",
                NULL);
    assert_int_equal(a.plan.cases_count, 4);
    for (size_t i = 0; i < 4; i++) {
        size_t matches = 0;
        assert_int_equal(strlen(a.plan.cases[i].id), 16);
        for (size_t j = 0; j < 4; j++) {
            matches += strcmp(a.plan.cases[i].id, b.plan.cases[j].id) == 0 ? 1 : 0;
            assert_true(i == j || strcmp(a.plan.cases[i].id, a.plan.cases[j].id) != 0);
        }
        assert_int_equal(matches, 1);
    }
    free_plan(&a);
    free_plan(&b);
}

/* The identity is a promise to stored results: it may not change from version to version. */
static void test_plan_id_is_stable(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p, "suite: s\nsweep: {mechanism: flow, seq_len: 256, threads: 2}\n", NULL);
    assert_string_equal(p.plan.cases[0].id, "c47465d6b9bd5448");
    free_plan(&p);
    build_valid(&p,
                "suite: s\nsweep: {mechanism: {name: performer, features: 64}, seq_len: 256, "
                "threads: 2, causal: true}\n",
                NULL);
    assert_string_equal(p.plan.cases[0].id, "67ca5e529c918df3");
    free_plan(&p);
}

static void test_plan_what_is_not_served_is_a_skip_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *axes, *reason;
    } cases[] = {
        {"mechanism: linear, seq_len: 8, variant: plain", "linear has no variant 'plain'"},
        {"mechanism: local, seq_len: 8, dtype: f64", ""},
        {"mechanism: flow, seq_len: 8, variant: plain, dtype: bf16", ""},
        {"mechanism: flow, seq_len: 8, kv_len: 4, causal: true", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct planned p;
        char text[200];
        (void)snprintf(text, sizeof text, "suite: s\nsweep: {%s}\n", cases[i].axes);
        build_valid(&p, text, NULL);
        assert_int_equal(p.plan.cases_count, 1);
        assert_int_equal(p.plan.jobs_count, 0);
        assert_null(p.plan.cases[0].attention);
        assert_non_null(p.plan.cases[0].skip_reason);
        assert_true(p.plan.cases[0].skip_reason[0] != '\0');
        if (cases[i].reason[0] != '\0') {
            assert_string_equal(p.plan.cases[0].skip_reason, cases[i].reason);
        }
        free_plan(&p);
    }
}

static void test_plan_absent_hardware_optional_skips_required_refuses(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p,
                "suite: s\nsweep: {mechanism: flow, seq_len: 8}\nhardware:\n"
                "  - {device: cuda, optional: true}\n  - {isa: avx512, optional: true}\n"
                "  - {isa: scalar}\n",
                NULL);
    assert_int_equal(p.plan.cases_count, 3);
    assert_string_equal(p.plan.cases[0].skip_reason, "no CUDA device");
    assert_int_equal(p.plan.cases[0].isa, FB_ISA_ANY);
    assert_string_equal(p.plan.cases[1].skip_reason, "this machine has no avx512");
    assert_null(p.plan.cases[2].skip_reason);
    assert_int_equal(p.plan.jobs_count, 1);
    free_plan(&p);

    const char *required = "suite: s\nsweep: {mechanism: flow, seq_len: 8}\nhardware:\n"
                           "  - {device: cpu}\n  - {device: cuda}\n";
    build(&p, required, NULL, &scalar_machine);
    assert_int_equal(p.status, FB_ERROR_USAGE);
    assert_non_null(strstr(p.error.text, "t.yaml:5:14: error: no CUDA device"));
    free_plan(&p);
    build_valid(&p, required, "device=cpu");
    assert_int_equal(p.plan.cases_count, 1);
    free_plan(&p);
    build(&p, "suite: s\ndefaults: {isa: neon}\nsweep: {mechanism: flow, seq_len: 8}\n", NULL,
          &wide_machine);
    assert_int_equal(p.status, FB_ERROR_USAGE);
    assert_non_null(strstr(p.error.text, "t.yaml:2:17: error: this machine has no neon"));
    free_plan(&p);
}

/* On a GPU there is one host thread and no instruction set to choose. */
static void test_plan_external_programs_run_on_processors_and_gpus(void **state)
{
    (void)state;
    struct planned p;
    build(&p,
          "suite: s\nhardware: [{device: cpu}, {device: cuda, dtype: bf16}]\n"
          "sweep: {mechanism: {name: external, computes: softmax, program: torch, "
          "variant: torch-cudnn}, seq_len: 8, pass: [forward, both]}\n",
          NULL, &gpu_machine);
    assert_int_equal(p.status, FB_OK);
    assert_int_equal(p.plan.cases_count, 4);
    int on_gpu = 0;
    for (size_t i = 0; i < p.plan.cases_count; i++) {
        const struct fb_case *item = &p.plan.cases[i];
        assert_null(item->skip_reason);
        assert_non_null(item->attention);
        assert_int_equal(item->attention->backend, item->device);
        if (item->device == FB_CUDA) {
            assert_int_equal(item->threads, 1);
            assert_int_equal(item->isa, FB_ISA_ANY);
            on_gpu++;
        }
    }
    assert_int_equal(on_gpu, 2);
    free_plan(&p);
}

/* Of the sets that this processor has, since a variant for another one serves nothing here. */
static void test_plan_best_isa_is_the_strongest_built_one(void **state)
{
    (void)state;
    for (int best = FB_ISA_SCALAR; best <= FB_ISA_AVX512; best++) {
        struct planned p;
        struct fb_plan_machine machine = wide_machine;
        machine.best_isa = (enum fb_isa)best;
        if (!has_isa((enum fb_isa)best) || !fb_cpu_has((enum fb_isa)best)) {
            continue;
        }
        build(&p, "suite: s\nsweep: {mechanism: [flow, softmax], seq_len: 8}\n", NULL, &machine);
        assert_int_equal(p.status, FB_OK);
        for (size_t i = 0; i < 2; i++) {
            const struct fb_case *item = &p.plan.cases[i];
            assert_non_null(item->attention);
            assert_int_equal(item->attention->isa, item->isa);
            assert_true((int)item->isa <= best);
            for (int isa = (int)item->isa + 1; isa <= best; isa++) {
                assert_true(!has_isa((enum fb_isa)isa) ||
                            fb_attention_find(item->mechanism, item->variant, FB_CPU,
                                              (enum fb_isa)isa) == NULL);
            }
        }
        free_plan(&p);
    }
}

/* What a variant for an instruction set of another processor is planned as: a skip, no fault. */
static void test_plan_what_this_processor_lacks_is_a_skip(void **state)
{
    (void)state;
    struct planned p;
    build(&p, "suite: s\nsweep: {mechanism: flow, seq_len: 8}\nhardware: [{isa: avx512}]\n", NULL,
          &wide_machine);
    assert_int_equal(p.status, FB_OK);
    const struct fb_case *item = &p.plan.cases[0];
    if (fb_cpu_has(FB_ISA_AVX512)) {
        assert_null(item->skip_reason);
    } else {
        assert_non_null(item->skip_reason);
        assert_null(item->attention);
    }
    free_plan(&p);
}

/* Counting: one thread, one process, no instruction set that the counter does not execute. */
static void test_plan_counting_is_on_one_thread_and_what_valgrind_executes(void **state)
{
    (void)state;
    const char *text = "suite: s\nsweep: {mechanism: flow, seq_len: 8}\n"
                       "hardware: [{threads: max}, {threads: 2}, {isa: avx512}]\n"
                       "measure: {counter: %s, processes: 5}\n";
    static const char *const counters[] = {"valgrind", "hardware"};
    for (int i = 0; i < 2; i++) {
        char suite[300];
        struct planned p;
        const bool valgrind = i == 0;
        (void)snprintf(suite, sizeof suite, text, counters[i]);
        build(&p, suite, NULL, &wide_machine);
        assert_int_equal(p.status, FB_OK);
        const struct fb_case *cases = p.plan.cases;
        assert_int_equal(p.plan.cases_count, valgrind ? 3 : 2);
        assert_int_equal(cases[0].threads, 1);
        assert_true(valgrind ? cases[0].isa != FB_ISA_AVX512 : cases[0].isa == FB_ISA_AVX512);
        if (fb_cpu_has(cases[0].isa)) {
            assert_null(cases[0].skip_reason);
            assert_int_equal(p.plan.jobs_count, 1);
        }
        assert_non_null(strstr(cases[1].skip_reason, "counted on 1 thread, not 2"));
        if (valgrind)
            assert_non_null(strstr(cases[2].skip_reason, "valgrind executes no avx512"));
        free_plan(&p);
    }
}

static size_t count_filtered(const char *filter)
{
    struct planned p;
    build_valid(&p,
                "suite: s\nsweep: {mechanism: [flow, softmax, linear], seq_len: [8, 16, 32], "
                "causal: [false, true], threads: [1, max]}\n",
                filter);
    size_t count = p.plan.cases_count;
    free_plan(&p);
    return count;
}

static void test_plan_filter_conditions(void **state)
{
    (void)state;
    assert_int_equal(count_filtered(NULL), 36);
    assert_int_equal(count_filtered("seq_len<=16"), 24);
    assert_int_equal(count_filtered("seq_len < 16, mechanism = flow"), 4);
    assert_int_equal(count_filtered("mechanism=flow|linear"), 24);
    assert_int_equal(count_filtered("mechanism!=flow|linear"), 12);
    assert_int_equal(count_filtered("seq_len>8,seq_len>=32,causal=true"), 6);
    assert_int_equal(count_filtered("variant=fused"), 24);
    assert_int_equal(count_filtered("threads=max"), 18);
    assert_int_equal(count_filtered("threads>1"), 18);
    assert_int_equal(count_filtered("isa=best"), 36);
    assert_int_equal(count_filtered("seq_len=8|32"), 24);
}

static void test_plan_filter_mistakes(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *wanted;
    } cases[] = {
        {"seqlen=5", "--filter:1:1: error: unknown factor 'seqlen'; did you mean 'seq_len'?"},
        {"seq_len<=16,mechanism=flwo",
         "--filter:1:23: error: unknown mechanism 'flwo'; did you mean 'flow'?"},
        {"seq_len", "--filter:1:1: error: a condition is factor OP value"},
        {"", "--filter:1:1: error: a condition is factor OP value"},
        {"seq_len=8,", "--filter:1:11: error: a condition is factor OP value"},
        {"seq_len=", "--filter:1:9: error: a value is missing here"},
        {"seq_len=8|", "--filter:1:11: error: a value is missing here"},
        {"seq_len<8|16", "--filter:1:9: error: seq_len: '<' and '>' compare with one value"},
        {"causal>true", "--filter:1:8: error: causal has no order"},
        {"causal=yes", "--filter:1:8: error: causal is true or false"},
        {"seq_len=x", "--filter:1:9: error: seq_len is a whole number, not 'x'"},
        {"seq_len>999", "--filter 'seq_len>999' matches none of the 1 cases"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct planned p;
        build(&p, "suite: s\nsweep: {mechanism: flow, seq_len: 8}\n", cases[i].filter,
              &scalar_machine);
        if (strncmp(p.error.text, cases[i].wanted, strlen(cases[i].wanted)) != 0) {
            print_message("wanted: %s\ngot:    %s\n", cases[i].wanted, p.error.text);
        }
        assert_int_equal(p.status, FB_ERROR_USAGE);
        assert_int_equal(strncmp(p.error.text, cases[i].wanted, strlen(cases[i].wanted)), 0);
        free_plan(&p);
    }
}

static void test_plan_order_is_a_seeded_permutation(void **state)
{
    (void)state;
    struct planned p[3];
    for (int i = 0; i < 3; i++) {
        char suite[256];
        (void)snprintf(suite, sizeof suite,
                       "suite: s\ndefaults: {seed: %d}\nmeasure: {processes: 3}\n"
                       "sweep: {mechanism: flow, seq_len: {from: 1, to: 50, step: 1}}\n",
                       i == 2 ? 8 : 7);
        build_valid(&p[i], suite, NULL);
        assert_int_equal(p[i].plan.jobs_count, 150);
    }
    bool seen[50][3] = {{false}};
    size_t moved = 0;
    size_t differ = 0;
    for (size_t i = 0; i < 150; i++) {
        const struct fb_job *job = &p[0].plan.jobs[i];
        assert_false(seen[job->case_index][job->process]);
        seen[job->case_index][job->process] = true;
        assert_int_equal(job->case_index, p[1].plan.jobs[i].case_index);
        assert_int_equal(job->process, p[1].plan.jobs[i].process);
        moved += job->case_index != i / 3 ? 1 : 0;
        differ += job->case_index != p[2].plan.jobs[i].case_index ? 1 : 0;
    }
    assert_true(moved > 100);
    assert_true(differ > 100);
    for (int i = 0; i < 3; i++) {
        free_plan(&p[i]);
    }
}

static void test_plan_too_many_jobs_are_refused(void **state)
{
    (void)state;
    struct planned p;
    build(&p,
          "suite: s\nmeasure: {processes: 1000}\n"
          "sweep: {mechanism: flow, seq_len: {from: 1, to: 1001, step: 1}}\n",
          NULL, &scalar_machine);
    assert_int_equal(p.status, FB_ERROR_USAGE);
    assert_non_null(strstr(p.error.text, "1001 cases with 1000 processes each"));
    free_plan(&p);
}

/* What a parameter of a case may be, wherever the JSON comes from: a choice is a name of its table,
 * a number lies in its range. */
static void test_case_json_refuses_parameters_out_of_range(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } wrong[] = {{"competition", "9"},     {"competition", "\"nobody\""},
                 {"competition", "true"},  {"clamp", "-1"},
                 {"clamp", "\"1\""},       {"allocation", "1"},
                 {"phi", "[\"sigmoid\"]"}, {"features", "4"}};
    struct planned p;
    build_valid(&p, "suite: s\nsweep: {mechanism: flow, seq_len: 16}\n", NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct fb_case back;
        struct fb_error error = {FB_OK, ""};
        json_t *json = fb_case_to_json(&p.plan.cases[0]);
        assert_non_null(json);
        json_object_set_new(json_object_get(json, "params"), wrong[i].name,
                            json_loads(wrong[i].value, JSON_DECODE_ANY, NULL));
        assert_int_equal(fb_case_from_json(json, &p.f.arena, &back, &error), FB_ERROR_INPUT);
        assert_non_null(strstr(error.text, wrong[i].name));
        json_decref(json);
    }
    free_plan(&p);
}

static void test_case_json_round_trip(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p,
                "suite: s\nsweep: {mechanism: [{name: performer, features: 64}, {name: flow, "
                "variant: plain}], seq_len: 16, kv_len: 8, value_dim: 32, layout: BNHD, seed: 5}\n"
                "hardware: [{device: cpu}, {device: cuda, optional: true}]\n",
                NULL);
    for (size_t i = 0; i < p.plan.cases_count; i++) {
        const struct fb_case *item = &p.plan.cases[i];
        struct fb_case back;
        struct fb_error error;
        json_t *json = fb_case_to_json(item);
        assert_non_null(json);
        assert_int_equal(fb_case_from_json(json, &p.f.arena, &back, &error), FB_OK);
        assert_string_equal(back.id, item->id);
        assert_ptr_equal(back.attention, item->attention);
        assert_int_equal(back.layout, FB_BNHD);
        assert_int_equal(back.value_dim, 32);
        assert_true(memcmp(back.params, item->params, sizeof back.params) == 0);
        assert_true((back.skip_reason == NULL) == (item->skip_reason == NULL));
        json_object_set_new(json, "seq_len", json_integer(17));
        assert_int_equal(fb_case_from_json(json, &p.f.arena, &back, &error), FB_ERROR_INPUT);
        json_object_del(json, "mechanism");
        assert_int_equal(fb_case_from_json(json, &p.f.arena, &back, &error), FB_ERROR_INPUT);
        json_decref(json);
    }
    json_t *params = fb_case_params_json(&p.plan.cases[0]);
    const json_int_t features = json_integer_value(json_object_get(params, "features"));
    json_decref(params);
    assert_int_equal(features, 64);
    free_plan(&p);
}

static void test_case_bytes_and_problem(void **state)
{
    (void)state;
    struct planned p;
    build_valid(&p,
                "suite: s\nsweep: {mechanism: softmax, seq_len: 16, kv_len: 8, head_dim: 4, "
                "value_dim: 2, batch: 3, heads: 5}\n",
                NULL);
    struct fb_problem problem;
    struct fb_case_bytes bytes;
    fb_case_problem(&p.plan.cases[0], &problem);
    assert_int_equal(problem.q_len, 16);
    assert_int_equal(problem.kv_len, 8);
    assert_int_equal(problem.kv_heads, 5);
    assert_int_equal(problem.v_dim, 2);
    fb_case_bytes(&p.plan.cases[0], &bytes);
    assert_int_equal(bytes.io_bytes, 3 * 5 * 4 * (16 * 4 + 8 * 4 + 8 * 2 + 16 * 2));
    assert_int_equal(bytes.saved_bytes, 0);
    assert_true(bytes.total_bytes == bytes.io_bytes + bytes.workspace_bytes);
    free_plan(&p);
}

static void test_plan_machine_here_is_sensible(void **state)
{
    (void)state;
    struct fb_plan_machine machine;
    fb_plan_machine_here(&machine);
    assert_true(machine.threads >= 1);
    assert_true(machine.has_isa(machine.best_isa));
    assert_true(machine.has_isa(FB_ISA_SCALAR));
    assert_true(machine.has_device(FB_CPU));
    assert_false(machine.has_device(FB_CUDA));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_resolves_machine_and_defaults),
        cmocka_unit_test(test_plan_duplicates_are_dropped),
        cmocka_unit_test(test_plan_id_depends_on_factors_only),
        cmocka_unit_test(test_plan_id_is_stable),
        cmocka_unit_test(test_plan_what_is_not_served_is_a_skip_with_its_reason),
        cmocka_unit_test(test_plan_absent_hardware_optional_skips_required_refuses),
        cmocka_unit_test(test_plan_external_programs_run_on_processors_and_gpus),
        cmocka_unit_test(test_plan_best_isa_is_the_strongest_built_one),
        cmocka_unit_test(test_plan_what_this_processor_lacks_is_a_skip),
        cmocka_unit_test(test_plan_counting_is_on_one_thread_and_what_valgrind_executes),
        cmocka_unit_test(test_plan_filter_conditions),
        cmocka_unit_test(test_plan_filter_mistakes),
        cmocka_unit_test(test_plan_order_is_a_seeded_permutation),
        cmocka_unit_test(test_plan_too_many_jobs_are_refused),
        cmocka_unit_test(test_case_json_refuses_parameters_out_of_range),
        cmocka_unit_test(test_case_json_round_trip),
        cmocka_unit_test(test_case_bytes_and_problem),
        cmocka_unit_test(test_plan_machine_here_is_sensible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
