/* Comparing two rows of one case: see repro_compare.h. */
#include "repro_compare.h"

#include "progress.h"
#include "run_json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { CELL_SIZE = 96, REMARK_SIZE = 160 };

static bool is(const struct fb_row *row, const char *status)
{
    return strcmp(row->status, status) == 0;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static bool has_origin(const struct fb_repro_origin *origin)
{
    return origin->known && origin->same_machine && origin->same_build;
}

static void judge_hashes(const struct fb_repro_row *repro, const struct fb_row *now,
                         struct fb_repro_verdict *verdict)
{
    const struct fb_row *then = &repro->row;
    const struct fb_repro_origin *origin = &repro->origin;
    const char *cause = origin->known ? origin->difference : "unknown origin of the row";

    verdict->agrees = true;
    if (strcmp(then->output_hash, now->output_hash) == 0) {
        (void)snprintf(verdict->text, sizeof verdict->text, "the output is the same, bit for bit");
    } else if (then->output_hash[0] == '\0') {
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "the row has no output_hash; the output is within its error budget");
    } else if (has_origin(origin)) {
        verdict->agrees = false;
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "the same machine and build gave another output (%s, was %s): a mechanism "
                       "that is not deterministic, uncommitted changes, or a fault of the machine",
                       now->output_hash, then->output_hash);
    } else if (isnan(now->err_max)) {
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "the output has other bits, as may be (%s); whether it is as good is not "
                       "known, since the suite has no oracle",
                       cause);
    } else {
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "the output has other bits, as may be (%s), and its error is within the "
                       "budget",
                       cause);
    }
}

/* A count is exact where source, toolchain and counter are the same. */
static void judge_counts(const struct fb_repro_row *repro, const struct fb_row *now,
                         struct fb_repro_verdict *verdict)
{
    const struct fb_row *then = &repro->row;

    if (!verdict->agrees || !has_origin(&repro->origin) || then->instructions == FB_ROW_NONE ||
        now->instructions == FB_ROW_NONE || strcmp(then->counter, now->counter) != 0 ||
        strcmp(then->toolchain, now->toolchain) != 0 || then->instructions == now->instructions)
        return;
    verdict->agrees = false;
    (void)snprintf(verdict->text, sizeof verdict->text,
                   "the same build executed %" PRId64 " instructions, was %" PRId64,
                   now->instructions, then->instructions);
}

void fb_repro_judge(const struct fb_repro_row *repro, const struct fb_row *now,
                    struct fb_repro_verdict *verdict)
{
    const struct fb_row *then = &repro->row;
    const bool ok = is(now, "ok");

