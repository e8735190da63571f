#include "made_history.h"

#include <stdio.h>
#include <string.h>

struct fb_history_run fb_made_run(int number, const char *machine, double time_s)
{
    static struct fb_row rows[FB_MADE_CASES];
    struct fb_history_run run = {.rows = rows, .rows_count = FB_MADE_CASES};
    struct fb_history_provenance *from = &run.from;
    const int day = 1 + number / 24 % 28, hour = number % 24;

    fb_history_provenance_init(from);
    (void)snprintf(from->run, sizeof from->run, "202601%02dT%02d0000Z-%d-%.30s", day, hour, number,
                   machine);
    (void)snprintf(from->suite, sizeof from->suite, "made");
    (void)snprintf(from->started_utc, sizeof from->started_utc, "2026-01-%02dT%02d:00:00Z", day,
                   hour);
    (void)snprintf(from->git_time_utc, sizeof from->git_time_utc, "2025-01-%02dT%02d:00:00Z", day,
                   hour);
    (void)snprintf(from->git_sha, sizeof from->git_sha, "%040x", (unsigned)number + 0xabc000u);
    from->git_dirty = 0;
    (void)snprintf(from->machine, sizeof from->machine, "%s", machine);
    (void)snprintf(from->argv, sizeof from->argv, "[\"flowbench run\",\"a, \\\"b\\\"\"]");
    for (int c = 0; c < FB_MADE_CASES; c++) {
        struct fb_row *row = &rows[c];
        const double time = time_s * (double)(1 << c);
        fb_row_init(row);
        row->schema = FB_RESULTS_SCHEMA;
        memcpy(row->run, from->run, sizeof row->run);
        memcpy(row->suite, from->suite, sizeof row->suite);
        (void)snprintf(row->case_id, sizeof row->case_id, "c%d", c);
        (void)snprintf(row->mechanism, sizeof row->mechanism, "flow");
        (void)snprintf(row->params, sizeof row->params, "{\"eps\":%d}", c);
        (void)snprintf(row->status, sizeof row->status, "ok");
        row->seq_len = 256 << c;
        row->time_median_s = time;
        row->time_ci_low_s = time * 0.99;
        row->time_ci_high_s = time * 1.01;
        row->processes = 5;
        row->mem_peak_bytes = 1 << 20;
        row->err_rel = 1e-7;
        row->err_budget = 1e-5;
    }
    return run;
}
