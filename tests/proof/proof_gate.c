/*
 * How sure the gate is: comparisons drawn from pairs of real processes, and from normal noise, go
 * through the gate of `compare` (gate.h), with and without a planted slow-down. Every row is a
 * count with its Clopper-Pearson interval; the table stands in docs/measuring.md. Exit code 3 when
 * one of the promises does not hold.
 *
 *   proof_gate [COMPARISONS [SEED [PAIRS.csv]]]        defaults: 400 1 tests/proof/pairs.csv; in
 * the folder of the sources proof_gate collect COMPARISON.json... > PAIRS.csv  from `compare --ab X
 * X --format json`
 */
#include "gate.h"
#include "proof_faults.h"
#include "proof_pairs.h"
#include "random.h"
#include "stats_infer.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CASES_MAX = 60, DRAWN_MAX = 128 };

/* What a comparison is drawn from: pairs of a pool, or normal noise of one sigma. */
struct scenario {
    const struct pair_pool *pool; /* NULL: noise */
    double sigma;                 /* of ln t of one process */
    double disturbed;             /* of the noise: share of processes that take 20 % longer */
    size_t cases;
    double effect;    /* planted slow-down, a fraction; 0: none */
    double sigma_max; /* of the case that it is planted in */
};

struct outcome {
    bool false_fail; /* a case without a planted slow-down FAILs */
    bool found;      /* the one with it does */
    bool ambiguous;  /* any case is AMBIGUOUS */
};

struct counts {
    long comparisons, false_fails, found, ambiguous;
};

static void stop(const struct fb_error *error)
{
    (void)fprintf(stderr, "proof_gate: error: %s\n", error->text);
    exit(1);
}

/* ---- one comparison -------------------------------------------------------------------------- */

static double noise_of_process(const struct scenario *scenario, struct fb_random *random)
{
    const bool disturbed = fb_random_uniform(random) < scenario->disturbed;

    return scenario->sigma * fb_random_normal(random) + (disturbed ? log(1.2) : 0.0);
}

/* The log ratios of `count` pairs. Of a pool: each at most once, and which of the two processes
 * was the new one is drawn. */
static void draw(const struct scenario *scenario, size_t which, size_t count, double effect,
                 struct fb_random *random, double *ratios)
{
    const struct pair_case *from = scenario->pool ? &scenario->pool->cases[which] : NULL;
    static size_t order[PAIR_CASE_PAIRS_MAX];

    for (size_t i = 0; from && i < from->count; i++)
        order[i] = i;
    for (size_t i = 0; i < count; i++) {
        double ratio;
        if (from) {
            const size_t other = i + (size_t)fb_random_below(random, from->count - i);
            const size_t chosen = order[other];
            order[other] = order[i];
            order[i] = chosen;
            ratio = fb_random_below(random, 2) == 0 ? from->ratios[chosen] : -from->ratios[chosen];
        } else {
            ratio = noise_of_process(scenario, random) - noise_of_process(scenario, random);
        }
        ratios[i] = ratio + effect;
    }
}

/* The case that gets the slow-down: any whose noise is low enough. */
static size_t choose_case(const struct scenario *scenario, struct fb_random *random)
{
    size_t fit[CASES_MAX], count = 0;

    for (size_t i = 0; i < scenario->cases; i++)
        if (!scenario->pool || scenario->pool->cases[i].sigma <= scenario->sigma_max)
            fit[count++] = i;
    return count == 0 ? SIZE_MAX : fit[fb_random_below(random, count)];
}

/* As `compare --ab` does it: screen, fresh pairs for the candidates, verdicts for all. */
static struct outcome compare(const struct scenario *scenario, uint64_t seed, uint64_t number)
{
    static double ratios[CASES_MAX][DRAWN_MAX];
    struct fb_gate_case cases[CASES_MAX] = {0};
    struct outcome outcome = {.found = false};
    struct fb_gate_rule rule;
    struct fb_random random;
    struct fb_error error;

