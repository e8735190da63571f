/* libyaml's events become a tree; aliases, merge keys, duplicates and limits are settled here. */
#include "suite_reader.h"

#include <stdint.h>
#include <string.h>
#include <yaml.h>

enum { ANCHORS_MAX = 1000 };

struct anchor {
    const char *name;
    const struct fb_yaml_node *node; /* NULL while the node is being read */
};

struct builder {
    yaml_parser_t parser;
    const struct fb_source *source;
    size_t start_column;
    struct fb_suite_reader reader;
    struct anchor *anchors;
    size_t anchor_count, anchor_room;
};

static struct fb_mark mark_at(const struct builder *b, yaml_mark_t mark)
{
    return (struct fb_mark){.source = b->source,
                            .line = mark.line,
                            .column = mark.column + (mark.line == 0 ? b->start_column : 0)};
}

/* libyaml puts the end of a text on a line of its own, even when the last line has no end. */
static struct fb_mark clamp_to_text(struct fb_mark mark)
{
    const struct fb_source *source = mark.source;
    size_t line = 0;
    size_t column = 0;
    for (size_t at = 0; at < source->length; at++) {
        char c = source->text[at];
        bool pair = c == '\r' && at + 1 < source->length && source->text[at + 1] == '\n';
        if (c == '\n' || (c == '\r' && !pair)) {
            line++;
            column = 0;
        } else if (!pair) {
            column += ((unsigned char)c & 0xC0U) == 0x80U ? 0 : 1;
        }
    }
    if (mark.line > line) {
        mark.line = line;
        mark.column = column;
    }
    return mark;
}

static void report_parser(struct builder *b)
{
    const yaml_parser_t *parser = &b->parser;
    struct fb_mark mark = clamp_to_text(mark_at(b, parser->problem_mark));
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
    if (parser->error == YAML_MEMORY_ERROR) {
        struct fb_error error;
        (void)fb_error_set(&error, FB_ERROR_MEMORY, "out of memory while reading YAML");
        fb_diagnose_memory(b->reader.diagnostics, &error);
    } else if (parser->context != NULL) {
        fb_diagnose(b->reader.diagnostics, mark, "%s (%s)", problem, parser->context);
    } else {
        fb_diagnose(b->reader.diagnostics, mark, "%s", problem);
    }
}

static bool next_event(struct builder *b, yaml_event_t *event)
{
    if (yaml_parser_parse(&b->parser, event) == 0) {
        report_parser(b);
        return false;
    }
    return true;
}

static struct fb_yaml_node *new_node(struct builder *b, enum fb_yaml_kind kind, yaml_mark_t mark)
{
    struct fb_yaml_node *node = fb_suite_alloc(&b->reader, 1, sizeof *node);
    if (node == NULL) {
        return NULL;
    }
    *node = (struct fb_yaml_node){
        .kind = kind, .mark = mark_at(b, mark), .weight = FB_YAML_NODE_WEIGHT, .height = 1};
    return node;
}

/* Counts a child into its parent; false when a limit is passed, reported at `mark`. */
static bool add_child(struct builder *b, struct fb_yaml_node *parent,
                      const struct fb_yaml_node *child, int depth, struct fb_mark mark)
{
    parent->weight += child->weight;
    if (child->height + 1 > parent->height) {
        parent->height = child->height + 1;
    }
    if (parent->weight > FB_YAML_WEIGHT_MAX) {
        fb_diagnose(b->reader.diagnostics, mark,
                    "the suite grows beyond %d KiB here (every node counts %d bytes and its text, "
                    "aliases are expanded)",
                    FB_YAML_WEIGHT_MAX / 1024, FB_YAML_NODE_WEIGHT);
        return false;
    }
    if (depth + child->height > FB_YAML_DEPTH_MAX) {
        fb_diagnose(b->reader.diagnostics, mark, "nested deeper than %d levels", FB_YAML_DEPTH_MAX);
        return false;
    }
    return true;
}

static struct anchor *find_anchor(struct builder *b, const char *name)
{
    for (size_t i = b->anchor_count; i > 0; i--) {
        if (strcmp(b->anchors[i - 1].name, name) == 0) {
            return &b->anchors[i - 1];
        }
    }
    return NULL;
}

