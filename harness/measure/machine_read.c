/* Reading the machine: hwloc for topology and caches, /proc and /sys for the rest. See machine.h.
 */
#include "machine.h"

#include "cpu_features.h"
#include "evidence.h"
#include "softmax.h"
#include "timing_clock.h"

#include <ctype.h>
#include <gnu/libc-version.h>
#include <hwloc.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(FB_HAVE_OPENBLAS)
#include <cblas.h>
#endif

static void copy_text(char *target, size_t size, const char *text)
{
    snprintf(target, size, "%.*s", (int)size - 1, text ? text : "");
}

static void trim(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
}

/* The first line of a file; false when there is none. */
static bool read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    const bool found = fgets(line, (int)size, file) != NULL;
    (void)fclose(file);
    if (found)
        trim(line);
    return found;
}

/* What follows "key" and the separator on the first line that begins with key. */
static bool read_field(const char *path, const char *key, char separator, char *value, size_t size)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) {
        const char *after = strchr(line, separator);
        if (strncmp(line, key, strlen(key)) != 0 || !after)
            continue;
        after++;
        after += strspn(after, " \t\"");
        copy_text(value, size, after);
        trim(value);
        if (value[0] != '\0' && value[strlen(value) - 1] == '"')
            value[strlen(value) - 1] = '\0';
        found = true;
    }
    (void)fclose(file);
    return found;
}

/* A number of bytes in a file, with "max" and absence meaning no limit. */
static bool read_bytes(const char *path, uint64_t *bytes)
{
    char line[64];
    return read_line(path, line, sizeof line) && sscanf(line, "%" SCNu64, bytes) == 1;
}

static uint64_t meminfo_bytes(const char *key)
{
    char value[64];
    uint64_t kib = 0;
    if (!read_field("/proc/meminfo", key, ':', value, sizeof value) ||
        sscanf(value, "%" SCNu64, &kib) != 1)
        return 0;
    return kib * 1024;
}

/* What the control group of this process still allows; UINT64_MAX without a limit. Version 2 below
 * its mount point, in the group's own folder or, in a container, at the root; then version 1. */
static uint64_t cgroup_room_bytes(void)
{
    char group[256] = "";
    (void)read_field("/proc/self/cgroup", "0:", '/', group, sizeof group);
    char own_limit[384], own_use[384];
    snprintf(own_limit, sizeof own_limit, "/sys/fs/cgroup/%s/memory.max", group);
    snprintf(own_use, sizeof own_use, "/sys/fs/cgroup/%s/memory.current", group);
    const char *const places[][2] = {
        {own_limit, own_use},
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
    };
    uint64_t room = UINT64_MAX;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        uint64_t limit, use;
        if (!read_bytes(places[i][0], &limit) || !read_bytes(places[i][1], &use))
            continue;
        const uint64_t here = limit > use ? limit - use : 0;
        room = here < room ? here : room;
    }
    return room;
}

size_t fb_machine_memory_available(void)
{
    const uint64_t available = meminfo_bytes("MemAvailable");
    const uint64_t room = cgroup_room_bytes();
    if (available == 0)
        return room == UINT64_MAX ? 0 : (size_t)room;
    return (size_t)(room < available ? room : available);
}

/* ---- topology -------------------------------------------------------------------------------- */

struct cache_level {
    size_t bytes; /* of the first instance */
    int count;
};

static struct cache_level cache_level(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const int count = hwloc_get_nbobjs_by_type(topology, type);
    const hwloc_obj_t first = count > 0 ? hwloc_get_obj_by_type(topology, type, 0) : NULL;
    if (!first)
        return (struct cache_level){0};
    return (struct cache_level){(size_t)first->attr->cache.size, count};
}

static size_t total_bytes(struct cache_level level)
{
    return level.bytes * (size_t)level.count;
}

static hwloc_topology_t load_topology(void)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return NULL;
    if (hwloc_topology_load(topology) == 0)
        return topology;
    hwloc_topology_destroy(topology);
    return NULL;
}

static void last_level(hwloc_topology_t topology, size_t *llc_total_bytes, size_t *private_bytes)
{
    const struct cache_level l1 = cache_level(topology, HWLOC_OBJ_L1CACHE);
    const struct cache_level l2 = cache_level(topology, HWLOC_OBJ_L2CACHE);
    const struct cache_level l3 = cache_level(topology, HWLOC_OBJ_L3CACHE);
    const size_t all = total_bytes(l3) > 0 ? total_bytes(l3) : total_bytes(l2);
    *llc_total_bytes = all > 0 ? all : total_bytes(l1);
    *private_bytes = l2.bytes > l1.bytes ? l2.bytes : l1.bytes;
}

