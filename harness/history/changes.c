/* Steps and blips: see changes.h. */
#include "changes.h"

#include <math.h>

double fb_change_threshold(const struct fb_segment *a, const struct fb_segment *b,
                           double least_step)
{
    return fmax(least_step, fmax(a->error, b->error));
}

size_t fb_segment_commits(const struct fb_segment *segment, const size_t *commits)
{
    size_t count = segment->count > 0;

    for (size_t i = segment->first + 1; i < segment->first + segment->count; i++)
        count += commits[i] != commits[i - 1];
    return count;
}

static bool is_blip(const struct fb_segmentation *s, size_t at, const size_t *commits,
                    double least_step)
{
    if (at == 0 || at + 1 >= s->count || fb_segment_commits(&s->segments[at], commits) != 1)
        return false;
    const struct fb_segment *before = &s->segments[at - 1], *after = &s->segments[at + 1];
    return fabs(after->level - before->level) <= fb_change_threshold(before, after, least_step);
}

enum fb_status fb_changes_find(const struct fb_segmentation *segmentation, const size_t *commits,
                               double least_step, struct fb_arena *arena,
                               struct fb_changes *changes, struct fb_error *error)
{
    const struct fb_segment *segments = segmentation->segments;

    *changes = (struct fb_changes){.count = 0};
    changes->changes =
        fb_arena_alloc(arena, segmentation->count + 1, sizeof *changes->changes, error);
    changes->blips = fb_arena_alloc(arena, segmentation->count + 1, sizeof(bool), error);
    if (changes->changes == NULL || changes->blips == NULL)
        return FB_ERROR_MEMORY;
    for (size_t s = 1, before = 0; s < segmentation->count; s++) {
        /* Two excursions in a row are not one blip each: the one in between is where it went. */
        changes->blips[s] = !changes->blips[s - 1] && is_blip(segmentation, s, commits, least_step);
        if (changes->blips[s])
            continue;
        const double threshold = fb_change_threshold(&segments[before], &segments[s], least_step);
        const double step = segments[s].level - segments[before].level;
        if (fabs(step) > threshold)
            changes->changes[changes->count++] = (struct fb_change){.before = before,
                                                                    .after = s,
                                                                    .at = segments[s].first,
                                                                    .step = step,
                                                                    .threshold = threshold};
        before = s;
    }
    return FB_OK;
}
