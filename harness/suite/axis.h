/*
 * Axes: which values each factor takes in `sweep:`, in an entry of `hardware:` and in `defaults:`.
 * A factor is a scalar, a list, or a range {from, to, times} or {from, to, step}. `zip:` holds
 * axes of equal length that are walked together.
 */
#ifndef FB_AXIS_H
#define FB_AXIS_H

#include "factor.h"
#include "suite_reader.h"

/* Values of one axis, and points of one suite. */
enum { FB_AXIS_VALUES_MAX = 100000, FB_SUITE_POINTS_MAX = 100000 };

struct fb_axis_value {
    const struct fb_yaml_node *node;
    int64_t number;                          /* of choices, booleans and numbers */
    const struct fb_mechanism *mechanism;    /* of `mechanism` */
    const double *params;                    /* likewise: FB_PARAMS_MAX of them */
    const char *variant;                     /* of `variant`, or named in the mechanism's map */
    const char *program;                     /* of an external mechanism's map, or NULL */
    const struct fb_yaml_node *variant_node; /* of a mechanism's map */
    const struct fb_task *task;              /* of `task` */
    const double *task_params;               /* likewise: FB_PARAMS_MAX of them */
};

struct fb_axis {
    enum fb_factor_key key;
    const struct fb_yaml_node *key_node, *node;
    struct fb_axis_value *values;
    size_t count;
    size_t dimension; /* axes of one zip share it */
};

/* A product of dimensions. */
struct fb_axes {
    struct fb_axis axis[FB_FACTOR_COUNT];
    size_t count;
    size_t extent[FB_FACTOR_COUNT]; /* of each dimension */
    size_t dimensions;
};

/* One value: a word or number of the factor. The mechanism may be its name only. */
bool fb_axis_read_scalar(const struct fb_suite_reader *reader, enum fb_factor_key key,
                         const struct fb_yaml_node *node, struct fb_axis_value *value);

/* Reads a map of factors. `extra` names a key that the caller reads itself (or NULL). */
bool fb_axes_read(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                  const char *map_name, const char *extra, bool allow_zip, struct fb_axes *axes);

const struct fb_axis *fb_axes_find(const struct fb_axes *axes, enum fb_factor_key key);

/* Points of the product; SIZE_MAX when there are more than a size_t holds. */
size_t fb_axes_points(const struct fb_axes *axes);

/* Sets the factors of point `index` (the last axis runs fastest) and, in nodes[factor], where each
 * value was written. */
void fb_axes_apply(const struct fb_axes *axes, size_t index, struct fb_factors *factors,
                   const struct fb_yaml_node *nodes[FB_FACTOR_COUNT]);

/* The mechanism's map {name, variant, parameters}, or {name: external, computes, program, variant,
 * parameters of what it computes}; lists in it expand into several values. */
bool fb_axis_read_mechanism(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                            struct fb_axis *axis, size_t *room);

/* The task's map {name, parameters}: one value. */
bool fb_axis_read_task(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                       struct fb_axis_value *value);

/* The task's name as written in a suite, with its parameters at their defaults. */
bool fb_axis_find_task(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                       struct fb_axis_value *value);

/* The value of one parameter of a mechanism or task. */
bool fb_axis_read_param(const struct fb_suite_reader *reader, const struct fb_param *param,
                        const struct fb_yaml_node *node, double *value);

/* Appends a value. */
bool fb_axis_append(const struct fb_suite_reader *reader, struct fb_axis *axis, size_t *room,
                    const struct fb_axis_value *value);

/* The mechanism's name as written in a suite. */
bool fb_axis_find_mechanism(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            const struct fb_mechanism **mechanism);

/* A variant of the mechanism, or of any when it is NULL. */
bool fb_axis_find_variant(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const struct fb_mechanism *mechanism, const char **variant);

/* The mechanism's default parameters, in the arena. */
const double *fb_axis_default_params(const struct fb_suite_reader *reader,
                                     const struct fb_mechanism *mechanism);

#endif
