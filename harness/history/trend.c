/* The verdict on one series: see trend.h. */
#include "trend.h"

#include "stats.h"
#include "student.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const double half_pi = 1.57079632679489661923;

static double percent(double step)
{
    return 100.0 * expm1(step);
}

/* ---- how far single runs scatter ------------------------------------------------------------ */

struct scatter {
    double deviation; /* standard, as of a normal distribution with this mean |residual| */
    long freedom;
    double highest; /* the largest residual of an earlier run, blips included */
};

/* The newest point is left out: it is what is judged. A blip is measured from the level that the
 * series came from and went back to, and counts for `highest` only. */
static struct scatter measure_scatter(const struct fb_trend_points *points,
                                      const struct fb_trend *trend)
{
    const struct fb_segmentation *s = &trend->segmentation;
    struct scatter scatter = {.deviation = (double)NAN, .highest = 0.0};
    double sum = 0.0;
    long counted = 0, levels = 0;

    for (size_t k = 0; k < s->count; k++) {
        const struct fb_segment *segment = &s->segments[k];
        const bool blip = trend->changes.blips[k];
        const double level = blip ? s->segments[k - 1].level : segment->level;
        long here = 0;
        for (size_t i = segment->first; i < segment->first + segment->count; i++) {
            if (i + 1 == points->count)
                break;
            scatter.highest = fmax(scatter.highest, points->values[i] - level);
            if (blip)
                continue;
            sum += fabs(points->values[i] - level);
            here++;
        }
        counted += here;
        levels += here > 0;
    }
    scatter.freedom = counted - levels;
    /* Residuals from a median of the same points are small by what the level has adapted. */
    if (scatter.freedom >= 1)
        scatter.deviation = sqrt(half_pi) * sum / sqrt((double)counted * (double)scatter.freedom);
    return scatter;
}

/* ---- what is compared with what ------------------------------------------------------------- */

/* The best level that two runs or more have held; one lucky run is no level. */
static void find_best(struct fb_trend *trend, size_t segments_count)
{
    trend->best_segment = SIZE_MAX;
    for (size_t k = 0; k < segments_count; k++) {
        const struct fb_segment *segment = &trend->segmentation.segments[k];
        if (segment->count < 2 || trend->changes.blips[k])
            continue;
        if (trend->best_segment == SIZE_MAX || segment->level < trend->best) {
            trend->best_segment = k;
            trend->best = segment->level;
        }
    }
}

static void set_now(struct fb_trend *trend, double now, bool is_segment, double threshold)
{
    trend->now = now;
    trend->now_is_segment = is_segment;
    trend->step = now - trend->best;
    trend->threshold = threshold;
}

/* Two commits or more have held the newest level: its median against the best one. */
static void judge_level(const struct fb_trend_points *points, struct fb_trend *trend)
{
    const struct fb_segmentation *s = &trend->segmentation;
    const struct fb_segment *last = &s->segments[s->count - 1];
    const struct fb_segment *best = &s->segments[trend->best_segment];

    if (last->count < 2 || fb_segment_commits(last, points->commits) < 2)
        return;
    set_now(trend, last->level, true, fb_change_threshold(last, best, points->least_step));
    if (trend->step > trend->threshold) {
        trend->verdict = FB_VERDICT_FAIL;
        (void)snprintf(trend->reason, sizeof trend->reason,
                       "%+.1f %% over the best level; the last %zu runs hold it",
                       percent(trend->step), last->count);
    }
}

