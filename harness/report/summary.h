/* The table at the end of a run: what was found, per mechanism, and what is missing and why. */
#ifndef FB_REPORT_SUMMARY_H
#define FB_REPORT_SUMMARY_H

#include "claims.h"
#include "text_table.h"

#include <stdio.h>

struct fb_summary_job {
    const struct fb_results *results;
    const char *title; /* of the suite, or NULL */
    uint64_t seed;
    struct fb_text_mode mode;
    FILE *out;
    struct fb_arena *arena;
};

/* The results themselves: exponents and crossovers when the run sweeps seq_len over at least three
 * sizes, else times along each factor that varies. */
enum fb_status fb_summary_print_results(const struct fb_summary_job *job,
                                        struct fb_error *error) FB_MUST_CHECK;

/* The floor ratios: a line per series, a column per size. Nothing where no row has a floor. */
enum fb_status fb_summary_print_floors(const struct fb_summary_job *job,
                                       struct fb_error *error) FB_MUST_CHECK;

/* How much faster than each external variant our default variant of the same mechanism is. Nothing
 * where the two were not measured at the same size. */
enum fb_status fb_summary_print_peers(const struct fb_summary_job *job,
                                      struct fb_error *error) FB_MUST_CHECK;

/* Every row that is not ok, grouped by status and reason; failures_only leaves out skipped, oom and
 * timeout. */
enum fb_status fb_summary_print_missing(const struct fb_summary_job *job, bool failures_only,
                                        struct fb_error *error) FB_MUST_CHECK;

/* One line per judged claim; failures_only leaves out those that held or were only reported. */
void fb_summary_print_claims(const struct fb_summary_job *job,
                             const struct fb_claim_results *claims, bool failures_only);

/* Times along one factor; in summary_axis.c. */
enum fb_status fb_summary_print_axis(const struct fb_summary_job *job,
                                     const struct fb_series_set *set,
                                     struct fb_error *error) FB_MUST_CHECK;

/* The parts that the tables share. */

enum { FB_SUMMARY_VALUES_MAX = 12 };

/* A column per value; their places in `at`. */
enum fb_status fb_summary_add_values(struct fb_text_table *table, const struct fb_series_set *set,
                                     const struct fb_point *const *values, size_t values_count,
                                     size_t *at, struct fb_error *error) FB_MUST_CHECK;

/* "cpu, avx512, 2 threads, f32, forward, B 1, H 8, d 64": what all series have in common. */
void fb_summary_print_heading(const struct fb_summary_job *job, const struct fb_series_set *set);

/* Adds the columns that tell series apart; fills them for one series. */
struct fb_summary_columns {
    size_t mechanism, causal, varying[FB_TABLE_COLUMNS_MAX];
    int factors[FB_TABLE_COLUMNS_MAX];
    size_t varying_count;
};
void fb_summary_add_columns(struct fb_text_table *table, const struct fb_series_set *set,
                            struct fb_summary_columns *columns);
enum fb_status fb_summary_set_columns(struct fb_text_table *table, const struct fb_series *series,
                                      const struct fb_summary_columns *columns,
                                      struct fb_error *error) FB_MUST_CHECK;
/* "9 ok, 2 skipped", red when something failed; and the largest error over the cases. */
enum fb_status fb_summary_set_cases(struct fb_text_table *table, size_t column,
                                    const struct fb_series *series,
                                    struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_summary_set_error(struct fb_text_table *table, size_t column,
                                    const struct fb_series *series,
                                    struct fb_error *error) FB_MUST_CHECK;

#endif