void fb_machine_caches(size_t *llc_total_bytes, size_t *private_bytes)
{
    *llc_total_bytes = 0;
    *private_bytes = 0;
    const hwloc_topology_t topology = load_topology();
    if (!topology)
        return;
    last_level(topology, llc_total_bytes, private_bytes);
    hwloc_topology_destroy(topology);
}

static int count_of(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const int count = hwloc_get_nbobjs_by_type(topology, type);
    return count > 0 ? count : 0;
}

static void read_topology(hwloc_topology_t topology, struct fb_machine *machine)
{
    machine->sockets = count_of(topology, HWLOC_OBJ_PACKAGE);
    machine->numa_nodes = count_of(topology, HWLOC_OBJ_NUMANODE);
    machine->cores = count_of(topology, HWLOC_OBJ_CORE);
    machine->threads_usable = count_of(topology, HWLOC_OBJ_PU);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    machine->threads = online > 0 ? (int)online : machine->threads_usable;
    machine->smt = machine->cores > 0 ? machine->threads_usable / machine->cores : 0;
    const struct cache_level l1 = cache_level(topology, HWLOC_OBJ_L1CACHE);
    const struct cache_level l2 = cache_level(topology, HWLOC_OBJ_L2CACHE);
    const struct cache_level l3 = cache_level(topology, HWLOC_OBJ_L3CACHE);
    machine->l1d_bytes = l1.bytes;
    machine->l1d_count = l1.count;
    machine->l2_bytes = l2.bytes;
    machine->l2_count = l2.count;
    machine->l3_bytes = l3.bytes;
    machine->l3_count = l3.count;
    size_t private_bytes;
    last_level(topology, &machine->llc_total_bytes, &private_bytes);
    const hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    if (!package)
        return;
    copy_text(machine->cpu_vendor, sizeof machine->cpu_vendor,
              hwloc_obj_get_info_by_name(package, "CPUVendor"));
    copy_text(machine->cpu_model, sizeof machine->cpu_model,
              hwloc_obj_get_info_by_name(package, "CPUModel"));
    trim(machine->cpu_model);
}

/* ---- system ---------------------------------------------------------------------------------- */

static void read_frequency(struct fb_machine *machine)
{
    const char *const folder = "/sys/devices/system/cpu/cpu0/cpufreq";
    char path[128];
    uint64_t khz;
    snprintf(path, sizeof path, "%s/scaling_governor", folder);
    if (!read_line(path, machine->governor, sizeof machine->governor))
        machine->governor[0] = '\0';
    snprintf(path, sizeof path, "%s/cpuinfo_max_freq", folder);
    machine->freq_max_hz = read_bytes(path, &khz) ? 1e3 * (double)khz : (double)NAN;
    snprintf(path, sizeof path, "%s/scaling_cur_freq", folder);
    machine->freq_hz = read_bytes(path, &khz) ? 1e3 * (double)khz : fb_evidence_frequency();
}

/* The word in brackets of "always [madvise] never". */
static void read_huge_pages(struct fb_machine *machine)
{
    char line[64];
    if (!read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line))
        return;
    const char *open = strchr(line, '[');
    if (!open || sscanf(open, "[%15[a-z]", machine->huge_pages) != 1)
        machine->huge_pages[0] = '\0';
}

/* x86 kernels list the processor's `hypervisor` flag; elsewhere the device tree or nothing tells.
 */
static int read_hypervisor(void)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return -1;
    char line[4096];
    int answer = -1;
    while (answer < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, "flags", 5) == 0)
            answer = strstr(line, " hypervisor") != NULL;
    (void)fclose(file);
    if (answer < 0 && access("/sys/hypervisor/type", R_OK) == 0)
        answer = 1;
    return answer;
}

static void read_load(struct fb_machine *machine)
{
    double load[1];
    machine->load_1min = getloadavg(load, 1) == 1 ? load[0] : (double)NAN;
    machine->pressure_cpu = (double)NAN;
    char line[128];
    double percent;
    if (read_line("/proc/pressure/cpu", line, sizeof line) &&
        sscanf(line, "some avg10=%lf", &percent) == 1)
        machine->pressure_cpu = percent;
}

