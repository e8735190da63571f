/* Fits of t = a + b N^p and the rule for claiming an exponent. See scaling.h. */
#include "scaling.h"

#include "attention.h"
#include "random.h"
#include "stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIZES_MAX = 64,        /* measured sizes of one series; more are thinned out by the caller */
    FIXED_COST_POINTS = 5, /* a third parameter needs this many points to mean something */
    REPLICATES = 400
};

static const double SPAN_MIN = 8.0;        /* smallest claimed range: three octaves */
static const double SLOPE_TOLERANCE = 0.1; /* an octave agrees when this near to the fit */
static const double NOISE_MAX = 0.15;      /* noise widens that tolerance by at most this */
static const double RESIDUAL_MAX = 0.06;   /* and no point is further from the fit than this */
static const double PLAIN_RMS = 1e-3;      /* a power alone that fits so well needs no fixed cost */
static const double P_MIN = -1.0, P_MAX = 5.0, P_STEP = 0.1;
static const double SHARE_MAX = 9.0; /* u below: the fixed share stays under 1 - e^-9 */
static const double GOLDEN = 0.6180339887498949;

/* The points of one fit: sizes relative to the first, logarithms of values. */
struct fit_points {
    size_t count;
    double log_sizes[SIZES_MAX], log_values[SIZES_MAX];
};

/* Sum of squared log residuals of c (f + (1 - f) x^p) with the best c, where x is the size over the
 * first size and f = 1 - e^-u the fixed share there. powers holds x^p. */
static double sum_squares(const struct fit_points *points, const double *powers, double u,
                          double *log_scale)
{
    double fixed = 1.0 - exp(-u), residuals[SIZES_MAX], mean = 0;
    for (size_t i = 0; i < points->count; i++) {
        residuals[i] = points->log_values[i] - log(fixed + (1.0 - fixed) * powers[i]);
        mean += residuals[i];
    }
    mean /= (double)points->count;
    double sum = 0;
    for (size_t i = 0; i < points->count; i++) {
        sum += (residuals[i] - mean) * (residuals[i] - mean);
    }
    *log_scale = mean;
    return sum;
}

/* The best fixed share for one p, by golden section; exactly 0 when that is as good. */
static double best_share(const struct fit_points *points, double p, bool fixed_cost, double *u,
                         double *log_scale)
{
    double powers[SIZES_MAX];
    for (size_t i = 0; i < points->count; i++) {
        powers[i] = exp(p * points->log_sizes[i]);
    }
    *u = 0;
    double at_zero = sum_squares(points, powers, 0, log_scale);
    if (!fixed_cost) {
        return at_zero;
    }
    double low = 0, high = SHARE_MAX, scale;
    double x1 = high - GOLDEN * (high - low), x2 = low + GOLDEN * (high - low);
    double f1 = sum_squares(points, powers, x1, &scale);
    double f2 = sum_squares(points, powers, x2, &scale);
    for (int i = 0; i < 24; i++) {
        if (f1 <= f2) {
            high = x2;
            x2 = x1;
            f2 = f1;
            x1 = high - GOLDEN * (high - low);
            f1 = sum_squares(points, powers, x1, &scale);
        } else {
            low = x1;
            x1 = x2;
            f1 = f2;
            x2 = low + GOLDEN * (high - low);
            f2 = sum_squares(points, powers, x2, &scale);
        }
    }
    double inside = sum_squares(points, powers, 0.5 * (low + high), &scale);
    if (inside < at_zero * (1 - 1e-9)) {
        *u = 0.5 * (low + high);
        *log_scale = scale;
        return inside;
    }
    return at_zero;
}

