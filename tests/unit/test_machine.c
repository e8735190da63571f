/* Facts about the machine: identity, warnings, JSON. */
#include "machine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct fb_machine sample_machine(void)
{
    struct fb_machine machine = {
        .arch = "x86_64",
        .cpu_vendor = "GenuineIntel",
        .cpu_model = "Intel(R) Xeon(R) Gold 6142 CPU @ 2.60GHz",
        .sockets = 1,
        .numa_nodes = 1,
        .cores = 16,
        .threads = 16,
        .threads_usable = 16,
        .smt = 1,
        .l1d_bytes = 32768,
        .l1d_count = 16,
        .l2_bytes = 1 << 20,
        .l2_count = 16,
        .l3_bytes = 22 << 20,
        .l3_count = 1,
        .llc_total_bytes = 22 << 20,
        .memory_bytes = (size_t)64 << 30,
        .governor = "performance",
        .freq_hz = 2.6e9,
        .freq_max_hz = 3.7e9,
        .hypervisor = 0,
        .load_1min = 0.1,
        .pressure_cpu = 0.0,
        .clock_resolution_s = 2e-8,
        .peak_memory_known = true,
        .isas = "scalar avx2 avx512",
        .isa_best = "avx512",
        .openblas = true,
        .build_type = "Release",
    };
    fb_machine_identify(&machine);
    return machine;
}

static void test_identity_unstable_facts_do_not_count(void **state)
{
    (void)state;
    const struct fb_machine before = sample_machine();
    struct fb_machine after = before;
    after.freq_hz = 1.2e9;
    after.freq_max_hz = 3.5e9;
    after.load_1min = 12.0;
    after.memory_available_bytes = 1;
    after.memory_bytes -= (size_t)100 << 20;
    snprintf(after.kernel, sizeof after.kernel, "Linux 9.9");
    snprintf(after.hostname, sizeof after.hostname, "elsewhere");
    snprintf(after.cpu_model, sizeof after.cpu_model, "Intel(R) Xeon(R) Gold 6142 CPU @ 2.10GHz");
    fb_machine_identify(&after);
    assert_string_equal(after.identity, before.identity);
    assert_string_equal(after.name, before.name);
}

static void test_identity_stable_facts_count(void **state)
{
    (void)state;
    const struct fb_machine before = sample_machine();
    struct fb_machine after = before;
    after.cores = 8;
    fb_machine_identify(&after);
    assert_string_not_equal(after.identity, before.identity);
    after = before;
    after.l3_bytes *= 2;
    fb_machine_identify(&after);
    assert_string_not_equal(after.identity, before.identity);
    after = before;
    after.memory_bytes *= 2;
    fb_machine_identify(&after);
    assert_string_not_equal(after.identity, before.identity);
    after = before;
    snprintf(after.cpu_model, sizeof after.cpu_model, "Intel(R) Xeon(R) Gold 6148 CPU @ 2.60GHz");
    fb_machine_identify(&after);
    assert_string_not_equal(after.identity, before.identity);
}

static void test_name_fits_a_folder(void **state)
{
    (void)state;
    const struct fb_machine machine = sample_machine();
    char want[64];
    snprintf(want, sizeof want, "intel-r-xeon-r-gold-6142-cpu-16c-%.6s", machine.identity);
    assert_string_equal(machine.name, want);
    assert_int_equal(strspn(machine.name, "abcdefghijklmnopqrstuvwxyz0123456789-"),
                     strlen(machine.name));
}

static void test_warnings_quiet_machine_none(void **state)
{
    (void)state;
    const struct fb_machine machine = sample_machine();
    struct fb_machine_warning warnings[FB_WARNING_COUNT];
    assert_int_equal(fb_machine_warnings(&machine, warnings), 0);
}

