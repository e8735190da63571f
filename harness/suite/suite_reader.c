/* Memory and the most common mistake of all readers of a suite. */
#include "suite_reader.h"

#include "nearest.h"

#include <stdio.h>
#include <string.h>

void *fb_suite_alloc(const struct fb_suite_reader *reader, size_t count, size_t element_bytes)
{
    struct fb_error error;
    void *memory = fb_arena_alloc(reader->arena, count > 0 ? count : 1, element_bytes, &error);
    if (memory == NULL) {
        fb_diagnose_memory(reader->diagnostics, &error);
    }
    return memory;
}

void *fb_suite_grow(const struct fb_suite_reader *reader, const void *old, size_t count,
                    size_t *room, size_t element_bytes)
{
    size_t wanted = *room == 0 ? 8 : *room * 2;
    void *bigger = fb_suite_alloc(reader, wanted, element_bytes);
    if (bigger == NULL) {
        return NULL;
    }
    if (count > 0) {
        memcpy(bigger, old, count * element_bytes);
    }
    *room = wanted;
    return bigger;
}

void fb_suite_unknown_key(const struct fb_suite_reader *reader, const struct fb_yaml_node *key,
                          const char *map_name, const char *const *names, size_t count)
{
    const char *near = fb_nearest_name(key->text, names, count);
    if (near != NULL) {
        fb_diagnose(reader->diagnostics, key->mark, "unknown key '%.60s' in %s; did you mean '%s'?",
                    key->text, map_name, near);
        return;
    }
    char valid[280] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof valid; i++) {
        used += (size_t)snprintf(valid + used, sizeof valid - used, "%s%s", i > 0 ? ", " : "",
                                 names[i]);
    }
    fb_diagnose(reader->diagnostics, key->mark, "unknown key '%.60s' in %s (valid: %s)", key->text,
                map_name, valid);
}
