/*
 * Facts about the machine and the build: for run.json, for `info`, and for telling machines apart.
 */
#ifndef FB_MACHINE_H
#define FB_MACHINE_H

#include "cuda_device.h"
#include "status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What could not be learnt is "", 0 or NaN, and null in JSON. */
struct fb_machine {
    char hostname[64];
    char arch[16];
    char cpu_vendor[32];
    char cpu_model[128];
    int sockets, numa_nodes;
    int cores;                            /* physical */
    int threads;                          /* logical processors */
    int threads_usable;                   /* of those, what this process may run on */
    int smt;                              /* logical processors per core */
    size_t l1d_bytes, l2_bytes, l3_bytes; /* of one instance */
    int l1d_count, l2_count, l3_count;
    size_t llc_total_bytes; /* all instances of the last level */
    size_t memory_bytes, memory_available_bytes;
    char kernel[128], os[128];
    char governor[32];           /* "" when the kernel does not tell */
    double freq_hz, freq_max_hz; /* NaN when unknown */
    int hypervisor;              /* 1, 0, or -1 when unknown */
    char huge_pages[16];         /* transparent huge pages: "always", "madvise", "never" */
    double load_1min;            /* NaN when unknown */
    double pressure_cpu;         /* PSI, percent of the last 10 s that something waited; NaN */
    double clock_resolution_s;
    bool peak_memory_known; /* the peak of the resident set can be reset */
    char isas[64];          /* instruction sets this machine executes, weakest first, by spaces */
    char isa_best[16];
    bool openblas;
    char openblas_version[32], openblas_config[192], openblas_core[32];
    bool gpu_present;
    struct fb_cuda_facts gpu; /* zero and "" without one */
    char cudnn_version[32];   /* "" when it is not there */
    char version[32];         /* of flowbench */
    char compiler[128], compiler_flags[512], build_type[32];
    char identity[17]; /* XXH64 of the stable facts, 16 hexadecimal digits */
    char name[64];     /* short and fit for a folder: "amd-epyc-2c-1f2e3d" */
};

enum { FB_MACHINE_TOOLCHAIN_SIZE = 96 };

/* What the instructions of a call depend on beside the source: "GNU 12.2.0 Release, glibc 2.36,
 * OpenBLAS 0.3.21". */
void fb_machine_toolchain(char *text, size_t text_size);

/* Fails only when the topology cannot be read at all. */
enum fb_status fb_machine_read(struct fb_machine *machine, struct fb_error *error) FB_MUST_CHECK;

/* identity and name from the other fields: model names, counts and sizes; never a frequency, a
 * version or a load. */
void fb_machine_identify(struct fb_machine *machine);

json_t *fb_machine_to_json(const struct fb_machine *machine); /* NULL when memory is short */

enum fb_warning {
    FB_WARNING_GOVERNOR,
    FB_WARNING_SMT,
    FB_WARNING_BUSY,
    FB_WARNING_PRESSURE,
    FB_WARNING_HYPERVISOR,
    FB_WARNING_FREQUENCY,
    FB_WARNING_CLOCK,
    FB_WARNING_CACHE,
    FB_WARNING_PEAK_MEMORY,
    FB_WARNING_OPENBLAS,
    FB_WARNING_BUILD,
    FB_WARNING_COUNT
};

struct fb_machine_warning {
    enum fb_warning kind;
    char text[256];   /* what is the matter */
    char remedy[256]; /* what to do about it */
};

const char *fb_warning_name(enum fb_warning kind);

/* The warnings that hold, at most FB_WARNING_COUNT; returns how many. */
size_t fb_machine_warnings(const struct fb_machine *machine,
                           struct fb_machine_warning warnings[FB_WARNING_COUNT]);
json_t *fb_machine_warnings_to_json(const struct fb_machine *machine);

/* Bytes available to this process now: MemAvailable, or the cgroup's room where that is less. */
size_t fb_machine_memory_available(void);

/* Bytes of all last-level caches and of one core's largest private cache; 0 when unknown. */
void fb_machine_caches(size_t *llc_total_bytes, size_t *private_bytes);

#endif
