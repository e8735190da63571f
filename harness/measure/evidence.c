/* Reading getrusage and /proc: see evidence.h. */
#include "evidence.h"

#include "timing_clock.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static double read_steal_s(void)
{
    FILE *file = fopen("/proc/stat", "r");
    if (!file)
        return (double)NAN;
    unsigned long long steal = 0;
    /* cpu user nice system idle iowait irq softirq steal */
    const int found = fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &steal);
    (void)fclose(file);
    return found == 1 ? (double)steal / (double)sysconf(_SC_CLK_TCK) : (double)NAN;
}

/* A file of /proc/PID; pid 0 is this process. NULL when the kernel refuses. */
static FILE *open_proc(pid_t pid, const char *name, const char *mode)
{
    char path[128];
    if (pid == 0)
        (void)snprintf(path, sizeof path, "/proc/self/%s", name);
    else
        (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return fopen(path, mode);
}

/* Faults of all threads, living and dead; -1 when the kernel does not tell. */
static int64_t read_faults(pid_t pid)
{
    long long minor, major;
    char line[1024];
    FILE *file = open_proc(pid, "stat", "r");
    const bool found = file && fgets(line, sizeof line, file);
    const char *rest = found ? strrchr(line, ')') : NULL; /* the name may hold anything */
    if (file)
        (void)fclose(file);
    /* state ppid pgrp session tty tpgid flags minflt cminflt majflt */
    if (!rest ||
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %lld %*u %lld", &minor, &major) != 2)
        return -1;
    return (int64_t)minor + (int64_t)major;
}

/* Of all threads alive; -1 when the kernel does not tell. */
static int64_t read_involuntary(pid_t pid)
{
    char name[64];
    int64_t total = 0;
    (void)snprintf(name, sizeof name, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(name);
    if (!folder)
        return -1;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        char line[256];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(name, sizeof name, "task/%.20s/status", entry->d_name);
        FILE *file = open_proc(pid, name, "r");
        while (file && fgets(line, sizeof line, file)) {
            int64_t count;
            if (sscanf(line, "nonvoluntary_ctxt_switches: %" SCNd64, &count) == 1)
                total += count;
        }
        if (file)
            (void)fclose(file);
    }
    (void)closedir(folder);
    return total;
}

void fb_evidence_read(pid_t pid, struct fb_evidence *evidence)
{
    struct rusage usage;
    if (pid != 0) {
        *evidence = (struct fb_evidence){.ctx_involuntary = read_involuntary(pid),
                                         .page_faults = read_faults(pid),
                                         .steal_s = read_steal_s()};
        return;
    }
    memset(&usage, 0, sizeof usage);
    (void)getrusage(RUSAGE_SELF, &usage); /* cannot fail with these arguments */
    *evidence = (struct fb_evidence){
        .ctx_involuntary = usage.ru_nivcsw,
        .page_faults = (int64_t)usage.ru_minflt + (int64_t)usage.ru_majflt,
        .steal_s = read_steal_s(),
    };
}

struct fb_evidence fb_evidence_since(const struct fb_evidence *before,
                                     const struct fb_evidence *after)
{
    return (struct fb_evidence){
        .ctx_involuntary = after->ctx_involuntary - before->ctx_involuntary,
        .page_faults = after->page_faults - before->page_faults,
        .steal_s = after->steal_s - before->steal_s,
    };
}

double fb_evidence_frequency(void)
{
#if defined(__OPTIMIZE__)
    enum { STEPS = 100000, REPEATS = 7, CYCLES_PER_STEP = 2 };
    volatile uint64_t secret = UINT64_C(0x9e3779b97f4a7c15); /* so that nothing can be folded */
    const uint64_t flip = secret;
    const uint64_t add = secret;
    uint64_t x = secret;
    struct fb_clock clock;
    fb_clock_init_monotonic(&clock);
    double best_s = HUGE_VAL;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const double start_s = clock.now_s(clock.context);
        for (int i = 0; i < STEPS; i++)
            x = (x ^ flip) + add;
        secret = x; /* pins the loop between the two readings */
        const double time_s = clock.now_s(clock.context) - start_s;
        best_s = time_s < best_s ? time_s : best_s;
    }
    return (double)STEPS * CYCLES_PER_STEP / best_s;
#else
    return (double)NAN;
#endif
}

bool fb_evidence_reset_peak(pid_t pid)
{
    FILE *file = open_proc(pid, "clear_refs", "w");
    if (!file)
        return false;
    const bool written = fputs("5", file) >= 0;
    const bool closed = fclose(file) == 0;
    return written && closed;
}

bool fb_evidence_resident(pid_t pid, int64_t *peak_bytes, int64_t *now_bytes)
{
    FILE *file = open_proc(pid, "status", "r");
    if (!file)
        return false;
    *peak_bytes = -1;
    *now_bytes = -1;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        int64_t kib;
        if (sscanf(line, "VmHWM: %" SCNd64, &kib) == 1)
            *peak_bytes = kib * 1024;
        else if (sscanf(line, "VmRSS: %" SCNd64, &kib) == 1)
            *now_bytes = kib * 1024;
    }
    (void)fclose(file);
    return *peak_bytes >= 0 && *now_bytes >= 0;
}
