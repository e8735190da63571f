/* What two rows say without statistics: can they be compared, is the answer right, does it need
 * more memory? See comparison.h. */
#include "comparison.h"

#include "progress.h"

#include <math.h>
#include <string.h>

/* ---- comparable? ------------------------------------------------------------------------------
 */

/* The columns that say what was computed. Equal ids with unequal factors are not one case. */
static const char *const factors[] = {
    "mechanism", "variant", "device", "isa",      "threads", "dtype",   "layout",
    "causal",    "pass",    "batch",  "heads",    "seq_len", "kv_len",  "head_dim",
    "value_dim", "params",  "seed",   "kv_heads", "lengths", "program",
};

static bool same_value(const struct fb_column *column, const struct fb_row *a,
                       const struct fb_row *b)
{
    const char *x = (const char *)a + column->offset;
    const char *y = (const char *)b + column->offset;

    if (column->type == FB_COLUMN_TEXT)
        return x[0] == '\0' || y[0] == '\0' || strcmp(x, y) == 0;
    int64_t i;
    int64_t j;
    memcpy(&i, x, sizeof i);
    memcpy(&j, y, sizeof j);
    return i == FB_ROW_NONE || j == FB_ROW_NONE || i == j;
}

/* The first factor in which they differ, or NULL. What one side does not state (a column that an
 * older version did not have) is no difference. */
static const char *differing_factor(const struct fb_row *a, const struct fb_row *b)
{
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        const struct fb_column *column = fb_column_find(factors[i]);
        if (column != NULL && !same_value(column, a, b))
            return factors[i];
    }
    return NULL;
}

static bool is(const struct fb_row *row, const char *status)
{
    return strcmp(row->status, status) == 0;
}

static bool has_time(const struct fb_row *row)
{
    return isfinite(row->time_median_s) && row->time_median_s > 0.0;
}

static bool is_counted(const struct fb_row *row)
{
    return row->instructions != FB_ROW_NONE && !has_time(row);
}

/* Counts are of one scale when the same counter has counted, and of one program but for its source
 * when compiler and libraries are the same. */
static bool counts_match(struct fb_compared *one)
{
    const struct fb_row *base = one->base;
    const struct fb_row *fresh = one->fresh;

    if (!is_counted(base) || !is_counted(fresh))
        fb_compared_explain(one, "instructions are counted in %s only",
                            is_counted(base) ? "base" : "new");
    else if (base->instructions <= 0 || fresh->instructions <= 0)
        fb_compared_explain(one, "instructions of %s are not counted",
                            base->instructions <= 0 ? "base" : "new");
    else if (strcmp(base->counter, fresh->counter) != 0)
        fb_compared_explain(one, "other counter: %s and %s", base->counter, fresh->counter);
    else if (strcmp(base->toolchain, fresh->toolchain) != 0)
        fb_compared_explain(one, "other toolchain: %s and %s", base->toolchain, fresh->toolchain);
    else
        return true;
    return false;
}

static const char *colon(const struct fb_row *row)
{
    return row->reason[0] != '\0' ? ": " : "";
}

/* A new side without a measurement where the old one had one. */
static void explain_failure(struct fb_compared *one)
{
    const struct fb_row *fresh = one->fresh;

    one->broken = !is(fresh, "skipped");
    fb_compared_explain(one, "new is %s%s%s", fresh->status, colon(fresh), fresh->reason);
}

static void explain_wrong(struct fb_compared *one)
{
    const struct fb_row *fresh = one->fresh;

    one->verdict = FB_VERDICT_FAIL;
    one->wrong = true;
    fb_compared_explain(one, "wrong result%s%s", colon(fresh), fresh->reason);
}

static bool explain_missing(struct fb_compared *one)
{
    if (one->base != NULL && one->fresh != NULL)
        return false;
    fb_compared_explain(one, "missing in %s", one->base == NULL ? "base" : "new");
    if (one->fresh != NULL && is(one->fresh, "wrong"))
        explain_wrong(one);
    return true;
}

bool fb_compare_rows_match(struct fb_compared *one)
{
    const struct fb_row *base = one->base;
    const struct fb_row *fresh = one->fresh;

    if (explain_missing(one))
        return false;
    const char *factor = differing_factor(base, fresh);
    if (factor != NULL)
        fb_compared_explain(one, "the rows share an id but differ in %s", factor);
    else if (is(fresh, "wrong"))
        explain_wrong(one);
    else if (is(base, "ok") && !is(fresh, "ok"))
        explain_failure(one);
    else if (!is(base, "ok") && !is(fresh, "ok") && strcmp(base->status, fresh->status) == 0)
        fb_compared_explain(one, "%s on both sides%s%s", base->status, colon(base), base->reason);
    else if (!is(base, "ok"))
        fb_compared_explain(one, "base is %s%s%s", base->status, colon(base), base->reason);
    else if (is_counted(base) || is_counted(fresh))
        return counts_match(one);
    else if (!has_time(base) || !has_time(fresh))
        fb_compared_explain(one, "time_median_s of %s is %g, which is no time",
                            has_time(base) ? "new" : "base",
                            has_time(base) ? fresh->time_median_s : base->time_median_s);
    else
        return true;
    return false;
}

