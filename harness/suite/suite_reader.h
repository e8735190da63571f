/* What every reader of a suite needs, and its memory. Private to the room. */
#ifndef FB_SUITE_READER_H
#define FB_SUITE_READER_H

#include "yaml_tree.h"

struct fb_peer_names;

struct fb_suite_reader {
    struct fb_arena *arena;
    struct fb_diagnostics *diagnostics;
    struct fb_peer_names *peers; /* variants of external programs, collected; NULL: none */
};

/* Zeroed memory for count elements (at least one), or NULL with the diagnostics told. */
void *fb_suite_alloc(const struct fb_suite_reader *reader, size_t count, size_t element_bytes);

/* Twice the room for an array of `count` elements, copied. The arena keeps the old one: growing
 * costs at most twice the memory, freed with everything else. */
void *fb_suite_grow(const struct fb_suite_reader *reader, const void *old, size_t count,
                    size_t *room, size_t element_bytes);

/* Reports an unknown key of a map, with the nearest of the names. */
void fb_suite_unknown_key(const struct fb_suite_reader *reader, const struct fb_yaml_node *key,
                          const char *map_name, const char *const *names, size_t count);

#endif
