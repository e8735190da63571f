/*
 * How sure the history is: synthetic histories with and without planted changes, and how often
 * they are told apart. Every row is a count with its Clopper-Pearson interval; the table stands in
 * docs/measuring.md. Exit code 3 when one of the promises does not hold.
 *
 *   proof_history [HISTORIES [SEED]]          defaults: 1000 1
 */
#include "random.h"
#include "stats_infer.h"
#include "trend.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 200, MARGIN = 20 };
#define SIGMA 0.03

enum noise { NOISE_NORMAL, NOISE_HEAVY, NOISE_BLIPS };

struct scenario {
    const char *what;
    enum noise noise;
    double step;   /* in sigma, from a random run on */
    double fresh;  /* in sigma, in the newest run only */
    double drift;  /* of the logarithm, over all runs */
    double uneven; /* deviation of ln(width of the intervals): 0, all are as wide */
    size_t runs;
};

/* What happened to one history. */
struct outcome {
    bool boundary; /* a segment begins within one commit of the planted change */
    bool reported; /* a reported change does */
    bool others;   /* a change is reported elsewhere */
    bool fail;     /* check fails */
};

/* Student's t with three degrees of freedom, scaled to deviation 1. */
static double draw_heavy(struct fb_random *random)
{
    double squares = 0.0;
    for (int i = 0; i < 3; i++) {
        const double z = fb_random_normal(random);
        squares += z * z;
    }
    return fb_random_normal(random) / sqrt(squares / 3.0) / sqrt(3.0);
}

static double draw_noise(enum noise noise, struct fb_random *random)
{
    if (noise == NOISE_HEAVY)
        return SIGMA * draw_heavy(random);
    /* One run in twenty on a machine that somebody else was using. */
    const bool disturbed = noise == NOISE_BLIPS && fb_random_uniform(random) < 0.05;
    return SIGMA * fb_random_normal(random) + (disturbed ? 0.2 : 0.0);
}

static size_t distance(size_t a, size_t b)
{
    return a > b ? a - b : b - a;
}

static struct outcome play(const struct scenario *scenario, size_t cases_count, uint64_t seed,
                           uint64_t number, struct fb_arena *arena)
{
    double values[RUNS], widths[RUNS];
    size_t commits[RUNS];
    struct fb_random random;
    struct fb_trend trend;
    struct fb_error error;
    struct outcome outcome = {.fail = false};
    fb_random_init(&random, seed, number);
    const size_t at = MARGIN + (size_t)fb_random_below(&random, RUNS - 2 * MARGIN + 1);
    for (size_t i = 0; i < scenario->runs; i++) {
        values[i] = -7.0 + draw_noise(scenario->noise, &random) +
                    scenario->drift * (double)i / (double)scenario->runs;
        values[i] += scenario->step > 0.0 && i >= at ? scenario->step * SIGMA : 0.0;
        values[i] += i + 1 == scenario->runs ? scenario->fresh * SIGMA : 0.0;
        /* Within one run less varies than between runs. */
        widths[i] = SIGMA * exp(scenario->uneven * fb_random_normal(&random));
        commits[i] = i;
    }
    const struct fb_trend_points points = {values, widths, commits, scenario->runs,
                                           FB_CHANGE_LEAST_STEP};
    if (fb_trend_judge(&points, cases_count, arena, &trend, &error) != FB_OK) {
        (void)fprintf(stderr, "proof_history: error: %s\n", error.text);
        exit(1);
    }
    for (size_t s = 1; s < trend.segmentation.count; s++)
        outcome.boundary |= distance(trend.segmentation.segments[s].first, at) <= 1;
    for (size_t c = 0; c < trend.changes.count; c++) {
        const bool here = scenario->step > 0.0 && distance(trend.changes.changes[c].at, at) <= 1;
        outcome.reported |= here;
        outcome.others |= !here;
    }
    outcome.fail = trend.verdict == FB_VERDICT_FAIL;
    return outcome;
}

struct counts {
    long boundary, reported, others, fail, histories;
};

static struct counts play_all(const struct scenario *scenario, long histories, uint64_t seed)
{
    struct counts counts = {.histories = histories};
    struct fb_arena arena;
    for (long h = 0; h < histories; h++) {
        fb_arena_init(&arena, 0);
        const struct outcome outcome = play(scenario, 1, seed, (uint64_t)h, &arena);
        fb_arena_free(&arena);
        counts.boundary += outcome.boundary;
        counts.reported += outcome.reported;
        counts.others += outcome.others;
        counts.fail += outcome.fail;
    }
    return counts;
}

/* A whole check of flat cases: does none of them fail? */
enum { CHECK_CASES = 60, CHECK_RUNS = 20 };
static const struct scenario check_case = {
    "60 flat cases, 20 runs", NOISE_NORMAL, 0.0, 0.0, 0.0, 0.0, CHECK_RUNS};

static long count_quiet_checks(long checks, uint64_t seed)
{
    struct fb_arena arena;
    long quiet = 0;
    for (long i = 0; i < checks; i++) {
        bool fail = false;
        fb_arena_init(&arena, 0);
        for (long c = 0; c < CHECK_CASES; c++)
            fail |=
                play(&check_case, CHECK_CASES, seed, (uint64_t)(i * CHECK_CASES + c), &arena).fail;
        fb_arena_free(&arena);
        quiet += !fail;
    }
    return quiet;
}

