/* Identity, warnings and JSON of a machine's facts; machine_read.c gathers them. See machine.h. */
#include "machine.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- identity -------------------------------------------------------------------------------- */

/* The model without " @ 2.60GHz", which some vendors put into the name. */
static void stable_model(const struct fb_machine *machine, char *model, size_t size)
{
    snprintf(model, size, "%s", machine->cpu_model[0] ? machine->cpu_model : machine->arch);
    char *at = strstr(model, " @ ");
    if (at)
        *at = '\0';
}

/* Lower case, everything but letters and digits to one '-', cut at a word's end below size. */
static void slug(const char *text, char *target, size_t size)
{
    size_t used = 0;
    for (const char *c = text; *c && used + 1 < size; c++) {
        if (isalnum((unsigned char)*c))
            target[used++] = (char)tolower((unsigned char)*c);
        else if (used > 0 && target[used - 1] != '-')
            target[used++] = '-';
    }
    while (used > 0 && target[used - 1] == '-')
        used--;
    target[used] = '\0';
}

void fb_machine_identify(struct fb_machine *machine)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    char model[128];
    stable_model(machine, model, sizeof model);
    char facts[512];
    /* Memory to the GiB: what the kernel keeps for itself varies with its version. */
    const int length =
        snprintf(facts, sizeof facts, "%s|%s|%s|%d|%d|%d|%zux%d|%zux%d|%zux%d|%.0f|%s",
                 machine->arch, machine->cpu_vendor, model, machine->sockets, machine->cores,
                 machine->threads, machine->l1d_bytes, machine->l1d_count, machine->l2_bytes,
                 machine->l2_count, machine->l3_bytes, machine->l3_count,
                 ceil((double)machine->memory_bytes / gib), machine->isas);
    size_t used = length > 0 && (size_t)length < sizeof facts ? (size_t)length : sizeof facts - 1;
    if (machine->gpu_present)
        used += (size_t)snprintf(facts + used, sizeof facts - used, "|%s", machine->gpu.name);
    used = used < sizeof facts ? used : sizeof facts - 1;
    snprintf(machine->identity, sizeof machine->identity, "%016" PRIx64,
             (uint64_t)XXH64(facts, used, 0));
    char name[40];
    slug(machine->gpu_present ? machine->gpu.name : model, name, sizeof name);
    snprintf(machine->name, sizeof machine->name, "%s-%dc-%.6s", name, machine->cores,
             machine->identity);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *integer_or_null(size_t value)
{
    return value > 0 ? json_integer((json_int_t)value) : json_null();
}

static json_t *words(const char *text)
{
    json_t *array = json_array();
    while (*text) {
        const size_t length = strcspn(text, " ");
        (void)json_array_append_new(array, json_stringn(text, length));
        text += length + strspn(text + length, " ");
    }
    return array;
}

static json_t *cpu_to_json(const struct fb_machine *m)
{
    json_t *levels = json_pack("{s:{s:o, s:i}, s:{s:o, s:i}, s:{s:o, s:i}, s:o}", "l1d", "bytes",
                               integer_or_null(m->l1d_bytes), "count", m->l1d_count, "l2", "bytes",
                               integer_or_null(m->l2_bytes), "count", m->l2_count, "l3", "bytes",
                               integer_or_null(m->l3_bytes), "count", m->l3_count,
                               "last_level_total_bytes", integer_or_null(m->llc_total_bytes));
    return json_pack(
        "{s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:s, s:o, s:o, s:o, s:o}", "model",
        text_or_null(m->cpu_model), "vendor", text_or_null(m->cpu_vendor), "arch",
        text_or_null(m->arch), "sockets", m->sockets, "numa_nodes", m->numa_nodes, "cores",
        m->cores, "threads", m->threads, "threads_usable", m->threads_usable, "smt", m->smt, "isas",
        words(m->isas), "isa_best", m->isa_best, "governor", text_or_null(m->governor), "freq_hz",
        real_or_null(m->freq_hz), "freq_max_hz", real_or_null(m->freq_max_hz), "caches", levels);
}

