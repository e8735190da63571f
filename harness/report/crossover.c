/* Sign changes of the log ratio against softmax. See crossover.h. */
#include "crossover.h"

#include "random.h"

#include <math.h>

enum { REPLICATES = 400 };

size_t fb_crossover_find(const double *sizes, const double *log_ratio, size_t count,
                         struct fb_crossing *out)
{
    size_t found = 0;
    for (size_t i = 0; i + 1 < count; i++) {
        double here = log_ratio[i], next = log_ratio[i + 1];
        /* A zero belongs to the side that follows, so that touching is no crossing. */
        bool faster_here = here < 0, faster_next = next < 0;
        if (here == 0) {
            continue;
        }
        if (next == 0) {
            size_t j = i + 1;
            while (j < count && log_ratio[j] == 0) {
                j++;
            }
            if (j == count || (log_ratio[j] < 0) == faster_here) {
                continue;
            }
            out[found++] = (struct fb_crossing){sizes[i + 1], log_ratio[j] < 0};
            continue;
        }
        if (faster_here != faster_next) {
            double share = here / (here - next);
            double size = exp(log(sizes[i]) + share * log(sizes[i + 1] / sizes[i]));
            out[found++] = (struct fb_crossing){size, faster_next};
        }
    }
    return found;
}

/* The size from which on it is faster: 0 when always, infinity when not at the largest size. */
static double overtaking_size(const double *sizes, const double *log_ratio, size_t count,
                              struct fb_crossing *room, size_t *found)
{
    *found = fb_crossover_find(sizes, log_ratio, count, room);
    if (log_ratio[count - 1] >= 0) {
        return (double)INFINITY;
    }
    for (size_t i = *found; i > 0; i--) {
        if (room[i - 1].becomes_faster) {
            return room[i - 1].size;
        }
    }
    return 0;
}

/* The points of both series at their common sizes. */
struct common {
    size_t count;
    const struct fb_point **ours, **theirs;
};

static enum fb_status find_common(const struct fb_series *series, const struct fb_series *reference,
                                  struct fb_arena *arena, struct common *common,
                                  struct fb_error *error)
{
    common->count = 0;
    common->ours = fb_arena_alloc(arena, series->points_count, sizeof(void *), error);
    common->theirs = fb_arena_alloc(arena, series->points_count, sizeof(void *), error);
    if (!common->ours || !common->theirs) {
        return FB_ERROR_MEMORY;
    }
    size_t j = 0;
    for (size_t i = 0; i < series->points_count; i++) {
        while (j < reference->points_count && reference->points[j].x < series->points[i].x) {
            j++;
        }
        if (j < reference->points_count && series->points[i].ok && reference->points[j].ok &&
            reference->points[j].x == series->points[i].x) {
            common->ours[common->count] = &series->points[i];
            common->theirs[common->count++] = &reference->points[j++];
        }
    }
    return FB_OK;
}

static enum fb_status bootstrap(const struct common *common, const double *sizes, uint64_t seed,
                                struct fb_arena *arena, struct fb_crossover *crossover,
                                struct fb_error *error)
{
    size_t longest = 1;
    for (size_t i = 0; i < common->count; i++) {
        size_t ours = common->ours[i]->times_count, theirs = common->theirs[i]->times_count;
        longest = ours > longest ? ours : longest;
        longest = theirs > longest ? theirs : longest;
    }
    uint32_t *counts = fb_arena_alloc(arena, longest, sizeof *counts, error);
    double *values = fb_arena_alloc(arena, REPLICATES + common->count, sizeof *values, error);
    struct fb_crossing *room = fb_arena_alloc(arena, common->count, sizeof *room, error);
    if (!counts || !values || !room) {
        return FB_ERROR_MEMORY;
    }
    double *ratio = values + REPLICATES;
    bool over_processes = crossover->interval.kind == FB_SPREAD_PROCESSES;
    struct fb_random random;
    fb_random_init(&random, seed, 1000 + (uint64_t)common->count);
    for (size_t r = 0; r < REPLICATES; r++) {
        for (size_t i = 0; i < common->count; i++) {
            double ours = fb_point_resample(common->ours[i], over_processes, &random, counts);
            double theirs = fb_point_resample(common->theirs[i], over_processes, &random, counts);
            ratio[i] = log(ours / theirs);
        }
        size_t found;
        values[r] = overtaking_size(sizes, ratio, common->count, room, &found);
    }
    fb_spread_from_replicates(values, REPLICATES, &crossover->interval);
    return FB_OK;
}

enum fb_status fb_crossover_of(const struct fb_series *series, const struct fb_series *reference,
                               uint64_t seed, struct fb_arena *arena,
                               struct fb_crossover *crossover, struct fb_error *error)
{
    *crossover = (struct fb_crossover){.kind = FB_CROSSOVER_NONE,
                                       .reference = reference,
                                       .size = (double)NAN,
                                       .interval = {(double)NAN, (double)NAN, FB_SPREAD_NONE}};
    if (!reference) {
        return FB_OK;
    }
    struct common common;
    enum fb_status status = find_common(series, reference, arena, &common, error);
    if (status != FB_OK || common.count == 0) {
        return status;
    }
    double *sizes = fb_arena_alloc(arena, 2 * common.count, sizeof *sizes, error);
    struct fb_crossing *crossings = fb_arena_alloc(arena, common.count, sizeof *crossings, error);
    if (!sizes || !crossings) {
        return FB_ERROR_MEMORY;
    }
    double *ratio = sizes + common.count;
    for (size_t i = 0; i < common.count; i++) {
        sizes[i] = common.ours[i]->x;
        ratio[i] = log(common.ours[i]->row->time_median_s / common.theirs[i]->row->time_median_s);
    }
    crossover->size_min = sizes[0];
    crossover->size_max = sizes[common.count - 1];
    crossover->size =
        overtaking_size(sizes, ratio, common.count, crossings, &crossover->crossings_count);
    crossover->crossings = crossings;
    crossover->kind = crossover->size == 0     ? FB_CROSSOVER_BELOW
                      : isinf(crossover->size) ? FB_CROSSOVER_ABOVE
                                               : FB_CROSSOVER_INSIDE;
    enum fb_spread_kind ours = fb_series_spread_kind(series);
    enum fb_spread_kind theirs = fb_series_spread_kind(reference);
    crossover->interval.kind = ours < theirs ? ours : theirs;
    if (crossover->interval.kind == FB_SPREAD_NONE) {
        return FB_OK;
    }
    return bootstrap(&common, sizes, seed, arena, crossover, error);
}