static void print_row(const char *what, const char *asked, long hits, long histories)
{
    const struct fb_interval interval = fb_stats_clopper_pearson(hits, histories, 0.05);
    (void)printf("| %s | %s | %ld of %ld | %.1f to %.1f %% |\n", what, asked, hits, histories,
                 100.0 * interval.low, 100.0 * interval.high);
}

static const struct scenario steps[] = {
    {"a step of 1 sigma", NOISE_NORMAL, 1.0, 0.0, 0.0, 0.0, RUNS},
    {"a step of 2 sigma", NOISE_NORMAL, 2.0, 0.0, 0.0, 0.0, RUNS},
    {"a step of 3 sigma", NOISE_NORMAL, 3.0, 0.0, 0.0, 0.0, RUNS},
    {"a step of 4 sigma", NOISE_NORMAL, 4.0, 0.0, 0.0, 0.0, RUNS},
    {"a step of 3 sigma, uneven intervals", NOISE_NORMAL, 3.0, 0.0, 0.0, 0.4, RUNS},
    {"a step of 3 sigma, heavy tails", NOISE_HEAVY, 3.0, 0.0, 0.0, 0.0, RUNS},
};
enum { STEP_PROMISED = 2 };

static const struct scenario flats[] = {
    {"flat", NOISE_NORMAL, 0.0, 0.0, 0.0, 0.0, RUNS},
    {"flat, heavy tails", NOISE_HEAVY, 0.0, 0.0, 0.0, 0.0, RUNS},
    {"flat, one run in 20 disturbed by 22 %", NOISE_BLIPS, 0.0, 0.0, 0.0, 0.0, RUNS},
    {"flat, uneven intervals", NOISE_NORMAL, 0.0, 0.0, 0.0, 0.4, RUNS},
    {"flat, 20 runs", NOISE_NORMAL, 0.0, 0.0, 0.0, 0.0, 20},
    {"flat, 6 runs", NOISE_NORMAL, 0.0, 0.0, 0.0, 0.0, 6},
};

static const struct scenario alarms[] = {
    {"a drift of 16 % over 200 runs", NOISE_NORMAL, 0.0, 0.0, 0.15, 0.0, RUNS},
    {"a step of 3 sigma", NOISE_NORMAL, 3.0, 0.0, 0.0, 0.0, RUNS},
    {"the newest run at 3 sigma", NOISE_NORMAL, 0.0, 3.0, 0.0, 0.0, RUNS},
    {"the newest run at 5 sigma", NOISE_NORMAL, 0.0, 5.0, 0.0, 0.0, RUNS},
    {"the newest run at 5 sigma, 20 runs", NOISE_NORMAL, 0.0, 5.0, 0.0, 0.0, 20},
};
enum { ALARM_DRIFT = 0 };

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

/* At least 95 of 100, as a share. */
static bool holds(const char *what, long hits, long histories)
{
    if (hits * 100 >= 95 * histories)
        return true;
    (void)fprintf(stderr, "proof_history: does not hold: %s: %ld of %ld\n", what, hits, histories);
    return false;
}

static bool prove(long histories, uint64_t seed)
{
    bool fine = true;
    (void)printf("| planted | counted | histories | 95 %% interval |\n|---|---|---|---|\n");
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        const struct counts counts = play_all(&steps[i], histories, seed);
        print_row(steps[i].what, "a segment begins within one commit of it", counts.boundary,
                  histories);
        print_row(steps[i].what, "reported within one commit of it", counts.reported, histories);
        if (i == STEP_PROMISED)
            fine &= holds("a step of 3 sigma is located", counts.reported, histories);
    }
    for (size_t i = 0; i < COUNT_OF(flats); i++) {
        const struct counts counts = play_all(&flats[i], histories, seed + 1);
        print_row(flats[i].what, "no change reported", histories - counts.others, histories);
        print_row(flats[i].what, "check does not fail", histories - counts.fail, histories);
        fine &= i > 0 || (holds("flat: no change", histories - counts.others, histories) &&
                          holds("flat: no alarm", histories - counts.fail, histories));
    }
    const long quiet = count_quiet_checks(histories, seed + 3);
    print_row(check_case.what, "check fails none of them", quiet, histories);
    fine &= holds("60 flat cases: no alarm", quiet, histories);
    for (size_t i = 0; i < COUNT_OF(alarms); i++) {
        const struct counts counts = play_all(&alarms[i], histories, seed + 2);
        print_row(alarms[i].what, "check fails", counts.fail, histories);
        fine &= i != ALARM_DRIFT || holds("drift is found", counts.fail, histories);
    }
    return fine;
}

static long read_count(const char *text)
{
    char *end;
    const long value = strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > 1000000) {
        (void)fprintf(stderr, "usage: proof_history [HISTORIES [SEED]], both 1 to 1000000\n");
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    const long histories = argc > 1 ? read_count(argv[1]) : 1000;
    const long seed = argc > 2 ? read_count(argv[2]) : 1;
    return prove(histories, (uint64_t)seed) ? 0 : 3;
}
