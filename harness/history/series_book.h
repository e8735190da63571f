/*
 * The history as series: for every machine and case its points in the order of their commits.
 * Machines are never mixed.
 */
#ifndef FB_SERIES_BOOK_H
#define FB_SERIES_BOOK_H

#include "row_filter.h"
#include "store.h"

/* What of a row is followed over time. */
struct fb_history_metric {
    const char *name;                         /* "time", ... */
    const char *value, *low, *high;           /* columns; low and high NULL: no interval */
    double least_step;                        /* in logarithms: less is no change */
    char *(*print)(double value, char *text); /* fb_quantity_... */
};
enum { FB_HISTORY_METRICS_MAX = 4 };
/* Time is the first; a row that was counted instead has only instructions. */
enum { FB_METRIC_TIME, FB_METRIC_INSTRUCTIONS };
size_t fb_history_metric_count(void);
const struct fb_history_metric *fb_history_metric_at(size_t index);
/* Index, or SIZE_MAX. */
size_t fb_history_metric_find(const char *name);

/* Sizes that a case declares rather than measures: workspace, saved, state. */
enum { FB_HISTORY_SIZES = 3 };
extern const char *const fb_history_size_columns[FB_HISTORY_SIZES];

struct fb_book_run {
    int64_t id;
    const char *run, *suite, *started_utc, *git_sha, *git_time_utc, *compiler;
    int64_t git_dirty;
    size_t machine; /* index */
    size_t commit;  /* equal for runs of one commit; runs without one have each their own */
};

struct fb_book_machine {
    const char *identity, *name;
};

struct fb_book_point {
    size_t run; /* index */
    double value[FB_HISTORY_METRICS_MAX], low[FB_HISTORY_METRICS_MAX],
        high[FB_HISTORY_METRICS_MAX]; /* NaN: absent */
    int64_t sizes[FB_HISTORY_SIZES];
    double err_rel, err_budget;
    const char *status;  /* of fb_row_statuses */
    const char *counted; /* counter and toolchain: counts of others are another quantity */
};

struct fb_book_series {
    size_t machine;
    struct fb_row row; /* of the newest point: the factors, and its reason */
    struct fb_book_point *points;
    size_t count, capacity;
};

struct fb_series_book {
    struct fb_arena *arena;
    struct fb_book_machine *machines;
    size_t machines_count, machines_capacity;
    struct fb_book_run *runs; /* in the order of their commits */
    size_t runs_count, runs_capacity;
    struct fb_book_series **series; /* in the order in which they first appear */
    size_t series_count, series_capacity;
    size_t *slots; /* hash table of series, index + 1 */
    size_t slots_count;
};

struct fb_book_request {
    const struct fb_row_filter *filter; /* NULL: every row */
    const char *case_prefix;            /* of case_id; NULL: every case */
    const char *machine;                /* identity or name; NULL: all */
    const char *since;                  /* prefix of a commit: only runs from its first one on */
    size_t window;                      /* the newest points of a series; 0: all */
};

/* FB_ERROR_USAGE when --since or --machine names nothing. */
enum fb_status fb_series_book_read(struct fb_store *store, const struct fb_book_request *request,
                                   struct fb_arena *arena, struct fb_series_book *book,
                                   struct fb_error *error) FB_MUST_CHECK;

/* A point can be placed on the trend that ends with the series' newest one: ok, with a positive
 * finite value; of instructions, counted in the same way. */
bool fb_book_point_usable(const struct fb_book_series *series, size_t at, size_t metric);

/* "1a2b3c4d5e6f", with a "+" when the tree had changes; "-" when unknown. text has 16 bytes. */
const char *fb_book_run_commit(const struct fb_book_run *run, char *text);

#endif
