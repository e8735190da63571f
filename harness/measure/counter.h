/*
 * Counting the instructions of one call: a measure that neither neighbours nor clock frequencies
 * change. The same program counts the same twice, so a gate may be tight.
 *
 *   valgrind  callgrind executes the call and counts; any machine that has valgrind, no AVX-512.
 *             The worker has to be started by it: fb_counter_arguments
 *   hardware  the processor counts, through perf_event_open, where the kernel offers it; every
 *             instruction set
 *
 * The scales differ (a string instruction is many for callgrind and one for the processor), so
 * counts of the two are never compared. One thread only: a thread that waits counts, too.
 */
#ifndef FB_COUNTER_H
#define FB_COUNTER_H

#include "status.h"
#include "suite.h"

#include <stdint.h>

enum {
    FB_COUNTER_TEXT_SIZE = 24,
    FB_COUNTER_FD = 4, /* where callgrind writes: a file in memory, given by whoever starts it */
    FB_COUNTER_PATH_SIZE = 4096,
    FB_COUNTER_ARGUMENTS_MAX = 16
};

/* Whether this build counts so on this machine; FB_ERROR_UNSUPPORTED with the remedy. */
enum fb_status fb_counter_check(enum fb_counter counter, struct fb_error *error) FB_MUST_CHECK;

/* The valgrind that PATH finds; false when there is none. */
bool fb_counter_find_valgrind(char path[FB_COUNTER_PATH_SIZE]);

/* argv of valgrind up to and including the program that it runs; returns how many. */
size_t fb_counter_arguments(const char *program, const char *arguments[FB_COUNTER_ARGUMENTS_MAX]);

struct fb_counted {
    int64_t instructions;
    char counter[FB_COUNTER_TEXT_SIZE]; /* "callgrind-3.19.0", "perf" */
};

/* Calls once and counts what that executed in user space. Fails as the call does, and when nothing
 * was counted. */
enum fb_status fb_counter_count(enum fb_counter counter,
                                enum fb_status (*call)(void *context, struct fb_error *error),
                                void *context, struct fb_counted *counted,
                                struct fb_error *error) FB_MUST_CHECK;

/* The total and the creator in what callgrind has written. Pure; false when it is not that. */
bool fb_counter_read_callgrind(const char *text, struct fb_counted *counted);

#endif
