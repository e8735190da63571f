/* Every row of every run, with the command that measures it again. */
#include "html_page.h"

#include "quantity.h"
#include "row_bytes.h"

#include <math.h>
#include <string.h>

/* What was measured of a case, in the order of its columns. */
enum quantity {
    TIME,
    INTERVAL,
    INSTRUCTIONS,
    FLOOR,
    SPEEDUP,
    FLOPS,
    BANDWIDTH,
    MEMORY,
    PEAK,
    ERROR_REL,
    BUDGET,
    DISTANCE,
    SAMPLES,
    PROCESSES,
    STOP,
    SWITCHES,
    STEAL,
    CLOCK,
    QUANTITY_COUNT
};

static void cell_small(FILE *out, double value)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, value, fb_quantity_small(value, text));
}

static void cell_instructions(FILE *out, double value)
{
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, value, fb_quantity_instructions(value, text));
}

static void cell_whole(FILE *out, double value)
{
    char text[FB_QUANTITY_SIZE];
    (void)snprintf(text, sizeof text, "%.0f", value);
    fb_html_cell_number(out, value, text);
}

static const struct {
    const char *key, *title;
    void (*write)(FILE *out, double value); /* NULL: a text of its own */
} quantities[QUANTITY_COUNT] = {
    [TIME] = {"time", "time", fb_html_cell_time},
    [INTERVAL] = {"", "95 % interval", NULL},
    [INSTRUCTIONS] = {"instructions", "instructions", cell_instructions},
    [FLOOR] = {"floor", "\xc3\x97 floor", fb_html_cell_ratio},
    [SPEEDUP] = {"speedup", "\xc3\x97 as fast as softmax", fb_html_cell_ratio},
    [FLOPS] = {"gflops", "GFLOP/s", fb_html_cell_ratio},
    [BANDWIDTH] = {"gbs", "GB/s", fb_html_cell_ratio},
    [MEMORY] = {"memory", "memory", fb_html_cell_bytes},
    [PEAK] = {"peak", "peak", fb_html_cell_bytes},
    [ERROR_REL] = {"error", "error", cell_small},
    [BUDGET] = {"budget", "% of error budget", fb_html_cell_ratio},
    [DISTANCE] = {"distance", "distance to softmax", cell_small},
    [SAMPLES] = {"samples", "samples", cell_whole},
    [PROCESSES] = {"processes", "processes", cell_whole},
    [STOP] = {"stop", "stopped by", NULL},
    [SWITCHES] = {"switches", "switches", cell_whole},
    [STEAL] = {"steal", "stolen", fb_html_cell_time},
    [CLOCK] = {"ghz", "GHz", fb_html_cell_ratio},
};

static double whole(int64_t value)
{
    return value == FB_ROW_NONE ? (double)NAN : (double)value;
}

/* The number behind a column; of a text 0 where there is one. NaN: an empty cell. */
static double value_of(enum quantity quantity, const struct fb_row *row, double speedup)
{
    switch (quantity) {
    case TIME:
        return row->time_median_s;
    case INTERVAL:
        return isnan(row->time_ci_low_s) ? row->time_ci_low_s : 0;
    case INSTRUCTIONS:
        return whole(row->instructions);
    case FLOOR:
        return row->floor_ratio;
    case SPEEDUP:
        return speedup;
    case FLOPS:
        return row->gflop_per_s;
    case BANDWIDTH:
        return row->gb_per_s;
    case MEMORY:
        return fb_row_memory_bytes(row);
    case PEAK:
        return whole(row->mem_peak_bytes);
    case ERROR_REL:
        return row->err_rel;
    case BUDGET:
        return 100 * row->err_rel / row->err_budget;
    case DISTANCE:
        return row->softmax_distance;
    case SAMPLES:
        return whole(row->samples);
    case PROCESSES:
        return whole(row->processes);
    case STOP:
        return row->stop_reason[0] ? 0 : (double)NAN;
    case SWITCHES:
        return whole(row->ctx_involuntary);
    case STEAL:
        return row->steal_s;
    case CLOCK:
        return row->freq_hz / 1e9;
    case QUANTITY_COUNT:
        break;
    }
    return (double)NAN;
}

/* Columns that say the same in every row, or nothing in any, are left out. */
struct cases {
    const struct fb_html_page *page;
    bool factor[FB_FACTOR_COUNT];
    bool quantity[QUANTITY_COUNT];
    bool reasons, programs;
};

static bool differ(const struct fb_html_page *page, enum fb_factor factor)
{
    char first[FB_FACTOR_TEXT_SIZE], other[FB_FACTOR_TEXT_SIZE];
    bool all_plain = true, differs = false;
    fb_factor_value(&page->sources->results[0].rows[0], factor, first);
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_results *results = &page->sources->results[r];
        for (size_t i = 0; i < results->rows_count; i++) {
            all_plain = all_plain && fb_factor_is_plain(&results->rows[i], factor);
            if (!differs) {
                fb_factor_value(&results->rows[i], factor, other);
                differs = strcmp(first, other) != 0;
            }
        }
    }
    return differs && !all_plain;
}

static void look(struct cases *cases)
{
    const struct fb_html_page *page = cases->page;
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        cases->factor[f] = f != FB_FACTOR_RUN && f != FB_FACTOR_DEVICE_NAME &&
                           f != FB_FACTOR_SEQ_LEN && differ(page, (enum fb_factor)f);
    }
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_results *results = &page->sources->results[r];
        for (size_t i = 0; i < results->rows_count; i++) {
            const struct fb_row *row = &results->rows[i];
            cases->reasons = cases->reasons || strcmp(row->status, "ok") != 0;
            cases->programs = cases->programs || row->program[0] != '\0';
            for (int q = 0; q < QUANTITY_COUNT; q++) {
                cases->quantity[q] =
                    cases->quantity[q] || !isnan(value_of((enum quantity)q, row, 0));
            }
        }
    }
}

