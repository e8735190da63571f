/* A comparison as data: see comparison.h. */
#include "comparison.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fb_compare_unit_name(enum fb_compare_unit unit)
{
    static const char *const names[FB_UNIT_COUNT] = {
        [FB_UNIT_NONE] = "none",           [FB_UNIT_PAIRS] = "pairs",
        [FB_UNIT_PROCESSES] = "processes", [FB_UNIT_SAMPLES] = "samples",
        [FB_UNIT_INTERVALS] = "intervals", [FB_UNIT_COUNTS] = "counts",
    };
    return names[unit];
}

enum fb_status fb_comparison_init(struct fb_comparison *comparison, size_t cases_max,
                                  struct fb_arena *arena, struct fb_error *error)
{
    memset(comparison, 0, sizeof *comparison);
    fb_gate_rule_init(&comparison->rule);
    comparison->sample_floor = 0.05;
    comparison->count_growth = 0.01;
    comparison->cases = fb_arena_alloc(arena, cases_max + 1, sizeof *comparison->cases, error);
    return comparison->cases == NULL ? FB_ERROR_MEMORY : FB_OK;
}

struct fb_compared *fb_comparison_add(struct fb_comparison *comparison, const struct fb_row *base,
                                      const struct fb_row *fresh)
{
    const double none = (double)NAN;
    struct fb_compared *one = &comparison->cases[comparison->cases_count++];

    *one = (struct fb_compared){.base = base,
                                .fresh = fresh,
                                .verdict = FB_VERDICT_INCOMPARABLE,
                                .change = none,
                                .change_low = none,
                                .change_high = none,
                                .detectable = none,
                                .threshold = comparison->rule.threshold,
                                .p_adjusted = none,
                                .sigma = none};
    return one;
}

/* ---- order ------------------------------------------------------------------------------------
 */

static int severity(const struct fb_compared *one)
{
    static const int of_verdict[FB_VERDICT_COUNT] = {
        [FB_VERDICT_FAIL] = 0,   [FB_VERDICT_AMBIGUOUS] = 2, [FB_VERDICT_INCOMPARABLE] = 3,
        [FB_VERDICT_FASTER] = 4, [FB_VERDICT_PASS] = 4,
    };
    return one->broken ? 1 : of_verdict[one->verdict];
}

static int worst_first(const void *a, const void *b)
{
    const struct fb_compared *x = a;
    const struct fb_compared *y = b;
    const double x_change = isnan(x->change) ? -2.0 : x->change;
    const double y_change = isnan(y->change) ? -2.0 : y->change;

    if (severity(x) != severity(y))
        return severity(x) - severity(y);
    if (x_change > y_change || x_change < y_change)
        return x_change > y_change ? -1 : 1;
    return strcmp(fb_compared_id(x), fb_compared_id(y));
}

void fb_comparison_finish(struct fb_comparison *comparison)
{
    memset(comparison->counts, 0, sizeof comparison->counts);
    comparison->broken_count = 0;
    for (size_t i = 0; i < comparison->cases_count; i++) {
        comparison->counts[comparison->cases[i].verdict]++;
        comparison->broken_count += comparison->cases[i].broken;
    }
    fb_comparison_name_cases(comparison);
    if (comparison->cases_count > 1)
        qsort(comparison->cases, comparison->cases_count, sizeof *comparison->cases, worst_first);
}

enum fb_comparison_outcome fb_comparison_outcome(const struct fb_comparison *comparison)
{
    if (comparison->counts[FB_VERDICT_FAIL] > 0 || comparison->broken_count > 0)
        return FB_COMPARISON_FAILED;
    if (comparison->counts[FB_VERDICT_INCOMPARABLE] == comparison->cases_count)
        return FB_COMPARISON_NOTHING;
    return comparison->counts[FB_VERDICT_AMBIGUOUS] > 0 ? FB_COMPARISON_AMBIGUOUS
                                                        : FB_COMPARISON_FINE;
}

/* ---- words ------------------------------------------------------------------------------------
 */

const char *fb_compared_id(const struct fb_compared *one)
{
    const struct fb_row *row = one->fresh != NULL ? one->fresh : one->base;

    return row == NULL ? "" : row->case_id;
}

void fb_compared_explain(struct fb_compared *one, const char *format, ...)
{
    size_t used = strlen(one->reason);
    va_list arguments;

    if (used > 0) {
        fb_comparison_append(one->reason, sizeof one->reason, "; ");
        used = strlen(one->reason);
    }
    va_start(arguments, format);
    (void)vsnprintf(one->reason + used, sizeof one->reason - used, format, arguments);
    va_end(arguments);
}
