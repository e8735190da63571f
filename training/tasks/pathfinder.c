/*
 * Paths, distractors, markers: see pathfinder.h. Numbers without a name below are the original
 * generator's own; every retry, rounding and order of drawing follows it, since they shape the
 * images' distribution.
 */
#include "pathfinder.h"

#include "pathfinder_segment.h"
#include "random.h"

#include <math.h>
#include <string.h>

#define PI              3.14159265358979323846
#define TARGET_CONTRAST 1.5F        /* path contrast 2 times segment contrast 0.75 */
#define OTHER_CONTRAST  2.0F        /* of distractors: the path contrast alone */
#define OCCUPIED        0.3F        /* an occupancy above this is no place for a seed */
#define CROSSING        1.8F        /* where occupancies add up to this, segments would cross */
#define STREAM          0x706174ULL /* of this generator's random numbers */

enum {
    PADDING = 1,
    SEED_DISTANCE = 7,
    TARGET_SEGMENTS = 14,
    OTHER_SEGMENTS = 4,
    OTHER_COUNT = 5,
    OTHER_TRIALS = 5,
    SEGMENT_TRIALS = 3,
    LEAST_FREE = FB_PATHFINDER_PIXELS / 100 + 1, /* fewer free cells: no further distractor */
    CANDIDATES_MAX = 19 /* cells around a circle of radius 3 at a pixel's distance */
};

struct drawing {
    const struct fb_pathfinder *tables;
    struct fb_random random;
    struct fb_canvas image, occupied;
};

/* A path under way: what its last segment occupies is not yet part of the drawing's. */
struct path {
    struct fb_point pivot, origin, tip;
    double angle;
    const struct fb_segment *last;
};

static double draw_angle(struct fb_random *random)
{
    return ((double)fb_random_below(random, 360) - 180.0) * PI / 180.0;
}

static double flip(double angle)
{
    return angle < 0.0 ? angle + PI : angle - PI;
}

/* A path's first segment from `tail`; false when it or its pivot is outside. */
static bool start_path(struct path *path, struct fb_point tail, double angle)
{
    const struct fb_point head = fb_point_translate(tail, angle, FB_SEGMENT_LENGTH);
    path->pivot = fb_point_translate(head, flip(angle), FB_SEGMENT_LENGTH + FB_SEGMENT_MARGIN);
    path->origin = path->tip = tail;
    path->angle = angle;
    return fb_point_inside(head) && fb_point_inside(path->pivot);
}

static void draw_first(struct drawing *d, struct path *path, float contrast)
{
    path->last = fb_segment_find(d->tables, path->angle);
    fb_canvas_draw(&d->image, &path->last->line, path->origin, contrast);
}

/* Its last segment is drawn from the tip, backwards unless it is the first. */
static void occupy_last(struct drawing *d, const struct path *path)
{
    fb_canvas_draw(&d->occupied, &path->last->mask, path->tip, 1.0F);
}

static void block_border(struct fb_canvas *canvas, int width)
{
    for (int y = 0; y < FB_PATHFINDER_SIZE; y++)
        for (int x = 0; x < FB_PATHFINDER_SIZE; x++)
            if (y < width || x < width || y >= FB_PATHFINDER_SIZE - width ||
                x >= FB_PATHFINDER_SIZE - width)
                canvas->cells[y][x] = 1.0F;
}

static int count_free(const struct fb_canvas *canvas)
{
    int count = 0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        count += canvas->cells[i / FB_PATHFINDER_SIZE][i % FB_PATHFINDER_SIZE] <= OCCUPIED;
    return count;
}

/* A free cell, all equally likely; false when there is none. */
static bool draw_free(struct drawing *d, const struct fb_canvas *canvas, struct fb_point *p)
{
    const int count = count_free(canvas);
    if (count == 0)
        return false;
    int left = (int)fb_random_below(&d->random, (uint64_t)count);
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++) {
        *p = (struct fb_point){i / FB_PATHFINDER_SIZE, i % FB_PATHFINDER_SIZE};
        if (canvas->cells[p->y][p->x] <= OCCUPIED && left-- == 0)
            break;
    }
    return true;
}

