/* Layers and edits of YAML trees. Trees share nodes, so every change copies the path to it. */
#include "suite_reader.h"

#include <string.h>

const struct fb_yaml_pair *fb_yaml_find(const struct fb_yaml_node *map, const char *key)
{
    for (size_t i = 0; map != NULL && map->kind == FB_YAML_MAP && i < map->count; i++) {
        if (strcmp(map->pairs[i].key->text, key) == 0) {
            return &map->pairs[i];
        }
    }
    return NULL;
}

/* A copy of the node itself, with room for `extra` further items or pairs. */
static struct fb_yaml_node *copy_node(const struct fb_yaml_node *node, size_t extra,
                                      struct fb_arena *arena, struct fb_diagnostics *diagnostics)
{
    const struct fb_suite_reader reader = {.arena = arena, .diagnostics = diagnostics};
    struct fb_yaml_node *copy = fb_suite_alloc(&reader, 1, sizeof *copy);
    if (copy == NULL) {
        return NULL;
    }
    *copy = *node;
    size_t room = node->count + extra;
    if (node->kind == FB_YAML_MAP) {
        copy->pairs = fb_suite_alloc(&reader, room, sizeof *copy->pairs);
        if (copy->pairs == NULL) {
            return NULL;
        }
        if (node->count > 0) {
            memcpy(copy->pairs, node->pairs, node->count * sizeof *copy->pairs);
        }
    } else if (node->kind == FB_YAML_LIST) {
        /* A list holds pointers. NOLINTNEXTLINE(bugprone-sizeof-expression) */
        copy->items = fb_suite_alloc(&reader, room, sizeof *copy->items);
        if (copy->items == NULL) {
            return NULL;
        }
        if (node->count > 0) {
            /* NOLINTNEXTLINE(bugprone-sizeof-expression) */
            memcpy(copy->items, node->items, node->count * sizeof *copy->items);
        }
    }
    return copy;
}

/* Weight and height of a map whose pairs were changed; NULL when a limit is passed. */
static const struct fb_yaml_node *settle(struct fb_yaml_node *node, struct fb_mark mark,
                                         struct fb_diagnostics *diagnostics)
{
    node->weight = FB_YAML_NODE_WEIGHT;
    node->height = 1;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_node *child =
            node->kind == FB_YAML_MAP ? node->pairs[i].value : node->items[i];
        node->weight +=
            child->weight + (node->kind == FB_YAML_MAP ? node->pairs[i].key->weight : 0);
        node->height = child->height + 1 > node->height ? child->height + 1 : node->height;
    }
    if (node->weight > FB_YAML_WEIGHT_MAX || node->height > FB_YAML_DEPTH_MAX ||
        (node->kind == FB_YAML_MAP && node->count > FB_YAML_KEYS_MAX)) {
        fb_diagnose(diagnostics, mark,
                    "the layers together pass %d KiB, %d levels or %d keys in one map",
                    FB_YAML_WEIGHT_MAX / 1024, FB_YAML_DEPTH_MAX, FB_YAML_KEYS_MAX);
        return NULL;
    }
    return node;
}

const struct fb_yaml_node *fb_yaml_layer(const struct fb_yaml_node *over,
                                         const struct fb_yaml_node *base, struct fb_arena *arena,
                                         struct fb_diagnostics *diagnostics)
{
    if (over->kind != FB_YAML_MAP || base->kind != FB_YAML_MAP) {
        return over;
    }
    struct fb_yaml_node *layered = copy_node(base, over->count, arena, diagnostics);
    if (layered == NULL) {
        return NULL;
    }
    layered->mark = over->mark;
    for (size_t i = 0; i < over->count; i++) {
        struct fb_yaml_pair pair = over->pairs[i];
        size_t at = 0;
        while (at < base->count && strcmp(base->pairs[at].key->text, pair.key->text) != 0) {
            at++;
        }
        if (at == base->count) {
            layered->pairs[layered->count++] = pair;
            continue;
        }
        pair.value = fb_yaml_layer(pair.value, base->pairs[at].value, arena, diagnostics);
        if (pair.value == NULL) {
            return NULL;
        }
        layered->pairs[at] = pair;
    }
    return settle(layered, over->mark, diagnostics);
}

const struct fb_yaml_node *fb_yaml_without(const struct fb_yaml_node *map, const char *key,
                                           struct fb_arena *arena,
                                           struct fb_diagnostics *diagnostics)
{
    struct fb_yaml_node *copy = copy_node(map, 0, arena, diagnostics);
    if (copy == NULL) {
        return NULL;
    }
    copy->count = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (strcmp(map->pairs[i].key->text, key) != 0) {
            copy->pairs[copy->count++] = map->pairs[i];
        }
    }
    return settle(copy, map->mark, diagnostics);
}

const struct fb_yaml_node *fb_yaml_with(const struct fb_yaml_node *map,
                                        const struct fb_yaml_node *key,
                                        const struct fb_yaml_node *value, struct fb_arena *arena,
                                        struct fb_diagnostics *diagnostics)
{
    struct fb_yaml_node *copy = copy_node(map, 1, arena, diagnostics);
    if (copy == NULL) {
        return NULL;
    }
    size_t at = 0;
    while (at < map->count && strcmp(map->pairs[at].key->text, key->text) != 0) {
        at++;
    }
    copy->count = at == map->count ? at + 1 : map->count;
    copy->pairs[at] = (struct fb_yaml_pair){key, value};
    return settle(copy, key->mark, diagnostics);
}

const struct fb_yaml_node *fb_yaml_with_item(const struct fb_yaml_node *list, size_t index,
                                             const struct fb_yaml_node *value,
                                             struct fb_arena *arena,
                                             struct fb_diagnostics *diagnostics)
{
    struct fb_yaml_node *copy = copy_node(list, 0, arena, diagnostics);
    if (copy == NULL) {
        return NULL;
    }
    copy->items[index] = value;
    return settle(copy, value->mark, diagnostics);
}

const struct fb_yaml_node *fb_yaml_scalar(const char *text, struct fb_mark mark,
                                          struct fb_arena *arena,
                                          struct fb_diagnostics *diagnostics)
{
    const struct fb_suite_reader reader = {.arena = arena, .diagnostics = diagnostics};
    struct fb_yaml_node *node = fb_suite_alloc(&reader, 1, sizeof *node);
    if (node != NULL) {
        *node = (struct fb_yaml_node){.kind = FB_YAML_SCALAR,
                                      .mark = mark,
                                      .text = text,
                                      .weight = FB_YAML_NODE_WEIGHT + strlen(text),
                                      .height = 1};
    }
    return node;
}

const struct fb_yaml_node *fb_yaml_empty_map(struct fb_mark mark, struct fb_arena *arena,
                                             struct fb_diagnostics *diagnostics)
{
    const struct fb_suite_reader reader = {.arena = arena, .diagnostics = diagnostics};
    struct fb_yaml_node *node = fb_suite_alloc(&reader, 1, sizeof *node);
    if (node != NULL) {
        *node = (struct fb_yaml_node){
            .kind = FB_YAML_MAP, .mark = mark, .weight = FB_YAML_NODE_WEIGHT, .height = 1};
    }
    return node;
}
