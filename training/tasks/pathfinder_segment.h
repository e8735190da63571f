/*
 * The canvas of Pathfinder and what is drawn on it. Rows y grow downwards, columns x to the right;
 * a direction of angle a is (sin a, cos a) for (y, x).
 */
#ifndef FB_PATHFINDER_SEGMENT_H
#define FB_PATHFINDER_SEGMENT_H

#include "pathfinder.h"

#include <stdbool.h>

enum {
    FB_SEGMENT_LENGTH = 2,
    FB_SEGMENT_MARGIN = 1, /* between segments of a path, and around every segment */
    FB_SEGMENT_HALF = 4,   /* half of a segment's picture: length, thickness, margin */
    FB_SEGMENT_SIZE = 2 * FB_SEGMENT_HALF + 1,
    FB_SEGMENT_REACH = 2 * (FB_SEGMENT_LENGTH + FB_SEGMENT_MARGIN) + 1 /* size of a footprint */
};

struct fb_point {
    int y, x;
};

struct fb_picture {
    float cells[FB_SEGMENT_SIZE][FB_SEGMENT_SIZE];
};

struct fb_footprint {
    bool cells[FB_SEGMENT_REACH][FB_SEGMENT_REACH];
};

/* The pictures of one direction, centred on the point where the segment starts. */
struct fb_segment {
    struct fb_picture line; /* 0 .. 1 */
    struct fb_picture mask; /* what the segment occupies, 0 .. 1 */
    /* cells of a window around a point that the segment would fully occupy */
    struct fb_footprint footprint;
    /* Around every cell of the canvas some cell of the footprint is on the canvas. The original
     * takes a canvas for full when that is not so, and starts no path in such a direction. */
    bool starts_paths;
};

struct fb_canvas {
    float cells[FB_PATHFINDER_SIZE][FB_PATHFINDER_SIZE];
};

/* Where one gets from c by `distance` in a direction: rounded up, as the original does. */
struct fb_point fb_point_translate(struct fb_point c, double angle, int distance);
bool fb_point_inside(struct fb_point p);

const struct fb_segment *fb_segment_find(const struct fb_pathfinder *tables, double angle);
const uint8_t *fb_segment_marker(const struct fb_pathfinder *tables, struct fb_point at);

/* canvas = max(canvas, contrast * picture at `start`), clipped. */
void fb_canvas_draw(struct fb_canvas *canvas, const struct fb_picture *picture,
                    struct fb_point start, float contrast);
/* The largest sum of the canvas and the picture at `start`. */
float fb_canvas_overlap(const struct fb_canvas *canvas, const struct fb_picture *picture,
                        struct fb_point start);
/* out(p) = the largest canvas(p + c - centre) over the cells c of a footprint. */
void fb_canvas_dilate(const struct fb_canvas *canvas, const struct fb_footprint *footprint,
                      struct fb_canvas *out);
/* The largest value at a point and its four neighbours. */
float fb_canvas_near(const struct fb_canvas *canvas, struct fb_point p);

#endif
