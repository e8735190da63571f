/*
 * Evicting the caches before a cold sample: every thread of the case streams through its own part
 * of a buffer of twice the last-level cache, and through at least twice its private caches, so
 * that neither the shared cache nor any core's own keeps the case's data. Only reads: no dirty line
 * is left for the sample to write back.
 */
#ifndef FB_CACHE_FLUSH_H
#define FB_CACHE_FLUSH_H

#include "mapped_buffer.h"

struct fb_cache_flush {
    struct fb_mapped_buffer buffer;
    size_t part_bytes; /* per thread */
    int threads;
};

/* Sizes of 0 (unknown caches) are taken as 32 MiB and 2 MiB; `info` warns of it. */
enum fb_status fb_cache_flush_init(struct fb_cache_flush *flush, size_t llc_bytes,
                                   size_t private_bytes, int threads,
                                   struct fb_error *error) FB_MUST_CHECK;
void fb_cache_flush_free(struct fb_cache_flush *flush);

void fb_cache_flush_run(const struct fb_cache_flush *flush);

#endif
