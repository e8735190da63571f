/* Mechanisms in a suite: a name, or a map {name, variant, parameters} checked against the
 * mechanism's own table. The name `external` stands for a program that computes one of them. */
#include "axis.h"
#include "peer_program.h"
#include "registry.h"
#include "suite_values.h"

#include <string.h>

enum { NAMES_MAX = 64 };

static const char external_name[] = "external";

/* What a map is about: a mechanism, computed by flowbench or by a program. */
struct subject {
    const struct fb_mechanism *mechanism;
    const char *program; /* NULL: flowbench */
};

/* The values that one parameter, or the variant, takes in a mechanism's map. */
struct options {
    const struct fb_yaml_node *node; /* NULL: the key is absent */
    double *numbers;
    const char **variants;
    size_t count;
};

bool fb_axis_find_mechanism(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            const struct fb_mechanism **mechanism)
{
    const char *names[NAMES_MAX];
    size_t count = fb_factor_mechanism_names(names, NAMES_MAX);
    size_t index;
    if (!fb_value_choice(reader->diagnostics, node, "mechanism", names, count, &index)) {
        return false;
    }
    *mechanism = fb_mechanism_find(names[index]);
    return *mechanism != NULL;
}

bool fb_axis_find_variant(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const struct fb_mechanism *mechanism, const char **variant)
{
    const char *names[NAMES_MAX + FB_PEER_NAMES_MAX];
    size_t count = fb_factor_variant_names(mechanism, names, NAMES_MAX);
    for (size_t i = 0; reader->peers != NULL && i < reader->peers->count; i++) {
        names[count++] = reader->peers->names[i];
    }
    size_t index;
    if (!fb_value_choice(reader->diagnostics, node, "variant", names, count, &index)) {
        return false;
    }
    *variant = names[index];
    return true;
}

const double *fb_axis_default_params(const struct fb_suite_reader *reader,
                                     const struct fb_mechanism *mechanism)
{
    double *params = fb_suite_alloc(reader, FB_PARAMS_MAX, sizeof *params);
    for (int i = 0; params != NULL && i < mechanism->param_count; i++) {
        params[i] = mechanism->params[i].default_value;
    }
    return params;
}

bool fb_axis_read_param(const struct fb_suite_reader *reader, const struct fb_param *param,
                        const struct fb_yaml_node *node, double *value)
{
    int64_t number;
    bool truth;
    size_t choice = 0;
    size_t choices = 0;
    switch (param->type) {
    case FB_PARAM_INT:
        if (!fb_value_integer(reader->diagnostics, node, param->name, (int64_t)param->min,
                              (int64_t)param->max, &number)) {
            return false;
        }
        *value = (double)number;
        return true;
    case FB_PARAM_REAL:
        if (!fb_value_real(reader->diagnostics, node, param->name, value)) {
            return false;
        }
        if (*value < param->min || *value > param->max) {
            fb_diagnose(reader->diagnostics, node->mark, "%s must be %g to %g, not %.40s",
                        param->name, param->min, param->max, node->text);
            return false;
        }
        return true;
    case FB_PARAM_BOOL:
        if (!fb_value_bool(reader->diagnostics, node, param->name, &truth)) {
            return false;
        }
        *value = truth ? 1.0 : 0.0;
        return true;
    case FB_PARAM_CHOICE:
        while (param->choices[choices] != NULL) {
            choices++;
        }
        if (!fb_value_choice(reader->diagnostics, node, param->name, param->choices, choices,
                             &choice)) {
            return false;
        }
        *value = (double)choice;
        return true;
    }
    return false;
}

static bool read_variant(const struct fb_suite_reader *reader, const struct subject *subject,
                         const struct fb_yaml_node *node, const char **variant)
{
    return subject->program != NULL
               ? fb_peer_read_variant(reader, node, variant)
               : fb_axis_find_variant(reader, node, subject->mechanism, variant);
}

/* Reads a scalar or a list of a parameter (or, with param NULL, of the variant). */
static bool read_options(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                         const struct subject *subject, const struct fb_param *param,
                         struct options *options)
{
    size_t count = node->kind == FB_YAML_LIST ? node->count : 1;
    options->node = node;
    options->numbers = fb_suite_alloc(reader, count, sizeof *options->numbers);
    options->variants = fb_suite_alloc(reader, count, sizeof *options->variants);
    if (options->numbers == NULL || options->variants == NULL) {
        return false;
    }
    if (count == 0) {
        fb_diagnose(reader->diagnostics, node->mark, "%s has an empty list: name one value or more",
                    param != NULL ? param->name : "variant");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct fb_yaml_node *item = node->kind == FB_YAML_LIST ? node->items[i] : node;
        bool fine = param != NULL ? fb_axis_read_param(reader, param, item, &options->numbers[i])
                                  : read_variant(reader, subject, item, &options->variants[i]);
        if (!fine) {
            return false;
        }
    }
    options->count = count;
    return true;
}

