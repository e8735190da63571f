/* The sweep: defaults, axes, hardware and exclusions, expanded into the points of a suite. */
#ifndef FB_SWEEP_H
#define FB_SWEEP_H

#include "axis.h"
#include "condition.h"

/* One entry of `hardware:`. */
struct fb_hardware {
    const struct fb_yaml_node *node;
    struct fb_axes axes;
    bool optional;
};

/* One entry of `exclude:`: a point for which all conditions hold is left out. */
struct fb_exclusion {
    struct fb_condition conditions[FB_FACTOR_COUNT];
    size_t count;
};

struct fb_sweep {
    struct fb_axes defaults; /* one value per factor */
    struct fb_axes axes;
    const struct fb_yaml_node *key_node; /* the word `sweep`, where the whole is reported */
    struct fb_hardware *hardware;
    size_t hardware_count;
    const struct fb_yaml_node *exclude_node;
    struct fb_exclusion *exclusions;
    size_t exclusions_count;
};

bool fb_sweep_read_defaults(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_sweep *sweep);
bool fb_sweep_read_axes(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        struct fb_sweep *sweep);
bool fb_sweep_read_hardware(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_sweep *sweep);
bool fb_sweep_read_exclude(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                           struct fb_sweep *sweep);

/* Every point: hardware entries outside, axes inside, the last axis fastest. Sizes are checked. */
bool fb_sweep_expand(const struct fb_suite_reader *reader, const struct fb_sweep *sweep,
                     struct fb_suite *suite);

#endif
