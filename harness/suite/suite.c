/* Reading a suite: load, layer, override, check, expand. See suite.h. */
#include "suite.h"

#include "peer_program.h"
#include "suite_schema.h"

#include <string.h>

static const struct fb_measure_settings default_measure = {
    .warmup_s = 0.05,
    .precision = 0.01,
    .min_samples = 6,
    .samples = 0,
    .max_time_s = 1.0,
    .cache = FB_CACHE_COLD,
    .processes = 1,
};
static const struct fb_training_settings default_training = {
    .checkpoint_s = 60.0, .parallel = 1, .plots = FB_TRAINING_PLOT_ALL};
static const struct fb_limits default_limits = {.case_timeout_s = 60.0, .memory_fraction = 0.8};

const char *fb_lengths_name(enum fb_lengths lengths)
{
    static const char *const names[FB_LENGTHS_COUNT] = {
        [FB_LENGTHS_FULL] = "full", [FB_LENGTHS_RANDOM] = "random"};
    return names[lengths];
}

const char *fb_counter_name(enum fb_counter counter)
{
    static const char *const names[FB_COUNTER_COUNT] = {[FB_COUNTER_NONE] = "none",
                                                        [FB_COUNTER_VALGRIND] = "valgrind",
                                                        [FB_COUNTER_HARDWARE] = "hardware"};
    return names[counter];
}

/* Everything after loading. The path and the --set texts are copied: marks point into them. */
static void read_tree(const struct fb_suite_reader *reader, const struct fb_yaml_node *root,
                      const char *path, const struct fb_suite_options *options,
                      struct fb_suite *suite)
{
    memset(suite, 0, sizeof *suite);
    suite->measure = default_measure;
    suite->limits = default_limits;
    suite->training = default_training;
    suite->oracle = true;
    struct fb_error error;
    suite->path = fb_arena_strdup(reader->arena, path, &error);
    if (suite->path == NULL) {
        fb_diagnose_memory(reader->diagnostics, &error);
        return;
    }
    root = root != NULL ? fb_suite_apply_sets(reader, root, options) : NULL;
    if (root == NULL || !fb_suite_read_document(reader, root, suite)) {
        return;
    }
    suite->resolved_yaml = fb_yaml_emit(root, reader->arena, reader->diagnostics);
}

enum fb_status fb_suite_read(const char *path, const struct fb_suite_options *options,
                             struct fb_arena *arena, struct fb_suite *suite, struct fb_error *error)
{
    struct fb_error ignored;
    struct fb_diagnostics diagnostics;
    fb_diagnostics_init(&diagnostics, error != NULL ? error : &ignored);
    struct fb_peer_names peers = {.count = 0};
    struct fb_suite_reader reader = {.arena = arena, .diagnostics = &diagnostics, .peers = &peers};
    read_tree(&reader, fb_suite_load_file(&reader, path), path, options, suite);
    return fb_diagnostics_finish(&diagnostics);
}

enum fb_status fb_suite_parse(const char *text, size_t length, const char *path,
                              const struct fb_suite_options *options, struct fb_arena *arena,
                              struct fb_suite *suite, struct fb_error *error)
{
    struct fb_error ignored;
    struct fb_diagnostics diagnostics;
    fb_diagnostics_init(&diagnostics, error != NULL ? error : &ignored);
    struct fb_peer_names peers = {.count = 0};
    struct fb_suite_reader reader = {.arena = arena, .diagnostics = &diagnostics, .peers = &peers};
    read_tree(&reader, fb_suite_load_text(&reader, text, length, path), path, options, suite);
    return fb_diagnostics_finish(&diagnostics);
}
