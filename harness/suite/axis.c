/* Axes of a sweep: scalars, lists, ranges and zips. */
#include "axis.h"

#include "suite_values.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

bool fb_axis_append(const struct fb_suite_reader *reader, struct fb_axis *axis, size_t *room,
                    const struct fb_axis_value *value)
{
    if (axis->count == FB_AXIS_VALUES_MAX) {
        fb_diagnose(reader->diagnostics, axis->node->mark, "more than %d values for one factor",
                    FB_AXIS_VALUES_MAX);
        return false;
    }
    if (axis->count == *room) {
        struct fb_axis_value *bigger =
            fb_suite_grow(reader, axis->values, axis->count, room, sizeof *axis->values);
        if (bigger == NULL) {
            return false;
        }
        axis->values = bigger;
    }
    axis->values[axis->count++] = *value;
    return true;
}

static bool read_number(const struct fb_suite_reader *reader, const struct fb_factor *factor,
                        const struct fb_yaml_node *node, int64_t *number)
{
    if (factor->special != NULL && node->kind == FB_YAML_SCALAR) {
        if (strcmp(node->text, factor->special) == 0) {
            *number = factor->special_value;
            return true;
        }
        double ignored;
        const char *end;
        if (node->text[0] != '\0' && !fb_parse_number(node->text, &ignored, &end)) {
            const char *const names[] = {factor->special, "a number"};
            fb_value_report_unknown(reader->diagnostics, node, factor->name, names, 2);
            return false;
        }
    }
    return fb_value_integer(reader->diagnostics, node, factor->name, factor->min, factor->max,
                            number);
}

bool fb_axis_read_scalar(const struct fb_suite_reader *reader, enum fb_factor_key key,
                         const struct fb_yaml_node *node, struct fb_axis_value *value)
{
    const struct fb_factor *factor = fb_factor_at(key);
    *value = (struct fb_axis_value){.node = node};
    if (key == FB_FACTOR_MECHANISM) {
        return fb_axis_find_mechanism(reader, node, &value->mechanism) &&
               (value->params = fb_axis_default_params(reader, value->mechanism)) != NULL;
    }
    if (key == FB_FACTOR_TASK) {
        return fb_axis_find_task(reader, node, value);
    }
    if (key == FB_FACTOR_VARIANT) {
        return fb_axis_find_variant(reader, node, NULL, &value->variant);
    }
    if (factor->type == FB_FACTOR_CHOICE) {
        const char *names[FB_FACTOR_CHOICES_MAX];
        int64_t values[FB_FACTOR_CHOICES_MAX];
        size_t count = fb_factor_choices(factor, names, values);
        size_t index;
        if (!fb_value_choice(reader->diagnostics, node, factor->name, names, count, &index)) {
            return false;
        }
        value->number = values[index];
        return true;
    }
    if (factor->type == FB_FACTOR_BOOL) {
        bool truth;
        if (!fb_value_bool(reader->diagnostics, node, factor->name, &truth)) {
            return false;
        }
        value->number = truth ? 1 : 0;
        return true;
    }
    return read_number(reader, factor, node, &value->number);
}

/* ---- ranges -------------------------------------------------------------------------------- */

struct range {
    double from, to, times, step;
    const struct fb_yaml_node *from_node, *to_node, *times_node, *step_node;
};

static bool read_range_keys(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                            const struct fb_factor *factor, struct range *range)
{
    const struct {
        const char *name;
        double *value;
        const struct fb_yaml_node **node;
    } keys[] = {{"from", &range->from, &range->from_node},
                {"to", &range->to, &range->to_node},
                {"times", &range->times, &range->times_node},
                {"step", &range->step, &range->step_node}};
    static const char *const names[] = {"from", "to", "times", "step"};
    bool fine = true;
    for (size_t i = 0; i < map->count; i++) {
        const struct fb_yaml_pair *pair = &map->pairs[i];
        size_t k = 0;
        while (k < 4 && strcmp(keys[k].name, pair->key->text) != 0) {
            k++;
        }
        if (k == 4) {
            fb_suite_unknown_key(reader, pair->key, "a range", names, 4);
            fine = false;
            continue;
        }
        fine = fb_value_real(reader->diagnostics, pair->value, keys[k].name, keys[k].value) && fine;
        *keys[k].node = pair->value;
    }
    if (fine && (range->from_node == NULL || range->to_node == NULL ||
                 (range->times_node == NULL) == (range->step_node == NULL))) {
        fb_diagnose(reader->diagnostics, map->mark,
                    "a range of %s is {from: A, to: B, times: K} or {from: A, to: B, step: K}",
                    factor->name);
        return false;
    }
    return fine;
}