    if (is(then, "ok") && ok) {
        judge_hashes(repro, now, verdict);
        judge_counts(repro, now, verdict);
        return;
    }
    verdict->agrees = strcmp(then->status, now->status) == 0;
    if (verdict->agrees) {
        (void)snprintf(verdict->text, sizeof verdict->text, "the outcome is the same: %s",
                       now->status);
    } else if (ok && (is(then, "timeout") || is(then, "oom"))) {
        verdict->agrees = true;
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "the row has no result (%s) to compare with; %s than then does not make it "
                       "another result",
                       then->status, is(then, "oom") ? "more memory" : "less time");
    } else {
        (void)snprintf(verdict->text, sizeof verdict->text, "the outcome is %s, was %s%s%.300s",
                       now->status, then->status, now->reason[0] != '\0' ? ": " : "", now->reason);
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

static void print_line(FILE *out, const char *label, const char *then, const char *now,
                       const char *remark)
{
    const bool bare = remark[0] == '\0';

    (void)fprintf(out, "  %-12s %-30s %-*s%s%s\n", label, then, bare ? 0 : 30, now, bare ? "" : " ",
                  remark);
}

static void time_cell(const struct fb_row *row, char *text)
{
    char median[32];
    char low[32];
    char high[32];

    if (isnan(row->time_median_s)) {
        (void)snprintf(text, CELL_SIZE, "-");
        return;
    }
    (void)snprintf(text, CELL_SIZE, "%s [%s, %s]",
                   fb_human_time(row->time_median_s, median, sizeof median),
                   fb_human_time(row->time_ci_low_s, low, sizeof low),
                   fb_human_time(row->time_ci_high_s, high, sizeof high));
}

static void print_time(FILE *out, const struct fb_repro_row *repro, const struct fb_row *now)
{
    const struct fb_row *then = &repro->row;
    const double near = FB_REPRO_TIME_TOLERANCE;
    char cells[2][CELL_SIZE];
    char remark[REMARK_SIZE] = "";

    time_cell(then, cells[0]);
    time_cell(now, cells[1]);
    if (!isnan(then->time_median_s) && !isnan(now->time_median_s)) {
        const bool overlap = now->time_ci_low_s <= then->time_ci_high_s * (1.0 + near) &&
                             now->time_ci_high_s >= then->time_ci_low_s * (1.0 - near);
        char relation[64] = "two machines";
        if (!repro->origin.known || repro->origin.same_machine)
            (void)snprintf(relation, sizeof relation, "intervals %s (within %.0f %%)",
                           overlap ? "overlap" : "lie apart", 100.0 * near);
        (void)snprintf(remark, sizeof remark, "ratio %.3f [%.3f, %.3f], %s",
                       now->time_median_s / then->time_median_s,
                       now->time_ci_low_s / then->time_ci_high_s,
                       now->time_ci_high_s / then->time_ci_low_s, relation);
    }
    print_line(out, "time", cells[0], cells[1], remark);
}

static void real_cell(double value, const char *format, char *text)
{
    if (isnan(value))
        (void)snprintf(text, CELL_SIZE, "-");
    else
        (void)snprintf(text, CELL_SIZE, strcmp(format, "e") == 0 ? "%.2e" : "%.2f", value);
}

static void print_reals(FILE *out, const char *label, double then, double now, const char *format,
                        const char *remark)
{
    char cells[2][CELL_SIZE];

    real_cell(then, format, cells[0]);
    real_cell(now, format, cells[1]);
    print_line(out, label, cells[0], cells[1], remark);
}

static void print_error(FILE *out, const struct fb_row *then, const struct fb_row *now)
{
    char remark[REMARK_SIZE] = "not checked";

    if (!isnan(now->err_budget) && !isnan(now->err_max))
        (void)snprintf(remark, sizeof remark, "%s the budget of %.0e",
                       fmax(now->err_max, now->err_rel) <= now->err_budget ? "within" : "beyond",
                       now->err_budget);
    print_reals(out, "err_max", then->err_max, now->err_max, "e", remark);
    print_reals(out, "err_rel", then->err_rel, now->err_rel, "e", "");
}

static void print_bytes(FILE *out, const char *label, int64_t then, int64_t now)
{
    const int64_t values[2] = {then, now};
    char cells[2][CELL_SIZE];

    for (int i = 0; i < 2; i++) {
        if (values[i] == FB_ROW_NONE)
            (void)snprintf(cells[i], CELL_SIZE, "-");
        else
            (void)fb_human_bytes((double)values[i], cells[i], CELL_SIZE);
    }
    print_line(out, label, cells[0], cells[1],
               then == FB_ROW_NONE || now == FB_ROW_NONE ? ""
               : then == now                             ? "equal"
                                                         : "");
}

static void print_instructions(FILE *out, const struct fb_row *then, const struct fb_row *now)
{
    char cells[2][CELL_SIZE] = {"-", "-"};

    if (then->instructions == FB_ROW_NONE && now->instructions == FB_ROW_NONE)
        return;
    if (then->instructions != FB_ROW_NONE)
        (void)snprintf(cells[0], CELL_SIZE, "%" PRId64, then->instructions);
    if (now->instructions != FB_ROW_NONE)
        (void)snprintf(cells[1], CELL_SIZE, "%" PRId64, now->instructions);
    print_line(out, "instructions", cells[0], cells[1],
               then->instructions == now->instructions ? "equal" : "");
}

static void print_origin(FILE *out, const struct fb_repro_row *repro, const struct fb_row *now,
                         const struct fb_machine *here)
{
    const struct fb_repro_origin *origin = &repro->origin;
    char build[96];

    (void)snprintf(build, sizeof build, "flowbench %.30s (%.12s)", here->version,
                   fb_build_git_sha()[0] != '\0' ? fb_build_git_sha() : "no commit");
    print_line(out, "", "then", "now", "");
    print_line(out, "machine", origin->known ? origin->machine : repro->row.device_name,
               origin->known ? here->name : here->cpu_model,
               !origin->known         ? ""
               : origin->same_machine ? "same kind"
                                      : "another machine");
    print_line(out, "build", origin->known ? origin->build : "unknown", build,
               !origin->known       ? ""
               : origin->same_build ? "same"
                                    : "another build");
    print_line(out, "status", repro->row.status, now->status, "");
}

void fb_repro_print(FILE *out, const struct fb_repro_row *repro, const struct fb_row *now,
                    const struct fb_machine *here, const struct fb_repro_verdict *verdict)
{
    const struct fb_row *then = &repro->row;
    const bool both_hashed = then->output_hash[0] != '\0' && now->output_hash[0] != '\0';
    char description[256];

    fb_case_describe(&repro->item, description, sizeof description);
    (void)fprintf(out, "%s  (row %zu, case_id %s)\n", description, repro->number, then->case_id);
    print_origin(out, repro, now, here);
    print_line(out, "output_hash", both_hashed || then->output_hash[0] ? then->output_hash : "-",
               now->output_hash[0] != '\0' ? now->output_hash : "-",
               !both_hashed                                       ? ""
               : strcmp(then->output_hash, now->output_hash) == 0 ? "equal"
                                                                  : "different");
    print_error(out, then, now);
    print_time(out, repro, now);
    print_instructions(out, then, now);
    print_reals(out, "floor_ratio", then->floor_ratio, now->floor_ratio, "f", "");
    print_bytes(out, "workspace", then->mem_workspace_bytes, now->mem_workspace_bytes);
    print_bytes(out, "peak memory", then->mem_peak_bytes, now->mem_peak_bytes);
    (void)fprintf(out, "%s: %s\n", verdict->agrees ? "agrees" : "differs", verdict->text);
}