/* Registers the anchor of a node that is about to be read; *index is where to store the node. */
static bool open_anchor(struct builder *b, const yaml_char_t *name, yaml_mark_t mark, size_t *index)
{
    *index = SIZE_MAX;
    if (name == NULL) {
        return true;
    }
    if (b->anchor_count == ANCHORS_MAX) {
        fb_diagnose(b->reader.diagnostics, mark_at(b, mark), "more than %d anchors", ANCHORS_MAX);
        return false;
    }
    if (b->anchor_count == b->anchor_room) {
        struct anchor *bigger = fb_suite_grow(&b->reader, b->anchors, b->anchor_count,
                                              &b->anchor_room, sizeof *b->anchors);
        if (bigger == NULL) {
            return false;
        }
        b->anchors = bigger;
    }
    struct fb_error error;
    const char *copy = fb_arena_strdup(b->reader.arena, (const char *)name, &error);
    if (copy == NULL) {
        fb_diagnose_memory(b->reader.diagnostics, &error);
        return false;
    }
    *index = b->anchor_count++;
    b->anchors[*index] = (struct anchor){.name = copy};
    return true;
}

static const struct fb_yaml_node *build_alias(struct builder *b, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    struct fb_mark mark = mark_at(b, event->start_mark);
    const struct anchor *anchor = find_anchor(b, name);
    if (anchor == NULL) {
        fb_diagnose(b->reader.diagnostics, mark, "alias *%.60s has no anchor &%.60s before it",
                    name, name);
        return NULL;
    }
    if (anchor->node == NULL) {
        fb_diagnose(b->reader.diagnostics, mark, "alias *%.60s stands inside its own anchor", name);
        return NULL;
    }
    return anchor->node;
}

static struct fb_yaml_node *build_scalar(struct builder *b, const yaml_event_t *event)
{
    struct fb_yaml_node *node = new_node(b, FB_YAML_SCALAR, event->start_mark);
    if (node == NULL) {
        return NULL;
    }
    const char *text = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (memchr(text, '\0', length) != NULL) { /* "\0" in double quotes */
        fb_diagnose(b->reader.diagnostics, node->mark, "a text cannot hold a NUL character");
        return NULL;
    }
    struct fb_error error;
    node->text = fb_arena_strdup(b->reader.arena, text, &error);
    if (node->text == NULL) {
        fb_diagnose_memory(b->reader.diagnostics, &error);
        return NULL;
    }
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->weight += length;
    return node;
}

static const struct fb_yaml_node *build_node(struct builder *b, yaml_event_t *event, int depth);

static struct fb_yaml_node *build_list(struct builder *b, const yaml_event_t *start, int depth)
{
    struct fb_yaml_node *list = new_node(b, FB_YAML_LIST, start->start_mark);
    size_t room = 0;
    while (list != NULL) {
        yaml_event_t event;
        if (!next_event(b, &event)) {
            return NULL;
        }
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return list;
        }
        struct fb_mark mark = mark_at(b, event.start_mark);
        const struct fb_yaml_node *item = build_node(b, &event, depth + 1);
        if (item == NULL || !add_child(b, list, item, depth, mark)) {
            return NULL;
        }
        if (list->count == room) {
            /* A list holds pointers. NOLINTBEGIN(bugprone-sizeof-expression) */
            list->items =
                fb_suite_grow(&b->reader, list->items, list->count, &room, sizeof *list->items);
            /* NOLINTEND(bugprone-sizeof-expression) */
            if (list->items == NULL) {
                return NULL;
            }
        }
        list->items[list->count++] = item;
    }
    return NULL;
}

