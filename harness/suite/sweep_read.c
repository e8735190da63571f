/* Reading defaults:, sweep:, hardware: and exclude:. */
#include "suite_values.h"
#include "sweep.h"

#include <stdio.h>
#include <string.h>

bool fb_sweep_read_defaults(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_sweep *sweep)
{
    if (!fb_axes_read(reader, node, "defaults", NULL, false, &sweep->defaults)) {
        return false;
    }
    for (size_t i = 0; i < sweep->defaults.count; i++) {
        const struct fb_axis *axis = &sweep->defaults.axis[i];
        if (axis->count != 1) {
            fb_diagnose(reader->diagnostics, axis->node->mark,
                        "defaults holds one value of each factor: move the %zu values of %s to "
                        "sweep",
                        axis->count, fb_factor_at(axis->key)->name);
            return false;
        }
    }
    return true;
}

bool fb_sweep_read_axes(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        struct fb_sweep *sweep)
{
    return fb_axes_read(reader, node, "sweep", NULL, true, &sweep->axes);
}

static bool read_hardware_entry(const struct fb_suite_reader *reader,
                                const struct fb_yaml_node *node, struct fb_hardware *hardware)
{
    hardware->node = node;
    if (!fb_axes_read(reader, node, "an entry of hardware", "optional", false, &hardware->axes)) {
        return false;
    }
    const struct fb_yaml_pair *optional = fb_yaml_find(node, "optional");
    return optional == NULL ||
           fb_value_bool(reader->diagnostics, optional->value, "optional", &hardware->optional);
}

bool fb_sweep_read_hardware(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_sweep *sweep)
{
    if (node->kind != FB_YAML_LIST || node->count == 0) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "hardware is a list of maps: - {device: cpu, threads: max}");
        return false;
    }
    sweep->hardware = fb_suite_alloc(reader, node->count, sizeof *sweep->hardware);
    if (sweep->hardware == NULL) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count && reader->diagnostics->unshown == 0; i++) {
        fine = read_hardware_entry(reader, node->items[i], &sweep->hardware[i]) && fine;
        sweep->hardware_count++;
    }
    return fine;
}

static bool read_exclusion(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                           struct fb_exclusion *exclusion)
{
    if (node->kind != FB_YAML_MAP || node->count == 0) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "an entry of exclude is a map of conditions: {mechanism: softmax, seq_len: "
                    "'> 8192'}");
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        int key = fb_factor_find(pair->key->text);
        if (key < 0) {
            fb_suite_unknown_key(reader, pair->key, "exclude", fb_factor_names(), FB_FACTOR_COUNT);
            fine = false;
            continue;
        }
        fine = fb_condition_read(reader, (enum fb_factor_key)key, pair->value, false,
                                 &exclusion->conditions[exclusion->count]) &&
               fine;
        exclusion->count++;
    }
    return fine;
}

bool fb_sweep_read_exclude(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                           struct fb_sweep *sweep)
{
    if (node->kind != FB_YAML_LIST) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "exclude is a list of maps: [{mechanism: softmax, seq_len: '> 8192'}]");
        return false;
    }
    sweep->exclude_node = node;
    sweep->exclusions = fb_suite_alloc(reader, node->count, sizeof *sweep->exclusions);
    if (sweep->exclusions == NULL) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count && reader->diagnostics->unshown == 0; i++) {
        fine = read_exclusion(reader, node->items[i], &sweep->exclusions[i]) && fine;
        sweep->exclusions_count++;
    }
    return fine;
}
