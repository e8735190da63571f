/*
 * The claims of a suite (`expect:`) against what was measured. A claim is judged only when every
 * case behind it has at least 5 processes, and fails only when the whole interval lies outside it.
 */
#ifndef FB_CLAIMS_H
#define FB_CLAIMS_H

#include "series.h"
#include "suite.h"

enum fb_claim_verdict {
    FB_CLAIM_HELD,         /* the whole interval lies inside */
    FB_CLAIM_FAILED,       /* the whole interval lies outside */
    FB_CLAIM_AMBIGUOUS,    /* it straddles an edge, or there is no value to judge */
    FB_CLAIM_REPORTED_ONLY /* too few processes, or no samples stored */
};

struct fb_claim_result {
    const struct fb_claim *claim;
    const struct fb_series *series; /* NULL: the claim matched nothing that was measured */
    enum fb_claim_verdict verdict;
    double value; /* NaN when there is none */
    struct fb_spread interval;
    const char *why; /* a remark for the reader, or "" */
};

struct fb_claim_results {
    struct fb_claim_result *items;
    size_t count;
};

/* Where an interval lies relative to a claim. NaN anywhere: ambiguous. */
enum fb_claim_verdict fb_claim_compare(const struct fb_claim *claim, double low, double high);

/* Judges every claim against every series along seq_len that it matches. */
enum fb_status fb_claims_judge(const struct fb_claim *claims, size_t claims_count,
                               const struct fb_series_set *set, uint64_t seed,
                               struct fb_arena *arena, struct fb_claim_results *results,
                               struct fb_error *error) FB_MUST_CHECK;

const char *fb_claim_verdict_name(enum fb_claim_verdict verdict);

#endif
