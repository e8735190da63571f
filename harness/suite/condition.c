/* Conditions on factors. */
#include "condition.h"

#include <string.h>

static const struct {
    const char *text;
    enum fb_relation relation;
} relations[] = {
    /* longer spellings first */
    {"!=", FB_RELATION_NOT_EQUAL},     {"<=", FB_RELATION_LESS_EQUAL},
    {">=", FB_RELATION_GREATER_EQUAL}, {"==", FB_RELATION_EQUAL},
    {"=", FB_RELATION_EQUAL},          {"<", FB_RELATION_LESS},
    {">", FB_RELATION_GREATER},
};

size_t fb_relation_parse(const char *text, enum fb_relation *relation)
{
    for (size_t i = 0; i < sizeof relations / sizeof relations[0]; i++) {
        size_t length = strlen(relations[i].text);
        if (strncmp(text, relations[i].text, length) == 0) {
            *relation = relations[i].relation;
            return length;
        }
    }
    return 0;
}

bool fb_condition_read_values(const struct fb_suite_reader *reader, enum fb_factor_key key,
                              enum fb_relation relation, const struct fb_yaml_node *const *nodes,
                              size_t count, bool resolved, struct fb_condition *condition)
{
    const struct fb_factor *factor = fb_factor_at(key);
    bool ordering = relation != FB_RELATION_EQUAL && relation != FB_RELATION_NOT_EQUAL;
    if (count == 0) {
        return false;
    }
    if (ordering && (!factor->ordered || count > 1)) {
        fb_diagnose(reader->diagnostics, nodes[0]->mark,
                    factor->ordered ? "%s: '<' and '>' compare with one value"
                                    : "%s has no order: use a value, a list or '!= value'",
                    factor->name);
        return false;
    }
    if (ordering && !resolved && factor->special != NULL) {
        fb_diagnose(reader->diagnostics, nodes[0]->mark,
                    "%s may be '%s', which has no order before the machine is known: name values",
                    factor->name, factor->special);
        return false;
    }
    *condition = (struct fb_condition){.key = key, .relation = relation};
    condition->values = fb_suite_alloc(reader, count, sizeof *condition->values);
    if (condition->values == NULL) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < count; i++) {
        fine = fb_axis_read_scalar(reader, key, nodes[i], &condition->values[i]) && fine;
    }
    condition->count = count;
    return fine;
}

/* The operand of '> 8192' as a scalar of its own, marked where it stands. */
static const struct fb_yaml_node *operand_of(const struct fb_suite_reader *reader,
                                             const struct fb_yaml_node *node, size_t skip)
{
    skip += strspn(node->text + skip, " ");
    struct fb_mark mark = node->mark;
    mark.column += skip + (node->quoted ? 1 : 0);
    return fb_yaml_scalar(node->text + skip, mark, reader->arena, reader->diagnostics);
}

bool fb_condition_read(const struct fb_suite_reader *reader, enum fb_factor_key key,
                       const struct fb_yaml_node *node, bool resolved,
                       struct fb_condition *condition)
{
    if (node->kind == FB_YAML_LIST) {
        if (node->count == 0) {
            fb_diagnose(reader->diagnostics, node->mark, "%s is compared with an empty list",
                        fb_factor_at(key)->name);
            return false;
        }
        return fb_condition_read_values(reader, key, FB_RELATION_EQUAL, node->items, node->count,
                                        resolved, condition);
    }
    enum fb_relation relation = FB_RELATION_EQUAL;
    size_t length = node->kind == FB_YAML_SCALAR ? fb_relation_parse(node->text, &relation) : 0;
    if (length > 0) {
        node = operand_of(reader, node, length);
        if (node == NULL) {
            return false;
        }
    }
    return fb_condition_read_values(reader, key, relation, &node, 1, resolved, condition);
}

static bool equals(const struct fb_condition *condition, const struct fb_axis_value *value,
                   const struct fb_factors *factors)
{
    if (condition->key == FB_FACTOR_MECHANISM) {
        return factors->mechanism == value->mechanism;
    }
    if (condition->key == FB_FACTOR_VARIANT) {
        const char *variant = factors->variant;
        if (variant == NULL && fb_factor_variant_names(factors->mechanism, &variant, 1) == 0) {
            return false;
        }
        return strcmp(variant, value->variant) == 0;
    }
    if (condition->key == FB_FACTOR_TASK) {
        return factors->task == value->task;
    }
    return fb_factor_get(factors, condition->key) == value->number;
}

bool fb_condition_holds(const struct fb_condition *condition, const struct fb_factors *factors)
{
    int64_t number = fb_factor_get(factors, condition->key);
    int64_t bound = condition->values[0].number;
    bool any = false;
    switch (condition->relation) {
    case FB_RELATION_EQUAL:
    case FB_RELATION_NOT_EQUAL:
        for (size_t i = 0; i < condition->count && !any; i++) {
            any = equals(condition, &condition->values[i], factors);
        }
        return any == (condition->relation == FB_RELATION_EQUAL);
    case FB_RELATION_LESS:
        return number < bound;
    case FB_RELATION_LESS_EQUAL:
        return number <= bound;
    case FB_RELATION_GREATER:
        return number > bound;
    case FB_RELATION_GREATER_EQUAL:
        return number >= bound;
    }
    return false;
}