/* Appends a pair; `own` pairs must be new, merged ones give way to those already there. */
static bool add_pair(struct builder *b, struct fb_yaml_node *map, size_t *room,
                     struct fb_yaml_pair pair, bool own)
{
    const struct fb_yaml_pair *twin = fb_yaml_find(map, pair.key->text);
    if (twin != NULL) {
        if (own) {
            fb_diagnose(b->reader.diagnostics, pair.key->mark,
                        "key '%.60s' is given twice, first in line %zu", pair.key->text,
                        twin->key->mark.line + 1);
        }
        return !own;
    }
    if (map->count == FB_YAML_KEYS_MAX) {
        fb_diagnose(b->reader.diagnostics, pair.key->mark, "a map has at most %d keys",
                    FB_YAML_KEYS_MAX);
        return false;
    }
    if (map->count == *room) {
        map->pairs = fb_suite_grow(&b->reader, map->pairs, map->count, room, sizeof *map->pairs);
        if (map->pairs == NULL) {
            return false;
        }
    }
    map->pairs[map->count++] = pair;
    return true;
}

/* `<<: *map` or `<<: [*first, *second]`: explicit keys win, then the earlier map. */
static bool apply_merge(struct builder *b, struct fb_yaml_node *map, size_t *room,
                        const struct fb_yaml_node *merged, struct fb_mark mark, int depth)
{
    size_t count = merged->kind == FB_YAML_LIST ? merged->count : 1;
    for (size_t i = 0; i < count; i++) {
        const struct fb_yaml_node *from = merged->kind == FB_YAML_LIST ? merged->items[i] : merged;
        if (from->kind != FB_YAML_MAP) {
            fb_diagnose(b->reader.diagnostics, mark, "<< merges a map or a list of maps");
            return false;
        }
        for (size_t p = 0; p < from->count; p++) {
            size_t before = map->count;
            if (!add_pair(b, map, room, from->pairs[p], false)) {
                return false;
            }
            if (map->count > before && (!add_child(b, map, from->pairs[p].key, depth, mark) ||
                                        !add_child(b, map, from->pairs[p].value, depth, mark))) {
                return false;
            }
        }
    }
    return true;
}

/* Reads one key; NULL at the end of the map (*at_end) or on failure. */
static const struct fb_yaml_node *build_key(struct builder *b, int depth, bool *at_end)
{
    yaml_event_t event;
    *at_end = false;
    if (!next_event(b, &event)) {
        return NULL;
    }
    if (event.type == YAML_MAPPING_END_EVENT) {
        *at_end = true;
        yaml_event_delete(&event);
        return NULL;
    }
    struct fb_mark mark = mark_at(b, event.start_mark);
    const struct fb_yaml_node *key = build_node(b, &event, depth + 1);
    if (key != NULL && key->kind != FB_YAML_SCALAR) {
        fb_diagnose(b->reader.diagnostics, mark, "a key must be a word, not a list or a map");
        return NULL;
    }
    return key;
}

static struct fb_yaml_node *build_map(struct builder *b, const yaml_event_t *start, int depth)
{
    struct fb_yaml_node *map = new_node(b, FB_YAML_MAP, start->start_mark);
    size_t room = 0;
    const struct fb_yaml_node *merge_key = NULL;
    const struct fb_yaml_node *merge_value = NULL;
    while (map != NULL) {
        bool at_end;
        const struct fb_yaml_node *key = build_key(b, depth, &at_end);
        if (at_end) {
            break;
        }
        yaml_event_t event;
        if (key == NULL || !next_event(b, &event)) {
            return NULL;
        }
        struct fb_mark mark = mark_at(b, event.start_mark);
        const struct fb_yaml_node *value = build_node(b, &event, depth + 1);
        if (value == NULL || !add_child(b, map, key, depth, key->mark)) {
            return NULL;
        }
        if (!key->quoted && strcmp(key->text, "<<") == 0) {
            if (merge_key != NULL) {
                fb_diagnose(b->reader.diagnostics, key->mark,
                            "key '<<' is given twice: merge several maps with <<: [*a, *b]");
                return NULL;
            }
            merge_key = key;
            merge_value = value;
            continue;
        }
        if (!add_child(b, map, value, depth, mark) ||
            !add_pair(b, map, &room, (struct fb_yaml_pair){key, value}, true)) {
            return NULL;
        }
    }
    if (map != NULL && merge_value != NULL &&
        !apply_merge(b, map, &room, merge_value, merge_key->mark, depth)) {
        return NULL;
    }
    return map;
}