/* Draws a direction and a free place for a first segment, away from the border. */
static bool seed_path(struct drawing *d, struct path *path, int border)
{
    for (int trial = 0; trial < SEGMENT_TRIALS; trial++) {
        const double angle = draw_angle(&d->random);
        const struct fb_segment *segment = fb_segment_find(d->tables, angle);
        struct fb_canvas blocked = d->occupied, dilated;
        struct fb_point tail;
        if (!segment->starts_paths)
            return false;
        block_border(&blocked, border);
        fb_canvas_dilate(&blocked, &segment->footprint, &dilated);
        if (!draw_free(d, &dilated, &tail))
            return false;
        if (start_path(path, tail, angle))
            return true;
    }
    return false;
}

/* The second target path starts at a fixed distance from the first. */
static bool seed_beside(struct drawing *d, struct path *path, struct fb_point first)
{
    for (int trial = 0; trial < SEGMENT_TRIALS; trial++) {
        const double angle = draw_angle(&d->random);
        const double around = (double)fb_random_below(&d->random, 360) * PI / 180.0;
        const struct fb_point tail = {(int)rint(first.y + SEED_DISTANCE * sin(around)),
                                      (int)rint(first.x + SEED_DISTANCE * cos(around))};
        if (start_path(path, tail, angle))
            return true;
    }
    return false;
}

/* ---- the next segment ---------------------------------------------------------------------- */

struct candidate {
    struct fb_point at;
    double angle, weight;
};

/* Keeps candidates sorted by place, each place once: the order in which the original sums weights.
 */
static int insert(struct candidate *list, int count, struct fb_point at)
{
    int i = count;
    while (i > 0 &&
           (list[i - 1].at.y > at.y || (list[i - 1].at.y == at.y && list[i - 1].at.x > at.x)))
        i--;
    if (i > 0 && list[i - 1].at.y == at.y && list[i - 1].at.x == at.x)
        return count;
    memmove(list + i + 1, list + i, (size_t)(count - i) * sizeof *list);
    list[i].at = at;
    return count + 1;
}

/* Ends that a segment around the pivot may have, weighted by how straight on and how free. Returns
 * their number; *total: the sum of the weights. */
static int find_candidates(const struct drawing *d, struct fb_point pivot, double last,
                           struct candidate *list, double *total)
{
    const int radius = FB_SEGMENT_LENGTH + FB_SEGMENT_MARGIN;
    int count = 0;
    for (int i = 0; i < CANDIDATES_MAX; i++) {
        const double angle = i * (360.0 / (2.0 * radius * PI)) * PI / 180.0;
        const double y = pivot.y + radius * sin(angle), x = pivot.x + radius * cos(angle);
        if (y >= 0.0 && x >= 0.0 && y < FB_PATHFINDER_SIZE && x < FB_PATHFINDER_SIZE)
            count = insert(list, count, (struct fb_point){(int)y, (int)x});
    }
    *total = 0.0;
    for (int i = 0; i < count; i++) {
        struct candidate *c = &list[i];
        c->angle = atan2(c->at.y - pivot.y, c->at.x - pivot.x);
        const double turn = fabs(c->angle - last), delta = fmin(turn, 2.0 * PI - turn);
        const double straight = delta < PI / 2.0 ? cos(delta) : 0.0;
        c->weight = straight * straight * (1.0 - (double)fb_canvas_near(&d->occupied, c->at));
        *total += c->weight;
    }
    return count;
}

static const struct candidate *draw_candidate(struct fb_random *random,
                                              const struct candidate *list, int count, double total)
{
    double left = fb_random_uniform(random) * total;
    int last = 0;
    for (int i = 0; i < count; i++) {
        if (list[i].weight > 0.0)
            last = i;
        left -= list[i].weight;
        if (left < 0.0)
            return &list[i];
    }
    return &list[last]; /* rounding has left a trifle */
}

