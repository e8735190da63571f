/*
 * A YAML document as a tree with the place of every node, built from libyaml's events.
 *
 * What a tree never holds: duplicate keys, tags, merge keys (they are applied), several documents,
 * or a node inside itself. Aliases share nodes, so a tree is never changed once it is built:
 * operations return new nodes. Nodes live in the arena.
 *
 * Limits, so that any file is refused or read in a moment: 64 levels, 1 MiB once aliases are
 * expanded (every node counts 16 bytes and its text), 1024 keys in one map.
 */
#ifndef FB_YAML_TREE_H
#define FB_YAML_TREE_H

#include "arena.h"
#include "diagnostics.h"

enum {
    FB_YAML_DEPTH_MAX = 64,
    FB_YAML_WEIGHT_MAX = 1 << 20,
    FB_YAML_NODE_WEIGHT = 16,
    FB_YAML_KEYS_MAX = 1024
};

enum fb_yaml_kind { FB_YAML_SCALAR, FB_YAML_LIST, FB_YAML_MAP };

struct fb_yaml_node;

struct fb_yaml_pair {
    const struct fb_yaml_node *key, *value; /* the key is a scalar */
};

struct fb_yaml_node {
    enum fb_yaml_kind kind;
    struct fb_mark mark;
    bool quoted;      /* of a scalar: 'so' or "so" or a block; such a scalar is text, no number */
    const char *text; /* of a scalar, ended by NUL; NULL otherwise */
    const struct fb_yaml_node **items; /* of a list */
    struct fb_yaml_pair *pairs;        /* of a map, in the order of the file */
    size_t count;                      /* items or pairs */
    size_t weight;                     /* bytes when aliases are expanded, see above */
    int height;                        /* levels below and including this node */
};

/* Checks that the text is UTF-8 without control characters. */
bool fb_yaml_check_text(const struct fb_source *source, struct fb_diagnostics *diagnostics);

/* The tree of the source's text from byte `start` on, or NULL with diagnostics. Start is the start
 * of a line, or stands in the first one, `start_column` code points after its beginning. */
const struct fb_yaml_node *fb_yaml_parse(const struct fb_source *source, size_t start,
                                         size_t start_column, struct fb_arena *arena,
                                         struct fb_diagnostics *diagnostics);

/* The pair of a map with this key, or NULL (also when the node is no map). */
const struct fb_yaml_pair *fb_yaml_find(const struct fb_yaml_node *map, const char *key);

/* Two layers: maps are merged key by key, everything else of `over` replaces what `base` has.
 * NULL with diagnostics when a limit is passed. */
const struct fb_yaml_node *fb_yaml_layer(const struct fb_yaml_node *over,
                                         const struct fb_yaml_node *base, struct fb_arena *arena,
                                         struct fb_diagnostics *diagnostics);

/* A copy of the map without that key. */
const struct fb_yaml_node *fb_yaml_without(const struct fb_yaml_node *map, const char *key,
                                           struct fb_arena *arena,
                                           struct fb_diagnostics *diagnostics);

/* A copy of the map in which the key has the value, replaced in place or appended. */
const struct fb_yaml_node *fb_yaml_with(const struct fb_yaml_node *map,
                                        const struct fb_yaml_node *key,
                                        const struct fb_yaml_node *value, struct fb_arena *arena,
                                        struct fb_diagnostics *diagnostics);

/* A copy of the list in which item `index` is replaced. */
const struct fb_yaml_node *fb_yaml_with_item(const struct fb_yaml_node *list, size_t index,
                                             const struct fb_yaml_node *value,
                                             struct fb_arena *arena,
                                             struct fb_diagnostics *diagnostics);

/* A scalar or an empty map that no file holds, for --set. */
const struct fb_yaml_node *fb_yaml_scalar(const char *text, struct fb_mark mark,
                                          struct fb_arena *arena,
                                          struct fb_diagnostics *diagnostics);
const struct fb_yaml_node *fb_yaml_empty_map(struct fb_mark mark, struct fb_arena *arena,
                                             struct fb_diagnostics *diagnostics);

/* The tree as YAML text without aliases; parsing it gives an equal tree. NULL with diagnostics. */
const char *fb_yaml_emit(const struct fb_yaml_node *root, struct fb_arena *arena,
                         struct fb_diagnostics *diagnostics);

#endif
