/*
 * Large buffers straight from the kernel: pages untouched until somebody writes them, so that the
 * threads that fill them place them, and so that what a call touched can be counted.
 */
#ifndef FB_MAPPED_BUFFER_H
#define FB_MAPPED_BUFFER_H

#include "status.h"

#include <stddef.h>

struct fb_mapped_buffer {
    void *data; /* aligned to FB_ALIGNMENT; NULL when bytes is 0 */
    size_t bytes;
    void *map; /* what is unmapped */
    size_t map_bytes;
};

/* Buffers of 2 MiB and more ask for huge pages. `slot` staggers the start within a page: buffers
 * that all begin on a page boundary would share their low address bits, and a kernel that reads
 * three of them and writes the fourth would meet false store-to-load dependencies and full cache
 * sets that depend on nothing but the allocator. FB_ERROR_MEMORY names the size and `what`. */
enum fb_status fb_mapped_buffer_init(struct fb_mapped_buffer *buffer, size_t bytes, int slot,
                                     const char *what, struct fb_error *error) FB_MUST_CHECK;
void fb_mapped_buffer_free(struct fb_mapped_buffer *buffer);

/* Gives the pages back to the kernel; the buffer stays usable and reads as zero. */
void fb_mapped_buffer_drop_pages(struct fb_mapped_buffer *buffer);

#endif