static json_t *gpu_to_json(const struct fb_machine *m)
{
    const struct fb_cuda_facts *gpu = &m->gpu;
    if (!m->gpu_present)
        return json_null();
    return json_pack(
        "{s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:o}", "model", gpu->name, "driver",
        gpu->driver, "multiprocessors", gpu->multiprocessors, "compute_capability",
        json_sprintf("%d.%d", gpu->major, gpu->minor), "memory_bytes",
        integer_or_null(gpu->memory_bytes), "l2_bytes", integer_or_null(gpu->l2_bytes),
        "shared_bytes", integer_or_null(gpu->shared_bytes), "cuda_driver", gpu->driver_version,
        "cuda_runtime", gpu->toolkit_version, "clock_max_hz", real_or_null(gpu->clock_max_hz),
        "clock_memory_hz", real_or_null(gpu->clock_memory_hz));
}

json_t *fb_machine_to_json(const struct fb_machine *m)
{
    json_t *system = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "kernel",
        text_or_null(m->kernel), "os", text_or_null(m->os), "memory_bytes",
        integer_or_null(m->memory_bytes), "memory_available_bytes",
        integer_or_null(m->memory_available_bytes), "hypervisor",
        m->hypervisor < 0 ? json_null() : json_boolean(m->hypervisor), "huge_pages",
        text_or_null(m->huge_pages), "load_1min", real_or_null(m->load_1min), "pressure_cpu",
        real_or_null(m->pressure_cpu), "clock_resolution_s", real_or_null(m->clock_resolution_s),
        "hostname", text_or_null(m->hostname), "peak_memory_known", m->peak_memory_known);
    json_t *openblas =
        m->openblas
            ? json_pack("{s:o, s:o, s:o}", "version", text_or_null(m->openblas_version), "config",
                        text_or_null(m->openblas_config), "core", text_or_null(m->openblas_core))
            : json_null();
    json_t *build = json_pack("{s:s, s:s, s:s, s:s}", "version", m->version, "compiler",
                              m->compiler, "flags", m->compiler_flags, "type", m->build_type);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "name", m->name, "identity",
                     m->identity, "cpu", cpu_to_json(m), "gpu", gpu_to_json(m), "system", system,
                     "openblas", openblas, "build", build);
}

/* ---- warnings -------------------------------------------------------------------------------- */

static bool governor_slows(const struct fb_machine *m)
{
    return m->governor[0] && strcmp(m->governor, "performance") != 0;
}

static bool has_smt(const struct fb_machine *m)
{
    return m->smt > 1;
}

/* Half a processor of foreign work is felt by a case that uses all of them. */
static bool is_busy(const struct fb_machine *m)
{
    return m->load_1min > 0.5;
}

static bool is_pressed(const struct fb_machine *m)
{
    return m->pressure_cpu > 5.0;
}

static bool is_virtual(const struct fb_machine *m)
{
    return m->hypervisor == 1;
}

static bool lacks_frequency(const struct fb_machine *m)
{
    return !isfinite(m->freq_max_hz);
}

static bool has_coarse_clock(const struct fb_machine *m)
{
    return m->clock_resolution_s > 1e-6;
}

static bool lacks_caches(const struct fb_machine *m)
{
    return m->llc_total_bytes == 0;
}

static bool lacks_peak_memory(const struct fb_machine *m)
{
    return !m->peak_memory_known;
}

static bool lacks_openblas(const struct fb_machine *m)
{
    return !m->openblas;
}

static bool is_slow_build(const struct fb_machine *m)
{
    return strcmp(m->build_type, "Debug") == 0 || strstr(m->compiler_flags, "-fsanitize") != NULL;
}

