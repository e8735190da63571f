/* Expansion of the sweep: the product of its axes, times the hardware, less the exclusions. */
#include "sweep.h"

#include "checked.h"
#include "point_rules.h"

#include <stdint.h>
#include <string.h>

struct expansion {
    const struct fb_suite_reader *reader;
    const struct fb_sweep *sweep;
    const struct fb_yaml_node *nodes[FB_FACTOR_COUNT]; /* where each value was written, or NULL */
    const struct fb_yaml_node *where_node;             /* of the text below */
    const char *where;
};

/* What a factor is when neither defaults: nor sweep: nor hardware: names it. The sequence length
 * and the mechanism have no such value; a zero stands for what another factor decides. */
#define BUILTIN(kind_pass, kind_causal)                                                            \
    {                                                                                              \
        .device = FB_CPU, .isa = -1, .threads = 0, .dtype = FB_F32, .layout = FB_BHND,             \
        .causal = (kind_causal), .pass = (kind_pass), .batch = 1, .heads = 8, .head_dim = 64,      \
        .seed = 1, .lengths = FB_LENGTHS_FULL,                                                     \
    }
static const struct fb_factors builtin_factors[] = {
    [FB_SUITE_KERNEL] = BUILTIN(FB_FORWARD, false),
    [FB_SUITE_DECODE] = BUILTIN(FB_DECODE, true),
    /* sizes are the task's and the recipe's */
    [FB_SUITE_TRAINING] = {.device = FB_CPU,
                           .isa = -1,
                           .dtype = FB_F32,
                           .layout = FB_BNHD,
                           .pass = FB_BOTH,
                           .batch = 1,
                           .heads = 1,
                           .seq_len = 1,
                           .head_dim = 1,
                           .seed = 1},
};

/* "file:line:column" of what asked for the device or the instruction set. */
static const char *where_text(struct expansion *e, const struct fb_hardware *hardware)
{
    const struct fb_yaml_node *node = e->nodes[FB_FACTOR_ISA];
    if (e->nodes[FB_FACTOR_DEVICE] != NULL &&
        (node == NULL ||
         (hardware != NULL && fb_axes_find(&hardware->axes, FB_FACTOR_ISA) == NULL))) {
        node = e->nodes[FB_FACTOR_DEVICE];
    }
    if (node == NULL) {
        node = hardware != NULL ? hardware->node : e->sweep->key_node;
    }
    if (node != e->where_node) {
        struct fb_error error;
        e->where = fb_arena_printf(e->reader->arena, &error, "%s:%zu:%zu", node->mark.source->name,
                                   node->mark.line + 1, node->mark.column + 1);
        if (e->where == NULL) {
            fb_diagnose_memory(e->reader->diagnostics, &error);
            return NULL;
        }
        e->where_node = node;
    }
    return e->where;
}

static bool is_excluded(const struct fb_sweep *sweep, const struct fb_factors *factors)
{
    for (size_t i = 0; i < sweep->exclusions_count; i++) {
        const struct fb_exclusion *exclusion = &sweep->exclusions[i];
        size_t held = 0;
        while (held < exclusion->count &&
               fb_condition_holds(&exclusion->conditions[held], factors)) {
            held++;
        }
        if (held == exclusion->count) {
            return true;
        }
    }
    return false;
}

/* Every point is compared with every value of every exclusion: kept within a second. */
static bool check_exclusion_work(const struct fb_suite_reader *reader, const struct fb_sweep *sweep,
                                 size_t points)
{
    const size_t work_max = 200000000;
    size_t values = 0;
    for (size_t i = 0; i < sweep->exclusions_count; i++) {
        for (size_t c = 0; c < sweep->exclusions[i].count; c++) {
            values += sweep->exclusions[i].conditions[c].count;
        }
    }
    if (values > work_max / points) {
        fb_diagnose(reader->diagnostics, sweep->exclude_node->mark,
                    "exclude compares %zu cases with %zu values; the limit is %zu comparisons",
                    points, values, work_max);
        return false;
    }
    return true;
}

/* Points of the whole sweep, or 0 with a diagnostic. */
static size_t count_points(const struct fb_suite_reader *reader, const struct fb_sweep *sweep)
{
    size_t axes = fb_axes_points(&sweep->axes);
    size_t total = sweep->hardware_count == 0 ? axes : 0;
    for (size_t i = 0; i < sweep->hardware_count; i++) {
        size_t points = 0;
        if (!fb_checked_mul_size(axes, fb_axes_points(&sweep->hardware[i].axes), &points) ||
            !fb_checked_add_size(total, points, &total)) {
            total = SIZE_MAX;
            break;
        }
    }
    if (total > FB_SUITE_POINTS_MAX) {
        if (total == SIZE_MAX) {
            fb_diagnose(reader->diagnostics, sweep->key_node->mark,
                        "the sweep has far more cases than the limit of %d", FB_SUITE_POINTS_MAX);
        } else {
            fb_diagnose(reader->diagnostics, sweep->key_node->mark,
                        "the sweep has %zu cases; the limit is %d", total, FB_SUITE_POINTS_MAX);
        }
        return 0;
    }
    return total;
}