/* Golden section over p in [low, high]. */
static double best_exponent(const struct fit_points *points, double low, double high,
                            bool fixed_cost)
{
    double u, scale;
    double x1 = high - GOLDEN * (high - low), x2 = low + GOLDEN * (high - low);
    double f1 = best_share(points, x1, fixed_cost, &u, &scale);
    double f2 = best_share(points, x2, fixed_cost, &u, &scale);
    while (high - low > 1e-4) {
        if (f1 <= f2) {
            high = x2;
            x2 = x1;
            f2 = f1;
            x1 = high - GOLDEN * (high - low);
            f1 = best_share(points, x1, fixed_cost, &u, &scale);
        } else {
            low = x1;
            x1 = x2;
            f1 = f2;
            x2 = low + GOLDEN * (high - low);
            f2 = best_share(points, x2, fixed_cost, &u, &scale);
        }
    }
    return 0.5 * (low + high);
}

/* One state of the descent below: residuals, and the derivatives of the logarithm of the model by p
 * and u, all less their means (the best scale for each p and u). */
struct descent {
    double p, u, sum;
    double pp, pu, uu, rp, ru; /* products of derivatives and residuals */
};

static void evaluate(const struct fit_points *points, struct descent *at)
{
    double residual[SIZES_MAX], by_p[SIZES_MAX], by_u[SIZES_MAX];
    double rest = exp(-at->u), mean_r = 0, mean_p = 0, mean_u = 0, n = (double)points->count;
    for (size_t i = 0; i < points->count; i++) {
        double power = exp(at->p * points->log_sizes[i]), model = 1.0 - rest + rest * power;
        residual[i] = points->log_values[i] - log(model);
        by_p[i] = rest * power * points->log_sizes[i] / model;
        by_u[i] = rest * (1.0 - power) / model;
        mean_r += residual[i] / n;
        mean_p += by_p[i] / n;
        mean_u += by_u[i] / n;
    }
    at->sum = at->pp = at->pu = at->uu = at->rp = at->ru = 0;
    for (size_t i = 0; i < points->count; i++) {
        double r = residual[i] - mean_r, dp = by_p[i] - mean_p, du = by_u[i] - mean_u;
        at->sum += r * r;
        at->pp += dp * dp;
        at->pu += dp * du;
        at->uu += du * du;
        at->rp += r * dp;
        at->ru += r * du;
    }
}

/* Levenberg and Marquardt's step, cut at the edges; at the edge u = 0 only p moves when u wants to
 * become negative. */
static struct descent step_from(const struct descent *at, double damping, double low, double high)
{
    struct descent next = *at;
    double pp = at->pp * (1 + damping), uu = at->uu * (1 + damping);
    double determinant = pp * uu - at->pu * at->pu;
    if ((at->u <= 0 && at->ru <= 0) || !(determinant > 0)) {
        next.p += at->rp / pp;
    } else {
        next.p += (uu * at->rp - at->pu * at->ru) / determinant;
        next.u += (pp * at->ru - at->pu * at->rp) / determinant;
    }
    next.p = fmin(fmax(next.p, low), high);
    next.u = fmin(fmax(next.u, 0), SHARE_MAX);
    return next;
}

/* The best exponent in [low, high] with a fixed cost, by descent from the fit of other values:
 * takes a handful of steps where golden sections within golden sections take hundreds. False when
 * it does not settle. */
static bool descend(const struct fit_points *points, const struct descent *start, double low,
                    double high, double *p)
{
    struct descent at = *start;
    double damping = 1e-3;
    evaluate(points, &at);
    for (int i = 0; i < 100; i++) {
        struct descent next = step_from(&at, damping, low, high);
        evaluate(points, &next);
        if (!(next.sum <= at.sum)) {
            damping = fmax(damping * 8, 1e-6);
            continue;
        }
        bool settled = fabs(next.p - at.p) < 1e-6 && fabs(next.u - at.u) < 1e-6;
        at = next;
        damping *= 0.125;
        if (settled) {
            *p = at.p;
            return damping < 1;
        }
    }
    return false;
}

