/*
 * Rows of results.csv grouped into series: everything equal but one factor, the axis. A fit, a line
 * of a picture and a row of the summary each belong to one series. Owned by the arena given.
 */
#ifndef FB_SERIES_H
#define FB_SERIES_H

#include "arena.h"
#include "results.h"

#include <stdbool.h>
#include <stdint.h>

enum fb_axis {
    FB_AXIS_SEQ_LEN, /* kv_len moves along where the two are equal */
    FB_AXIS_HEADS,
    FB_AXIS_HEAD_DIM, /* value_dim moves along where the two are equal */
    FB_AXIS_THREADS,
    FB_AXIS_ISA,
    FB_AXIS_COUNT,
    /* What fb_series_collect turns HEADS and HEAD_DIM into when the rows tie the two together, one
     * head_dim for each number of heads (a model width cut differently): both move along. */
    FB_AXIS_HEADS_TIED,
    FB_AXIS_HEAD_DIM_TIED
};

/* Fewer processes than this cannot carry a verdict: docs/measuring.md, "Scaling". */
enum { FB_CLAIM_PROCESSES_MIN = 5 };

struct fb_point {
    const struct fb_row *row;
    double x;              /* the row's place on the axis; the instruction set's rank for ISA */
    bool ok;               /* status ok and a positive time */
    const double *times_s; /* every stored sample, ascending; NULL when none is stored */
    size_t times_count;
    const double *process_medians_s; /* one per process that left samples */
    size_t processes_count;
};

struct fb_series {
    size_t run_index;         /* into the runs given to fb_series_collect */
    const struct fb_row *key; /* holds the factors that all rows share */
    struct fb_point *points;  /* ascending x */
    size_t points_count;
    size_t ok_count;
};

struct fb_series_set {
    enum fb_axis axis;
    struct fb_series *items; /* by run, causal, mechanism and variant as registered */
    size_t count;
};

/* Groups the rows of one or several runs along the axis; set->axis is the axis given or its tied
 * form. Two runs never share a series. */
enum fb_status fb_series_collect(const struct fb_results *runs, size_t runs_count,
                                 enum fb_axis axis, struct fb_arena *arena,
                                 struct fb_series_set *set, struct fb_error *error) FB_MUST_CHECK;

/* Whether two rows agree in every factor except the axis. */
bool fb_series_same_factors(const struct fb_row *a, const struct fb_row *b, enum fb_axis axis);

/* Drops the series for which keep is false; the order stays. */
void fb_series_filter(struct fb_series_set *set, bool (*keep)(const struct fb_series *series));

/* Whether anything was tried: a value, or a failure (wrong, crash, error). */
bool fb_series_was_tried(const struct fb_series *series);
/* Whether a point of it has a time and a floor. */
bool fb_series_has_floor(const struct fb_series *series);
/* Whether it has at least two places on the axis. */
bool fb_series_is_swept(const struct fb_series *series);

/* The last measured point, or NULL. */
const struct fb_point *fb_series_last_ok(const struct fb_series *series);

/* The softmax series that another one is compared with: same run and factors (the instruction set
 * too, unless either is compiled once), the default variant if it was stored, and among several the
 * fastest at the largest size. NULL when there is none. A softmax series is compared as well: with
 * NULL when it is itself the reference. */
const struct fb_series *fb_series_softmax(const struct fb_series_set *set,
                                          const struct fb_series *series);

/* Series of the same run, mechanism, parameters and setting (the instruction set, too): the one of
 * an external variant; and, for an external one, that of our default variant. NULL when there is
 * none with a time. */
const struct fb_series *fb_series_peer(const struct fb_series_set *set,
                                       const struct fb_series *series, const char *variant);
const struct fb_series *fb_series_own(const struct fb_series_set *set,
                                      const struct fb_series *series);

/* The mechanism's default variant, its first registered one, or NULL; whether a series is of it. */
const char *fb_series_default_variant(const char *mechanism);
bool fb_series_is_default(const struct fb_series *series);

/* The largest number of different values that the axis takes in one series. */
size_t fb_series_axis_values(const struct fb_series_set *set);

/* A point at each place of the axis that some series was tried at, ascending; what goes beyond
 * places_max is cut at the top. places has room for one more. Returns how many. */
size_t fb_series_axis_places(const struct fb_series_set *set, const struct fb_point **places,
                             size_t places_max);

/* Draws one bootstrap replicate of the point's median: over processes when resample_processes is
 * set, else over samples. counts has room for times_count entries. */
struct fb_random;
double fb_point_resample(const struct fb_point *point, bool resample_processes,
                         struct fb_random *random, uint32_t *counts);

/* How an interval was obtained, weakest first. */
enum fb_spread_kind {
    FB_SPREAD_NONE,      /* no samples are stored */
    FB_SPREAD_SAMPLES,   /* descriptive: within too few processes */
    FB_SPREAD_PROCESSES, /* bootstrap over at least 5 processes */
    FB_SPREAD_EXACT      /* a deterministic quantity */
};
struct fb_spread {
    double low, high;
    enum fb_spread_kind kind;
};

/* What the points from `first` on allow. */
enum fb_spread_kind fb_series_spread_kind(const struct fb_series *series);

/* The 2.5 % and 97.5 % quantiles of replicates, which are sorted in place; infinities allowed. */
void fb_spread_from_replicates(double *replicates, size_t count, struct fb_spread *interval);

#endif