static void report_unknown_param(const struct fb_suite_reader *reader,
                                 const struct subject *subject, const struct fb_yaml_node *key)
{
    const struct fb_mechanism *mechanism = subject->mechanism;
    const char *names[FB_PARAMS_MAX + 4] = {"name", "variant"};
    size_t count = 2;
    if (subject->program != NULL) {
        names[count++] = "computes";
        names[count++] = "program";
    }
    for (int i = 0; i < mechanism->param_count; i++) {
        names[count++] = mechanism->params[i].name;
    }
    char map_name[80] = "the mechanism ";
    strncat(map_name, subject->program != NULL ? external_name : mechanism->name, 60);
    fb_suite_unknown_key(reader, key, map_name, names, count);
}

/* Keys that have been read when the subject was found. */
static bool is_subject_key(const struct subject *subject, const char *key)
{
    return strcmp(key, "name") == 0 || (subject->program != NULL && (strcmp(key, "computes") == 0 ||
                                                                     strcmp(key, "program") == 0));
}

/* options[0] is the variant, options[1 + i] parameter i. */
static bool read_keys(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                      const struct subject *subject, struct options options[FB_PARAMS_MAX + 1])
{
    const struct fb_mechanism *mechanism = subject->mechanism;
    bool fine = true;
    for (size_t i = 0; i < map->count; i++) {
        const struct fb_yaml_pair *pair = &map->pairs[i];
        int param = fb_param_index(mechanism, pair->key->text);
        if (is_subject_key(subject, pair->key->text)) {
            continue;
        }
        if (param >= 0) {
            fine = read_options(reader, pair->value, subject, &mechanism->params[param],
                                &options[1 + param]) &&
                   fine;
        } else if (strcmp(pair->key->text, "variant") == 0) {
            fine = read_options(reader, pair->value, subject, NULL, &options[0]) && fine;
        } else {
            report_unknown_param(reader, subject, pair->key);
            fine = false;
        }
    }
    return fine;
}

/* A program has no default: not what it computes, not which of its ways. */
static bool find_external(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                          struct subject *subject)
{
    const struct fb_yaml_pair *computes = fb_yaml_find(map, "computes");
    const struct fb_yaml_pair *program = fb_yaml_find(map, "program");
    if (computes == NULL || program == NULL || fb_yaml_find(map, "variant") == NULL) {
        fb_diagnose(reader->diagnostics, map->mark,
                    "an external mechanism needs computes, program and variant: {name: external, "
                    "computes: flow, program: torch, variant: torch-official}");
        return false;
    }
    return fb_axis_find_mechanism(reader, computes->value, &subject->mechanism) &&
           fb_peer_read_program(reader, program->value, &subject->program);
}

static bool find_subject(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                         struct subject *subject)
{
    const struct fb_yaml_pair *name = fb_yaml_find(map, "name");
    *subject = (struct subject){NULL, NULL};
    if (name == NULL) {
        fb_diagnose(reader->diagnostics, map->mark,
                    "a mechanism's map needs its name: {name: performer, features: 256}");
        return false;
    }
    if (name->value->kind == FB_YAML_SCALAR && strcmp(name->value->text, external_name) == 0) {
        return find_external(reader, map, subject);
    }
    return fb_axis_find_mechanism(reader, name->value, &subject->mechanism);
}

bool fb_axis_read_mechanism(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                            struct fb_axis *axis, size_t *room)
{
    struct subject subject;
    struct options options[FB_PARAMS_MAX + 1] = {{0}};
    if (!find_subject(reader, map, &subject) || !read_keys(reader, map, &subject, options)) {
        return false;
    }
    const struct fb_mechanism *mechanism = subject.mechanism;
    size_t total = 1;
    for (int i = 0; i <= mechanism->param_count; i++) {
        total *= options[i].node != NULL ? options[i].count : 1;
        if (total > FB_AXIS_VALUES_MAX) {
            fb_diagnose(reader->diagnostics, map->mark,
                        "the lists of this mechanism make more than %d combinations",
                        FB_AXIS_VALUES_MAX);
            return false;
        }
    }
    for (size_t index = 0; index < total; index++) {
        const double *defaults = fb_axis_default_params(reader, mechanism);
        double *params = fb_suite_alloc(reader, FB_PARAMS_MAX, sizeof *params);
        if (defaults == NULL || params == NULL) {
            return false;
        }
        memcpy(params, defaults, FB_PARAMS_MAX * sizeof *params);
        struct fb_axis_value value = {
            .node = map, .mechanism = mechanism, .params = params, .program = subject.program};
        size_t rest = index;
        for (int i = mechanism->param_count; i >= 0; i--) {
            if (options[i].node == NULL) {
                continue;
            }
            size_t at = rest % options[i].count;
            rest /= options[i].count;
            if (i > 0) {
                params[i - 1] = options[i].numbers[at];
            } else {
                value.variant = options[0].variants[at];
                value.variant_node = options[0].node;
            }
        }
        if (!fb_axis_append(reader, axis, room, &value)) {
            return false;
        }
    }
    return true;
}
