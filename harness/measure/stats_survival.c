/* Kaplan-Meier and log-rank: see stats_survival.h. */
#include "stats_survival.h"

#include "stats_infer.h"

#include <math.h>
#include <stdlib.h>

static int by_time(const void *left, const void *right)
{
    const struct fb_survival *a = left, *b = right;
    if (a->time < b->time || a->time > b->time)
        return a->time < b->time ? -1 : 1;
    return (int)b->event - (int)a->event;
}

void fb_survival_sort(struct fb_survival *observations, size_t count)
{
    qsort(observations, count, sizeof *observations, by_time);
}

/* Observations at exactly this time from `first` on, and how many of them are events. */
static size_t tied(const struct fb_survival *sorted, size_t count, size_t first, size_t *events)
{
    size_t at = first;
    *events = 0;
    while (at < count && !(sorted[at].time > sorted[first].time))
        *events += sorted[at++].event;
    return at - first;
}

double fb_survival_at(const struct fb_survival *sorted, size_t count, double time)
{
    double survival = 1.0;
    size_t events;
    for (size_t i = 0, ties; i < count && sorted[i].time <= time; i += ties) {
        ties = tied(sorted, count, i, &events);
        survival *= 1.0 - (double)events / (double)(count - i);
    }
    return survival;
}

double fb_survival_median(const struct fb_survival *sorted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fb_survival_at(sorted, count, sorted[i].time) <= 0.5)
            return sorted[i].time;
    return (double)INFINITY;
}

/* How many are still watched at a time, and how many have their event at it. */
static void at_risk(const struct fb_survival *sorted, size_t count, double time, double *risk,
                    double *events)
{
    *risk = *events = 0.0;
    for (size_t i = 0; i < count; i++) {
        *risk += sorted[i].time >= time;
        *events += sorted[i].event && !(sorted[i].time < time) && !(sorted[i].time > time);
    }
}

/* Adds one event time to observed - expected of the first group and to its variance. */
static void add_time(const struct fb_survival *a, size_t a_count, const struct fb_survival *b,
                     size_t b_count, double time, double *difference, double *variance)
{
    double risk_a, risk_b, events_a, events_b;
    at_risk(a, a_count, time, &risk_a, &events_a);
    at_risk(b, b_count, time, &risk_b, &events_b);
    const double risk = risk_a + risk_b, events = events_a + events_b;
    *difference += events_a - events * risk_a / risk;
    if (risk > 1.0)
        *variance += events * (risk_a / risk) * (risk_b / risk) * (risk - events) / (risk - 1.0);
}

/* Whether a later entry of the list has the same event time, so that each is counted once. */
static bool comes_again(const struct fb_survival *sorted, size_t count, size_t index)
{
    return index + 1 < count && sorted[index + 1].event &&
           !(sorted[index + 1].time > sorted[index].time);
}

static bool has_event_at(const struct fb_survival *sorted, size_t count, double time)
{
    double risk, events;
    at_risk(sorted, count, time, &risk, &events);
    return events > 0.0;
}

void fb_survival_log_rank(const struct fb_survival *a, size_t a_count, const struct fb_survival *b,
                          size_t b_count, struct fb_log_rank *result)
{
    double difference = 0.0, variance = 0.0;
    for (size_t i = 0; i < a_count; i++)
        if (a[i].event && !comes_again(a, a_count, i))
            add_time(a, a_count, b, b_count, a[i].time, &difference, &variance);
    for (size_t i = 0; i < b_count; i++)
        if (b[i].event && !comes_again(b, b_count, i) && !has_event_at(a, a_count, b[i].time))
            add_time(a, a_count, b, b_count, b[i].time, &difference, &variance);
    result->chi_square = variance > 0.0 ? difference * difference / variance : (double)NAN;
    result->p = variance > 0.0 ? 2.0 * fb_stats_normal_cdf(-sqrt(result->chi_square)) : 1.0;
}
