/* Segments and markers as small pictures, drawn twice as large and shrunk: pathfinder_segment.h. */
#include "pathfinder_segment.h"

#include "lanczos.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FINE = 2, /* drawn twice as large */
    FINE_SIZE = FB_SEGMENT_SIZE * FINE - 1,
    FINE_CENTRE = FB_SEGMENT_HALF * FINE,
    FINE_LENGTH = FB_SEGMENT_LENGTH * FINE,
    FINE_MARGIN = FB_SEGMENT_MARGIN * FINE,
    ENDS = 2 * FINE_LENGTH + 2, /* rounded up, an end lies -FINE_LENGTH .. FINE_LENGTH away */
    MARKER_RADIUS_FINE = 3      /* radius 1.5 */
};

struct fb_pathfinder {
    struct fb_segment segments[ENDS][ENDS];
    uint8_t markers[FB_PATHFINDER_PIXELS][FB_PATHFINDER_PIXELS];
};

struct fb_point fb_point_translate(struct fb_point c, double angle, int distance)
{
    return (struct fb_point){(int)ceil(c.y + distance * sin(angle)),
                             (int)ceil(c.x + distance * cos(angle))};
}

bool fb_point_inside(struct fb_point p)
{
    return p.y >= 0 && p.y < FB_PATHFINDER_SIZE && p.x >= 0 && p.x < FB_PATHFINDER_SIZE;
}

/* Bresenham's line in the fine picture, both ends drawn. */
static void draw_line(uint8_t fine[FINE_SIZE][FINE_SIZE], struct fb_point end)
{
    struct fb_point p = {FINE_CENTRE, FINE_CENTRE};
    const int dy = abs(end.y - p.y), dx = abs(end.x - p.x);
    const int step_y = end.y < p.y ? -1 : 1, step_x = end.x < p.x ? -1 : 1;
    const int major = dx > dy ? dx : dy, minor = dx > dy ? dy : dx;
    int excess = 2 * minor - major;
    for (int i = 0; i < major; i++) {
        const bool turn = excess >= 0 && minor > 0;
        fine[p.y][p.x] = 255;
        p.y += dx > dy ? (turn ? step_y : 0) : step_y;
        p.x += dx > dy ? step_x : (turn ? step_x : 0);
        excess += 2 * minor - (turn ? 2 * major : 0);
    }
    fine[end.y][end.x] = 255;
}

static void widen(uint8_t fine[FINE_SIZE][FINE_SIZE], uint8_t wide[FINE_SIZE][FINE_SIZE])
{
    for (int y = 0; y < FINE_SIZE; y++)
        for (int x = 0; x < FINE_SIZE; x++)
            for (int v = -FINE_MARGIN; v <= FINE_MARGIN; v++)
                for (int u = -FINE_MARGIN; u <= FINE_MARGIN; u++)
                    if (v * v + u * u <= FINE_MARGIN * FINE_MARGIN && y + v >= 0 && x + u >= 0 &&
                        y + v < FINE_SIZE && x + u < FINE_SIZE && fine[y + v][x + u] > wide[y][x])
                        wide[y][x] = fine[y + v][x + u];
}

static void shrink(uint8_t fine[FINE_SIZE][FINE_SIZE], struct fb_picture *picture)
{
    uint8_t small[FB_SEGMENT_SIZE][FB_SEGMENT_SIZE];
    fb_lanczos_shrink(&fine[0][0], FINE_SIZE, FB_SEGMENT_SIZE, &small[0][0]);
    for (int y = 0; y < FB_SEGMENT_SIZE; y++)
        for (int x = 0; x < FB_SEGMENT_SIZE; x++)
            picture->cells[y][x] = (float)small[y][x] / 255.0F;
}

/* Whether for every cell p of the canvas some p + c - centre is on it: one look at each corner and
 * edge, since the middle sees all of a footprint. */
static bool reaches_everywhere(const struct fb_footprint *footprint)
{
    static const int edges[] = {0,
                                1,
                                2,
                                3,
                                FB_PATHFINDER_SIZE - 4,
                                FB_PATHFINDER_SIZE - 3,
                                FB_PATHFINDER_SIZE - 2,
                                FB_PATHFINDER_SIZE - 1};
    enum { EDGES = sizeof edges / sizeof edges[0] };
    for (int i = 0; i < EDGES * EDGES; i++) {
        bool seen = false;
        for (int c = 0; c < FB_SEGMENT_REACH * FB_SEGMENT_REACH && !seen; c++) {
            const int v = c / FB_SEGMENT_REACH, u = c % FB_SEGMENT_REACH;
            const struct fb_point p = {edges[i / EDGES] + v - FB_SEGMENT_REACH / 2,
                                       edges[i % EDGES] + u - FB_SEGMENT_REACH / 2};
            seen = footprint->cells[v][u] && fb_point_inside(p);
        }
        if (!seen)
            return false;
    }
    return true;
}

static void make_segment(struct fb_segment *segment, struct fb_point end)
{
    uint8_t fine[FINE_SIZE][FINE_SIZE] = {{0}}, wide[FINE_SIZE][FINE_SIZE] = {{0}};
    draw_line(fine, end);
    widen(fine, wide);
    shrink(fine, &segment->line);
    shrink(wide, &segment->mask);
    /* The original's footprint starts its segment one cell below and right of the centre. */
    for (int y = 0; y < FB_SEGMENT_REACH; y++)
        for (int x = 0; x < FB_SEGMENT_REACH; x++)
            segment->footprint.cells[y][x] = segment->mask.cells[y][x] == 1.0F;
    segment->starts_paths = reaches_everywhere(&segment->footprint);
}

