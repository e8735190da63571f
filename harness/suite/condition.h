/*
 * Conditions on one factor: in `exclude:` a value, a list of values, or a comparison such as
 * '> 8192' or '!= flow'; in --filter the same in short.
 */
#ifndef FB_CONDITION_H
#define FB_CONDITION_H

#include "axis.h"

enum fb_relation {
    FB_RELATION_EQUAL,     /* to any of the values */
    FB_RELATION_NOT_EQUAL, /* to all of them */
    FB_RELATION_LESS,
    FB_RELATION_LESS_EQUAL,
    FB_RELATION_GREATER,
    FB_RELATION_GREATER_EQUAL
};

struct fb_condition {
    enum fb_factor_key key;
    enum fb_relation relation;
    struct fb_axis_value *values;
    size_t count;
};

/* The operator at the start of the text ("<=", "!=", "=", ...): its length, 0 when there is none.
 */
size_t fb_relation_parse(const char *text, enum fb_relation *relation);

/* Reads a condition as exclude: writes it. Factors of a suite are not resolved yet, so `max`
 * threads cannot be ordered: refused unless `resolved`. */
bool fb_condition_read(const struct fb_suite_reader *reader, enum fb_factor_key key,
                       const struct fb_yaml_node *node, bool resolved,
                       struct fb_condition *condition);

/* The same with the operator known and the values as scalars. */
bool fb_condition_read_values(const struct fb_suite_reader *reader, enum fb_factor_key key,
                              enum fb_relation relation, const struct fb_yaml_node *const *nodes,
                              size_t count, bool resolved, struct fb_condition *condition);

/* An absent variant means the mechanism's default one. */
bool fb_condition_holds(const struct fb_condition *condition, const struct fb_factors *factors);

#endif