static void write_heads(const struct cases *cases)
{
    FILE *out = cases->page->out;
    fb_html_table_begin(
        out, "cases", "sort filter",
        "All cases. Memory: beyond inputs and outputs; peak: growth of the resident "
        "set over one call; switches: times that the processor was taken away");
    fb_html_table_head(out, "mechanism", FB_HTML_TEXT, "mechanism");
    if (cases->page->sources->count > 1) {
        fb_html_table_head(out, "run", FB_HTML_TEXT, "run");
    }
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        if (f == FB_FACTOR_SEQ_LEN) {
            fb_html_table_head(out, "causal", FB_HTML_TEXT, "causal");
            fb_html_table_head(out, "n", FB_HTML_NUMBER, "N");
        } else if (cases->factor[f] && f != FB_FACTOR_PARAMS) {
            const char *name = fb_factor_name((enum fb_factor)f);
            fb_html_table_head(out, name, FB_HTML_TEXT, name);
        }
    }
    fb_html_table_head(out, "status", FB_HTML_TEXT, "status");
    for (int q = 0; q < QUANTITY_COUNT; q++) {
        if (cases->quantity[q]) {
            fb_html_table_head(out, quantities[q].key,
                               quantities[q].write ? FB_HTML_NUMBER : FB_HTML_TEXT,
                               quantities[q].title);
        }
    }
    if (cases->factor[FB_FACTOR_PARAMS]) {
        fb_html_table_head(out, "parameters", FB_HTML_TEXT, "parameters");
    }
    if (cases->programs) {
        fb_html_table_head(out, "program", FB_HTML_TEXT, "program");
        fb_html_table_head(out, "version", FB_HTML_TEXT, "its version");
    }
    if (cases->reasons) {
        fb_html_table_head(out, "reason", FB_HTML_TEXT, "reason");
    }
    fb_html_table_head(out, "row", FB_HTML_NUMBER, "row");
    fb_html_table_head(out, "", FB_HTML_TEXT, "measure it again");
    fb_html_table_body(out);
}

static void write_quantity(FILE *out, enum quantity quantity, const struct fb_row *row,
                           double speedup)
{
    char text[2 * FB_QUANTITY_SIZE];
    double value = value_of(quantity, row, speedup);
    if (quantities[quantity].write) {
        quantities[quantity].write(out, value);
    } else if (quantity == STOP) {
        fb_html_cell_text(out, row->stop_reason);
    } else if (isnan(value)) {
        (void)fputs("<td></td>", out);
    } else {
        fb_html_cell_text(out, fb_html_time_range(row->time_ci_low_s, row->time_ci_high_s, text));
    }
}

static void write_row(const struct cases *cases, const struct fb_html_series *found,
                      const struct fb_point *point)
{
    char text[FB_HTML_LABEL_SIZE];
    const struct fb_row *row = point->row;
    const struct fb_html_page *page = cases->page;
    size_t run = found->series->run_index;
    FILE *out = page->out;
    fb_html_printf(out, "<tr><th scope=\"row\">%s/%s</th>", row->mechanism, row->variant);
    if (page->sources->count > 1) {
        fb_html_name_run(page, run, text);
        fb_html_cell_text(out, text);
    }
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        if (f == FB_FACTOR_SEQ_LEN) {
            fb_html_cell_text(out, strcmp(row->causal, "true") == 0 ? "yes" : "no");
            fb_html_cell_count(out, (double)row->seq_len);
        } else if (cases->factor[f] && f != FB_FACTOR_PARAMS) {
            fb_factor_value(row, (enum fb_factor)f, text);
            fb_html_cell_text(out, text);
        }
    }
    fb_html_cell_status(out, row);
    double speedup = fb_html_speedup(found, point);
    for (int q = 0; q < QUANTITY_COUNT; q++) {
        if (cases->quantity[q]) {
            write_quantity(out, (enum quantity)q, row, speedup);
        }
    }
    if (cases->factor[FB_FACTOR_PARAMS]) {
        fb_factor_value(row, FB_FACTOR_PARAMS, text);
        fb_html_cell_text(out, text);
    }
    if (cases->programs) {
        fb_html_cell_text(out, row->program);
        fb_html_cell_text(out, row->program_version);
    }
    if (cases->reasons) {
        fb_html_printf(out, "<td class=why>%s</td>", row->reason);
    }
    size_t number = (size_t)(row - page->sources->results[run].rows) + 1;
    fb_html_printf(out, "<td class=n>%zu</td><td><code class=copy>./bench repro ", number);
    fb_html_shell_word(out, page->sources->items[run].csv);
    fb_html_printf(out, ":%zu</code></td></tr>\n", number);
}

void fb_html_cases(const struct fb_html_page *page)
{
    struct cases cases = {.page = page};
    look(&cases);
    fb_html_section(page->out, "all", "All cases");
    (void)fputs("<p>Each row of the stored results. The command in its last column measures that "
                "one case again, with the same seed, and says whether it agrees: for row 12 it is "
                "<code>./bench repro ",
                page->out);
    fb_html_shell_word(page->out, page->sources->items[0].csv);
    fb_html_printf(page->out, ":12</code>%s.</p>\n", page->sources->count > 1 ? " in run 1" : "");
    write_heads(&cases);
    for (size_t s = 0; s < page->set.count; s++) {
        const struct fb_series *series = page->series[s].series;
        for (size_t i = 0; i < series->points_count; i++) {
            write_row(&cases, &page->series[s], &series->points[i]);
        }
    }
    fb_html_table_end(page->out);
    (void)fputs("</section>\n", page->out);
}