static void make_marker(uint8_t *marker, struct fb_point at)
{
    enum { SIZE = FINE * FB_PATHFINDER_SIZE };
    uint8_t fine[SIZE][SIZE] = {{0}};
    for (int y = 0; y < SIZE; y++)
        for (int x = 0; x < SIZE; x++) {
            const int v = y - FINE * at.y, u = x - FINE * at.x;
            if (v * v + u * u <= MARKER_RADIUS_FINE * MARKER_RADIUS_FINE)
                fine[y][x] = 255;
        }
    fb_lanczos_shrink(&fine[0][0], SIZE, FB_PATHFINDER_SIZE, marker);
}

const struct fb_pathfinder *fb_pathfinder_new(struct fb_arena *arena, struct fb_error *error)
{
    struct fb_pathfinder *tables = fb_arena_alloc(arena, 1, sizeof *tables, error);
    if (!tables)
        return NULL;
    for (int y = 0; y < ENDS; y++)
        for (int x = 0; x < ENDS; x++)
            make_segment(&tables->segments[y][x], (struct fb_point){FINE_CENTRE - FINE_LENGTH + y,
                                                                    FINE_CENTRE - FINE_LENGTH + x});
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        make_marker(tables->markers[i],
                    (struct fb_point){i / FB_PATHFINDER_SIZE, i % FB_PATHFINDER_SIZE});
    return tables;
}

const struct fb_segment *fb_segment_find(const struct fb_pathfinder *tables, double angle)
{
    /* Rounding up depends on the centre's own digits: it must be the fine picture's. */
    const struct fb_point centre = {FINE_CENTRE, FINE_CENTRE};
    const struct fb_point end = fb_point_translate(centre, angle, FINE_LENGTH);
    const int y = end.y - (FINE_CENTRE - FINE_LENGTH), x = end.x - (FINE_CENTRE - FINE_LENGTH);
    assert(y >= 0 && y < ENDS && x >= 0 && x < ENDS);
    return &tables->segments[y][x];
}

const uint8_t *fb_segment_marker(const struct fb_pathfinder *tables, struct fb_point at)
{
    assert(fb_point_inside(at));
    return tables->markers[at.y * FB_PATHFINDER_SIZE + at.x];
}

/* ---- the canvas ---------------------------------------------------------------------------- */

void fb_canvas_draw(struct fb_canvas *canvas, const struct fb_picture *picture,
                    struct fb_point start, float contrast)
{
    for (int y = 0; y < FB_SEGMENT_SIZE; y++)
        for (int x = 0; x < FB_SEGMENT_SIZE; x++) {
            const struct fb_point p = {start.y + y - FB_SEGMENT_HALF,
                                       start.x + x - FB_SEGMENT_HALF};
            const float value = contrast * picture->cells[y][x];
            if (fb_point_inside(p) && value > canvas->cells[p.y][p.x])
                canvas->cells[p.y][p.x] = value;
        }
}

float fb_canvas_overlap(const struct fb_canvas *canvas, const struct fb_picture *picture,
                        struct fb_point start)
{
    float most = 0.0F;
    for (int y = 0; y < FB_SEGMENT_SIZE; y++)
        for (int x = 0; x < FB_SEGMENT_SIZE; x++) {
            const struct fb_point p = {start.y + y - FB_SEGMENT_HALF,
                                       start.x + x - FB_SEGMENT_HALF};
            if (fb_point_inside(p) && canvas->cells[p.y][p.x] + picture->cells[y][x] > most)
                most = canvas->cells[p.y][p.x] + picture->cells[y][x];
        }
    return most;
}

void fb_canvas_dilate(const struct fb_canvas *canvas, const struct fb_footprint *footprint,
                      struct fb_canvas *out)
{
    memset(out, 0, sizeof *out);
    for (int v = 0; v < FB_SEGMENT_REACH; v++)
        for (int u = 0; u < FB_SEGMENT_REACH; u++) {
            if (!footprint->cells[v][u])
                continue;
            for (int y = 0; y < FB_PATHFINDER_SIZE; y++)
                for (int x = 0; x < FB_PATHFINDER_SIZE; x++) {
                    const struct fb_point p = {y + v - FB_SEGMENT_REACH / 2,
                                               x + u - FB_SEGMENT_REACH / 2};
                    if (fb_point_inside(p) && canvas->cells[p.y][p.x] > out->cells[y][x])
                        out->cells[y][x] = canvas->cells[p.y][p.x];
                }
        }
}

float fb_canvas_near(const struct fb_canvas *canvas, struct fb_point p)
{
    static const struct fb_point plus[] = {{0, 0}, {-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    float most = 0.0F;
    for (size_t i = 0; i < sizeof plus / sizeof plus[0]; i++) {
        const struct fb_point q = {p.y + plus[i].y, p.x + plus[i].x};
        if (fb_point_inside(q))
            most = canvas->cells[q.y][q.x] > most ? canvas->cells[q.y][q.x] : most;
    }
    return most;
}
