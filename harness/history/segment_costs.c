/* Costs of all stretches of a series by a growing order statistic: see segment_costs.h. */
#include "segment_costs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums over the points seen so far, by rank of their value: two Fenwick trees. */
struct ranked_sums {
    const size_t *ranks;  /* of each point, from 1, all different */
    const double *sorted; /* values by rank - 1 */
    double *weight, *moment;
    size_t count, top; /* top: the largest power of two that is not above count */
    double weight_total, moment_total;
};

static void add_point(struct ranked_sums *sums, size_t rank, double weight, double value)
{
    sums->weight_total += weight;
    sums->moment_total += weight * value;
    for (size_t i = rank; i <= sums->count; i += i & (~i + 1)) {
        sums->weight[i] += weight;
        sums->moment[i] += weight * value;
    }
}

/* sum w |y - median| of the points seen. */
static double cost_of_seen(const struct ranked_sums *sums)
{
    const double half = sums->weight_total / 2.0;
    double weight = 0.0, moment = 0.0;
    size_t at = 0;

    /* The last rank whose ranks up to it weigh less than half; the next one is the median. */
    for (size_t step = sums->top; step > 0; step /= 2) {
        if (at + step < sums->count && weight + sums->weight[at + step] < half) {
            at += step;
            weight += sums->weight[at];
            moment += sums->moment[at];
        }
    }
    const double level = sums->sorted[at];
    const double below = level * weight - moment;
    const double above = sums->moment_total - moment - level * (sums->weight_total - weight);
    const double cost = below + above;
    return cost > 0.0 ? cost : 0.0;
}

struct indexed_value {
    double value;
    size_t index;
};

static int compare_indexed(const void *a, const void *b)
{
    const struct indexed_value *x = a, *y = b;

    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void rank_values(const double *values, size_t count, double centre,
                        struct indexed_value *order, size_t *ranks, double *sorted)
{
    for (size_t i = 0; i < count; i++)
        order[i] = (struct indexed_value){values[i], i};
    qsort(order, count, sizeof *order, compare_indexed);
    for (size_t i = 0; i < count; i++) {
        ranks[order[i].index] = i + 1;
        sorted[i] = order[i].value - centre;
    }
}

static size_t row_start(size_t first, size_t count)
{
    return first * count - first * (first - 1) / 2 - first;
}

double fb_segment_costs_at(const struct fb_segment_costs *costs, size_t first, size_t last)
{
    return costs->table[row_start(first, costs->count) + last];
}

static void fill_table(struct fb_segment_costs *costs, const double *values, const double *weights,
                       double centre, struct ranked_sums *sums)
{
    const size_t count = costs->count;

    for (size_t first = 0; first < count; first++) {
        memset(sums->weight, 0, (count + 1) * sizeof *sums->weight);
        memset(sums->moment, 0, (count + 1) * sizeof *sums->moment);
        sums->weight_total = 0.0;
        sums->moment_total = 0.0;
        for (size_t last = first; last < count; last++) {
            add_point(sums, sums->ranks[last], weights[last], values[last] - centre);
            costs->table[row_start(first, count) + last] = cost_of_seen(sums);
        }
    }
}

enum fb_status fb_segment_costs_init(struct fb_segment_costs *costs, const double *values,
                                     const double *weights, size_t count, struct fb_error *error)
{
    struct indexed_value *order = calloc(count + 1, sizeof *order);
    size_t *ranks = calloc(count + 1, sizeof *ranks);
    double *scratch = calloc(3 * (count + 1), sizeof *scratch);
    enum fb_status status = FB_OK;

    costs->count = count;
    costs->table = calloc(count * (count + 1) / 2 + 1, sizeof *costs->table);
    if (order == NULL || ranks == NULL || scratch == NULL || costs->table == NULL) {
        fb_segment_costs_free(costs);
        status =
            fb_error_set(error, FB_ERROR_MEMORY, "no memory for the segments of %zu points", count);
    } else if (count > 0) {
        /* Sums of values far from zero would lose the digits that residuals live in. */
        const double centre = values[0];
        struct ranked_sums sums = {.ranks = ranks,
                                   .sorted = scratch,
                                   .weight = scratch + count + 1,
                                   .moment = scratch + 2 * (count + 1),
                                   .count = count,
                                   .top = 1};
        while (sums.top * 2 <= count)
            sums.top *= 2;
        rank_values(values, count, centre, order, ranks, scratch);
        fill_table(costs, values, weights, centre, &sums);
    }
    free(order);
    free(ranks);
    free(scratch);
    return status;
}

void fb_segment_costs_free(struct fb_segment_costs *costs)
{
    free(costs->table);
    costs->table = NULL;
}

double fb_segment_level(const double *values, const double *weights, size_t first, size_t count,
                        double *scratch)
{
    double total = 0.0, seen = 0.0;

    /* Insertion by value, weights beside: segments are short. */
    double *kept = scratch, *kept_weights = scratch + count;
    for (size_t i = 0; i < count; i++) {
        const double value = values[first + i], weight = weights[first + i];
        size_t at = i;
        for (; at > 0 && kept[at - 1] > value; at--) {
            kept[at] = kept[at - 1];
            kept_weights[at] = kept_weights[at - 1];
        }
        kept[at] = value;
        kept_weights[at] = weight;
        total += weight;
    }
    for (size_t i = 0; i < count; i++) {
        seen += kept_weights[i];
        const double excess = seen - total / 2.0;
        if (excess > 1e-12 * total)
            return kept[i];
        if (fabs(excess) <= 1e-12 * total && i + 1 < count)
            return kept[i] + (kept[i + 1] - kept[i]) / 2.0;
    }
    return count > 0 ? kept[count - 1] : (double)NAN;
}
