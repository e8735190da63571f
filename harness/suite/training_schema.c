/* What only suites of kind: training have, and what they do not have. */
#include "suite_schema.h"
#include "suite_values.h"

#include <string.h>

/* A case is a whole training run. */
#define TRAINING_TIMEOUT_S 86400.0

bool fb_suite_read_training(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_training_settings *training)
{
    static const char *const names[] = {"checkpoint", "parallel"};
    if (node->kind != FB_YAML_MAP) {
        fb_diagnose(reader->diagnostics, node->mark, "training is a map: {checkpoint: 60 s}");
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        if (strcmp(pair->key->text, names[0]) == 0) {
            fine = fb_value_quantity(reader->diagnostics, pair->value, "training.checkpoint",
                                     FB_QUANTITY_TIME, false, &training->checkpoint_s) &&
                   fine;
        } else if (strcmp(pair->key->text, names[1]) == 0) {
            fine = fb_value_integer(reader->diagnostics, pair->value, "training.parallel", 1,
                                    FB_TRAINING_PARALLEL_MAX, &training->parallel) &&
                   fine;
        } else {
            fb_suite_unknown_key(reader, pair->key, "training", names, 2);
            fine = false;
        }
    }
    return fine;
}

static bool read_plots(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                       unsigned *plots)
{
    static const char *const names[] = {"learning_curves", "accuracy_vs_step_time",
                                        "steps_per_s_vs_tokens"};
    static const enum fb_training_plot bits[] = {
        FB_TRAINING_PLOT_CURVES, FB_TRAINING_PLOT_STEP_TIME, FB_TRAINING_PLOT_SPEED};
    const size_t count = node->kind == FB_YAML_LIST ? node->count : 1;
    *plots = 0;
    for (size_t i = 0; i < count; i++) {
        const struct fb_yaml_node *item = node->kind == FB_YAML_LIST ? node->items[i] : node;
        size_t index;
        if (!fb_value_choice(reader->diagnostics, item, "plot", names, 3, &index)) {
            return false;
        }
        if ((*plots & bits[index]) != 0) {
            fb_diagnose(reader->diagnostics, item->mark, "plot '%s' is listed twice", item->text);
            return false;
        }
        *plots |= bits[index];
    }
    return true;
}

bool fb_suite_check_kind(const struct fb_suite_reader *reader, const struct fb_yaml_node *root,
                         struct fb_suite *suite)
{
    static const char *const timed[] = {"measure", "accuracy", "expect"};
    const bool training = suite->kind == FB_SUITE_TRAINING;
    const struct fb_yaml_pair *plots = fb_yaml_find(root, "plots");
    const struct fb_yaml_pair *limits = fb_yaml_find(root, "limits");
    const struct fb_yaml_pair *own = fb_yaml_find(root, "training");
    if (!training && own != NULL) {
        fb_diagnose(reader->diagnostics, own->key->mark,
                    "training belongs to a suite of `kind: training`");
        return false;
    }
    if (!training) {
        return plots == NULL || fb_suite_read_plots(reader, plots->value, suite);
    }
    for (size_t i = 0; i < sizeof timed / sizeof timed[0]; i++) {
        const struct fb_yaml_pair *pair = fb_yaml_find(root, timed[i]);
        if (pair != NULL) {
            fb_diagnose(reader->diagnostics, pair->key->mark,
                        "%s has no part in a suite of kind: training: leave it out", timed[i]);
            return false;
        }
    }
    if (limits == NULL || fb_yaml_find(limits->value, "case_timeout") == NULL) {
        suite->limits.case_timeout_s = TRAINING_TIMEOUT_S;
    }
    return plots == NULL || read_plots(reader, plots->value, &suite->training.plots);
}
