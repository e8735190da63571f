/* Instruction counts by callgrind and by perf_event_open: see counter.h. */
#define _GNU_SOURCE
#include "counter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(FB_HAVE_CALLGRIND)
#include <valgrind/callgrind.h>
#endif
#if defined(__linux__)
#include <linux/perf_event.h>
#endif

/* ---- valgrind -------------------------------------------------------------------------------- */

bool fb_counter_find_valgrind(char path[FB_COUNTER_PATH_SIZE])
{
    const char *folders = getenv("PATH");

    while (folders != NULL && *folders != '\0') {
        const size_t length = strcspn(folders, ":");
        const int written =
            snprintf(path, FB_COUNTER_PATH_SIZE, "%.*s/valgrind", (int)length, folders);
        if (length > 0 && written < FB_COUNTER_PATH_SIZE && access(path, X_OK) == 0)
            return true;
        folders += length;
        folders += *folders == ':';
    }
    return false;
}

size_t fb_counter_arguments(const char *program, const char *arguments[FB_COUNTER_ARGUMENTS_MAX])
{
    /* Nothing is instrumented but the counted call, or the oracle would take minutes. All dumps go
     * to one file, for a second one would get a name with a suffix. */
    static const char *const fixed[] = {"valgrind",
                                        "--quiet",
                                        "--tool=callgrind",
                                        "--instr-atstart=no",
                                        "--collect-atstart=no",
                                        "--combine-dumps=yes",
                                        "--callgrind-out-file=/proc/self/fd/4"};
    const size_t count = sizeof fixed / sizeof fixed[0];

    memcpy(arguments, fixed, sizeof fixed);
    arguments[count] = program;
    return count + 1;
}

bool fb_counter_read_callgrind(const char *text, struct fb_counted *counted)
{
    const char *creator = strstr(text, "\ncreator: ");
    const char *totals = strstr(text, "\ntotals: ");
    char *end;

    if (creator == NULL || totals == NULL ||
        sscanf(creator, "\ncreator: %23[!-~]", counted->counter) != 1)
        return false;
    totals += strlen("\ntotals: ");
    errno = 0;
    counted->instructions = strtoll(totals, &end, 10);
    return end != totals && errno == 0 && *end == '\n' && counted->instructions > 0;
}

#if defined(FB_HAVE_CALLGRIND)
/* What is in the file on FB_COUNTER_FD; owned by the caller, NULL with an error. */
static char *read_dump(struct fb_error *error)
{
    const off_t size = lseek(FB_COUNTER_FD, 0, SEEK_END);
    char *text = size < 0 ? NULL : malloc((size_t)size + 1);
    ssize_t length = text == NULL ? -1 : pread(FB_COUNTER_FD, text, (size_t)size, 0);

    if (length < 0) {
        (void)fb_error_set(error, FB_ERROR_INTERNAL, "cannot read what callgrind counted: %s",
                           strerror(errno));
        free(text);
        return NULL;
    }
    text[length] = '\0';
    return text;
}

static enum fb_status count_by_valgrind(enum fb_status (*call)(void *, struct fb_error *),
                                        void *context, struct fb_counted *counted,
                                        struct fb_error *error)
{
    if (!RUNNING_ON_VALGRIND)
        return fb_error_set(error, FB_ERROR_INTERNAL,
                            "the worker that is to count was not started by valgrind");
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_TOGGLE_COLLECT;
    const enum fb_status status = call(context, error);
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS;
    if (status != FB_OK)
        return status;
    char *text = read_dump(error);
    if (text == NULL)
        return FB_ERROR_INTERNAL;
    const bool found = fb_counter_read_callgrind(text, counted);
    free(text);
    return found ? FB_OK
                 : fb_error_set(error, FB_ERROR_INTERNAL,
                                "callgrind has counted nothing; is another tool of valgrind around "
                                "this program?");
}

static enum fb_status check_valgrind(struct fb_error *error)
{
    char path[FB_COUNTER_PATH_SIZE];

