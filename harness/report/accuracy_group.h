/*
 * Training runs that differ in their seed alone make a group: its mean, its spread, its verdict
 * against the paper, its escape from the plateau. Groups that differ in the mechanism alone make a
 * block, within which Flow-Attention is compared with the others.
 */
#ifndef FB_ACCURACY_GROUP_H
#define FB_ACCURACY_GROUP_H

#include "accuracy_file.h"
#include "attention.h"
#include "stats_seeds.h"

#include <stdbool.h>

/* Seeds that a verdict takes; below, a mean is descriptive. */
enum { FB_ACCURACY_SEEDS_MIN = 5, FB_ACCURACY_SEEDS_PLATEAU = 10, FB_ACCURACY_LABEL_SIZE = 160 };

enum fb_accuracy_verdict {
    FB_VERDICT_NONE, /* the paper has no number for this */
    FB_VERDICT_REPRODUCED,
    FB_VERDICT_NOT_REPRODUCED,
    FB_VERDICT_INCONCLUSIVE,
    FB_VERDICT_DIFFERENT,
    FB_VERDICT_COPIED,
    FB_VERDICT_NOT_RUN,
    FB_VERDICT_COUNT
};

struct fb_accuracy_group {
    const struct fb_accuracy_row *any;   /* a row of it: whose factors all share */
    const struct fb_accuracy_row **rows; /* those that are ok, by seed */
    size_t rows_count, rows_all;
    const struct fb_accuracy_row *failed; /* one that is not ok; NULL: none */
    bool descriptive;                     /* too few seeds for a verdict */
    /* in percent, or the perplexity; NaN without rows */
    double mean, last, best, deviation;
    struct fb_interval interval, prediction;
    double steps_per_s; /* median, and its interval: every seed is a process of its own */
    struct fb_interval speed;
    /* escape from the plateau, where one is known */
    bool has_plateau;
    size_t escaped;
    struct fb_interval escape; /* Clopper-Pearson, of the probability */
    double escape_median_step; /* Kaplan-Meier; infinite: fewer than half escaped */
    double given_escape;       /* mean of those that escaped; NaN: none */
    enum fb_accuracy_verdict verdict;
    char label[FB_ACCURACY_LABEL_SIZE]; /* of the mechanism: "performer/fused kernel=relu" */
    size_t block;
};

/* One comparison named in advance: Flow-Attention with another mechanism. */
struct fb_accuracy_pair {
    size_t flow, other;            /* groups */
    size_t seeds;                  /* that both have */
    struct fb_stats_paired paired; /* in percent points */
    double p_adjusted;             /* Holm, within the block */
    double log_rank_p;             /* of the times to escape; NaN without a plateau */
};

struct fb_accuracy_groups {
    struct fb_accuracy_group *items;
    size_t count, blocks;
    struct fb_accuracy_pair *pairs;
    size_t pairs_count;
};

const char *fb_accuracy_verdict_name(enum fb_accuracy_verdict verdict);

/* Appends " name=value" for every parameter in the JSON that is not at its default. */
void fb_accuracy_put_params(char *text, size_t text_size, const struct fb_param *params, int count,
                            const char *json);

/* Whether rows differ in mechanism, seed and parameters of the task at most. */
bool fb_accuracy_same_setting(const struct fb_accuracy_row *a, const struct fb_accuracy_row *b);

/* Everything lives in the arena. */
enum fb_status fb_accuracy_group(const struct fb_accuracy *accuracy, uint64_t seed,
                                 struct fb_arena *arena, struct fb_accuracy_groups *groups,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
