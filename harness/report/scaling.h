/*
 * Scaling as a tested claim (docs/measuring.md): t = a + b N^p fitted on log residuals, with slopes
 * per octave beside it, because a naive log-log slope reads 0.63 on linear-plus-fixed-cost times
 * and 1.1 on linear times with one cache step. One p is claimed only over the largest sizes whose
 * octaves agree with the fit; else there is no single exponent, and the place of the break is kept.
 */
#ifndef FB_SCALING_H
#define FB_SCALING_H

#include "row_bytes.h"
#include "series.h"

/* t = a + b N^p with a >= 0 and b > 0. */
struct fb_power_fit {
    double a, b, p;
    double max_residual; /* largest |ln measured - ln fitted| */
    bool plain;          /* a was not fitted: too few sizes, or the power alone is exact */
};

enum fb_scaling_verdict {
    FB_SCALING_TOO_FEW, /* under 3 sizes, or they span less than a factor 8 */
    FB_SCALING_SINGLE,  /* one exponent over the sizes from `first` on */
    FB_SCALING_NONE     /* the octaves disagree */
};

struct fb_scaling {
    enum fb_scaling_verdict verdict;
    size_t count;         /* measured sizes */
    const double *sizes;  /* count, ascending */
    const double *values; /* count: seconds or bytes */
    const double *slopes; /* count - 1: d ln t / d ln N between neighbours */
    size_t first;         /* SINGLE: the claim holds from sizes[first] to the last */
    struct fb_power_fit fit;
    struct fb_spread p;   /* 95 % of the exponent; low = high = p when EXACT */
    size_t break_index;   /* NONE: the octave sizes[break_index] .. [break_index + 1] deviates */
    double typical_slope; /* NONE: the median slope around it */
    bool fixed_cost_dominates; /* NONE: at the largest size over half of the time is still a */
};

/* Fits count >= 2 ascending positive sizes; fixed_cost false pins a to 0. Deterministic. */
void fb_scaling_fit_power(const double *sizes, const double *values, size_t count, bool fixed_cost,
                          struct fb_power_fit *fit);

/* Judges given points. noise holds each point's relative half-width (NULL: none); the result's
 * arrays are the ones given, slopes is caller's room for count - 1 values. No interval. */
void fb_scaling_judge(const double *sizes, const double *values, const double *noise, size_t count,
                      double *slopes, struct fb_scaling *scaling);

/* The exponent of a series along seq_len, with its bootstrap interval drawn from the seed. */
enum fb_status fb_scaling_of_time(const struct fb_series *series, uint64_t seed,
                                  struct fb_arena *arena, struct fb_scaling *scaling,
                                  struct fb_error *error) FB_MUST_CHECK;

/* The same for memory: inputs, outputs, workspace and saved bytes. Deterministic, hence exact. */
enum fb_status fb_scaling_of_memory(const struct fb_series *series, struct fb_arena *arena,
                                    struct fb_scaling *scaling,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Whether a token decoded against N others takes the same time for every N: of a state that does
 * not grow, the time that does not grow either is the finding. */
bool fb_scaling_is_constant(const struct fb_series *series, const struct fb_scaling *scaling);

#endif