/* The exponent of a power alone: ordinary least squares on logarithms. */
static double plain_exponent(const struct fit_points *points, double *rms)
{
    double n = (double)points->count, mean_x = 0, mean_y = 0, xx = 0, xy = 0;
    for (size_t i = 0; i < points->count; i++) {
        mean_x += points->log_sizes[i] / n;
        mean_y += points->log_values[i] / n;
    }
    for (size_t i = 0; i < points->count; i++) {
        double dx = points->log_sizes[i] - mean_x;
        xx += dx * dx;
        xy += dx * (points->log_values[i] - mean_y);
    }
    double p = xy / xx, u, scale;
    *rms = sqrt(best_share(points, p, false, &u, &scale) / n);
    return p;
}

static void points_from(const double *sizes, const double *values, size_t count,
                        struct fit_points *points)
{
    assert(count >= 2 && count <= SIZES_MAX);
    points->count = count;
    for (size_t i = 0; i < count; i++) {
        points->log_sizes[i] = log(sizes[i] / sizes[0]);
        points->log_values[i] = log(values[i]);
    }
}

/* start: NULL searches every exponent, else only near it (bootstrap replicates). */
static double find_exponent(const struct fit_points *points, bool *fixed_cost,
                            const struct descent *start)
{
    double rms, p = plain_exponent(points, &rms), u, scale;
    if (!*fixed_cost || (!start && rms <= PLAIN_RMS)) {
        *fixed_cost = false;
        return p;
    }
    if (start) {
        double near, low = start->p - 0.5, high = start->p + 0.5;
        return descend(points, start, low, high, &near) ? near
                                                        : best_exponent(points, low, high, true);
    }
    double best = (double)INFINITY, at = p;
    for (int i = 0; P_MIN + i * P_STEP <= P_MAX; i++) {
        double sum = best_share(points, P_MIN + i * P_STEP, true, &u, &scale);
        if (sum < best) {
            best = sum;
            at = P_MIN + i * P_STEP;
        }
    }
    return best_exponent(points, at - P_STEP, at + P_STEP, true);
}

void fb_scaling_fit_power(const double *sizes, const double *values, size_t count, bool fixed_cost,
                          struct fb_power_fit *fit)
{
    struct fit_points points;
    points_from(sizes, values, count, &points);
    fit->p = find_exponent(&points, &fixed_cost, NULL);
    fit->plain = !fixed_cost;
    double u, log_scale;
    best_share(&points, fit->p, fixed_cost, &u, &log_scale);
    double fixed = 1.0 - exp(-u), scale = exp(log_scale);
    fit->a = scale * fixed;
    fit->b = scale * (1.0 - fixed) / pow(sizes[0], fit->p);
    fit->max_residual = 0;
    for (size_t i = 0; i < count; i++) {
        double residual = fabs(log(values[i] / (fit->a + fit->b * pow(sizes[i], fit->p))));
        fit->max_residual = fmax(fit->max_residual, residual);
    }
}

static double fitted_slope(const struct fb_power_fit *fit, double low, double high)
{
    double at_low = fit->a + fit->b * pow(low, fit->p);
    double at_high = fit->a + fit->b * pow(high, fit->p);
    return log(at_high / at_low) / log(high / low);
}

/* Whether every octave from `first` on lies near the fit's own slope there. */
static bool octaves_agree(const struct fb_scaling *scaling, const double *noise, size_t first,
                          const struct fb_power_fit *fit)
{
    double widest = 0;
    for (size_t i = first; i + 1 < scaling->count; i++) {
        double octave = log(scaling->sizes[i + 1] / scaling->sizes[i]);
        double blur = noise ? fmin((noise[i] + noise[i + 1]) / octave, NOISE_MAX) : 0;
        double expected = fitted_slope(fit, scaling->sizes[i], scaling->sizes[i + 1]);
        if (fabs(scaling->slopes[i] - expected) > SLOPE_TOLERANCE + blur) {
            return false;
        }
        widest = fmax(widest, blur * octave);
    }
    return fit->max_residual <= RESIDUAL_MAX + widest;
}

