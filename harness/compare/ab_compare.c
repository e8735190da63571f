/* The stages of a live comparison: see ab_compare.h. */
#include "ab_compare.h"

#include "ab_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- order ------------------------------------------------------------------------------------
 */

/* F B B F: with old before new in F and after it in B, pairs come as ABBA BAAB. */
static bool is_forward(size_t round)
{
    return round % 4 == 0 || round % 4 == 3;
}

static void shuffle(struct fb_ab_state *state, size_t stage, size_t round)
{
    struct fb_random random;

    fb_random_init(&random, state->suite->seed, (uint64_t)(stage * 1000 + round + 1));
    for (size_t i = state->plan->cases_count; i > 1; i--) {
        const size_t j = (size_t)fb_random_below(&random, i);
        const size_t kept = state->order[i - 1];
        state->order[i - 1] = state->order[j];
        state->order[j] = kept;
    }
}

/* ---- slots ------------------------------------------------------------------------------------
 */

enum seat { SEAT_LAYOUT, SEAT_SAME, SEAT_OLD, SEAT_NEW, SEAT_COUNT };

static const enum fb_ab_side side_of[SEAT_COUNT] = {
    [SEAT_LAYOUT] = FB_AB_LAYOUT,
    [SEAT_SAME] = FB_AB_OLD,
    [SEAT_OLD] = FB_AB_OLD,
    [SEAT_NEW] = FB_AB_NEW,
};

/* Processes from seat `first` to SEAT_NEW, or backwards; every pair that is compared sits next to
 * each other. *whole tells whether all of them have a time. */
static enum fb_status run_slot(struct fb_ab_state *state, struct fb_ab_case *one, int process,
                               bool forward, enum seat first, const char *stage,
                               double times_s[SEAT_COUNT], bool *whole, struct fb_error *error)
{
    *whole = false;
    for (int step = (int)first; step < (int)SEAT_COUNT; step++) {
        const int seat = forward ? step : (int)first + (int)SEAT_NEW - step;
        if (fb_ab_interrupted(state))
            return FB_OK;
        const enum fb_status status =
            fb_ab_run_process(state, one, side_of[seat], process, stage, &times_s[seat], error);
        state->processes_left -= state->processes_left > 0;
        state->seconds_left -= one->process_s;
        if (status != FB_OK)
            return status;
        if (isnan(times_s[seat]))
            return FB_OK;
    }
    *whole = true;
    return FB_OK;
}

static double seconds_since(double start_s)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - start_s;
}

/* ---- rounds -----------------------------------------------------------------------------------
 */

enum stage { STAGE_SCREEN = 1, STAGE_CONFIRM };

typedef enum fb_status (*pair_fn)(struct fb_ab_state *state, struct fb_ab_case *one, size_t round,
                                  struct fb_error *error);

/* One pair of each case a round, in an order drawn anew, as long as the case wants pairs and the
 * budget lasts. An interrupt ends it without an error. */
static enum fb_status run_rounds(struct fb_ab_state *state, enum stage stage, size_t rounds,
                                 pair_fn run_pair, struct fb_error *error)
{
    enum fb_status status = FB_OK;

    for (size_t round = 0; round < rounds && status == FB_OK; round++) {
        shuffle(state, (size_t)stage, round);
        for (size_t i = 0; i < state->plan->cases_count && status == FB_OK; i++) {
            struct fb_ab_case *one = &state->cases[state->order[i]];
            const size_t wanted = stage == STAGE_CONFIRM ? one->fresh_wanted : rounds;
            if (!one->running || one->left_over || round >= wanted)
                continue;
            if (fb_ab_interrupted(state))
                return FB_OK;
            if (fb_ab_budget_is_spent(state))
                one->left_over = true;
            else
                status = run_pair(state, one, round, error);
        }
    }
    return status;
}

/* ---- screening --------------------------------------------------------------------------------
 */

static enum seat first_seat(const struct fb_ab_state *state)
{
    return state->options->layout ? SEAT_LAYOUT : SEAT_SAME;
}

static double screen_seconds(const struct fb_ab_state *state, const struct fb_ab_case *one)
{
    return one->process_s * (double)(state->rule.screen_pairs * (SEAT_COUNT - first_seat(state)));
}

/* A budget that cannot hold all cases holds some of them to the end, the cheapest: half of all
 * pairs would decide nothing. A third is left for confirming. */
