/*
 * A comparison as data: what was compared with what, and a verdict for every case. Made from stored
 * runs (compare_stored.h) or from live ones (ab_compare.h), shown by comparison_print.h.
 */
#ifndef FB_COMPARISON_H
#define FB_COMPARISON_H

#include "arena.h"
#include "gate.h"
#include "row.h"

#include <stdbool.h>

/* What stands for one independent observation. */
enum fb_compare_unit {
    FB_UNIT_NONE,      /* there are no times to compare */
    FB_UNIT_PAIRS,     /* interleaved pairs of fresh processes */
    FB_UNIT_PROCESSES, /* the medians of processes */
    FB_UNIT_SAMPLES,   /* samples of too few processes */
    FB_UNIT_INTERVALS, /* the rows' own intervals, where there are no samples */
    FB_UNIT_COUNTS,    /* counted instructions, which do not scatter */
    FB_UNIT_COUNT
};
const char *fb_compare_unit_name(enum fb_compare_unit unit);

enum { FB_COMPARE_REASON_SIZE = 512, FB_COMPARE_NAME_SIZE = 256 };

struct fb_compared {
    const struct fb_row *base, *fresh; /* NULL: the case is missing on this side */
    char name[FB_COMPARE_NAME_SIZE];
    enum fb_verdict verdict;
    bool broken; /* measured in base, but crashed, timed out, ... in new: counts as a failure */
    bool slower, hungrier, wrong; /* which gates failed */
    char reason[FB_COMPARE_REASON_SIZE];
    double change, change_low, change_high; /* of the time or the count, fractions; NaN: unknown */
    double detectable;                      /* minimum detectable slow-down; NaN: unknown */
    double threshold;                       /* the change that was tolerated */
    double p_adjusted;                      /* NaN: nothing was tested */
    double sigma;                           /* of ln t of one process; NaN: unknown */
    enum fb_compare_unit unit;
    size_t base_count, fresh_count; /* units on each side; of pairs both are their number */
    /* The log ratios of a live comparison. */
    const double *screen_ratios, *fresh_ratios;
    size_t screen_ratios_count, fresh_ratios_count;
};

/* One side. NULL or "": not known. */
struct fb_compare_side {
    const char *label; /* a path, a revision */
    const char *version, *git_sha, *machine_name, *identity;
};

/* A control leg of a live comparison: processes that should not differ. */
struct fb_compare_control {
    size_t cases, pairs; /* 0 cases: was not run */
    double largest;      /* of the absolute medians of all cases, a fraction */
    const struct fb_row *largest_case;
    double spread;     /* the median case's sigma */
    size_t candidates; /* cases that screening would have suspected, slower or faster */
};

struct fb_comparison {
    bool live;
    const char *suite; /* NULL: unknown */
    struct fb_compare_side base, fresh;
    struct fb_gate_rule rule;
    double sample_floor;       /* stored runs: threshold where processes are too few */
    double count_growth;       /* tolerated growth of counted instructions */
    struct fb_compared *cases; /* worst first once finished */
    size_t cases_count;
    char common[FB_COMPARE_NAME_SIZE]; /* the factors that all cases share */
    size_t counts[FB_VERDICT_COUNT];
    size_t broken_count;
    struct fb_compare_control same, layout; /* old against itself; against its shuffled relink */
    double seconds;                         /* that a live comparison took */
};

/* Room for that many cases, all INCOMPARABLE with nothing known. */
enum fb_status fb_comparison_init(struct fb_comparison *comparison, size_t cases_max,
                                  struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* The next case; within cases_max. */
struct fb_compared *fb_comparison_add(struct fb_comparison *comparison, const struct fb_row *base,
                                      const struct fb_row *fresh);

/* Counts the verdicts, names the cases and sorts them, worst first. */
void fb_comparison_finish(struct fb_comparison *comparison);

enum fb_comparison_outcome {
    FB_COMPARISON_FINE,
    FB_COMPARISON_AMBIGUOUS, /* at least one case */
    FB_COMPARISON_FAILED,    /* at least one FAIL or broken case */
    FB_COMPARISON_NOTHING    /* no case could be compared */
};
enum fb_comparison_outcome fb_comparison_outcome(const struct fb_comparison *comparison);

/* Names every case by its length and the factors that differ between cases ("flow/fused causal
 * N4096") and fills `common` with the others; leaves the cases in another order. In
 * comparison_names.c. */
void fb_comparison_name_cases(struct fb_comparison *comparison);
/* The id of its case; "" without a row. */
const char *fb_compared_id(const struct fb_compared *one);

/* Adds to the reason, after "; " where something stands already. */
void fb_compared_explain(struct fb_compared *one, const char *format, ...) FB_PRINTF(2, 3);

/* ---- gates that need no statistics (compare_rows.c) -------------------------------------------
 */

/* Whether the two rows can be compared at all: both measured, of the same problem, with times that
 * are times. Otherwise fills reason, verdict and `broken`: INCOMPARABLE, or FAIL when the new
 * answer is wrong. */
bool fb_compare_rows_match(struct fb_compared *one);

/* Whether both sides counted instructions, in which the machine has no part. */
bool fb_compare_rows_counted(const struct fb_compared *one);

/* Two comparable rows whose instructions were counted instead of their times: the verdict on the
 * count. False when they were timed. */
bool fb_compare_rows_count(const struct fb_comparison *comparison, struct fb_compared *one);

/* Error and memory of two comparable rows. What fails turns the verdict into FAIL and says why;
 * called after the verdict on the time stands. */
void fb_compare_rows_gate(struct fb_compared *one);

/* Writes behind what text holds; what does not fit is cut. */
void fb_comparison_append(char *text, size_t text_size, const char *format, ...) FB_PRINTF(3, 4);

#endif