/* Ends and stride of the range; empty, backward and endless ranges are refused here. */
static bool check_range(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                        const struct fb_factor *factor, const struct range *range)
{
    struct fb_diagnostics *diagnostics = reader->diagnostics;
    if (range->from > range->to) {
        fb_diagnose(diagnostics, range->from_node->mark,
                    "the range is empty: from %.17g is above to %.17g", range->from, range->to);
        return false;
    }
    const struct fb_yaml_node *ends[] = {range->from_node, range->to_node};
    for (size_t i = 0; i < 2; i++) {
        double end = i == 0 ? range->from : range->to;
        if (floor(end) < end || end < 0.0) {
            fb_diagnose(diagnostics, ends[i]->mark,
                        "the ends of a range of %s are whole numbers, not %.40s", factor->name,
                        ends[i]->text);
            return false;
        }
    }
    if (range->times_node != NULL && !(range->times > 1.0)) {
        fb_diagnose(diagnostics, range->times_node->mark,
                    "times must be above 1, not %.40s: the range would never end",
                    range->times_node->text);
        return false;
    }
    if (range->times_node != NULL && range->from < 1.0) {
        fb_diagnose(diagnostics, range->from_node->mark,
                    "a range with times starts at 1 or above, not at %.40s",
                    range->from_node->text);
        return false;
    }
    if (range->step_node != NULL && (range->step < 1.0 || floor(range->step) < range->step)) {
        fb_diagnose(diagnostics, range->step_node->mark,
                    "step must be a whole number of at least 1, not %.40s", range->step_node->text);
        return false;
    }
    double count =
        1.0 + (range->times_node != NULL ? log(range->to / range->from) / log(range->times)
                                         : (range->to - range->from) / range->step);
    if (!(count <= (double)FB_AXIS_VALUES_MAX)) {
        fb_diagnose(diagnostics, map->mark, "the range has %.3g values; the limit is %d", count,
                    FB_AXIS_VALUES_MAX);
        return false;
    }
    return true;
}

static bool read_range(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                       struct fb_axis *axis, size_t *room)
{
    const struct fb_factor *factor = fb_factor_at(axis->key);
    struct range range = {0};
    if (!read_range_keys(reader, map, factor, &range) ||
        !check_range(reader, map, factor, &range)) {
        return false;
    }
    if (range.from < (double)factor->min || range.to > (double)factor->max) {
        const struct fb_yaml_node *bad =
            range.from < (double)factor->min ? range.from_node : range.to_node;
        fb_diagnose(reader->diagnostics, bad->mark, "%s must be %lld to %lld, not %.40s",
                    factor->name, (long long)factor->min, (long long)factor->max, bad->text);
        return false;
    }
    int64_t last = -1;
    double exact = range.from;
    while (exact <= range.to * (1.0 + 1e-12)) {
        struct fb_axis_value value = {.node = map, .number = (int64_t)llround(exact)};
        if (value.number != last && !fb_axis_append(reader, axis, room, &value)) {
            return false;
        }
        last = value.number;
        exact = range.times_node != NULL ? exact * range.times : exact + range.step;
    }
    return true;
}

/* ---- axes ---------------------------------------------------------------------------------- */

