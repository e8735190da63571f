/* Penalised L1 segmentation: see segments.h. */
#include "segments.h"

#include "segment_costs.h"
#include "stats.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Of logarithms: a spread below a thousandth is not told apart from none, or else a series without
 * noise would be cut wherever its last digit moves. */
static const double spread_resolution = 1e-3;
static const double least_width = 0.1; /* of the median one */

enum fb_status fb_segments_weights(const double *widths, size_t count, struct fb_arena *arena,
                                   double **weights, struct fb_error *error)
{
    double *positive = fb_arena_alloc(arena, count + 1, sizeof *positive, error);
    size_t positive_count = 0;

    *weights = fb_arena_alloc(arena, count + 1, sizeof **weights, error);
    if (positive == NULL || *weights == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (widths[i] > 0.0 && isfinite(widths[i]))
            positive[positive_count++] = widths[i];
    }
    fb_stats_sort(positive, positive_count);
    const double middle = positive_count > 0 ? fb_stats_median(positive, positive_count) : 2.0;
    for (size_t i = 0; i < count; i++) {
        const double width = isfinite(widths[i]) ? widths[i] : middle;
        (*weights)[i] = 2.0 / fmax(width, positive_count > 0 ? least_width * middle : middle);
    }
    return FB_OK;
}

/* ---- the best fit of every number of segments ----------------------------------------------- */

/* best[k][j]: the least cost of the first j points in k + 1 segments, the last of which starts at
 * from[k][j]. */
struct programme {
    double *best;
    size_t *from;
    size_t width; /* points + 1 */
};

static void run_programme(const struct fb_segment_costs *costs, size_t segments_max,
                          struct programme *p)
{
    const size_t count = costs->count;

    for (size_t j = 1; j <= count; j++)
        p->best[j] = fb_segment_costs_at(costs, 0, j - 1);
    for (size_t k = 1; k < segments_max; k++) {
        const double *earlier = p->best + (k - 1) * p->width;
        for (size_t j = k + 1; j <= count; j++) {
            double least = HUGE_VAL;
            size_t start = k;
            for (size_t i = k; i < j; i++) {
                const double cost = earlier[i] + fb_segment_costs_at(costs, i, j - 1);
                if (cost < least) {
                    least = cost;
                    start = i;
                }
            }
            p->best[k * p->width + j] = least;
            p->from[k * p->width + j] = start;
        }
    }
}

static enum fb_status take_fits(const struct programme *p, size_t count, struct fb_arena *arena,
                                struct fb_segment_fits *fits, struct fb_error *error)
{
    fits->costs = fb_arena_alloc(arena, fits->segments_max, sizeof *fits->costs, error);
    fits->starts = fb_arena_alloc(arena, fits->segments_max, sizeof *fits->starts, error);
    if (fits->costs == NULL || fits->starts == NULL)
        return FB_ERROR_MEMORY;
    for (size_t k = 0; k < fits->segments_max; k++) {
        size_t *starts = fb_arena_alloc(arena, k + 1, sizeof *starts, error);
        if (starts == NULL)
            return FB_ERROR_MEMORY;
        fits->costs[k] = p->best[k * p->width + count];
        size_t end = count;
        for (size_t s = k; s > 0; s--) {
            end = p->from[s * p->width + end];
            starts[s] = end;
        }
        fits->starts[k] = starts;
    }
    return FB_OK;
}

enum fb_status fb_segment_fits_find(const double *values, const double *weights, size_t count,
                                    struct fb_arena *arena, struct fb_segment_fits *fits,
                                    struct fb_error *error)
{
    struct fb_segment_costs costs;
    struct programme p = {.width = count + 1};
    enum fb_status status = fb_segment_costs_init(&costs, values, weights, count, error);

    assert(count > 0);
    if (status != FB_OK)
        return status;
    fits->segments_max = count < FB_SEGMENTS_MAX ? count : FB_SEGMENTS_MAX;
    p.best = calloc(fits->segments_max * p.width, sizeof *p.best);
    p.from = calloc(fits->segments_max * p.width, sizeof *p.from);
    if (p.best == NULL || p.from == NULL) {
        status =
            fb_error_set(error, FB_ERROR_MEMORY, "no memory for the segments of %zu points", count);
    } else {
        run_programme(&costs, fits->segments_max, &p);
        status = take_fits(&p, count, arena, fits, error);
    }
    free(p.best);
    free(p.from);
    fb_segment_costs_free(&costs);
    return status;
}

