/* Which records have been seen: a set of 128-bit hashes. Two different records share one with a
 * probability below 2^-80 even among millions. */
#ifndef FB_DISTINCT_H
#define FB_DISTINCT_H

#include "arena.h"

#include <stdbool.h>
#include <stdint.h>

struct fb_distinct {
    uint64_t (*slots)[2];
    uint64_t mask;
};

/* Room for `capacity` records, in the arena. */
enum fb_status fb_distinct_init(struct fb_distinct *set, int64_t capacity, struct fb_arena *arena,
                                struct fb_error *error) FB_MUST_CHECK;
/* Adds a record; false when it was there. At most `capacity` may be added. */
bool fb_distinct_add(struct fb_distinct *set, const void *record, size_t bytes);

#endif
