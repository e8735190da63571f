/*
 * The gate: from log ratios of paired processes to verdicts. docs/measuring.md, "Two stages".
 *
 * Pure: arrays in, verdict out. Nothing here measures, prints or knows where a number comes from,
 * so that the same functions decide live comparisons and the simulations that prove their error
 * rates.
 *
 *     for each case:   d[i] = ln t_new[i] - ln t_old[i], one per pair of processes
 *     fb_gate_screen     10 pairs or more: which cases are candidates, and how many fresh pairs
 *                        each of them needs
 *     fb_gate_decide     with the fresh pairs of the candidates: a verdict for every case
 */
#ifndef FB_GATE_H
#define FB_GATE_H

#include "stats.h"
#include "status.h"

#include <stddef.h>

enum fb_verdict {
    FB_VERDICT_PASS,
    FB_VERDICT_FASTER,
    FB_VERDICT_FAIL,
    FB_VERDICT_AMBIGUOUS,
    FB_VERDICT_INCOMPARABLE,
    FB_VERDICT_COUNT
};

/* "PASS", "FASTER", "FAIL", "AMBIGUOUS", "INCOMPARABLE". */
const char *fb_verdict_name(enum fb_verdict verdict);

struct fb_gate_rule {
    double threshold; /* the change that is tolerated, as a fraction of the time */
    double alpha; /* chance of any false FAIL among the candidates; intervals are at 1 - alpha */
    size_t screen_pairs, confirm_pairs, confirm_pairs_noisy;
    double noisy_sigma;    /* from here on a candidate needs confirm_pairs_noisy */
    double power;          /* that the minimum detectable effect is found with */
    double detectable_max; /* a case that could only show more than this does not pass */
};

/* 3 %, 0.01; 10, 30 and 60 pairs, noisy from 4 % on; 0.8; 25 %. */
void fb_gate_rule_init(struct fb_gate_rule *rule);

enum fb_suspicion { FB_SUSPECT_NOTHING, FB_SUSPECT_SLOWER, FB_SUSPECT_FASTER };

struct fb_gate_screen {
    double median; /* of the log ratios */
    double sigma;  /* robust deviation of ln t of one process: that of the ratios over sqrt(2) */
    enum fb_suspicion suspicion;
    size_t confirm_pairs; /* fresh ones wanted: 0 unless suspected */
};

/* Screens one case. Without ratios it suspects nothing. FB_ERROR_MEMORY. */
enum fb_status fb_gate_screen(const struct fb_gate_rule *rule, const double *ratios, size_t count,
                              struct fb_gate_screen *screen, struct fb_error *error) FB_MUST_CHECK;

struct fb_gate_case {
    /* in */
    const double *screen_ratios;
    size_t screen_count;
    const double *fresh_ratios; /* of a candidate: none of them in screen_ratios */
    size_t fresh_count;
    /* out */
    struct fb_gate_screen screen;
    enum fb_verdict verdict; /* never INCOMPARABLE */
    double estimate;         /* log ratio (Hodges-Lehmann); of the fresh pairs where there are */
    struct fb_interval interval; /* of it, at 1 - alpha */
    double sigma;                /* as above, of the same pairs */
    double p_adjusted;           /* Holm's, of a candidate; else NaN */
    double detectable;           /* minimum detectable slow-down, a fraction */
    const char *reason;          /* static, in words; "" for a plain PASS */
};

/* Decides all cases of one comparison together: Holm's correction is over its candidates. Screens
 * them, too. Slow-downs and speed-ups are two families. FB_ERROR_MEMORY. */
enum fb_status fb_gate_decide(const struct fb_gate_rule *rule, struct fb_gate_case *cases,
                              size_t count, struct fb_error *error) FB_MUST_CHECK;

/* The smallest slow-down that screening and confirmation together find with rule->power, when ln t
 * of a process has deviation sigma and the comparison has that many candidates. A fraction. */
double fb_gate_detectable(const struct fb_gate_rule *rule, double sigma, size_t candidates);

#endif
