/*
 * An arena: one owner for everything that lives as long as one run, one suite or one case.
 * Memory comes in chunks and is freed together. Allocation failure can be provoked: after
 * fb_arena_fail_after(n) the n-th further allocation fails (tests of every allocation path).
 */
#ifndef FB_ARENA_H
#define FB_ARENA_H

#include "status.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fb_arena_chunk;

struct fb_arena {
    struct fb_arena_chunk *chunks;
    size_t used_bytes;
    size_t limit_bytes;  /* 0: no limit */
    long fail_countdown; /* < 0: never */
};

void fb_arena_init(struct fb_arena *arena, size_t limit_bytes);
void fb_arena_free(struct fb_arena *arena);

/* Zeroed memory aligned to FB_ALIGNMENT, or NULL with the error filled (FB_ERROR_MEMORY). */
void *fb_arena_alloc(struct fb_arena *arena, size_t count, size_t element_bytes,
                     struct fb_error *error);
char *fb_arena_strdup(struct fb_arena *arena, const char *text, struct fb_error *error);
char *fb_arena_printf(struct fb_arena *arena, struct fb_error *error, const char *format, ...)
    FB_PRINTF(3, 4);

/* The allocation after the next `successes` ones fails, and all after it. */
void fb_arena_fail_after(struct fb_arena *arena, long successes);

#ifdef __cplusplus
}
#endif
#endif