static void fit_budget(struct fb_ab_state *state)
{
    const double room_s = (state->options->budget_s - seconds_since(state->start_s)) * 2.0 / 3.0;
    double total_s = 0.0;

    for (size_t i = 0; i < state->plan->cases_count; i++)
        total_s += state->cases[i].running ? screen_seconds(state, &state->cases[i]) : 0.0;
    while (state->options->budget_s > 0 && total_s > room_s) {
        struct fb_ab_case *costliest = NULL;
        for (size_t i = 0; i < state->plan->cases_count; i++) {
            struct fb_ab_case *one = &state->cases[i];
            if (one->running && !one->left_over &&
                (costliest == NULL || one->process_s > costliest->process_s))
                costliest = one;
        }
        if (costliest == NULL)
            return;
        costliest->left_over = true;
        total_s -= screen_seconds(state, costliest);
    }
}

static enum fb_status screen_case(struct fb_ab_state *state, struct fb_ab_case *one, size_t round,
                                  struct fb_error *error)
{
    double times_s[SEAT_COUNT];
    bool whole;
    const enum fb_status status = run_slot(state, one, 1 + (int)round, is_forward(round),
                                           first_seat(state), "screen", times_s, &whole, error);

    if (status != FB_OK || !whole)
        return status;
    one->screen[one->screen_count++] = log(times_s[SEAT_NEW] / times_s[SEAT_OLD]);
    one->same[one->same_count++] = log(times_s[SEAT_SAME] / times_s[SEAT_OLD]);
    if (state->options->layout)
        one->layout[one->layout_count++] = log(times_s[SEAT_LAYOUT] / times_s[SEAT_SAME]);
    return FB_OK;
}

static enum fb_status screen(struct fb_ab_state *state, struct fb_error *error)
{
    size_t running = 0;
    char left[32];

    fit_budget(state);
    state->processes_left = 0;
    state->seconds_left = 0.0;
    for (size_t i = 0; i < state->plan->cases_count; i++) {
        const struct fb_ab_case *one = &state->cases[i];
        if (!one->running || one->left_over)
            continue;
        running++;
        state->processes_left += state->rule.screen_pairs * (SEAT_COUNT - first_seat(state));
        state->seconds_left += screen_seconds(state, one);
    }
    if (running > 0)
        fb_ab_say(state, "screening %zu case%s with %zu pairs each, about %s", running,
                  running == 1 ? "" : "s", state->rule.screen_pairs,
                  fb_human_duration(state->seconds_left, left, sizeof left));
    return run_rounds(state, STAGE_SCREEN, state->rule.screen_pairs, screen_case, error);
}

/* ---- confirming -------------------------------------------------------------------------------
 */

static enum fb_status choose_candidates(struct fb_ab_state *state, size_t *rounds,
                                        struct fb_error *error)
{
    size_t candidates = 0;
    char left[32];

    *rounds = 0;
    state->processes_left = 0;
    state->seconds_left = 0.0;
    for (size_t i = 0; i < state->plan->cases_count; i++) {
        struct fb_ab_case *one = &state->cases[i];
        struct fb_gate_screen found;
        if (!one->running || one->left_over)
            continue;
        const enum fb_status status =
            fb_gate_screen(&state->rule, one->screen, one->screen_count, &found, error);
        if (status != FB_OK)
            return status;
        one->fresh_wanted = found.confirm_pairs;
        candidates += found.confirm_pairs > 0;
        *rounds = found.confirm_pairs > *rounds ? found.confirm_pairs : *rounds;
        state->processes_left += 2 * found.confirm_pairs;
        state->seconds_left += 2.0 * (double)found.confirm_pairs * one->process_s;
    }
    if (candidates > 0)
        fb_ab_say(state, "confirming %zu candidate%s with up to %zu fresh pairs, about %s",
                  candidates, candidates == 1 ? "" : "s", *rounds,
                  fb_human_duration(state->seconds_left, left, sizeof left));
    return FB_OK;
}

static enum fb_status confirm_case(struct fb_ab_state *state, struct fb_ab_case *one, size_t round,
                                   struct fb_error *error)
{
    double times_s[SEAT_COUNT];
    bool whole;
    const int process = 1 + (int)(state->rule.screen_pairs + round);
    const enum fb_status status = run_slot(state, one, process, is_forward(round), SEAT_OLD,
                                           "confirm", times_s, &whole, error);

