/*
 * What the segments of a series say: which steps are worth reporting, and which short excursions
 * were only that. Reference: docs/history.md.
 */
#ifndef FB_CHANGES_H
#define FB_CHANGES_H

#include "segments.h"

#include <stdbool.h>

/* Steps of less are not reported, whatever their certainty: ln 1.05 for times. */
#define FB_CHANGE_LEAST_STEP 0.048790164169432

struct fb_change {
    size_t before, after; /* segments */
    size_t at;            /* the first point after it: its commit is the one to look at */
    double step;          /* of the levels, after minus before */
    double threshold;     /* that it exceeds: max(errors of both segments, the least step) */
};

struct fb_changes {
    struct fb_change *changes; /* in the arena, in order */
    size_t count;
    bool *blips; /* per segment: one commit, after which the series went back to where it was */
};

double fb_change_threshold(const struct fb_segment *a, const struct fb_segment *b,
                           double least_step);

/* commits[i] tells the commits of the points apart. A segment in the middle whose points are all of
 * one commit is a blip when the segments around it differ by no more than their threshold. */
enum fb_status fb_changes_find(const struct fb_segmentation *segmentation, const size_t *commits,
                               double least_step, struct fb_arena *arena,
                               struct fb_changes *changes, struct fb_error *error) FB_MUST_CHECK;

/* Different commits among the points of a segment. */
size_t fb_segment_commits(const struct fb_segment *segment, const size_t *commits);

#endif
