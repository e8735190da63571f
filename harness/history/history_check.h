/*
 * The verdict on the newest run of a machine, case by case: right, no hungrier and no slower than
 * the best that the history has held. docs/history.md has the rule in words.
 */
#ifndef FB_HISTORY_CHECK_H
#define FB_HISTORY_CHECK_H

#include "series_book.h"
#include "trend.h"

enum { FB_HISTORY_REASON_SIZE = 320 };

struct fb_history_verdict {
    const struct fb_book_series *series;
    enum fb_verdict verdict;
    char reason[FB_HISTORY_REASON_SIZE];
    size_t metric; /* that was judged: time, or instructions where there is no time */
    struct fb_trend trend;
    const size_t *points; /* trend point -> index into series->points */
    size_t points_count;  /* 0: neither was */
};

struct fb_history_check {
    size_t run; /* the newest: index into the book's runs; SIZE_MAX: there is none */
    bool first_of_machine;
    size_t measured;                     /* its cases that have a time or a count */
    struct fb_history_verdict *verdicts; /* worst first */
    size_t count;
    size_t counts[FB_VERDICT_COUNT];
};

/* Judges the newest run of the book (of its commits; of equal ones the one that began last) against
 * the earlier ones of its machine. A case that the run before it of the same suite has and it has
 * not is INCOMPARABLE. */
enum fb_status fb_history_check(const struct fb_series_book *book, struct fb_arena *arena,
                                struct fb_history_check *check,
                                struct fb_error *error) FB_MUST_CHECK;

/* The trend of one metric of a series over its usable points; *points as in fb_history_verdict.
 * cases_count as for fb_trend_judge. */
enum fb_status fb_history_trend(const struct fb_series_book *book,
                                const struct fb_book_series *series, size_t metric,
                                size_t cases_count, struct fb_arena *arena, struct fb_trend *trend,
                                const size_t **points, size_t *points_count,
                                struct fb_error *error) FB_MUST_CHECK;

#endif
