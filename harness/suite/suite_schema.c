/* The top level of a suite, and the maps measure:, limits: and accuracy:. */
#include "suite_schema.h"

#include "suite_values.h"

#include <stddef.h>
#include <string.h>

enum { NAME_SIZE_MAX = 63, TITLE_SIZE_MAX = 200, PROCESSES_MAX = 1000, SAMPLES_MAX = 1000000 };

/* ---- maps of settings ---------------------------------------------------------------------- */

enum setting_type { SETTING_TIME, SETTING_FRACTION, SETTING_INT, SETTING_CACHE, SETTING_COUNTER };

struct setting {
    const char *name, *what;
    enum setting_type type;
    size_t offset;
    bool zero_allowed; /* of quantities */
    int64_t min, max;  /* of integers */
};

#define MEASURE(field) offsetof(struct fb_measure_settings, field)
/* clang-format off */
static const struct setting measure_settings[] = {
    {"warmup", "measure.warmup", SETTING_TIME, MEASURE(warmup_s), true, 0, 0},
    {"precision", "measure.precision", SETTING_FRACTION, MEASURE(precision), false, 0, 0},
    {"min_samples", "measure.min_samples", SETTING_INT, MEASURE(min_samples), false, 1, SAMPLES_MAX},
    {"samples", "measure.samples", SETTING_INT, MEASURE(samples), false, 1, SAMPLES_MAX},
    {"max_time", "measure.max_time", SETTING_TIME, MEASURE(max_time_s), false, 0, 0},
    {"cache", "measure.cache", SETTING_CACHE, MEASURE(cache), false, 0, 0},
    {"processes", "measure.processes", SETTING_INT, MEASURE(processes), false, 1, PROCESSES_MAX},
    {"counter", "measure.counter", SETTING_COUNTER, MEASURE(counter), false, 0, 0},
};
/* clang-format on */
enum { MEASURE_COUNT = sizeof measure_settings / sizeof measure_settings[0] };

static bool read_counter(const struct fb_suite_reader *reader, const struct setting *setting,
                         const struct fb_yaml_node *node, struct fb_measure_settings *measure)
{
    const char *names[FB_COUNTER_COUNT];
    size_t index;
    for (int i = 0; i < FB_COUNTER_COUNT; i++) {
        names[i] = fb_counter_name((enum fb_counter)i);
    }
    if (!fb_value_choice(reader->diagnostics, node, setting->what, names, FB_COUNTER_COUNT,
                         &index)) {
        return false;
    }
    measure->counter = (enum fb_counter)index;
    return true;
}

static bool read_setting(const struct fb_suite_reader *reader, const struct setting *setting,
                         const struct fb_yaml_node *node, struct fb_measure_settings *measure)
{
    static const char *const cache_names[] = {"cold", "warm"};
    static const enum fb_cache_mode cache_modes[] = {FB_CACHE_COLD, FB_CACHE_WARM};
    char *field = (char *)measure + setting->offset;
    double quantity;
    int64_t number;
    size_t index;
    switch (setting->type) {
    case SETTING_TIME:
    case SETTING_FRACTION:
        if (!fb_value_quantity(reader->diagnostics, node, setting->what,
                               setting->type == SETTING_TIME ? FB_QUANTITY_TIME
                                                             : FB_QUANTITY_FRACTION,
                               setting->zero_allowed, &quantity)) {
            return false;
        }
        memcpy(field, &quantity, sizeof quantity);
        return true;
    case SETTING_INT:
        if (!fb_value_integer(reader->diagnostics, node, setting->what, setting->min, setting->max,
                              &number)) {
            return false;
        }
        memcpy(field, &(int){(int)number}, sizeof(int));
        return true;
    case SETTING_CACHE:
        if (!fb_value_choice(reader->diagnostics, node, setting->what, cache_names, 2, &index)) {
            return false;
        }
        measure->cache = cache_modes[index];
        return true;
    case SETTING_COUNTER:
        return read_counter(reader, setting, node, measure);
    }
    return false;
}

static bool require_map(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        const char *message)
{
    if (node->kind == FB_YAML_MAP) {
        return true;
    }
    fb_diagnose(reader->diagnostics, node->mark, "%s", message);
    return false;
}

