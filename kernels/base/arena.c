/* Arena of chunks; see arena.h. */
#include "arena.h"

#include "attention.h"
#include "checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024 };

struct fb_arena_chunk {
    struct fb_arena_chunk *next;
    size_t size_bytes; /* of data */
    size_t used_bytes;
    unsigned char *data;
};

void fb_arena_init(struct fb_arena *arena, size_t limit_bytes)
{
    arena->chunks = NULL;
    arena->used_bytes = 0;
    arena->limit_bytes = limit_bytes;
    arena->fail_countdown = -1;
}

void fb_arena_free(struct fb_arena *arena)
{
    struct fb_arena_chunk *chunk = arena->chunks;
    while (chunk != NULL) {
        struct fb_arena_chunk *next = chunk->next;
        free(chunk->data);
        free(chunk);
        chunk = next;
    }
    fb_arena_init(arena, arena->limit_bytes);
}

void fb_arena_fail_after(struct fb_arena *arena, long successes)
{
    arena->fail_countdown = successes;
}

static bool may_allocate(struct fb_arena *arena)
{
    if (arena->fail_countdown < 0) {
        return true;
    }
    if (arena->fail_countdown == 0) {
        return false;
    }
    arena->fail_countdown--;
    return true;
}

static struct fb_arena_chunk *new_chunk(size_t bytes)
{
    struct fb_arena_chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->size_bytes = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    chunk->used_bytes = 0;
    chunk->next = NULL;
    chunk->data = aligned_alloc(FB_ALIGNMENT, chunk->size_bytes);
    if (chunk->data == NULL) {
        free(chunk);
        return NULL;
    }
    return chunk;
}

static void *take(struct fb_arena *arena, size_t bytes)
{
    struct fb_arena_chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->size_bytes - chunk->used_bytes < bytes) {
        chunk = new_chunk(bytes);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *memory = chunk->data + chunk->used_bytes;
    chunk->used_bytes += bytes;
    arena->used_bytes += bytes;
    return memory;
}

void *fb_arena_alloc(struct fb_arena *arena, size_t count, size_t element_bytes,
                     struct fb_error *error)
{
    size_t bytes;
    if (!fb_checked_mul_size(count, element_bytes, &bytes) ||
        !fb_checked_add_size(bytes, FB_ALIGNMENT, &bytes)) {
        fb_error_set(error, FB_ERROR_MEMORY, "%zu elements of %zu bytes do not fit in memory",
                     count, element_bytes);
        return NULL;
    }
    bytes = bytes / FB_ALIGNMENT * FB_ALIGNMENT;
    if (bytes == 0) {
        bytes = FB_ALIGNMENT;
    }
    if (arena->limit_bytes != 0 && bytes > arena->limit_bytes - arena->used_bytes) {
        fb_error_set(error, FB_ERROR_MEMORY,
                     "%zu more bytes would pass the limit of %zu bytes for this file or run", bytes,
                     arena->limit_bytes);
        return NULL;
    }
    void *memory = may_allocate(arena) ? take(arena, bytes) : NULL;
    if (memory == NULL) {
        fb_error_set(error, FB_ERROR_MEMORY, "out of memory: %zu bytes could not be allocated",
                     bytes);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

char *fb_arena_strdup(struct fb_arena *arena, const char *text, struct fb_error *error)
{
    const size_t length = strlen(text) + 1;
    char *copy = fb_arena_alloc(arena, length, 1, error);
    return copy == NULL ? NULL : memcpy(copy, text, length);
}

char *fb_arena_printf(struct fb_arena *arena, struct fb_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) {
        fb_error_set(error, FB_ERROR_INTERNAL, "a text could not be formatted");
        return NULL;
    }
    char *text = fb_arena_alloc(arena, (size_t)length + 1, 1, error);
    if (text != NULL) {
        va_start(args, format);
        vsnprintf(text, (size_t)length + 1, format, args);
        va_end(args);
    }
    return text;
}