/* The newest run alone: it may be the first of a new level, or one of those that come and go. */
static void judge_run(const struct fb_trend_points *points, size_t cases_count,
                      const struct scatter *scatter, struct fb_trend *trend)
{
    const size_t newest = points->count - 1;
    const struct fb_segment *best = &trend->segmentation.segments[trend->best_segment];
    const double value = points->values[newest];
    const double half_width =
        isfinite(points->widths[newest]) ? fmax(points->widths[newest], 0.0) / 2.0 : 0.0;
    const double least = fmax(points->least_step, half_width);
    const double share = FB_TREND_ALPHA / (double)(cases_count > 0 ? cases_count : 1);
    const double quantile = fb_student_quantile(share, scatter->freedom);
    /* Both the run and the level, a median of so many runs, are uncertain. */
    const double noise = quantile * scatter->deviation * sqrt(1.0 + half_pi / (double)best->count);

    if (value - trend->best <= least)
        return;
    set_now(trend, value, false, fmax(least, noise));
    if (trend->step <= noise) {
        trend->verdict = FB_VERDICT_AMBIGUOUS;
        (void)snprintf(
            trend->reason, sizeof trend->reason,
            "one run at %+.1f %%; runs scatter by %.1f %%, so one tells from %+.1f %% on",
            percent(trend->step), 100.0 * scatter->deviation, percent(noise));
    } else if (trend->step <= scatter->highest) {
        trend->verdict = FB_VERDICT_AMBIGUOUS;
        (void)snprintf(trend->reason, sizeof trend->reason,
                       "one run at %+.1f %%; a run at %+.1f %% came and went before",
                       percent(trend->step), percent(scatter->highest));
    } else {
        trend->verdict = FB_VERDICT_FAIL;
        (void)snprintf(trend->reason, sizeof trend->reason,
                       "%+.1f %% over the best level, in the newest run", percent(trend->step));
    }
}

/* Faster than every earlier level: only of levels, not of single runs. */
static void judge_faster(const struct fb_trend_points *points, struct fb_trend *trend)
{
    const struct fb_segmentation *s = &trend->segmentation;
    const struct fb_segment *last = &s->segments[s->count - 1];
    struct fb_trend earlier = *trend;

    find_best(&earlier, s->count - 1);
    if (trend->verdict != FB_VERDICT_PASS || earlier.best_segment == SIZE_MAX || last->count < 2 ||
        fb_segment_commits(last, points->commits) < 2)
        return;
    const double step = last->level - earlier.best;
    if (step < -fb_change_threshold(last, &s->segments[earlier.best_segment], points->least_step)) {
        trend->verdict = FB_VERDICT_FASTER;
        (void)snprintf(trend->reason, sizeof trend->reason, "%+.1f %% from the best level before",
                       percent(step));
    }
}

static void give_up(struct fb_trend *trend, enum fb_verdict verdict, const char *reason)
{
    trend->verdict = verdict;
    (void)snprintf(trend->reason, sizeof trend->reason, "%s", reason);
}

enum fb_status fb_trend_judge(const struct fb_trend_points *points, size_t cases_count,
                              struct fb_arena *arena, struct fb_trend *trend,
                              struct fb_error *error)
{
    memset(trend, 0, sizeof *trend);
    trend->scatter = trend->best = trend->now = trend->step = trend->threshold = (double)NAN;
    trend->best_segment = SIZE_MAX;
    enum fb_status status = fb_segments_find(points->values, points->widths, points->count, arena,
                                             &trend->segmentation, error);
    if (status == FB_OK)
        status = fb_changes_find(&trend->segmentation, points->commits, points->least_step, arena,
                                 &trend->changes, error);
    if (status != FB_OK)
        return status;
    if (points->count > 0)
        trend->now = points->values[points->count - 1];
    if (points->count < 2) {
        give_up(trend, FB_VERDICT_INCOMPARABLE, "no earlier run of this case on this machine");
        return FB_OK;
    }
    if (points->count < FB_SEGMENTS_POINTS_MIN) {
        (void)snprintf(trend->reason, sizeof trend->reason, "%zu runs, %d are needed",
                       points->count, FB_SEGMENTS_POINTS_MIN);
        trend->verdict = FB_VERDICT_AMBIGUOUS;
        return FB_OK;
    }
    const struct scatter scatter = measure_scatter(points, trend);
    trend->scatter = scatter.deviation;
    find_best(trend, trend->segmentation.count);
    if (trend->best_segment == SIZE_MAX || scatter.freedom < 1) {
        give_up(trend, FB_VERDICT_AMBIGUOUS, "no level that two runs have held");
        return FB_OK;
    }
    set_now(trend, points->values[points->count - 1], false, points->least_step);
    judge_level(points, trend);
    if (trend->verdict == FB_VERDICT_PASS)
        judge_run(points, cases_count, &scatter, trend);
    judge_faster(points, trend);
    return FB_OK;
}