static bool read_measure(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                         struct fb_measure_settings *measure)
{
    if (!require_map(reader, node, "measure is a map: {warmup: 50 ms, max_time: 1 s}")) {
        return false;
    }
    const char *names[MEASURE_COUNT];
    for (size_t i = 0; i < MEASURE_COUNT; i++) {
        names[i] = measure_settings[i].name;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        size_t at = 0;
        while (at < MEASURE_COUNT && strcmp(names[at], pair->key->text) != 0) {
            at++;
        }
        if (at == MEASURE_COUNT) {
            fb_suite_unknown_key(reader, pair->key, "measure", names, MEASURE_COUNT);
            fine = false;
        } else {
            fine = read_setting(reader, &measure_settings[at], pair->value, measure) && fine;
        }
    }
    const struct fb_yaml_pair *precision = fb_yaml_find(node, "precision");
    if (fine && precision != NULL && measure->precision > 1.0) {
        fb_diagnose(reader->diagnostics, precision->value->mark,
                    "measure.precision must be at most 100 %%");
        fine = false;
    }
    return fine;
}

static bool read_memory(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        struct fb_limits *limits)
{
    double value;
    if (fb_value_is_fraction(node)) {
        if (!fb_value_quantity(reader->diagnostics, node, "limits.memory", FB_QUANTITY_FRACTION,
                               false, &value)) {
            return false;
        }
        if (value > 1.0) {
            fb_diagnose(reader->diagnostics, node->mark, "limits.memory must be at most 100 %%");
            return false;
        }
        limits->memory_fraction = value;
        limits->memory_bytes = 0;
        return true;
    }
    double unit_check;
    const char *rest = "";
    if (node->kind == FB_YAML_SCALAR && fb_parse_number(node->text, &unit_check, &rest) &&
        *rest == '\0') {
        fb_diagnose(reader->diagnostics, node->mark,
                    "limits.memory needs a unit: a share such as '80 %%' or a size such as '2 GiB' "
                    "(units: %%, B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)");
        return false;
    }
    if (!fb_value_quantity(reader->diagnostics, node, "limits.memory", FB_QUANTITY_BYTES, false,
                           &value)) {
        return false;
    }
    if (value < 1.0 || value > 281474976710656.0) {
        fb_diagnose(reader->diagnostics, node->mark, "limits.memory must be 1 B to 256 TiB");
        return false;
    }
    limits->memory_bytes = (size_t)value;
    return true;
}

static bool read_limits(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        struct fb_limits *limits)
{
    static const char *const names[] = {"case_timeout", "memory"};
    if (!require_map(reader, node, "limits is a map: {case_timeout: 60 s, memory: 80 %}")) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        if (strcmp(pair->key->text, names[0]) == 0) {
            fine = fb_value_quantity(reader->diagnostics, pair->value, "limits.case_timeout",
                                     FB_QUANTITY_TIME, false, &limits->case_timeout_s) &&
                   fine;
        } else if (strcmp(pair->key->text, names[1]) == 0) {
            fine = read_memory(reader, pair->value, limits) && fine;
        } else {
            fb_suite_unknown_key(reader, pair->key, "limits", names, 2);
            fine = false;
        }
    }
    return fine;
}

static bool read_accuracy(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          bool *oracle)
{
    static const char *const names[] = {"oracle"};
    if (!require_map(reader, node, "accuracy is a map: {oracle: true}")) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        if (strcmp(pair->key->text, names[0]) == 0) {
            fine =
                fb_value_bool(reader->diagnostics, pair->value, "accuracy.oracle", oracle) && fine;
        } else {
            fb_suite_unknown_key(reader, pair->key, "accuracy", names, 1);
            fine = false;
        }
    }
    return fine;
}

/* ---- the top level ------------------------------------------------------------------------- */

static bool read_name(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                      struct fb_suite *suite)
{
    if (!fb_value_text(reader->diagnostics, node, "suite", &suite->name)) {
        return false;
    }
    size_t valid = strspn(suite->name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    if (suite->name[valid] != '\0' || valid > NAME_SIZE_MAX) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "suite is a name of a to z, 0 to 9, _ and -, at most %d of them, not '%.60s'",
                    NAME_SIZE_MAX, suite->name);
        return false;
    }
    return true;
}

static bool read_title(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                       struct fb_suite *suite)
{
    if (!fb_value_text(reader->diagnostics, node, "title", &suite->title)) {
        return false;
    }
    if (strlen(suite->title) > TITLE_SIZE_MAX) {
        fb_diagnose(reader->diagnostics, node->mark, "title has %zu bytes; the limit is %d",
                    strlen(suite->title), TITLE_SIZE_MAX);
        return false;
    }
    return true;
}

