/* Worker processes of two or three builds, for live comparisons. */
#ifndef FB_AB_WORKER_H
#define FB_AB_WORKER_H

#include "ab_compare.h"
#include "ceiling_book.h"

/* What a build says of itself. "" where it is too old to tell. */
struct fb_ab_build {
    const char *program; /* its path, absolute */
    char version[32], git_sha[64], compiler[128], compiler_flags[512], build_type[32];
    int protocol;
};

struct fb_ab_workers {
    const struct fb_suite *suite;
    struct fb_interrupts *interrupts;
    struct fb_ceiling_book book; /* chooses OpenBLAS's kernels, as in a run */
    struct fb_ab_build builds[FB_AB_SIDE_COUNT];
    size_t memory_limit_bytes;
};

/* Asks a program whether it is a flowbench whose workers this version can talk to. FB_ERROR_USAGE
 * when it is not: the text names the program and what it answered. path is resolved into the arena.
 */
enum fb_status fb_ab_build_open(const char *path, struct fb_interrupts *interrupts,
                                struct fb_arena *arena, struct fb_ab_build *build,
                                struct fb_error *error) FB_MUST_CHECK;

/* An fb_ab_measure; context is a struct fb_ab_workers. */
enum fb_status fb_ab_worker_measure(void *context, const struct fb_ab_request *request,
                                    struct fb_ab_answer *answer,
                                    struct fb_error *error) FB_MUST_CHECK;

#endif
