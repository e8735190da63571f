/* Eviction by streaming reads: see cache_flush.h. */
#include "cache_flush.h"

#include <stdint.h>
#include <string.h>

enum { WORDS_PER_LINE = 8, LLC_UNKNOWN_BYTES = 32 << 20, PRIVATE_UNKNOWN_BYTES = 2 << 20 };

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

enum fb_status fb_cache_flush_init(struct fb_cache_flush *flush, size_t llc_bytes,
                                   size_t private_bytes, int threads, struct fb_error *error)
{
    const size_t llc = llc_bytes > 0 ? llc_bytes : LLC_UNKNOWN_BYTES;
    const size_t private = private_bytes > 0 ? private_bytes : PRIVATE_UNKNOWN_BYTES;
    const size_t share = 2 * llc / (size_t)threads;
    const size_t part = share > 2 * private ? share : 2 * private;
    flush->threads = threads;
    flush->part_bytes = round_up(part, 4096);
    const enum fb_status status =
        fb_mapped_buffer_init(&flush->buffer, flush->part_bytes * (size_t)threads, 0,
                              "the buffer that evicts the caches", error);
    if (status != FB_OK)
        return status;
        /* Written once: pages never written all map to the kernel's one page of zeros, which a read
         * would find in the cache. */
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        memset((char *)flush->buffer.data + (size_t)t * flush->part_bytes, t + 1,
               flush->part_bytes);
    return FB_OK;
}

void fb_cache_flush_free(struct fb_cache_flush *flush)
{
    fb_mapped_buffer_free(&flush->buffer);
}

void fb_cache_flush_run(const struct fb_cache_flush *flush)
{
    const size_t words = flush->part_bytes / sizeof(uint64_t);
    uint64_t sum = 0;
#pragma omp parallel for num_threads(flush->threads) schedule(static, 1) reduction(+ : sum)
    for (int t = 0; t < flush->threads; t++) {
        const uint64_t *part = (const uint64_t *)flush->buffer.data + (size_t)t * words;
        for (size_t i = 0; i < words; i += WORDS_PER_LINE)
            sum += part[i];
    }
    volatile uint64_t sink = sum; /* so that the reads are not dead code */
    (void)sink;
}
