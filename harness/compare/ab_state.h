/* What a live comparison knows in the middle. Used inside this room only. */
#ifndef FB_AB_STATE_H
#define FB_AB_STATE_H

#include "ab_compare.h"
#include "case_row.h"
#include "prediction.h"
#include "random.h"

struct fb_ab_case {
    const struct fb_case *item;
    struct fb_row rows[2];            /* old, new; of a failure as soon as there is one */
    struct fb_case_record records[2]; /* of what went well */
    bool running;                     /* both sides work so far */
    bool left_over;                   /* the budget did not reach to its end */
    int samples;                      /* per process */
    double process_s;                 /* wall clock of one */
    /* Log ratios; room for the rule's numbers of pairs. */
    double *screen, *same, *layout, *fresh;
    size_t screen_count, same_count, layout_count, fresh_count;
    size_t fresh_wanted;
};

struct fb_ab_state {
    const struct fb_suite *suite;
    const struct fb_plan *plan;
    const struct fb_ab_options *options;
    struct fb_gate_rule rule; /* its threshold may have been raised by the layout's */
    struct fb_ab_case *cases; /* one per case of the plan */
    size_t *order;            /* of the cases, shuffled for every round */
    struct fb_prediction_fact *facts;
    struct fb_row_context context;
    double start_s;
    double done_s, expected_s; /* of processes that have run: calibrates the ETA */
    size_t processes_left;
    double seconds_left; /* of those, as calibrated */
};

/* Runs one process of a case and keeps what it found. *time_s gets the median, NaN when the case
 * has ended with this process (its row says why) or a signal came. */
enum fb_status fb_ab_run_process(struct fb_ab_state *state, struct fb_ab_case *one,
                                 enum fb_ab_side side, int process, const char *stage,
                                 double *time_s, struct fb_error *error) FB_MUST_CHECK;

/* One process of each side of each case: which cases there are to compare, and at what cost. */
enum fb_status fb_ab_calibrate(struct fb_ab_state *state, struct fb_error *error) FB_MUST_CHECK;

bool fb_ab_interrupted(const struct fb_ab_state *state);
bool fb_ab_budget_is_spent(const struct fb_ab_state *state);

/* A line for people, unless they asked for quiet. */
void fb_ab_say(const struct fb_ab_state *state, const char *format, ...) FB_PRINTF(2, 3);

/* From pairs to verdicts: fills and finishes the comparison (ab_verdicts.c). */
enum fb_status fb_ab_decide(struct fb_ab_state *state, struct fb_arena *arena,
                            struct fb_comparison *comparison, struct fb_error *error) FB_MUST_CHECK;

/* What a control leg has shown. ratios(one, &count) of every running case. */
enum fb_status fb_ab_control(const struct fb_ab_state *state, bool layout,
                             struct fb_compare_control *control,
                             struct fb_error *error) FB_MUST_CHECK;

#endif