static bool read_item(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                      struct fb_axis *axis, size_t *room)
{
    struct fb_axis_value value;
    if (axis->key == FB_FACTOR_MECHANISM && node->kind == FB_YAML_MAP) {
        return fb_axis_read_mechanism(reader, node, axis, room);
    }
    if (axis->key == FB_FACTOR_TASK && node->kind == FB_YAML_MAP) {
        return fb_axis_read_task(reader, node, &value) &&
               fb_axis_append(reader, axis, room, &value);
    }
    return fb_axis_read_scalar(reader, axis->key, node, &value) &&
           fb_axis_append(reader, axis, room, &value);
}

static bool read_values(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        struct fb_axis *axis)
{
    size_t room = 0;
    if (node->kind == FB_YAML_MAP && fb_factor_at(axis->key)->type == FB_FACTOR_NUMBER) {
        return read_range(reader, node, axis, &room);
    }
    if (node->kind != FB_YAML_LIST) {
        return read_item(reader, node, axis, &room);
    }
    if (node->count == 0) {
        fb_diagnose(reader->diagnostics, node->mark, "%s has an empty list: name one value or more",
                    fb_factor_at(axis->key)->name);
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        fine = read_item(reader, node->items[i], axis, &room) && fine;
        if (!fine && fb_diagnostics_failed(reader->diagnostics) &&
            reader->diagnostics->unshown > 0) {
            return false;
        }
    }
    return fine;
}

/* Reads the factor as a further axis of the given dimension. */
static bool add_axis(const struct fb_suite_reader *reader, const struct fb_yaml_pair *pair,
                     enum fb_factor_key key, size_t dimension, struct fb_axes *axes)
{
    const struct fb_axis *twin = fb_axes_find(axes, key);
    if (twin != NULL) {
        fb_diagnose(reader->diagnostics, pair->key->mark,
                    "factor '%s' is given twice, first in line %zu", pair->key->text,
                    twin->key_node->mark.line + 1);
        return false;
    }
    struct fb_axis *axis = &axes->axis[axes->count];
    *axis = (struct fb_axis){
        .key = key, .key_node = pair->key, .node = pair->value, .dimension = dimension};
    bool fine = read_values(reader, pair->value, axis);
    axes->count++;
    return fine;
}

static void add_dimension(struct fb_axes *axes, size_t extent)
{
    axes->extent[axes->dimensions++] = extent;
}

static bool read_zip(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                     struct fb_axes *axes)
{
    if (map->kind != FB_YAML_MAP || map->count == 0) {
        fb_diagnose(reader->diagnostics, map->mark,
                    "zip is a map of factors whose lists are walked together");
        return false;
    }
    size_t first = axes->count;
    bool fine = true;
    for (size_t i = 0; i < map->count; i++) {
        const struct fb_yaml_pair *pair = &map->pairs[i];
        int key = fb_factor_find(pair->key->text);
        if (key < 0) {
            fb_suite_unknown_key(reader, pair->key, "zip", fb_factor_names(), FB_FACTOR_COUNT);
            fine = false;
            continue;
        }
        fine = add_axis(reader, pair, (enum fb_factor_key)key, axes->dimensions, axes) && fine;
    }
    for (size_t i = first + 1; fine && i < axes->count; i++) {
        if (axes->axis[i].count != axes->axis[first].count) {
            fb_diagnose(reader->diagnostics, axes->axis[i].node->mark,
                        "zip walks lists together: %s has %zu values, %s has %zu",
                        fb_factor_at(axes->axis[i].key)->name, axes->axis[i].count,
                        fb_factor_at(axes->axis[first].key)->name, axes->axis[first].count);
            fine = false;
        }
    }
    if (axes->count > first) {
        add_dimension(axes, axes->axis[first].count);
    }
    return fine;
}

static bool read_zips(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                      struct fb_axes *axes)
{
    bool fine = true;
    if (node->kind != FB_YAML_LIST) {
        return read_zip(reader, node, axes);
    }
    for (size_t i = 0; i < node->count; i++) {
        fine = read_zip(reader, node->items[i], axes) && fine;
    }
    return fine;
}

