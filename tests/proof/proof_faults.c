/* Faults planted in stored rows that have become twice as fast: see proof_faults.h. */
#include "proof_faults.h"

#include "comparison.h"
#include "results.h"
#include "stats_infer.h"

#include <stdio.h>
#include <stdlib.h>

enum fault {
    FAULT_NONE,
    FAULT_WORKSPACE,
    FAULT_SAVED,
    FAULT_STATE,
    FAULT_ERROR,
    FAULT_WRONG,
    FAULT_INSTRUCTIONS,
    FAULT_COUNT
};

static const char *const names[FAULT_COUNT] = {
    [FAULT_NONE] = "twice as fast, nothing planted",
    [FAULT_WORKSPACE] = "twice as fast, 2 % more workspace",
    [FAULT_SAVED] = "twice as fast, 2 % more saved for backward",
    [FAULT_STATE] = "twice as fast, 2 % more state",
    [FAULT_ERROR] = "twice as fast, an error of 1.1 x its budget",
    [FAULT_WRONG] = "twice as fast, the oracle says wrong",
    [FAULT_INSTRUCTIONS] = "3 % more instructions",
};

static bool grow(int64_t *bytes)
{
    if (*bytes == FB_ROW_NONE || *bytes < 100)
        return false;
    *bytes += *bytes / 50 + 1;
    return true;
}

/* False when the row has nothing to plant the fault in. */
static bool plant(enum fault fault, struct fb_row *row)
{
    switch (fault) {
    case FAULT_WORKSPACE:
        return grow(&row->mem_workspace_bytes);
    case FAULT_SAVED:
        return grow(&row->mem_saved_bytes);
    case FAULT_STATE:
        return grow(&row->mem_state_bytes);
    case FAULT_ERROR:
        row->err_max = 1.1 * row->err_budget;
        return true;
    case FAULT_WRONG:
        (void)snprintf(row->status, sizeof row->status, "wrong");
        row->instructions = FB_ROW_NONE;
        return true;
    case FAULT_INSTRUCTIONS:
        row->instructions += 3 * row->instructions / 100;
        return true;
    default:
        return true;
    }
}

/* As two stored runs are judged. */
static enum fb_verdict judge(const struct fb_comparison *comparison, const struct fb_row *base,
                             const struct fb_row *fresh)
{
    struct fb_compared one = {.base = base, .fresh = fresh, .verdict = FB_VERDICT_INCOMPARABLE};

    if (!fb_compare_rows_match(&one))
        return one.verdict;
    if (fb_compare_rows_count(comparison, &one))
        fb_compare_rows_gate(&one);
    return one.verdict;
}

static bool try_fault(const struct fb_comparison *comparison, const struct fb_results *results,
                      enum fault fault)
{
    long planted = 0, found = 0;

    for (size_t i = 0; i < results->rows_count; i++) {
        struct fb_row fresh = results->rows[i];
        if (fault != FAULT_INSTRUCTIONS)
            fresh.instructions /= 2;
        if (!plant(fault, &fresh))
            continue;
        planted++;
        found += judge(comparison, &results->rows[i], &fresh) == FB_VERDICT_FAIL;
    }
    const struct fb_interval interval = fb_stats_clopper_pearson(found, planted, 0.05);
    (void)printf("| %s | FAIL | %ld of %ld | %.2f to %.2f %% |\n", names[fault], found, planted,
                 100.0 * interval.low, 100.0 * interval.high);
    return planted > 0 && found == (fault == FAULT_NONE ? 0 : planted);
}

bool proof_faults(const char *path)
{
    struct fb_results results;
    struct fb_comparison comparison;
    struct fb_arena arena;
    struct fb_error error;
    bool fine = true;

    fb_arena_init(&arena, 0);
    if (fb_results_read(path, &arena, &results, &error) != FB_OK ||
        fb_comparison_init(&comparison, 1, &arena, &error) != FB_OK) {
        (void)fprintf(stderr, "proof_gate: error: %s\n", error.text);
        exit(1);
    }
    (void)puts("\n| planted in every case of suites/ci.yaml and ci-decode.yaml | verdict | cases | "
               "95 % interval |\n|---|---|---|---|");
    for (int fault = 0; fault < FAULT_COUNT; fault++) {
        if (!try_fault(&comparison, &results, (enum fault)fault)) {
            (void)fprintf(stderr, "proof_gate: does not hold: %s\n", names[fault]);
            fine = false;
        }
    }
    fb_arena_free(&arena);
    return fine;
}