/* A case needs a mechanism and a length or a task; they come from the sweep or the defaults. */
static bool check_required(const struct fb_suite_reader *reader, const struct fb_sweep *sweep,
                           enum fb_suite_kind kind)
{
    const struct {
        enum fb_factor_key key;
        const char *example;
    } required[] = {
        {FB_FACTOR_MECHANISM, "mechanism: [flow, softmax]"},
        {kind == FB_SUITE_TRAINING ? FB_FACTOR_TASK : FB_FACTOR_SEQ_LEN,
         kind == FB_SUITE_TRAINING ? "task: [adder]" : "seq_len: {from: 256, to: 4096, times: 2}"}};
    bool fine = true;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        enum fb_factor_key key = required[i].key;
        size_t entries = 0;
        while (entries < sweep->hardware_count &&
               fb_axes_find(&sweep->hardware[entries].axes, key) != NULL) {
            entries++;
        }
        bool found = fb_axes_find(&sweep->axes, key) != NULL ||
                     fb_axes_find(&sweep->defaults, key) != NULL ||
                     (entries > 0 && entries == sweep->hardware_count);
        if (!found) {
            fb_diagnose(reader->diagnostics, sweep->key_node->mark,
                        "the sweep needs '%s', such as %s", fb_factor_at(key)->name,
                        required[i].example);
            fine = false;
        }
    }
    return fine;
}

static bool add_point(struct expansion *e, const struct fb_hardware *hardware, size_t axes_index,
                      size_t hardware_index, struct fb_suite *suite)
{
    struct fb_factors point = builtin_factors[suite->kind];
    memset(e->nodes, 0, sizeof e->nodes);
    fb_axes_apply(&e->sweep->defaults, 0, &point, e->nodes);
    fb_axes_apply(&e->sweep->axes, axes_index, &point, e->nodes);
    if (hardware != NULL) {
        fb_axes_apply(&hardware->axes, hardware_index, &point, e->nodes);
        point.optional_hardware = hardware->optional;
    }
    point.kv_len = point.kv_len == 0 ? point.seq_len : point.kv_len;
    point.value_dim = point.value_dim == 0 ? point.head_dim : point.value_dim;
    point.kv_heads = point.kv_heads == 0 ? point.heads : point.kv_heads;
    if (is_excluded(e->sweep, &point)) {
        return true;
    }
    point.where = where_text(e, hardware);
    const struct fb_point_place place = {
        .reader = e->reader, .nodes = e->nodes, .key_node = e->sweep->key_node};
    if (point.where == NULL || !fb_point_check(&place, suite->kind, &point)) {
        return false;
    }
    suite->factors[suite->factors_count++] = point;
    return true;
}

bool fb_sweep_expand(const struct fb_suite_reader *reader, const struct fb_sweep *sweep,
                     struct fb_suite *suite)
{
    if (!check_required(reader, sweep, suite->kind)) {
        return false;
    }
    size_t total = count_points(reader, sweep);
    if (total == 0 || !check_exclusion_work(reader, sweep, total)) {
        return false;
    }
    suite->factors = fb_suite_alloc(reader, total, sizeof *suite->factors);
    if (suite->factors == NULL) {
        return false;
    }
    struct expansion e = {.reader = reader, .sweep = sweep};
    size_t axes_points = fb_axes_points(&sweep->axes);
    size_t entries = sweep->hardware_count > 0 ? sweep->hardware_count : 1;
    for (size_t h = 0; h < entries; h++) {
        const struct fb_hardware *hardware = sweep->hardware_count > 0 ? &sweep->hardware[h] : NULL;
        size_t inner = hardware != NULL ? fb_axes_points(&hardware->axes) : 1;
        for (size_t i = 0; i < axes_points * inner; i++) {
            if (!add_point(&e, hardware, i / inner, i % inner, suite)) {
                return false;
            }
        }
    }
    if (suite->factors_count == 0) {
        fb_diagnose(reader->diagnostics, sweep->key_node->mark,
                    "exclude leaves none of the %zu cases of the sweep", total);
        return false;
    }
    return true;
}
