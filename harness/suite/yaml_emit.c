/* A tree as YAML text, by libyaml's emitter: blocks for the upper two levels, flow style below. */
#include "yaml_tree.h"

#include <string.h>
#include <yaml.h>

enum { BLOCK_DEPTH = 2 };

struct output {
    struct fb_arena *arena;
    struct fb_diagnostics *diagnostics;
    char *text;
    size_t length, room;
};

static int append_bytes(void *data, unsigned char *bytes, size_t size)
{
    struct output *out = data;
    if (out->length + size + 1 > out->room) {
        size_t room = (out->length + size + 1) * 2;
        struct fb_error error;
        char *bigger = fb_arena_alloc(out->arena, room, 1, &error);
        if (bigger == NULL) {
            fb_diagnose_memory(out->diagnostics, &error);
            return 0;
        }
        if (out->length > 0) {
            memcpy(bigger, out->text, out->length);
        }
        out->text = bigger;
        out->room = room;
    }
    memcpy(out->text + out->length, bytes, size);
    out->length += size;
    out->text[out->length] = '\0';
    return out->length <= FB_YAML_WEIGHT_MAX ? 1 : 0;
}

static bool emit_scalar(yaml_emitter_t *emitter, const struct fb_yaml_node *node)
{
    yaml_event_t event;
    union { /* libyaml takes its text as not const but only reads it */
        const char *text;
        yaml_char_t *chars;
    } value = {.text = node->text};
    yaml_scalar_style_t style =
        node->quoted ? YAML_SINGLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
    return yaml_scalar_event_initialize(&event, NULL, NULL, value.chars, (int)strlen(node->text),
                                        node->quoted ? 0 : 1, 1, style) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0;
}

static bool emit_node(yaml_emitter_t *emitter, const struct fb_yaml_node *node, int depth)
{
    yaml_event_t event;
    if (node->kind == FB_YAML_SCALAR) {
        return emit_scalar(emitter, node);
    }
    bool block = depth < BLOCK_DEPTH;
    if (node->kind == FB_YAML_LIST) {
        if (yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                                 block ? YAML_BLOCK_SEQUENCE_STYLE
                                                       : YAML_FLOW_SEQUENCE_STYLE) == 0 ||
            yaml_emitter_emit(emitter, &event) == 0) {
            return false;
        }
        for (size_t i = 0; i < node->count; i++) {
            if (!emit_node(emitter, node->items[i], depth + 1)) {
                return false;
            }
        }
        return yaml_sequence_end_event_initialize(&event) != 0 &&
               yaml_emitter_emit(emitter, &event) != 0;
    }
    if (yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
                                            block ? YAML_BLOCK_MAPPING_STYLE
                                                  : YAML_FLOW_MAPPING_STYLE) == 0 ||
        yaml_emitter_emit(emitter, &event) == 0) {
        return false;
    }
    for (size_t i = 0; i < node->count; i++) {
        if (!emit_scalar(emitter, node->pairs[i].key) ||
            !emit_node(emitter, node->pairs[i].value, depth + 1)) {
            return false;
        }
    }
    return yaml_mapping_end_event_initialize(&event) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0;
}

static bool emit_document(yaml_emitter_t *emitter, const struct fb_yaml_node *root)
{
    yaml_event_t event;
    return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0 &&
           yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0 && emit_node(emitter, root, 0) &&
           yaml_document_end_event_initialize(&event, 1) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0 &&
           yaml_stream_end_event_initialize(&event) != 0 &&
           yaml_emitter_emit(emitter, &event) != 0 && yaml_emitter_flush(emitter) != 0;
}

const char *fb_yaml_emit(const struct fb_yaml_node *root, struct fb_arena *arena,
                         struct fb_diagnostics *diagnostics)
{
    struct output out = {.arena = arena, .diagnostics = diagnostics};
    yaml_emitter_t emitter;
    if (yaml_emitter_initialize(&emitter) == 0) {
        fb_diagnose(diagnostics, root->mark, "out of memory while writing the resolved suite");
        return NULL;
    }
    yaml_emitter_set_output(&emitter, append_bytes, &out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    bool done = emit_document(&emitter, root);
    yaml_emitter_delete(&emitter);
    if (!done) {
        if (!fb_diagnostics_failed(diagnostics)) {
            fb_diagnose(diagnostics, root->mark, "the resolved suite is larger than %d KiB",
                        FB_YAML_WEIGHT_MAX / 1024);
        }
        return NULL;
    }
    return out.text;
}