/* The octave that deviates most from the median slope of the smallest range that could carry a
 * claim and the octave below it. */
static void find_break(struct fb_scaling *scaling, size_t smallest_first)
{
    size_t first = smallest_first > 0 ? smallest_first - 1 : 0;
    size_t octaves = scaling->count - 1 - first;
    double sorted[SIZES_MAX];
    memcpy(sorted, scaling->slopes + first, octaves * sizeof *sorted);
    fb_stats_sort(sorted, octaves);
    scaling->typical_slope = fb_stats_median(sorted, octaves);
    double worst = -1;
    for (size_t i = first; i + 1 < scaling->count; i++) {
        double deviation = fabs(scaling->slopes[i] - scaling->typical_slope);
        if (deviation > worst) {
            worst = deviation;
            scaling->break_index = i;
        }
    }
}

void fb_scaling_judge(const double *sizes, const double *values, const double *noise, size_t count,
                      double *slopes, struct fb_scaling *scaling)
{
    *scaling = (struct fb_scaling){.verdict = FB_SCALING_TOO_FEW,
                                   .count = count,
                                   .sizes = sizes,
                                   .values = values,
                                   .slopes = slopes};
    scaling->p = (struct fb_spread){(double)NAN, (double)NAN, FB_SPREAD_NONE};
    for (size_t i = 0; i + 1 < count; i++) {
        slopes[i] = log(values[i + 1] / values[i]) / log(sizes[i + 1] / sizes[i]);
    }
    size_t smallest_first = SIZES_MAX;
    for (size_t first = 0; first + 3 <= count; first++) {
        if (sizes[count - 1] / sizes[first] < SPAN_MIN * (1 - 1e-9)) {
            break;
        }
        smallest_first = first;
        struct fb_power_fit fit;
        fb_scaling_fit_power(sizes + first, values + first, count - first,
                             count - first >= FIXED_COST_POINTS, &fit);
        if (octaves_agree(scaling, noise, first, &fit)) {
            /* A power that is still hidden under the fixed cost would be extrapolated. */
            scaling->fixed_cost_dominates = fit.a > 0.5 * values[count - 1];
            scaling->verdict = scaling->fixed_cost_dominates ? FB_SCALING_NONE : FB_SCALING_SINGLE;
            scaling->first = first;
            scaling->fit = fit;
            return;
        }
    }
    if (smallest_first < SIZES_MAX) {
        scaling->verdict = FB_SCALING_NONE;
        find_break(scaling, smallest_first);
    }
}

/* The measured points of a series, at most SIZES_MAX of them: the largest. */
struct measured {
    size_t count;
    const struct fb_point *points[SIZES_MAX];
};

static void gather(const struct fb_series *series, struct measured *measured)
{
    size_t skip = series->ok_count > SIZES_MAX ? series->ok_count - SIZES_MAX : 0;
    measured->count = 0;
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_point *point = &series->points[i];
        if (!point->ok ||
            (measured->count > 0 && measured->points[measured->count - 1]->x >= point->x)) {
            continue;
        }
        if (skip > 0) {
            skip--;
            continue;
        }
        measured->points[measured->count++] = point;
    }
}

static double relative_half_width(const struct fb_row *row)
{
    double half = 0.5 * (row->time_ci_high_s - row->time_ci_low_s) / row->time_median_s;
    return isfinite(half) && half > 0 ? half : 0;
}