    if (status == FB_OK && whole)
        one->fresh[one->fresh_count++] = log(times_s[SEAT_NEW] / times_s[SEAT_OLD]);
    return status;
}

static enum fb_status confirm(struct fb_ab_state *state, struct fb_error *error)
{
    size_t rounds;
    const enum fb_status status = choose_candidates(state, &rounds, error);

    return status != FB_OK ? status : run_rounds(state, STAGE_CONFIRM, rounds, confirm_case, error);
}

/* ---- all of it --------------------------------------------------------------------------------
 */

static enum fb_status init_state(struct fb_ab_state *state, const struct fb_suite *suite,
                                 const struct fb_plan *plan, const struct fb_ab_options *options,
                                 struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_gate_rule *rule = options->rule;
    const size_t fresh_max = rule->confirm_pairs > rule->confirm_pairs_noisy
                                 ? rule->confirm_pairs
                                 : rule->confirm_pairs_noisy;

    memset(state, 0, sizeof *state);
    state->suite = suite;
    state->plan = plan;
    state->options = options;
    state->rule = *rule;
    state->start_s = seconds_since(0.0);
    state->context =
        (struct fb_row_context){"", suite->name, options->device_name, options->gpu_name};
    state->cases = fb_arena_alloc(arena, plan->cases_count + 1, sizeof *state->cases, error);
    state->order = fb_arena_alloc(arena, plan->cases_count + 1, sizeof *state->order, error);
    state->facts = fb_arena_alloc(arena, plan->cases_count + 1, sizeof *state->facts, error);
    if (state->cases == NULL || state->order == NULL || state->facts == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < plan->cases_count; i++) {
        struct fb_ab_case *one = &state->cases[i];
        one->item = &plan->cases[i];
        state->order[i] = i;
        double *room =
            fb_arena_alloc(arena, 3 * rule->screen_pairs + fresh_max, sizeof(double), error);
        if (room == NULL)
            return FB_ERROR_MEMORY;
        one->screen = room;
        one->same = room + rule->screen_pairs;
        one->layout = room + 2 * rule->screen_pairs;
        one->fresh = room + 3 * rule->screen_pairs;
    }
    return FB_OK;
}

/* What a mere relink moves is nobody's fault: the threshold rises to the largest such move. */
static enum fb_status take_threshold(struct fb_ab_state *state, struct fb_error *error)
{
    struct fb_compare_control control;
    enum fb_status status = fb_ab_control(state, true, &control, error);

    if (status == FB_OK && control.cases > 0 && control.largest > state->rule.threshold) {
        state->rule.threshold = control.largest;
        fb_ab_say(state, "a relink alone moves a case by %.1f %%: that much is tolerated",
                  100.0 * control.largest);
    }
    return status;
}

enum fb_status fb_ab_compare(const struct fb_suite *suite, const struct fb_plan *plan,
                             const struct fb_ab_options *options, struct fb_arena *arena,
                             struct fb_comparison *comparison, struct fb_ab_outcome *outcome,
                             struct fb_error *error)
{
    struct fb_ab_state state;
    enum fb_status status = init_state(&state, suite, plan, options, arena, error);

    memset(outcome, 0, sizeof *outcome);
    if (status == FB_OK)
        status = fb_ab_calibrate(&state, error);
    if (status == FB_OK && !fb_ab_interrupted(&state))
        status = screen(&state, error);
    if (status == FB_OK && options->layout)
        status = take_threshold(&state, error);
    if (status == FB_OK && !fb_ab_interrupted(&state))
        status = confirm(&state, error);
    fb_progress_end(options->progress);
    if (status == FB_OK && fb_ab_interrupted(&state)) {
        outcome->signal = options->interrupts->first_signal;
    } else if (status == FB_OK) {
        status = fb_ab_decide(&state, arena, comparison, error);
        comparison->seconds = seconds_since(state.start_s);
    }
    for (size_t i = 0; state.cases != NULL && i < plan->cases_count; i++) {
        outcome->left_over += state.cases[i].left_over;
        fb_case_record_free(&state.cases[i].records[0]);
        fb_case_record_free(&state.cases[i].records[1]);
    }
    return status;
}