    fb_gate_rule_init(&rule);
    fb_random_init(&random, seed, number);
    const size_t planted = scenario->effect > 0.0 ? choose_case(scenario, &random) : SIZE_MAX;
    for (size_t i = 0; i < scenario->cases; i++) {
        struct fb_gate_screen screen;
        const double effect = i == planted ? log1p(scenario->effect) : 0.0;
        draw(scenario, i, rule.screen_pairs + rule.confirm_pairs_noisy, effect, &random, ratios[i]);
        if (fb_gate_screen(&rule, ratios[i], rule.screen_pairs, &screen, &error) != FB_OK)
            stop(&error);
        cases[i].screen_ratios = ratios[i];
        cases[i].screen_count = rule.screen_pairs;
        cases[i].fresh_ratios = ratios[i] + rule.screen_pairs;
        cases[i].fresh_count = screen.confirm_pairs;
    }
    if (fb_gate_decide(&rule, cases, scenario->cases, &error) != FB_OK)
        stop(&error);
    for (size_t i = 0; i < scenario->cases; i++) {
        const bool fails = cases[i].verdict == FB_VERDICT_FAIL;
        outcome.false_fail |= fails && i != planted;
        outcome.found |= fails && i == planted;
        outcome.ambiguous |= cases[i].verdict == FB_VERDICT_AMBIGUOUS;
    }
    return outcome;
}

static struct counts compare_all(const struct scenario *scenario, long comparisons, uint64_t seed)
{
    struct counts counts = {.comparisons = comparisons};

    for (long c = 0; c < comparisons; c++) {
        const struct outcome outcome = compare(scenario, seed, (uint64_t)c);
        counts.false_fails += outcome.false_fail;
        counts.found += outcome.found;
        counts.ambiguous += outcome.ambiguous;
    }
    return counts;
}

/* ---- the tables ------------------------------------------------------------------------------ */

static void print_row(const char *drawn, const char *counted, long hits, long trials)
{
    const struct fb_interval interval = fb_stats_clopper_pearson(hits, trials, 0.05);

    (void)printf("| %s | %s | %ld of %ld | %.2f to %.2f %% |\n", drawn, counted, hits, trials,
                 100.0 * interval.low, 100.0 * interval.high);
}

static bool holds(const char *what, bool promise)
{
    if (!promise)
        (void)fprintf(stderr, "proof_gate: does not hold: %s\n", what);
    return promise;
}

/* At least 98 of 100. */
static bool is_found(long hits, long trials)
{
    return hits * 100 >= 98 * trials;
}

static bool prove_pool(const struct pair_pool *pool, long comparisons, uint64_t seed)
{
    struct scenario scenario = {.pool = pool, .cases = pool->count, .sigma_max = 0.03};
    bool fine = true, quiet = true; /* no tails beyond what sigma says */

    for (size_t i = 0; i < pool->count; i++) {
        const struct pair_case *one = &pool->cases[i];
        (void)printf("- %s: %zu pairs, sigma of a process %.2f %%, plain deviation %.2f %%\n",
                     one->name, one->count, 100.0 * one->sigma, 100.0 * one->deviation);
        quiet &= one->sigma > scenario.sigma_max || one->deviation <= scenario.sigma_max;
    }
    (void)printf("\n| drawn from | counted | comparisons | 95 %% interval |\n|---|---|---|---|\n");
    const struct counts same = compare_all(&scenario, comparisons, seed);
    print_row("real pairs, nothing planted", "a false FAIL", same.false_fails, comparisons);
    print_row("real pairs, nothing planted", "an AMBIGUOUS case", same.ambiguous, comparisons);
    fine &= holds("at most one false FAIL", same.false_fails <= 1);
    scenario.effect = 0.10;
    struct fb_random random;
    fb_random_init(&random, seed, 0);
    if (choose_case(&scenario, &random) == SIZE_MAX) {
        (void)printf("| real pairs | no case has sigma at most 3 %% | | |\n");
        return holds("a case of sigma at most 3 %", false);
    }
    const struct counts planted = compare_all(&scenario, comparisons, seed + 1);
    print_row("real pairs, sigma at most 3 %, 10 % planted in one case", "it FAILs", planted.found,
              comparisons);
    print_row("real pairs, sigma at most 3 %, 10 % planted in one case", "another case FAILs",
              planted.false_fails, comparisons);
    return holds("10 % at a deviation of at most 3 %",
                 !quiet || is_found(planted.found, comparisons)) &&
           fine;
}

