/* Anonymous mappings: see mapped_buffer.h. */
#include "mapped_buffer.h"

#include "attention.h"
#include "checked.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE_BYTES = 2 << 20, STAGGER_LINES = 17, PAGE_LINES = 64 };

static size_t stagger_bytes(int slot)
{
    return (size_t)FB_ALIGNMENT * (size_t)((slot * STAGGER_LINES) % PAGE_LINES);
}

enum fb_status fb_mapped_buffer_init(struct fb_mapped_buffer *buffer, size_t bytes, int slot,
                                     const char *what, struct fb_error *error)
{
    *buffer = (struct fb_mapped_buffer){.bytes = bytes};
    if (bytes == 0)
        return FB_OK;
    const bool huge = bytes >= HUGE_PAGE_BYTES;
    const size_t alignment = huge ? HUGE_PAGE_BYTES : 0;
    size_t map_bytes;
    if (!fb_checked_add_size(bytes, stagger_bytes(slot) + alignment, &map_bytes))
        return fb_error_set(error, FB_ERROR_MEMORY, "%s: %zu bytes cannot be addressed", what,
                            bytes);
    void *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return fb_error_set(error, FB_ERROR_MEMORY, "%s: %zu bytes cannot be allocated: %s", what,
                            bytes, strerror(errno));
    char *start = map;
    if (huge) {
        const size_t past = (size_t)((uintptr_t)map % HUGE_PAGE_BYTES);
        start += past > 0 ? HUGE_PAGE_BYTES - past : 0;
#ifdef MADV_HUGEPAGE
        /* Only advice: without huge pages the buffer serves as well, and run.json tells. */
        (void)madvise(start, (size_t)((char *)map + map_bytes - start), MADV_HUGEPAGE);
#endif
    }
    buffer->data = start + stagger_bytes(slot);
    buffer->map = map;
    buffer->map_bytes = map_bytes;
    return FB_OK;
}

void fb_mapped_buffer_free(struct fb_mapped_buffer *buffer)
{
    if (buffer->map)
        (void)munmap(buffer->map, buffer->map_bytes);
    *buffer = (struct fb_mapped_buffer){0};
}

void fb_mapped_buffer_drop_pages(struct fb_mapped_buffer *buffer)
{
    if (buffer->map)
        (void)madvise(buffer->map, buffer->map_bytes, MADV_DONTNEED);
}