/* ---- which of them -------------------------------------------------------------------------- */

/* From k segments (index k - 1) to the next corner of the lower convex hull: the one with the
 * steepest fall per segment, the farthest of equals. `from` itself when none falls. */
static size_t next_corner(const struct fb_segment_fits *fits, size_t from, double *gamma)
{
    size_t next = from;

    *gamma = 0.0;
    for (size_t k = from + 1; k < fits->segments_max; k++) {
        const double fall = (fits->costs[from] - fits->costs[k]) / (double)(k - from);
        if (fall > 0.0 && fall >= *gamma) {
            *gamma = fall;
            next = k;
        }
    }
    return next;
}

/* The corner that minimises beta k + ln(spread); *gamma lies inside of what leads to it. */
static size_t choose(const struct fb_segment_fits *fits, double weight_total, size_t count,
                     double *gamma)
{
    const double beta = 4.0 * log((double)count) / (double)count;
    double best = HUGE_VAL, gamma_in = HUGE_VAL;
    size_t chosen = 0;

    for (size_t corner = 0;;) {
        double gamma_out;
        const double spread = fits->costs[corner] / weight_total;
        const double score = beta * (double)(corner + 1) + log(spread + spread_resolution);
        const size_t next = next_corner(fits, corner, &gamma_out);
        if (score < best) {
            best = score;
            chosen = corner;
            *gamma = isinf(gamma_in) ? gamma_out : (gamma_in + gamma_out) / 2.0;
        }
        if (next == corner)
            return chosen;
        gamma_in = gamma_out;
        corner = next;
    }
}

static enum fb_status describe(const double *values, const double *weights, size_t count,
                               const size_t *starts, struct fb_arena *arena,
                               struct fb_segmentation *segmentation, struct fb_error *error)
{
    double *scratch = fb_arena_alloc(arena, 2 * count, sizeof *scratch, error);
    double cost_total = 0.0, weight_total = 0.0;

    segmentation->segments =
        fb_arena_alloc(arena, segmentation->count, sizeof *segmentation->segments, error);
    if (scratch == NULL || segmentation->segments == NULL)
        return FB_ERROR_MEMORY;
    for (size_t s = 0; s < segmentation->count; s++) {
        struct fb_segment *segment = &segmentation->segments[s];
        const size_t end = s + 1 < segmentation->count ? starts[s + 1] : count;
        double cost = 0.0, weight = 0.0;
        segment->first = starts[s];
        segment->count = end - starts[s];
        segment->level = fb_segment_level(values, weights, segment->first, segment->count, scratch);
        for (size_t i = segment->first; i < end; i++) {
            cost += weights[i] * fabs(values[i] - segment->level);
            weight += weights[i];
        }
        segment->error = cost / weight;
        cost_total += cost;
        weight_total += weight;
    }
    segmentation->spread = cost_total / weight_total;
    for (size_t s = 0; s < segmentation->count; s++) {
        struct fb_segment *segment = &segmentation->segments[s];
        if (segment->count < FB_SEGMENTS_POINTS_MIN)
            segment->error = fmax(segment->error, segmentation->spread);
    }
    return FB_OK;
}

static bool all_equal(const double *values, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (values[i] != values[0])
            return false;
    }
    return true;
}

enum fb_status fb_segments_find(const double *values, const double *widths, size_t count,
                                struct fb_arena *arena, struct fb_segmentation *segmentation,
                                struct fb_error *error)
{
    static const size_t whole[1] = {0};
    struct fb_segment_fits fits;
    double *weights, weight_total = 0.0;

    *segmentation = (struct fb_segmentation){.gamma = (double)NAN};
    if (count == 0)
        return FB_OK;
    if (count > FB_SEGMENTS_POINTS_MAX)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%zu points in one series, the limit is %d: look at fewer (--window)",
                            count, FB_SEGMENTS_POINTS_MAX);
    enum fb_status status = fb_segments_weights(widths, count, arena, &weights, error);
    if (status != FB_OK)
        return status;
    segmentation->count = 1;
    if (count < FB_SEGMENTS_POINTS_MIN || all_equal(values, count))
        return describe(values, weights, count, whole, arena, segmentation, error);
    status = fb_segment_fits_find(values, weights, count, arena, &fits, error);
    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        weight_total += weights[i];
    const size_t chosen = choose(&fits, weight_total, count, &segmentation->gamma);
    segmentation->count = chosen + 1;
    return describe(values, weights, count, fits.starts[chosen], arena, segmentation, error);
}