static bool extend_path(struct drawing *d, struct path *path, float contrast)
{
    struct candidate list[CANDIDATES_MAX + 1];
    double total;
    path->pivot =
        fb_point_translate(path->pivot, path->angle, FB_SEGMENT_LENGTH + 2 * FB_SEGMENT_MARGIN);
    const int count = find_candidates(d, path->pivot, path->angle, list, &total);
    if (total < 1e-4)
        return false;
    for (int trial = 0; trial < SEGMENT_TRIALS; trial++) {
        const struct candidate *c = draw_candidate(&d->random, list, count, total);
        const struct fb_segment *segment = fb_segment_find(d->tables, flip(c->angle));
        if (fb_canvas_overlap(&d->occupied, &segment->mask, c->at) >= CROSSING)
            continue;
        fb_canvas_draw(&d->image, &segment->line, c->at, contrast);
        occupy_last(d, path);
        path->last = segment;
        path->angle = c->angle;
        path->tip = c->at;
        return true;
    }
    return false;
}

/* ---- whole images -------------------------------------------------------------------------- */

static bool draw_targets(struct drawing *d, struct path paths[2])
{
    memset(&d->image, 0, sizeof d->image);
    memset(&d->occupied, 0, sizeof d->occupied);
    block_border(&d->occupied, PADDING);
    if (!seed_path(d, &paths[0], 2 * SEED_DISTANCE))
        return false;
    draw_first(d, &paths[0], TARGET_CONTRAST);
    if (!seed_beside(d, &paths[1], paths[0].origin))
        return false;
    draw_first(d, &paths[1], TARGET_CONTRAST);
    for (int i = 1; i < TARGET_SEGMENTS; i++)
        for (int path = 0; path < 2; path++)
            if (!extend_path(d, &paths[path], TARGET_CONTRAST))
                return false;
    /* The original leaves out the last segment of the first path. */
    occupy_last(d, &paths[1]);
    return true;
}

/* Changes the drawing only when the whole distractor fits. */
static bool draw_other(struct drawing *d)
{
    struct drawing trial = *d;
    struct path path;
    bool fits = count_free(&d->occupied) >= LEAST_FREE && seed_path(&trial, &path, PADDING);
    if (fits)
        draw_first(&trial, &path, OTHER_CONTRAST);
    for (int i = 1; i < OTHER_SEGMENTS && fits; i++)
        fits = extend_path(&trial, &path, OTHER_CONTRAST);
    d->random = trial.random;
    if (fits) {
        occupy_last(&trial, &path);
        *d = trial;
    }
    return fits;
}

/* Markers on top, then all stretched to 0 .. 255. */
static void finish_image(const struct drawing *d, struct fb_point from, struct fb_point to,
                         uint8_t *pixels)
{
    const uint8_t *first = fb_segment_marker(d->tables, from);
    const uint8_t *second = fb_segment_marker(d->tables, to);
    double values[FB_PATHFINDER_PIXELS], least = 0.0, most = 0.0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++) {
        const double marker = (first[i] > second[i] ? first[i] : second[i]) / 255.0;
        values[i] =
            fmax((double)d->image.cells[i / FB_PATHFINDER_SIZE][i % FB_PATHFINDER_SIZE], marker);
        least = i == 0 ? values[i] : fmin(least, values[i]);
        most = fmax(most, values[i]);
    }
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        pixels[i] = (uint8_t)((values[i] - least) * (255.0 / (most - least)) + 0.5);
}

void fb_pathfinder_draw(const struct fb_pathfinder *tables, uint64_t seed, uint64_t index,
                        uint8_t *pixels, uint8_t *label)
{
    struct drawing d = {.tables = tables};
    struct path paths[2];
    fb_random_init(&d.random, seed ^ STREAM, index);
    *label = (uint8_t)fb_random_below(&d.random, 2);
    while (!draw_targets(&d, paths)) {
    }
    for (int i = 0; i < OTHER_COUNT; i++) {
        bool fits = false;
        for (int trial = 0; trial < OTHER_TRIALS && !fits; trial++)
            fits = draw_other(&d);
    }
    const size_t origin = (size_t)fb_random_below(&d.random, 2);
    finish_image(&d, paths[origin].origin, paths[*label ? origin : 1 - origin].tip, pixels);
}