static const struct {
    const char *name;
    bool (*holds)(const struct fb_machine *machine);
    const char *text, *remedy;
} warnings_table[FB_WARNING_COUNT] = {
    [FB_WARNING_GOVERNOR] = {"governor", governor_slows,
                             "the frequency governor is not `performance`: clocks ramp up late",
                             "cpupower frequency-set -g performance"},
    [FB_WARNING_SMT] = {"smt", has_smt, "SMT siblings share a core: two threads may land on one",
                        "set `threads` to the number of cores, or, as root: "
                        "echo off > /sys/devices/system/cpu/smt/control"},
    [FB_WARNING_BUSY] = {"busy", is_busy,
                         "other work runs on this machine (1-minute load above 0.5)",
                         "end it or wait; rows carry ctx_involuntary and steal_s"},
    [FB_WARNING_PRESSURE] = {"pressure", is_pressed,
                             "tasks waited for a processor during the last 10 seconds",
                             "end other work or wait; see /proc/pressure/cpu"},
    [FB_WARNING_HYPERVISOR] = {"hypervisor", is_virtual,
                               "this is a virtual machine: neighbours may take time and bandwidth",
                               "use processes: 5 or more and look at steal_s, or a real machine"},
    [FB_WARNING_FREQUENCY] = {"frequency", lacks_frequency,
                              "the kernel does not tell the processor's frequency",
                              "freq_hz is estimated from a timed chain of one-cycle operations; "
                              "load a cpufreq driver to know its limits"},
    [FB_WARNING_CLOCK] = {"clock", has_coarse_clock,
                          "the monotonic clock steps by more than a microsecond",
                          "choose the tsc clock source (boot with clocksource=tsc); cold samples "
                          "of short cases are coarse"},
    [FB_WARNING_CACHE] = {"cache", lacks_caches,
                          "the size of the last-level cache is unknown: 32 MiB is assumed",
                          "check `lstopo`; use cache: warm if cold samples look too fast"},
    [FB_WARNING_PEAK_MEMORY] =
        {"peak-memory", lacks_peak_memory,
         "the peak of the resident set cannot be reset: mem_peak_bytes "
         "stays empty",
         "use a kernel with /proc/self/clear_refs (CONFIG_PROC_PAGE_MONITOR)"},
    [FB_WARNING_OPENBLAS] =
        {"openblas", lacks_openblas,
         "built without OpenBLAS: no plain variants, and floors rest on our own "
         "matrix products alone",
         "install libopenblas-dev and configure with FLOWBENCH_OPENBLAS=ON"},
    [FB_WARNING_BUILD] = {"build", is_slow_build,
                          "this build is for debugging: its times mean nothing",
                          "configure with -DCMAKE_BUILD_TYPE=Release"},
};

const char *fb_warning_name(enum fb_warning kind)
{
    return warnings_table[kind].name;
}

size_t fb_machine_warnings(const struct fb_machine *machine,
                           struct fb_machine_warning warnings[FB_WARNING_COUNT])
{
    size_t count = 0;
    for (int kind = 0; kind < FB_WARNING_COUNT; kind++) {
        if (!warnings_table[kind].holds(machine))
            continue;
        struct fb_machine_warning *warning = &warnings[count++];
        warning->kind = (enum fb_warning)kind;
        snprintf(warning->text, sizeof warning->text, "%s", warnings_table[kind].text);
        snprintf(warning->remedy, sizeof warning->remedy, "%s", warnings_table[kind].remedy);
    }
    return count;
}

json_t *fb_machine_warnings_to_json(const struct fb_machine *machine)
{
    struct fb_machine_warning warnings[FB_WARNING_COUNT];
    const size_t count = fb_machine_warnings(machine, warnings);
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(
            array, json_pack("{s:s, s:s, s:s}", "kind", fb_warning_name(warnings[i].kind), "text",
                             warnings[i].text, "remedy", warnings[i].remedy));
    return array;
}
