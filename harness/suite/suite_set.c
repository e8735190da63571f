/* --set path.to.key=value: a value in YAML placed at a path of the document. */
#include "suite_schema.h"

#include "suite_values.h"

#include <string.h>

enum { PATH_DEPTH_MAX = 8, ARGUMENT_SIZE_MAX = 1 << 16 };

/* One --set: its parts point into the argument, so that messages can show where. */
struct override {
    const struct fb_suite_reader *reader;
    struct fb_source *source; /* the whole argument */
    const struct fb_yaml_node *parts[PATH_DEPTH_MAX];
    size_t count;
    const struct fb_yaml_node *value;
};

static size_t count_columns(const char *text, size_t bytes)
{
    size_t columns = 0;
    for (size_t i = 0; i < bytes; i++) {
        columns += ((unsigned char)text[i] & 0xC0U) != 0x80U ? 1 : 0;
    }
    return columns;
}

/* Splits the path at its dots. */
static bool read_path(struct override *o, const char *argument, size_t length)
{
    const struct fb_suite_reader *reader = o->reader;
    size_t at = 0;
    while (at <= length) {
        size_t end = at;
        while (end < length && argument[end] != '.') {
            end++;
        }
        struct fb_mark mark = {.source = o->source, .column = count_columns(argument, at)};
        if (end == at) {
            fb_diagnose(reader->diagnostics, mark,
                        "a path has words between its dots, such as measure.processes=5");
            return false;
        }
        if (o->count == PATH_DEPTH_MAX) {
            fb_diagnose(reader->diagnostics, mark, "a path has at most %d words", PATH_DEPTH_MAX);
            return false;
        }
        struct fb_error error;
        const char *word =
            fb_arena_printf(reader->arena, &error, "%.*s", (int)(end - at), argument + at);
        if (word == NULL) {
            fb_diagnose_memory(reader->diagnostics, &error);
            return false;
        }
        o->parts[o->count] = fb_yaml_scalar(word, mark, reader->arena, reader->diagnostics);
        if (o->parts[o->count++] == NULL) {
            return false;
        }
        at = end + 1;
    }
    if (strcmp(o->parts[0]->text, "include") == 0) {
        fb_diagnose(reader->diagnostics, o->parts[0]->mark,
                    "include cannot be set: it is settled before --set");
        return false;
    }
    return true;
}

/* Parses the text after '=' as YAML; an empty one is an empty value. */
static bool read_value(struct override *o, size_t start)
{
    const struct fb_suite_reader *reader = o->reader;
    const struct fb_source *source = o->source;
    size_t column = count_columns(source->text, start);
    if (strspn(source->text + start, " \t") == source->length - start) {
        struct fb_mark mark = {.source = source, .column = column};
        fb_diagnose(reader->diagnostics, mark, "there is no value after '='");
        return false;
    }
    o->value = fb_yaml_parse(source, start, column, reader->arena, reader->diagnostics);
    return o->value != NULL;
}

static bool read_override(struct override *o, const char *argument)
{
    const struct fb_suite_reader *reader = o->reader;
    o->source = fb_suite_alloc(reader, 1, sizeof *o->source);
    if (o->source == NULL) {
        return false;
    }
    *o->source = (struct fb_source){.name = "--set", .text = argument, .length = strlen(argument)};
    struct fb_mark mark = {.source = o->source};
    const char *equals = strchr(argument, '=');
    if (o->source->length > ARGUMENT_SIZE_MAX) {
        fb_diagnose(reader->diagnostics, mark, "the argument is longer than 64 KiB");
        return false;
    }
    if (equals == NULL) {
        fb_diagnose(reader->diagnostics, mark,
                    "--set takes path=value, such as --set measure.processes=5");
        return false;
    }
    return fb_yaml_check_text(o->source, reader->diagnostics) &&
           read_path(o, argument, (size_t)(equals - argument)) &&
           read_value(o, (size_t)(equals - argument) + 1);
}

static const struct fb_yaml_node *place(const struct override *o, const struct fb_yaml_node *node,
                                        size_t part);

static const struct fb_yaml_node *place_in_list(const struct override *o,
                                                const struct fb_yaml_node *list, size_t part)
{
    const struct fb_suite_reader *reader = o->reader;
    const char *word = o->parts[part]->text;
    size_t digits = strspn(word, "0123456789");
    size_t index = 0;
    for (size_t i = 0; i < digits && digits <= 6; i++) {
        index = index * 10 + (size_t)(word[i] - '0');
    }
    if (word[digits] != '\0' || digits == 0) {
        fb_diagnose(reader->diagnostics, o->parts[part]->mark,
                    "'%.40s' is a list: name one of its items by its number, 0 to %zu",
                    o->parts[part - 1]->text, list->count > 0 ? list->count - 1 : 0);
        return NULL;
    }
    if (digits > 6 || index >= list->count) {
        fb_diagnose(reader->diagnostics, o->parts[part]->mark,
                    "'%.40s' has %zu items, counted from 0: there is no item %.20s",
                    o->parts[part - 1]->text, list->count, word);
        return NULL;
    }
    const struct fb_yaml_node *item = place(o, list->items[index], part + 1);
    return item == NULL ? NULL
                        : fb_yaml_with_item(list, index, item, reader->arena, reader->diagnostics);
}

/* A copy of the node in which the rest of the path, from `part` on, leads to the value. A map gets
 * the key even if no suite knows it: the schema reports it then, at its place in the argument. */
static const struct fb_yaml_node *place(const struct override *o, const struct fb_yaml_node *node,
                                        size_t part)
{
    const struct fb_suite_reader *reader = o->reader;
    if (part == o->count) {
        return o->value;
    }
    const struct fb_yaml_node *key = o->parts[part];
    if (node != NULL && node->kind == FB_YAML_LIST) {
        return place_in_list(o, node, part);
    }
    if (node != NULL && node->kind == FB_YAML_SCALAR) {
        fb_diagnose(reader->diagnostics, key->mark,
                    "'%.40s' is '%.40s', not a map: it has no '%.40s'",
                    part > 0 ? o->parts[part - 1]->text : "the suite", node->text, key->text);
        return NULL;
    }
    if (node == NULL) {
        node = fb_yaml_empty_map(key->mark, reader->arena, reader->diagnostics);
    }
    const struct fb_yaml_pair *pair = node != NULL ? fb_yaml_find(node, key->text) : NULL;
    const struct fb_yaml_node *value =
        node != NULL ? place(o, pair != NULL ? pair->value : NULL, part + 1) : NULL;
    return value == NULL ? NULL
                         : fb_yaml_with(node, key, value, reader->arena, reader->diagnostics);
}

const struct fb_yaml_node *fb_suite_apply_sets(const struct fb_suite_reader *reader,
                                               const struct fb_yaml_node *root,
                                               const struct fb_suite_options *options)
{
    for (size_t i = 0; root != NULL && options != NULL && i < options->sets_count; i++) {
        struct override o = {.reader = reader};
        root = read_override(&o, options->sets[i]) ? place(&o, root, 0) : NULL;
    }
    return root;
}