static bool has_tag(const yaml_event_t *event)
{
    return (event->type == YAML_SCALAR_EVENT && event->data.scalar.tag != NULL) ||
           (event->type == YAML_SEQUENCE_START_EVENT && event->data.sequence_start.tag != NULL) ||
           (event->type == YAML_MAPPING_START_EVENT && event->data.mapping_start.tag != NULL);
}

static const struct fb_yaml_node *build_anchored(struct builder *b, const yaml_event_t *event,
                                                 int depth)
{
    const yaml_char_t *name = event->type == YAML_SCALAR_EVENT ? event->data.scalar.anchor
                              : event->type == YAML_SEQUENCE_START_EVENT
                                  ? event->data.sequence_start.anchor
                                  : event->data.mapping_start.anchor;
    size_t anchor;
    if (!open_anchor(b, name, event->start_mark, &anchor)) {
        return NULL;
    }
    const struct fb_yaml_node *node = event->type == YAML_SCALAR_EVENT ? build_scalar(b, event)
                                      : event->type == YAML_SEQUENCE_START_EVENT
                                          ? build_list(b, event, depth)
                                          : build_map(b, event, depth);
    if (anchor != SIZE_MAX) {
        b->anchors[anchor].node = node;
    }
    return node;
}

/* The node that starts with the event; deletes the event. Depth counts from 1. */
static const struct fb_yaml_node *build_node(struct builder *b, yaml_event_t *event, int depth)
{
    const struct fb_yaml_node *node = NULL;
    struct fb_mark mark = mark_at(b, event->start_mark);
    if (depth > FB_YAML_DEPTH_MAX) {
        fb_diagnose(b->reader.diagnostics, mark, "nested deeper than %d levels", FB_YAML_DEPTH_MAX);
    } else if (event->type == YAML_ALIAS_EVENT) {
        node = build_alias(b, event);
    } else if (has_tag(event)) {
        fb_diagnose(b->reader.diagnostics, mark,
                    "suites have no tags (!...): write the value alone");
    } else {
        node = build_anchored(b, event, depth);
    }
    yaml_event_delete(event);
    return node;
}

/* Stream start, document start, one node, document end, stream end. */
static const struct fb_yaml_node *build_document(struct builder *b)
{
    yaml_event_t event;
    const struct fb_yaml_node *root = NULL;
    for (;;) {
        if (!next_event(b, &event)) {
            return NULL;
        }
        yaml_event_type_t type = event.type;
        struct fb_mark mark = mark_at(b, event.start_mark);
        if (type == YAML_STREAM_END_EVENT) {
            yaml_event_delete(&event);
            if (root == NULL) {
                mark.line = mark.column = 0;
                fb_diagnose(b->reader.diagnostics, mark, "there is nothing here");
            }
            return root;
        }
        if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_END_EVENT ||
            (type == YAML_DOCUMENT_START_EVENT && root == NULL)) {
            yaml_event_delete(&event);
            continue;
        }
        if (root != NULL) {
            yaml_event_delete(&event);
            fb_diagnose(b->reader.diagnostics, mark, "a second document: a suite is one document");
            return NULL;
        }
        root = build_node(b, &event, 1);
        if (root == NULL) {
            return NULL;
        }
    }
}

const struct fb_yaml_node *fb_yaml_parse(const struct fb_source *source, size_t start,
                                         size_t start_column, struct fb_arena *arena,
                                         struct fb_diagnostics *diagnostics)
{
    struct builder b = {.source = source,
                        .start_column = start_column,
                        .reader = {.arena = arena, .diagnostics = diagnostics}};
    if (yaml_parser_initialize(&b.parser) == 0) {
        struct fb_error error;
        (void)fb_error_set(&error, FB_ERROR_MEMORY, "out of memory while reading YAML");
        fb_diagnose_memory(diagnostics, &error);
        return NULL;
    }
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)source->text + start,
                                 source->length - start);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    const struct fb_yaml_node *root = build_document(&b);
    yaml_parser_delete(&b.parser);
    return root;
}