static void read_system(struct fb_machine *machine)
{
    struct utsname name;
    if (uname(&name) == 0) {
        copy_text(machine->hostname, sizeof machine->hostname, name.nodename);
        copy_text(machine->arch, sizeof machine->arch, name.machine);
        snprintf(machine->kernel, sizeof machine->kernel, "%.40s %.80s", name.sysname,
                 name.release);
    }
    if (!read_field("/etc/os-release", "PRETTY_NAME", '=', machine->os, sizeof machine->os))
        machine->os[0] = '\0';
    machine->memory_bytes = (size_t)meminfo_bytes("MemTotal");
    machine->memory_available_bytes = fb_machine_memory_available();
    machine->hypervisor = read_hypervisor();
    if (machine->cpu_model[0] == '\0')
        (void)read_field("/proc/cpuinfo", "model name", ':', machine->cpu_model,
                         sizeof machine->cpu_model);
    read_frequency(machine);
    read_huge_pages(machine);
    read_load(machine);
    struct fb_clock clock;
    fb_clock_init_monotonic(&clock);
    machine->clock_resolution_s = clock.resolution_s;
    int64_t peak, now;
    machine->peak_memory_known = fb_evidence_reset_peak(0) && fb_evidence_resident(0, &peak, &now);
}

/* ---- build ----------------------------------------------------------------------------------- */

static void read_isas(struct fb_machine *machine)
{
    size_t used = 0;
    for (int isa = FB_ISA_SCALAR; isa < FB_ISA_COUNT; isa++) {
        if (!fb_cpu_has((enum fb_isa)isa) || used >= sizeof machine->isas)
            continue;
        const int wrote = snprintf(machine->isas + used, sizeof machine->isas - used, "%s%s",
                                   used > 0 ? " " : "", fb_isa_name((enum fb_isa)isa));
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    copy_text(machine->isa_best, sizeof machine->isa_best, fb_isa_name(fb_cpu_best_isa()));
}

static void read_build(struct fb_machine *machine)
{
    copy_text(machine->version, sizeof machine->version, FB_BUILD_VERSION);
    copy_text(machine->compiler, sizeof machine->compiler, FB_BUILD_COMPILER);
    copy_text(machine->compiler_flags, sizeof machine->compiler_flags, FB_BUILD_FLAGS);
    copy_text(machine->build_type, sizeof machine->build_type, FB_BUILD_TYPE);
#if defined(FB_HAVE_OPENBLAS)
    machine->openblas = true;
    copy_text(machine->openblas_config, sizeof machine->openblas_config, openblas_get_config());
    trim(machine->openblas_config);
    copy_text(machine->openblas_core, sizeof machine->openblas_core, openblas_get_corename());
    /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
    if (sscanf(machine->openblas_config, "OpenBLAS %31s", machine->openblas_version) != 1)
        machine->openblas_version[0] = '\0';
#endif
}

void fb_machine_toolchain(char *text, size_t text_size)
{
    struct fb_machine build = {0};

    read_build(&build);
    (void)snprintf(text, text_size, "%.40s %s, glibc %.10s%s%.20s", build.compiler,
                   build.build_type, gnu_get_libc_version(), build.openblas ? ", OpenBLAS " : "",
                   build.openblas_version);
}

static void read_gpu_libraries(struct fb_machine *machine)
{
#if defined(FB_HAVE_CUDA)
    const size_t version = machine->gpu_present ? fb_softmax_cudnn_version() : 0;
    if (version > 0)
        snprintf(machine->cudnn_version, sizeof machine->cudnn_version, "%zu.%zu.%zu",
                 version / 10000, version / 100 % 100, version % 100);
#else
    machine->cudnn_version[0] = '\0';
#endif
}

enum fb_status fb_machine_read(struct fb_machine *machine, struct fb_error *error)
{
    *machine = (struct fb_machine){0};
    const hwloc_topology_t topology = load_topology();
    if (!topology)
        return fb_error_set(error, FB_ERROR_DEVICE,
                            "hwloc cannot read this machine's topology; does `lstopo` work?");
    read_topology(topology, machine);
    hwloc_topology_destroy(topology);
    read_system(machine);
    read_isas(machine);
    read_build(machine);
    /* A device whose facts cannot be read is as good as none: nothing could run on it. */
    machine->gpu_present = fb_cuda_is_present() && fb_cuda_read_facts(&machine->gpu, NULL) == FB_OK;
    read_gpu_libraries(machine);
    fb_machine_identify(machine);
    return FB_OK;
}
