/* Open addressing, at most half full: see distinct.h. */
#include "distinct.h"

#include <xxhash.h>

enum fb_status fb_distinct_init(struct fb_distinct *set, int64_t capacity, struct fb_arena *arena,
                                struct fb_error *error)
{
    uint64_t size = 16;
    while (size < 2 * (uint64_t)capacity)
        size *= 2;
    set->mask = size - 1;
    set->slots = fb_arena_alloc(arena, (size_t)size, sizeof *set->slots, error);
    return set->slots ? FB_OK : FB_ERROR_MEMORY;
}

bool fb_distinct_add(struct fb_distinct *set, const void *record, size_t bytes)
{
    const XXH128_hash_t hash = XXH3_128bits(record, bytes);
    const uint64_t high = hash.high64 | 1; /* 0 marks an empty slot */
    uint64_t at = hash.low64 & set->mask;
    while (set->slots[at][1] != 0) {
        if (set->slots[at][0] == hash.low64 && set->slots[at][1] == high)
            return false;
        at = (at + 1) & set->mask;
    }
    set->slots[at][0] = hash.low64;
    set->slots[at][1] = high;
    return true;
}