/* A variant may stand in the mechanism's map or be an axis, not both. */
static bool check_variants(const struct fb_suite_reader *reader, const struct fb_axes *axes)
{
    const struct fb_axis *mechanism = fb_axes_find(axes, FB_FACTOR_MECHANISM);
    const struct fb_axis *variant = fb_axes_find(axes, FB_FACTOR_VARIANT);
    for (size_t i = 0; mechanism != NULL && variant != NULL && i < mechanism->count; i++) {
        if (mechanism->values[i].variant_node != NULL) {
            fb_diagnose(reader->diagnostics, mechanism->values[i].variant_node->mark,
                        "factor 'variant' is given twice: here and in line %zu",
                        variant->key_node->mark.line + 1);
            return false;
        }
    }
    return true;
}

bool fb_axes_read(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                  const char *map_name, const char *extra, bool allow_zip, struct fb_axes *axes)
{
    *axes = (struct fb_axes){0};
    if (map->kind != FB_YAML_MAP) {
        fb_diagnose(reader->diagnostics, map->mark, "%s is a map of factors", map_name);
        return false;
    }
    const char *names[FB_FACTOR_COUNT + 2];
    size_t name_count = 0;
    for (; name_count < FB_FACTOR_COUNT; name_count++) {
        names[name_count] = fb_factor_names()[name_count];
    }
    if (allow_zip) {
        names[name_count++] = "zip";
    }
    if (extra != NULL) {
        names[name_count++] = extra;
    }
    bool fine = true;
    for (size_t i = 0; i < map->count; i++) {
        const struct fb_yaml_pair *pair = &map->pairs[i];
        int key = fb_factor_find(pair->key->text);
        if (key >= 0) {
            if (add_axis(reader, pair, (enum fb_factor_key)key, axes->dimensions, axes)) {
                add_dimension(axes, axes->axis[axes->count - 1].count);
            } else {
                fine = false;
            }
        } else if (allow_zip && strcmp(pair->key->text, "zip") == 0) {
            fine = read_zips(reader, pair->value, axes) && fine;
        } else if (extra == NULL || strcmp(pair->key->text, extra) != 0) {
            fb_suite_unknown_key(reader, pair->key, map_name, names, name_count);
            fine = false;
        }
    }
    return fine && check_variants(reader, axes);
}

const struct fb_axis *fb_axes_find(const struct fb_axes *axes, enum fb_factor_key key)
{
    for (size_t i = 0; i < axes->count; i++) {
        if (axes->axis[i].key == key) {
            return &axes->axis[i];
        }
    }
    return NULL;
}

size_t fb_axes_points(const struct fb_axes *axes)
{
    size_t points = 1;
    for (size_t i = 0; i < axes->dimensions; i++) {
        if (axes->extent[i] > 0 && points > SIZE_MAX / axes->extent[i]) {
            return SIZE_MAX;
        }
        points *= axes->extent[i];
    }
    return points;
}

void fb_axes_apply(const struct fb_axes *axes, size_t index, struct fb_factors *factors,
                   const struct fb_yaml_node *nodes[FB_FACTOR_COUNT])
{
    size_t position[FB_FACTOR_COUNT] = {0};
    for (size_t d = axes->dimensions; d > 0; d--) {
        position[d - 1] = index % axes->extent[d - 1];
        index /= axes->extent[d - 1];
    }
    for (size_t i = 0; i < axes->count; i++) {
        const struct fb_axis *axis = &axes->axis[i];
        const struct fb_axis_value *value = &axis->values[position[axis->dimension]];
        nodes[axis->key] = value->node;
        if (value->mechanism != NULL) {
            factors->mechanism = value->mechanism;
            factors->program = value->program;
            memcpy(factors->params, value->params, sizeof factors->params);
        }
        if (value->variant != NULL) {
            factors->variant = value->variant;
        }
        if (value->task != NULL) {
            factors->task = value->task;
            memcpy(factors->task_params, value->task_params, sizeof factors->task_params);
        }
        if (fb_factor_at(axis->key)->type != FB_FACTOR_NAME) {
            fb_factor_set(factors, axis->key, value->number);
        }
    }
}