    return fb_counter_find_valgrind(path)
               ? FB_OK
               : fb_error_set(error, FB_ERROR_UNSUPPORTED,
                              "measure.counter: valgrind: no valgrind in PATH; install it, on "
                              "Debian: apt-get install valgrind");
}
#else
static enum fb_status count_by_valgrind(enum fb_status (*call)(void *, struct fb_error *),
                                        void *context, struct fb_counted *counted,
                                        struct fb_error *error)
{
    (void)call;
    (void)context;
    (void)counted;
    return fb_error_set(error, FB_ERROR_INTERNAL, "this build has no callgrind");
}

static enum fb_status check_valgrind(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                        "measure.counter: valgrind: this flowbench was built without "
                        "valgrind/callgrind.h; install valgrind (on Debian: apt-get install "
                        "valgrind), then configure and build again: cmake build && cmake --build "
                        "build");
}
#endif

/* ---- hardware -------------------------------------------------------------------------------- */

#if defined(__linux__)
static int open_hardware(void)
{
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof attributes,
        .config = PERF_COUNT_HW_INSTRUCTIONS,
        .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
        .disabled = 1,
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };

    return (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1,
                        (unsigned long)PERF_FLAG_FD_CLOEXEC);
}

static enum fb_status check_hardware(struct fb_error *error)
{
    const int fd = open_hardware();

    if (fd < 0)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "measure.counter: hardware: this kernel offers no instruction counter "
                            "(perf_event_open: %s); many virtual machines have none, and "
                            "kernel.perf_event_paranoid above 2 forbids it. measure.counter: "
                            "valgrind counts anywhere",
                            strerror(errno));
    close(fd);
    return FB_OK;
}

static enum fb_status count_by_hardware(enum fb_status (*call)(void *, struct fb_error *),
                                        void *context, struct fb_counted *counted,
                                        struct fb_error *error)
{
    uint64_t found[3] = {0}; /* count, time enabled, time running */
    enum fb_status status = check_hardware(error);
    const int fd = status == FB_OK ? open_hardware() : -1;

    if (status != FB_OK)
        return status;
    const bool started = fd >= 0 && ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) == 0;
    status = call(context, error);
    const bool complete = started && ioctl(fd, PERF_EVENT_IOC_DISABLE, 0) == 0 &&
                          read(fd, found, sizeof found) == (ssize_t)sizeof found &&
                          found[1] == found[2] && found[0] > 0;
    if (fd >= 0)
        close(fd);
    if (status != FB_OK)
        return status;
    if (!complete)
        return fb_error_set(error, FB_ERROR_DEVICE,
                            "the processor's instruction counter was not ours all the time; end "
                            "what else uses it (perf, a profiler)");
    counted->instructions = (int64_t)found[0];
    (void)snprintf(counted->counter, sizeof counted->counter, "perf");
    return FB_OK;
}
#else
static enum fb_status check_hardware(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                        "measure.counter: hardware: only Linux offers instruction counters here; "
                        "measure.counter: valgrind counts anywhere");
}

static enum fb_status count_by_hardware(enum fb_status (*call)(void *, struct fb_error *),
                                        void *context, struct fb_counted *counted,
                                        struct fb_error *error)
{
    (void)call;
    (void)context;
    (void)counted;
    return check_hardware(error);
}
#endif

/* ---- public ---------------------------------------------------------------------------------- */

enum fb_status fb_counter_check(enum fb_counter counter, struct fb_error *error)
{
    switch (counter) {
    case FB_COUNTER_VALGRIND:
        return check_valgrind(error);
    case FB_COUNTER_HARDWARE:
        return check_hardware(error);
    case FB_COUNTER_NONE:
    case FB_COUNTER_COUNT:
        break;
    }
    return FB_OK;
}

enum fb_status fb_counter_count(enum fb_counter counter,
                                enum fb_status (*call)(void *context, struct fb_error *error),
                                void *context, struct fb_counted *counted, struct fb_error *error)
{
    return counter == FB_COUNTER_VALGRIND ? count_by_valgrind(call, context, counted, error)
                                          : count_by_hardware(call, context, counted, error);
}