/* ---- counted instructions -----------------------------------------------------------------------
 */

bool fb_compare_rows_counted(const struct fb_compared *one)
{
    return is_counted(one->base) && is_counted(one->fresh);
}

bool fb_compare_rows_count(const struct fb_comparison *comparison, struct fb_compared *one)
{
    if (!is_counted(one->fresh))
        return false;
    one->unit = FB_UNIT_COUNTS;
    one->base_count = one->fresh_count = 1;
    one->threshold = comparison->count_growth;
    one->change = (double)one->fresh->instructions / (double)one->base->instructions - 1.0;
    one->change_low = one->change_high = one->change;
    one->detectable = one->threshold;
    one->verdict = FB_VERDICT_PASS;
    if (one->change > one->threshold) {
        one->verdict = FB_VERDICT_FAIL;
        one->slower = true;
        fb_compared_explain(one, "more instructions");
    } else if (one->change < -one->threshold) {
        one->verdict = FB_VERDICT_FASTER;
        fb_compared_explain(one, "fewer instructions");
    }
    return true;
}

/* ---- memory and error -------------------------------------------------------------------------
 */

static const double memory_growth_max = 0.01;

/* A peak also holds what no mechanism asks for: stacks, the threads' and the allocator's own pages,
 * whole pages where a byte was touched. */
static double peak_slack_bytes(const struct fb_row *row)
{
    const double share_bytes = 32.0 * 1024.0;
    const double threads = row->threads > 0 ? (double)row->threads : 1.0;

    return share_bytes * (threads + 1.0);
}

static int64_t bytes_or_zero(int64_t bytes)
{
    return bytes == FB_ROW_NONE || bytes < 0 ? 0 : bytes;
}

/* What a call's peak is measured against. Which threads get work is chance, and one without any
 * does not touch its share of the workspace: a peak within what the variant asks for is no growth,
 * as those bytes are gated by themselves. */
static int64_t peak_reference(const struct fb_row *base, const struct fb_row *fresh)
{
    const int64_t declared = bytes_or_zero(fresh->mem_workspace_bytes) +
                             bytes_or_zero(fresh->mem_saved_bytes) +
                             bytes_or_zero(fresh->mem_state_bytes);

    if (base->mem_peak_bytes == FB_ROW_NONE)
        return FB_ROW_NONE;
    return base->mem_peak_bytes > declared ? base->mem_peak_bytes : declared;
}

static void gate_memory(struct fb_compared *one, const char *name, int64_t base_bytes,
                        int64_t fresh_bytes, double slack_bytes)
{
    char before[32];
    char after[32];
    const double base = (double)base_bytes;
    const double fresh = (double)fresh_bytes;

    if (base_bytes == FB_ROW_NONE || fresh_bytes == FB_ROW_NONE || base_bytes < 0 ||
        fresh_bytes < 0 || fresh <= base * (1.0 + memory_growth_max) || fresh - base <= slack_bytes)
        return;
    one->verdict = FB_VERDICT_FAIL;
    one->hungrier = true;
    (void)fb_human_bytes(base, before, sizeof before);
    (void)fb_human_bytes(fresh, after, sizeof after);
    if (base_bytes == 0)
        fb_compared_explain(one, "%s grew from 0 B to %s", name, after);
    else
        fb_compared_explain(one, "%s grew by %.3g %%, %s to %s", name, 100.0 * (fresh / base - 1.0),
                            before, after);
}

static void gate_error(struct fb_compared *one)
{
    const struct fb_row *fresh = one->fresh;

    if (isnan(fresh->err_budget))
        return;
    const bool relative = fresh->err_rel > fresh->err_budget;
    if (!relative && !(fresh->err_max > fresh->err_budget))
        return;
    one->verdict = FB_VERDICT_FAIL;
    one->wrong = true;
    fb_compared_explain(one, "%s %.3g is outside its budget of %.3g",
                        relative ? "err_rel" : "err_max",
                        relative ? fresh->err_rel : fresh->err_max, fresh->err_budget);
}

void fb_compare_rows_gate(struct fb_compared *one)
{
    const struct fb_row *base = one->base;
    const struct fb_row *fresh = one->fresh;

    gate_error(one);
    gate_memory(one, "mem_workspace_bytes", base->mem_workspace_bytes, fresh->mem_workspace_bytes,
                0.0);
    gate_memory(one, "mem_saved_bytes", base->mem_saved_bytes, fresh->mem_saved_bytes, 0.0);
    gate_memory(one, "mem_state_bytes", base->mem_state_bytes, fresh->mem_state_bytes, 0.0);
    gate_memory(one, "mem_peak_bytes", peak_reference(base, fresh), fresh->mem_peak_bytes,
                peak_slack_bytes(fresh));
}
