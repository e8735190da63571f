/* flowbench info: what this machine and this build are, and what would spoil a measurement. */
#include "commands.h"
#include "counter.h"
#include "machine.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct info_options {
    bool json;
};

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "Print the facts and warnings as one JSON document", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct info_options *info = state->input;
    switch (key) {
    case 'j':
        info->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "info takes no argument, but was given '%s'", argument);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_text(const char *label, const char *text)
{
    printf("  %-15s %s\n", label, text[0] != '\0' ? text : "unknown");
}

static void print_frequency(const char *label, double hz)
{
    if (isfinite(hz))
        printf("  %-15s %.2f GHz\n", label, hz / 1e9);
    else
        print_text(label, "");
}

static void print_cache(const char *label, size_t bytes, int count)
{
    if (bytes == 0)
        print_text(label, "");
    else if (bytes < ((size_t)1 << 20))
        printf("  %-15s %d x %zu KiB\n", label, count, bytes >> 10);
    else
        printf("  %-15s %d x %.4g MiB\n", label, count, (double)bytes / 1048576.0);
}

static void print_cpu(const struct fb_machine *m)
{
    puts("Processor");
    print_text("model", m->cpu_model);
    print_text("architecture", m->arch);
    printf("  %-15s %d (%d per core, %d usable here)\n", "threads", m->threads, m->smt,
           m->threads_usable);
    printf("  %-15s %d in %d socket(s), %d NUMA node(s)\n", "cores", m->cores, m->sockets,
           m->numa_nodes);
    print_text("isa", m->isas);
    print_cache("L1 data", m->l1d_bytes, m->l1d_count);
    print_cache("L2", m->l2_bytes, m->l2_count);
    print_cache("L3", m->l3_bytes, m->l3_count);
    print_text("governor", m->governor);
    print_frequency("frequency now", m->freq_hz);
    print_frequency("frequency max", m->freq_max_hz);
}

static void print_gpu(const struct fb_machine *m)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    const struct fb_cuda_facts *gpu = &m->gpu;
    puts("GPU");
    if (!m->gpu_present) {
        print_text("model", fb_cuda_is_built() ? "none" : "none: this build has no CUDA backend");
        return;
    }
    print_text("model", gpu->name);
    printf("  %-15s %d.%d, %d multiprocessors\n", "capability", gpu->major, gpu->minor,
           gpu->multiprocessors);
    printf("  %-15s %.1f GiB, L2 %.0f MiB\n", "memory", (double)gpu->memory_bytes / gib,
           (double)gpu->l2_bytes / (1024.0 * 1024.0));
    printf("  %-15s %d.%d by the driver %s, %d.%d built in\n", "CUDA", gpu->driver_version / 1000,
           gpu->driver_version % 1000 / 10, gpu->driver, gpu->toolkit_version / 1000,
           gpu->toolkit_version % 1000 / 10);
    print_text("cuDNN", m->cudnn_version[0] != '\0' ? m->cudnn_version
                                                    : "not found; FLOWBENCH_CUDNN names its file");
    print_frequency("clock max", gpu->clock_max_hz);
    print_frequency("memory clock", gpu->clock_memory_hz);
}

static void print_system(const struct fb_machine *m)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    puts("System");
    print_text("os", m->os);
    print_text("kernel", m->kernel);
    printf("  %-15s %.1f GiB, %.1f available\n", "memory", (double)m->memory_bytes / gib,
           (double)m->memory_available_bytes / gib);
    print_text("huge pages", m->huge_pages);
    print_text("virtual", m->hypervisor < 0 ? "" : m->hypervisor ? "yes" : "no");
    if (isfinite(m->load_1min))
        printf("  %-15s %.2f\n", "load, 1 minute", m->load_1min);
    if (isfinite(m->pressure_cpu))
        printf("  %-15s %.1f %% of the last 10 s\n", "cpu pressure", m->pressure_cpu);
    printf("  %-15s %.0f ns\n", "clock step", m->clock_resolution_s * 1e9);
}

static void print_build(const struct fb_machine *m)
{
    puts("Build");
    print_text("flowbench", m->version);
    print_text("compiler", m->compiler);
    print_text("type", m->build_type);
    print_text("flags", m->compiler_flags);
    if (m->openblas)
        printf("  %-15s %s, kernels for %s\n", "OpenBLAS", m->openblas_version, m->openblas_core);
    else
        print_text("OpenBLAS", "not built in");
}

/* Where instructions can be counted, for gates on machines too noisy for time. */
static void print_counters(void)
{
    puts("Instruction counters");
    for (int i = FB_COUNTER_NONE + 1; i < FB_COUNTER_COUNT; i++) {
        const enum fb_counter counter = (enum fb_counter)i;
        struct fb_error error;
        const bool there = fb_counter_check(counter, &error) == FB_OK;
        print_text(fb_counter_name(counter), there ? "available" : error.text);
    }
}

static void print_warnings(const struct fb_machine *machine)
{
    struct fb_machine_warning warnings[FB_WARNING_COUNT];
    const size_t count = fb_machine_warnings(machine, warnings);
    puts(count > 0 ? "Warnings" : "No warnings: this machine is fit to measure on.");
    for (size_t i = 0; i < count; i++)
        printf("  %s: %s\n    remedy: %s\n", fb_warning_name(warnings[i].kind), warnings[i].text,
               warnings[i].remedy);
}

static int print_json(const struct fb_machine *machine, struct fb_error *error)
{
    json_t *json = fb_machine_to_json(machine);
    const bool complete =
        json && json_object_set_new(json, "warnings", fb_machine_warnings_to_json(machine)) == 0;
    char *text = complete ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!text) {
        (void)fb_error_set(error, FB_ERROR_MEMORY, "no memory for the JSON document");
        return fb_exit_report("info", error);
    }
    puts(text);
    free(text);
    return FB_EXIT_OK;
}

const struct argp fb_argp_info = {
    .options = options,
    .parser = parse_option,
    .doc = "Shows what this machine and this build are, and warns of what would spoil a "
           "measurement, with its remedy.\v"
           "Examples:\n"
           "  flowbench info                         for reading, before a long run\n"
           "  flowbench info --json | jq .warnings   for scripts\n",
};

int fb_cmd_info(int argc, char **argv)
{
    struct info_options info = {0};
    const error_t parsed = argp_parse(&fb_argp_info, argc, argv, 0, NULL, &info);
    if (parsed != 0)
        return FB_EXIT_USAGE;
    struct fb_machine machine;
    struct fb_error error = {.code = FB_OK};
    if (fb_machine_read(&machine, &error) != FB_OK)
        return fb_exit_report("info", &error);
    if (info.json)
        return print_json(&machine, &error);
    printf("Machine\n");
    print_text("name", machine.name);
    print_text("identity", machine.identity);
    print_cpu(&machine);
    print_gpu(&machine);
    print_system(&machine);
    print_build(&machine);
    print_counters();
    print_warnings(&machine);
    return FB_EXIT_OK;
}
