/*
 * Two builds measured against each other, live: interleaved pairs of fresh processes, screened and
 * confirmed as gate.h decides. docs/comparing.md, "Two builds".
 *
 *   calibrate   one process of each build and case: right answer, memory, how long it takes
 *   screen      rounds over all cases in random order; in each round one slot per case:
 *                   old again, old, new     or     new, old, old again     (F B B F, ...)
 *               so that the pairs old/new come as ABBA BAAB and so do the control pairs old/old
 *   confirm     fresh pairs of the candidates, in the same order
 *
 * How a process is measured is the caller's: fb_ab_worker_measure starts workers (ab_worker.h),
 * tests plug in scripted times.
 */
#ifndef FB_AB_COMPARE_H
#define FB_AB_COMPARE_H

#include "comparison.h"
#include "interrupts.h"
#include "measure.h"
#include "plan.h"
#include "progress.h"
#include "suite.h"

enum fb_ab_side { FB_AB_OLD, FB_AB_NEW, FB_AB_LAYOUT, FB_AB_SIDE_COUNT };

/* One fresh process. */
struct fb_ab_request {
    const struct fb_case *item;
    enum fb_ab_side side;
    int process; /* seeds the inputs: equal for all processes of a slot */
    int samples; /* fixed beforehand: looking while measuring would spoil the statistics */
    bool check;  /* against the oracle */
};

struct fb_ab_answer {
    const char *status; /* "ok", or what the column status of a row says */
    char reason[FB_MEASURE_REASON_SIZE];
    struct fb_measure_result result; /* with "ok" and "wrong"; initialised in any case */
    double wall_s;
    bool aborted; /* by an interrupt: says nothing */
};

typedef enum fb_status (*fb_ab_measure)(void *context, const struct fb_ab_request *request,
                                        struct fb_ab_answer *answer, struct fb_error *error);

struct fb_ab_options {
    fb_ab_measure measure;
    void *context;
    const struct fb_gate_rule *rule;
    bool layout; /* there is a shuffled relink of the old build: the threshold is taken from it */
    double budget_s; /* 0: none; no slot starts after it */
    struct fb_progress *progress;
    struct fb_interrupts *interrupts; /* NULL: none come */
    const char *device_name, *gpu_name;
};

struct fb_ab_outcome {
    int signal;       /* SIGINT or SIGTERM when one came: nothing is decided */
    size_t left_over; /* cases that the budget cut short */
};

/* Measures and fills the comparison, finished unless a signal came. Its sides' labels are the
 * caller's to set. What lives in the comparison lives in the arena. */
enum fb_status fb_ab_compare(const struct fb_suite *suite, const struct fb_plan *plan,
                             const struct fb_ab_options *options, struct fb_arena *arena,
                             struct fb_comparison *comparison, struct fb_ab_outcome *outcome,
                             struct fb_error *error) FB_MUST_CHECK;

#endif