static enum fb_status bootstrap_exponent(const struct measured *measured, uint64_t seed,
                                         struct fb_arena *arena, struct fb_scaling *scaling,
                                         struct fb_error *error)
{
    size_t longest = 1;
    for (size_t i = 0; i < measured->count; i++) {
        longest =
            measured->points[i]->times_count > longest ? measured->points[i]->times_count : longest;
    }
    uint32_t *counts = fb_arena_alloc(arena, longest, sizeof *counts, error);
    double *replicates = fb_arena_alloc(arena, REPLICATES, sizeof *replicates, error);
    if (!counts || !replicates) {
        return FB_ERROR_MEMORY;
    }
    struct fb_random random;
    fb_random_init(&random, seed, (uint64_t)scaling->count);
    bool over_processes = scaling->p.kind == FB_SPREAD_PROCESSES;
    size_t first = scaling->first, count = scaling->count - first;
    struct descent start = {.p = scaling->fit.p};
    struct fit_points fitted;
    double scale;
    points_from(scaling->sizes + first, scaling->values + first, count, &fitted);
    (void)best_share(&fitted, start.p, true, &start.u, &scale);
    for (size_t r = 0; r < REPLICATES; r++) {
        double values[SIZES_MAX];
        for (size_t i = 0; i < count; i++) {
            values[i] =
                fb_point_resample(measured->points[first + i], over_processes, &random, counts);
        }
        struct fit_points points;
        points_from(scaling->sizes + first, values, count, &points);
        bool fixed_cost = count >= FIXED_COST_POINTS && !scaling->fit.plain;
        replicates[r] = find_exponent(&points, &fixed_cost, &start);
    }
    fb_spread_from_replicates(replicates, REPLICATES, &scaling->p);
    return FB_OK;
}

enum fb_status fb_scaling_of_time(const struct fb_series *series, uint64_t seed,
                                  struct fb_arena *arena, struct fb_scaling *scaling,
                                  struct fb_error *error)
{
    struct measured measured;
    gather(series, &measured);
    double *room = fb_arena_alloc(arena, 4 * measured.count + 1, sizeof *room, error);
    if (!room) {
        return FB_ERROR_MEMORY;
    }
    double *sizes = room, *values = room + measured.count, *noise = values + measured.count;
    for (size_t i = 0; i < measured.count; i++) {
        sizes[i] = measured.points[i]->x;
        values[i] = measured.points[i]->row->time_median_s;
        noise[i] = relative_half_width(measured.points[i]->row);
    }
    fb_scaling_judge(sizes, values, noise, measured.count, noise + measured.count, scaling);
    if (scaling->verdict != FB_SCALING_SINGLE) {
        return FB_OK;
    }
    scaling->p.kind = fb_series_spread_kind(series);
    if (scaling->p.kind == FB_SPREAD_NONE) {
        return FB_OK;
    }
    return bootstrap_exponent(&measured, seed, arena, scaling, error);
}

enum fb_status fb_scaling_of_memory(const struct fb_series *series, struct fb_arena *arena,
                                    struct fb_scaling *scaling, struct fb_error *error)
{
    struct measured measured;
    gather(series, &measured);
    double *room = fb_arena_alloc(arena, 3 * measured.count + 1, sizeof *room, error);
    if (!room) {
        return FB_ERROR_MEMORY;
    }
    size_t count = 0;
    double *sizes = room, *values = room + measured.count;
    for (size_t i = 0; i < measured.count; i++) {
        const struct fb_row *row = measured.points[i]->row;
        double bytes = fb_row_io_bytes(row) + fb_row_memory_bytes(row);
        if (isnan(bytes)) {
            continue;
        }
        sizes[count] = measured.points[i]->x;
        values[count++] = bytes;
    }
    fb_scaling_judge(sizes, values, NULL, count, room + 2 * measured.count, scaling);
    if (scaling->verdict == FB_SCALING_SINGLE) {
        scaling->p = (struct fb_spread){scaling->fit.p, scaling->fit.p, FB_SPREAD_EXACT};
    }
    return FB_OK;
}

bool fb_scaling_is_constant(const struct fb_series *series, const struct fb_scaling *scaling)
{
    const double tolerated = 1.5;
    return fb_row_is_decode(series->key) && scaling->count > 1 &&
           scaling->values[scaling->count - 1] <= tolerated * scaling->values[0];
}