static void test_warnings_each_fact_its_own(void **state)
{
    (void)state;
    for (int kind = 0; kind < FB_WARNING_COUNT; kind++) {
        struct fb_machine machine = sample_machine();
        switch ((enum fb_warning)kind) {
        case FB_WARNING_GOVERNOR:
            snprintf(machine.governor, sizeof machine.governor, "powersave");
            break;
        case FB_WARNING_SMT:
            machine.smt = 2;
            break;
        case FB_WARNING_BUSY:
            machine.load_1min = 3.0;
            break;
        case FB_WARNING_PRESSURE:
            machine.pressure_cpu = 30.0;
            break;
        case FB_WARNING_HYPERVISOR:
            machine.hypervisor = 1;
            break;
        case FB_WARNING_FREQUENCY:
            machine.freq_max_hz = (double)NAN;
            break;
        case FB_WARNING_CLOCK:
            machine.clock_resolution_s = 4e-3;
            break;
        case FB_WARNING_CACHE:
            machine.llc_total_bytes = 0;
            break;
        case FB_WARNING_PEAK_MEMORY:
            machine.peak_memory_known = false;
            break;
        case FB_WARNING_OPENBLAS:
            machine.openblas = false;
            break;
        case FB_WARNING_BUILD:
            snprintf(machine.build_type, sizeof machine.build_type, "Debug");
            break;
        case FB_WARNING_COUNT:
            break;
        }
        struct fb_machine_warning warnings[FB_WARNING_COUNT];
        assert_int_equal(fb_machine_warnings(&machine, warnings), 1);
        assert_int_equal(warnings[0].kind, kind);
        assert_true(warnings[0].text[0] != '\0' && warnings[0].remedy[0] != '\0');
        assert_true(strlen(warnings[0].remedy) < sizeof warnings[0].remedy - 1);
    }
}

static void test_read_this_machine_is_plausible(void **state)
{
    (void)state;
    struct fb_machine machine;
    struct fb_error error;
    assert_int_equal(fb_machine_read(&machine, &error), FB_OK);
    assert_true(machine.threads_usable >= 1 && machine.threads >= machine.threads_usable);
    assert_true(machine.memory_bytes > 0);
    assert_true(machine.memory_available_bytes > 0);
    assert_true(machine.memory_available_bytes <= machine.memory_bytes);
    assert_int_equal(strlen(machine.identity), 16);
    assert_true(machine.clock_resolution_s > 0.0);
    assert_true(machine.isas[0] != '\0' && machine.compiler[0] != '\0' &&
                machine.version[0] != '\0');
    size_t llc_bytes, private_bytes;
    fb_machine_caches(&llc_bytes, &private_bytes);
    assert_int_equal(llc_bytes, machine.llc_total_bytes);
}

static void test_json_unknown_facts_are_null(void **state)
{
    (void)state;
    struct fb_machine machine = sample_machine();
    machine.freq_hz = (double)NAN;
    machine.governor[0] = '\0';
    machine.hypervisor = -1;
    json_t *json = fb_machine_to_json(&machine);
    assert_non_null(json);
    const json_t *cpu = json_object_get(json, "cpu");
    assert_true(json_is_null(json_object_get(cpu, "freq_hz")));
    assert_true(json_is_null(json_object_get(cpu, "governor")));
    assert_true(json_is_null(json_object_get(json_object_get(json, "system"), "hypervisor")));
    assert_int_equal(json_integer_value(json_object_get(cpu, "cores")), 16);
    assert_int_equal(json_array_size(json_object_get(cpu, "isas")), 3);
    assert_string_equal(json_string_value(json_object_get(json, "identity")), machine.identity);
    json_decref(json);
}

static void test_json_warnings_name_their_remedy(void **state)
{
    (void)state;
    struct fb_machine machine = sample_machine();
    machine.smt = 2;
    json_t *json = fb_machine_warnings_to_json(&machine);
    assert_int_equal(json_array_size(json), 1);
    const json_t *warning = json_array_get(json, 0);
    assert_string_equal(json_string_value(json_object_get(warning, "kind")), "smt");
    assert_non_null(json_object_get(warning, "remedy"));
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_unstable_facts_do_not_count),
        cmocka_unit_test(test_identity_stable_facts_count),
        cmocka_unit_test(test_name_fits_a_folder),
        cmocka_unit_test(test_warnings_quiet_machine_none),
        cmocka_unit_test(test_warnings_each_fact_its_own),
        cmocka_unit_test(test_read_this_machine_is_plausible),
        cmocka_unit_test(test_json_unknown_facts_are_null),
        cmocka_unit_test(test_json_warnings_name_their_remedy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