static bool read_kind(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                      struct fb_suite *suite)
{
    static const char *const names[] = {[FB_SUITE_KERNEL] = "kernel",
                                        [FB_SUITE_DECODE] = "decode",
                                        [FB_SUITE_TRAINING] = "training"};
    size_t index;
    if (!fb_value_choice(reader->diagnostics, node, "kind", names, 3, &index)) {
        return false;
    }
    suite->kind = (enum fb_suite_kind)index;
    return true;
}

enum top_key {
    TOP_SUITE,
    TOP_TITLE,
    TOP_KIND,
    TOP_DEFAULTS,
    TOP_SWEEP,
    TOP_HARDWARE,
    TOP_EXCLUDE,
    TOP_MEASURE,
    TOP_LIMITS,
    TOP_ACCURACY,
    TOP_EXPECT,
    TOP_PLOTS,
    TOP_TRAINING,
    TOP_COUNT
};
static const char *const top_names[TOP_COUNT] = {
    "suite",   "title",  "kind",     "defaults", "sweep", "hardware", "exclude",
    "measure", "limits", "accuracy", "expect",   "plots", "training"};

static bool read_top(const struct fb_suite_reader *reader, enum top_key key,
                     const struct fb_yaml_node *node, struct fb_suite *suite,
                     struct fb_sweep *sweep)
{
    switch (key) {
    case TOP_SUITE:
        return read_name(reader, node, suite);
    case TOP_TITLE:
        return read_title(reader, node, suite);
    case TOP_KIND:
        return read_kind(reader, node, suite);
    case TOP_DEFAULTS:
        return fb_sweep_read_defaults(reader, node, sweep);
    case TOP_SWEEP:
        return fb_sweep_read_axes(reader, node, sweep);
    case TOP_HARDWARE:
        return fb_sweep_read_hardware(reader, node, sweep);
    case TOP_EXCLUDE:
        return fb_sweep_read_exclude(reader, node, sweep);
    case TOP_MEASURE:
        return read_measure(reader, node, &suite->measure);
    case TOP_LIMITS:
        return read_limits(reader, node, &suite->limits);
    case TOP_ACCURACY:
        return read_accuracy(reader, node, &suite->oracle);
    case TOP_EXPECT:
        return fb_suite_read_claims(reader, node, suite);
    case TOP_PLOTS: /* known by the kind alone: fb_suite_check_kind */
        return true;
    case TOP_TRAINING:
        return fb_suite_read_training(reader, node, &suite->training);
    case TOP_COUNT:
        break;
    }
    return false;
}

static bool check_required_keys(const struct fb_suite_reader *reader,
                                const struct fb_yaml_node *root)
{
    static const enum top_key required[] = {TOP_SUITE, TOP_SWEEP};
    bool fine = true;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        if (fb_yaml_find(root, top_names[required[i]]) == NULL) {
            fb_diagnose(reader->diagnostics, root->mark, "the required key '%s' is missing",
                        top_names[required[i]]);
            fine = false;
        }
    }
    return fine;
}

bool fb_suite_read_document(const struct fb_suite_reader *reader, const struct fb_yaml_node *root,
                            struct fb_suite *suite)
{
    struct fb_sweep sweep = {.key_node = NULL};
    bool fine = true;
    for (size_t i = 0; i < root->count; i++) {
        const struct fb_yaml_pair *pair = &root->pairs[i];
        size_t at = 0;
        while (at < TOP_COUNT && strcmp(top_names[at], pair->key->text) != 0) {
            at++;
        }
        if (at == TOP_COUNT) {
            fb_suite_unknown_key(reader, pair->key, "the suite", top_names, TOP_COUNT);
            fine = false;
        } else {
            fine = read_top(reader, (enum top_key)at, pair->value, suite, &sweep) && fine;
            sweep.key_node = at == TOP_SWEEP ? pair->key : sweep.key_node;
        }
    }
    fine = check_required_keys(reader, root) && fine;
    fine = fine && fb_suite_check_kind(reader, root, suite);
    if (!fine || !fb_sweep_expand(reader, &sweep, suite)) {
        return false;
    }
    if (suite->title == NULL) {
        suite->title = suite->name;
    }
    suite->seed = suite->factors[0].seed;
    return true;
}
