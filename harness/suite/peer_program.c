/* Programs that are not ours, by name or by path: see peer_program.h. */
#include "peer_program.h"

#include "registry.h"
#include "suite_values.h"

#include <string.h>

/* Adapters that come with flowbench; their files lie in baselines/external/. */
static const struct {
    const char *name, *file;
} adapters[] = {{"torch", "torch_adapter.py"}};

enum { ADAPTERS_COUNT = sizeof adapters / sizeof adapters[0] };

const char *fb_peer_adapter_file(const char *program)
{
    for (size_t i = 0; i < ADAPTERS_COUNT; i++) {
        if (strcmp(adapters[i].name, program) == 0) {
            return adapters[i].file;
        }
    }
    return NULL;
}

bool fb_peer_names_add(struct fb_peer_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->names[i], name) == 0) {
            return true;
        }
    }
    if (names->count == FB_PEER_NAMES_MAX) {
        return false;
    }
    names->names[names->count++] = name;
    return true;
}

bool fb_peer_read_program(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const char **program)
{
    if (!fb_value_text(reader->diagnostics, node, "program", program)) {
        return false;
    }
    if (strlen(*program) > FB_PEER_PROGRAM_SIZE_MAX) {
        fb_diagnose(reader->diagnostics, node->mark, "program has %zu bytes; the limit is %d",
                    strlen(*program), FB_PEER_PROGRAM_SIZE_MAX);
        return false;
    }
    if (strchr(*program, '/') == NULL && fb_peer_adapter_file(*program) == NULL) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "no adapter '%.60s' comes with flowbench (adapters: %s); a file is named with "
                    "a slash, such as ./%.60s",
                    *program, adapters[0].name, *program);
        return false;
    }
    return true;
}

static bool is_registered(const char *variant)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        if (strcmp(fb_attention_at(i)->variant, variant) == 0) {
            return true;
        }
    }
    return false;
}

bool fb_peer_read_variant(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const char **variant)
{
    if (!fb_value_text(reader->diagnostics, node, "variant", variant)) {
        return false;
    }
    const size_t valid = strspn(*variant, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    if ((*variant)[valid] != '\0' || valid > FB_PEER_VARIANT_SIZE_MAX) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "the variant of an external program is a name of a to z, 0 to 9, _ and -, at "
                    "most %d of them, not '%.60s'",
                    FB_PEER_VARIANT_SIZE_MAX, *variant);
        return false;
    }
    if (is_registered(*variant)) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "'%s' is a variant of flowbench's own: name the external one so that the two "
                    "are told apart",
                    *variant);
        return false;
    }
    if (reader->peers != NULL && !fb_peer_names_add(reader->peers, *variant)) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "more than %d variants of external programs in one suite", FB_PEER_NAMES_MAX);
        return false;
    }
    return true;
}
