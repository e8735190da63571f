/* Comparisons within a block: see accuracy_pair.h. */
#include "accuracy_pair.h"

#include "stats_infer.h"

#include <math.h>
#include <string.h>

#define ALPHA 0.05

enum { RESAMPLES = 2000 };

struct fb_survival fb_accuracy_escape(const struct fb_accuracy_row *row)
{
    const bool left = row->plateau_step != FB_ROW_NONE;
    return (struct fb_survival){(double)(left ? row->plateau_step : row->steps), left};
}

static const char *bits_of(const struct fb_accuracy *accuracy, const struct fb_accuracy_row *row)
{
    for (size_t i = 0; i < accuracy->correct_count; i++)
        if (strcmp(accuracy->correct[i].case_id, row->case_id) == 0)
            return accuracy->correct[i].bits;
    return NULL;
}

/* The bits of the seeds that both have, on the same examples. */
static size_t shared_bits(const struct fb_accuracy *accuracy, const struct fb_accuracy_group *a,
                          const struct fb_accuracy_group *b, const char **a_bits,
                          const char **b_bits, size_t *examples)
{
    size_t seeds = 0;
    for (size_t i = 0; i < a->rows_count; i++)
        for (size_t j = 0; j < b->rows_count; j++) {
            if (a->rows[i]->seed != b->rows[j]->seed)
                continue;
            const char *left = bits_of(accuracy, a->rows[i]);
            const char *right = bits_of(accuracy, b->rows[j]);
            if (!left || !right || strlen(left) != strlen(right) ||
                (seeds > 0 && strlen(left) != *examples))
                continue;
            *examples = strlen(left);
            a_bits[seeds] = left;
            b_bits[seeds++] = right;
        }
    return seeds;
}

static double compare_escapes(const struct fb_accuracy_group *a, const struct fb_accuracy_group *b,
                              struct fb_survival *a_times, struct fb_survival *b_times)
{
    struct fb_log_rank result;
    if (!a->has_plateau || !b->has_plateau)
        return (double)NAN;
    for (size_t i = 0; i < a->rows_count; i++)
        a_times[i] = fb_accuracy_escape(a->rows[i]);
    for (size_t i = 0; i < b->rows_count; i++)
        b_times[i] = fb_accuracy_escape(b->rows[i]);
    fb_survival_sort(a_times, a->rows_count);
    fb_survival_sort(b_times, b->rows_count);
    fb_survival_log_rank(a_times, a->rows_count, b_times, b->rows_count, &result);
    return result.p;
}

static enum fb_status compare(const struct fb_accuracy *accuracy, uint64_t seed,
                              struct fb_arena *arena, struct fb_accuracy_groups *groups,
                              size_t flow, size_t other, struct fb_error *error)
{
    const struct fb_accuracy_group *a = &groups->items[flow], *b = &groups->items[other];
    const size_t room = a->rows_count + b->rows_count + 1;
    const char **a_bits = fb_arena_alloc(arena, room, sizeof(const char *), error);
    const char **b_bits = a_bits ? fb_arena_alloc(arena, room, sizeof(const char *), error) : NULL;
    struct fb_survival *times =
        b_bits ? fb_arena_alloc(arena, 2 * room, sizeof *times, error) : NULL;
    size_t examples = 0;
    if (!times)
        return FB_ERROR_MEMORY;
    const size_t seeds = shared_bits(accuracy, a, b, a_bits, b_bits, &examples);
    if (seeds == 0 || examples == 0)
        return FB_OK;
    struct fb_accuracy_pair *pair = &groups->pairs[groups->pairs_count++];
    *pair = (struct fb_accuracy_pair){.flow = flow, .other = other, .seeds = seeds};
    pair->log_rank_p = compare_escapes(a, b, times, times + room);
    const enum fb_status status = fb_stats_bootstrap_paired(a_bits, b_bits, seeds, examples, ALPHA,
                                                            RESAMPLES, seed, &pair->paired, error);
    pair->paired.difference *= 100.0;
    pair->paired.interval.low *= 100.0;
    pair->paired.interval.high *= 100.0;
    return status;
}

/* The first group of Flow-Attention in a block is the one compared; count: there is none. */
static size_t flow_of(const struct fb_accuracy_groups *groups, size_t block)
{
    size_t at = 0;
    while (at < groups->count && (groups->items[at].block != block ||
                                  strcmp(groups->items[at].any->mechanism, "flow") != 0))
        at++;
    return at;
}

static enum fb_status adjust(struct fb_accuracy_groups *groups, size_t first,
                             struct fb_arena *arena, struct fb_error *error)
{
    const size_t count = groups->pairs_count - first;
    double *p = fb_arena_alloc(arena, count + 1, sizeof *p, error);
    if (!p)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < count; i++)
        p[i] = groups->pairs[first + i].paired.p;
    const enum fb_status status = fb_stats_holm(p, count, p, error);
    for (size_t i = 0; i < count && status == FB_OK; i++)
        groups->pairs[first + i].p_adjusted = p[i];
    return status;
}

enum fb_status fb_accuracy_compare(const struct fb_accuracy *accuracy, uint64_t seed,
                                   struct fb_arena *arena, struct fb_accuracy_groups *groups,
                                   struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (size_t block = 0; block < groups->blocks && status == FB_OK; block++) {
        const size_t flow = flow_of(groups, block), first = groups->pairs_count;
        for (size_t i = 0; flow < groups->count && i < groups->count && status == FB_OK; i++)
            if (i != flow && groups->items[i].block == block)
                status = compare(accuracy, seed, arena, groups, flow, i, error);
        if (status == FB_OK && groups->pairs_count > first)
            status = adjust(groups, first, arena, error);
    }
    return status;
}