static bool prove_noise(long comparisons, uint64_t seed)
{
    static const double sigmas[] = {0.01, 0.02, 0.03, 0.05, 0.10};
    bool fine = true;
    char what[96];

    for (size_t s = 0; s < sizeof sigmas / sizeof sigmas[0]; s++) {
        struct scenario scenario = {.sigma = sigmas[s], .cases = CASES_MAX, .sigma_max = 1.0};
        const struct counts same = compare_all(&scenario, comparisons, seed + 2);
        (void)snprintf(what, sizeof what, "normal noise, %d cases, sigma %.0f %%", CASES_MAX,
                       100.0 * sigmas[s]);
        print_row(what, "a false FAIL", same.false_fails, comparisons);
        fine &= holds(what, same.false_fails <= 1);
        scenario.effect = 0.10;
        const struct counts planted = compare_all(&scenario, comparisons, seed + 3);
        print_row(what, "10 % planted in one case FAILs", planted.found, comparisons);
        fine &= sigmas[s] > 0.03 || holds(what, is_found(planted.found, comparisons));
    }
    struct scenario disturbed = {
        .sigma = 0.02, .disturbed = 0.05, .cases = CASES_MAX, .sigma_max = 1.0};
    const struct counts same = compare_all(&disturbed, comparisons, seed + 4);
    print_row("sigma 2 %, one process in 20 takes 20 % longer", "a false FAIL", same.false_fails,
              comparisons);
    return holds("disturbed processes", same.false_fails <= 1) && fine;
}

static void print_power(long comparisons, uint64_t seed)
{
    static const double sigmas[] = {0.01, 0.02, 0.03, 0.05, 0.10};
    static const double effects[] = {0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15, 0.20, 0.30};

    (void)printf("\n| sigma |");
    for (size_t e = 0; e < sizeof effects / sizeof effects[0]; e++)
        (void)printf(" %.0f %% |", 100.0 * effects[e]);
    (void)printf("\n|---|");
    for (size_t e = 0; e < sizeof effects / sizeof effects[0]; e++)
        (void)printf("---|");
    (void)puts("");
    for (size_t s = 0; s < sizeof sigmas / sizeof sigmas[0]; s++) {
        (void)printf("| %.0f %% |", 100.0 * sigmas[s]);
        for (size_t e = 0; e < sizeof effects / sizeof effects[0]; e++) {
            const struct scenario scenario = {
                .sigma = sigmas[s], .cases = 5, .effect = effects[e], .sigma_max = 1.0};
            const struct counts counts = compare_all(&scenario, comparisons, seed + 5);
            (void)printf(" %.3f |", (double)counts.found / (double)comparisons);
        }
        (void)puts("");
    }
}

/* ---- main ------------------------------------------------------------------------------------ */

static long read_count(const char *text)
{
    char *end;
    const long value = strtol(text, &end, 10);

    if (*end != '\0' || value < 1 || value > 1000000) {
        (void)fprintf(stderr,
                      "usage: proof_gate [COMPARISONS [SEED [PAIRS.csv]]], numbers 1 to 1000000\n"
                      "       proof_gate collect COMPARISON.json... > PAIRS.csv\n");
        exit(2);
    }
    return value;
}

static int collect(char *const *documents, int count)
{
    struct fb_error error;

    if (pair_pool_collect(documents, count, stdout, &error) != FB_OK)
        stop(&error);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "collect") == 0)
        return collect(argv + 2, argc - 2);
    const long comparisons = argc > 1 ? read_count(argv[1]) : 400;
    const uint64_t seed = (uint64_t)(argc > 2 ? read_count(argv[2]) : 1);
    static struct pair_pool pool;
    struct fb_arena arena;
    struct fb_error error;

    fb_arena_init(&arena, 0);
    if (pair_pool_read(argc > 3 ? argv[3] : "tests/proof/pairs.csv", &arena, &pool, &error) !=
        FB_OK)
        stop(&error);
    bool fine = prove_pool(&pool, comparisons, seed);
    fine &= prove_noise(comparisons, seed);
    print_power(comparisons, seed);
    fine &= proof_faults("results/reference/instructions.csv");
    fb_arena_free(&arena);
    return fine ? 0 : 3;
}
