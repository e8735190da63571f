/* Tables of accuracies: see accuracy_table.h. */
#include "accuracy_table.h"

#include "accuracy_report.h"
#include "accuracy_speed.h"
#include "task_list.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CELL_SIZE = FB_ACCURACY_LABEL_SIZE, COLUMNS = FB_ACCURACY_COLUMNS_SHOWN };

const char *const fb_accuracy_headings[FB_ACCURACY_COLUMNS_SHOWN] = {
    "mechanism", "seeds", "ours",    "95 % of the mean", "last",
    "escaped",   "paper", "verdict", "steps/s",          "parameters"};
bool fb_accuracy_column_is_number(size_t column)
{
    return column == 1 || column == 2 || column >= 8;
}

void fb_accuracy_block_title(const struct fb_accuracy_row *row, char *text, size_t text_size)
{
    char steps[48] = "", epochs[48] = "", batch[48] = "", params[96] = "";
    const struct fb_task *task = fb_task_find(row->task);
    if (row->steps_cap != FB_ROW_NONE)
        snprintf(steps, sizeof steps, ", %" PRId64 " steps", row->steps_cap);
    if (row->epochs_cap != FB_ROW_NONE)
        snprintf(epochs, sizeof epochs, ", %" PRId64 " epochs", row->epochs_cap);
    if (task)
        fb_accuracy_put_params(params, sizeof params, task->params, task->param_count,
                               row->task_params);
    if (row->batch != FB_ROW_NONE)
        snprintf(batch, sizeof batch, ", batches of %" PRId64, row->batch);
    snprintf(text, text_size, "%s%s, recipe %s%s%s%s%s, %s %s", row->task, params, row->recipe,
             strcmp(row->model, "small") == 0 ? ", small model" : "", steps, epochs, batch,
             row->device, row->precision);
}

/* ---- cells ----------------------------------------------------------------------------------- */

static void put_number(char *text, int decimals, double value)
{
    if (isnan(value))
        snprintf(text, CELL_SIZE, "-");
    else
        snprintf(text, CELL_SIZE, "%.*f", decimals, value);
}

static void put_escape(const struct fb_accuracy_group *g, char *text)
{
    char half[32] = "", then[32] = "";
    if (!isinf(g->escape_median_step))
        snprintf(half, sizeof half, ", half by step %.0f", g->escape_median_step);
    if (!isnan(g->given_escape))
        snprintf(then, sizeof then, "; then %.2f", g->given_escape);
    if (!g->has_plateau || g->rows_count == 0)
        snprintf(text, CELL_SIZE, "-");
    else
        snprintf(text, CELL_SIZE, "%zu of %zu (%.0f to %.0f %%)%s%s", g->escaped, g->rows_count,
                 100.0 * g->escape.low, 100.0 * g->escape.high, half, then);
}

static void put_verdict(const struct fb_accuracy_group *g, char *text)
{
    if (g->rows_count == 0)
        snprintf(text, CELL_SIZE, "%s", fb_accuracy_verdict_name(FB_VERDICT_NOT_RUN));
    else
        snprintf(text, CELL_SIZE, "%s%s%s", fb_accuracy_verdict_name(g->verdict),
                 g->descriptive && g->verdict != FB_VERDICT_NONE ? ", " : "",
                 g->descriptive ? "descriptive" : "");
}

void fb_accuracy_cells(const struct fb_accuracy_group *g,
                       char cells[FB_ACCURACY_COLUMNS_SHOWN][FB_ACCURACY_LABEL_SIZE])
{
    snprintf(cells[0], CELL_SIZE, "%s", g->label);
    snprintf(cells[1], CELL_SIZE, "%zu", g->rows_count);
    put_number(cells[2], 2, g->mean);
    if (isnan(g->interval.low))
        snprintf(cells[3], CELL_SIZE, "-");
    else
        snprintf(cells[3], CELL_SIZE, "%.2f to %.2f", g->interval.low, g->interval.high);
    put_number(cells[4], 2, g->last);
    put_escape(g, cells[5]);
    put_number(cells[6], 2, g->any->paper_value);
    put_verdict(g, cells[7]);
    put_number(cells[8], 1, g->steps_per_s);
    if (g->rows_count > 0)
        snprintf(cells[9], CELL_SIZE, "%" PRId64, g->rows[0]->parameters);
    else
        snprintf(cells[9], CELL_SIZE, "-");
}

static enum fb_text_style style_of(const struct fb_accuracy_group *g)
{
    return g->verdict == FB_VERDICT_REPRODUCED       ? FB_TEXT_GOOD
           : g->verdict == FB_VERDICT_NOT_REPRODUCED ? FB_TEXT_BAD
                                                     : FB_TEXT_PLAIN;
}

const struct fb_accuracy_group *fb_accuracy_block(const struct fb_accuracy_groups *groups,
                                                  size_t block)
{
    size_t at = 0;
    while (groups->items[at].block != block)
        at++;
    return &groups->items[at];
}

void fb_accuracy_pair_text(const struct fb_accuracy_groups *groups,
                           const struct fb_accuracy_pair *pair, char *text, size_t size)
{
    char escape[64] = "";
    const char *few = pair->seeds < FB_ACCURACY_SEEDS_MIN ? ", descriptive" : "";
    if (!isnan(pair->log_rank_p))
        snprintf(escape, sizeof escape, "; escapes differ with p %.2g (log-rank)",
                 pair->log_rank_p);
    snprintf(text, size,
             "%s against %s: %+.2f points, 95 %% %+.2f to %+.2f, p %.2g (Holm), %zu seed%s%s%s",
             groups->items[pair->flow].label, groups->items[pair->other].label,
             pair->paired.difference, pair->paired.interval.low, pair->paired.interval.high,
             pair->p_adjusted, pair->seeds, pair->seeds == 1 ? "" : "s", few, escape);
}

/* ---- text ------------------------------------------------------------------------------------ */

static enum fb_status print_block(const struct fb_accuracy_groups *groups, size_t block,
                                  struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct fb_text_table table;
    char cells[COLUMNS][CELL_SIZE];
    fb_text_table_init(&table, arena);
    for (size_t c = 0; c < COLUMNS; c++)
        (void)fb_text_table_column(&table, fb_accuracy_headings[c],
                                   fb_accuracy_column_is_number(c));
    for (size_t i = 0; i < groups->count; i++) {
        const struct fb_accuracy_group *g = &groups->items[i];
        if (g->block != block)
            continue;
        enum fb_status status = fb_text_table_row(&table, error);
        fb_accuracy_cells(g, cells);
        for (size_t c = 0; c < COLUMNS && status == FB_OK; c++) {
            const char *text = fb_arena_strdup(arena, cells[c], error);
            status = text ? FB_OK : FB_ERROR_MEMORY;
            fb_text_table_set(&table, c, text,
                              c == FB_ACCURACY_VERDICT_COLUMN ? style_of(g) : FB_TEXT_PLAIN);
        }
        if (status != FB_OK)
            return status;
    }
    fb_text_table_print(&table, mode, out);
    return FB_OK;
}

static void print_missing(const struct fb_accuracy_groups *groups, size_t block, FILE *out)
{
    for (size_t i = 0; i < groups->count; i++) {
        const struct fb_accuracy_group *g = &groups->items[i];
        if (g->block == block && g->failed)
            (void)fprintf(out, "%s: %zu of %zu %s: %s\n", g->label, g->rows_all - g->rows_count,
                          g->rows_all, g->failed->status, g->failed->reason);
    }
}

static void print_pairs(const struct fb_accuracy_groups *groups, size_t block, const char *prefix,
                        FILE *out)
{
    char text[512];
    for (size_t i = 0; i < groups->pairs_count; i++) {
        if (groups->items[groups->pairs[i].flow].block != block)
            continue;
        fb_accuracy_pair_text(groups, &groups->pairs[i], text, sizeof text);
        (void)fprintf(out, "%s%s\n", prefix, text);
    }
}

const char fb_accuracy_legend[] =
    "ours: mean over seeds on the test split, in percent (perplexities as they are), selected as "
    "the "
    "recipe says; last: after the last step; paper: its single run; verdict: whether that lies in "
    "the 95 % prediction interval of a further run of ours";

enum fb_status fb_accuracy_table_print(const struct fb_accuracy_groups *groups, const char *title,
                                       struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                       struct fb_error *error)
{
    char block_title[256];
    enum fb_status status = FB_OK;
    bool any = false;
    (void)fprintf(out, "%s\n", title);
    for (size_t block = 0; block < groups->blocks && status == FB_OK; block++) {
        if (fb_accuracy_is_timed(groups, block))
            continue;
        any = true;
        fb_accuracy_block_title(fb_accuracy_block(groups, block)->any, block_title,
                                sizeof block_title);
        (void)fprintf(out, "\n%s\n", block_title);
        status = print_block(groups, block, mode, out, arena, error);
        print_missing(groups, block, out);
        print_pairs(groups, block, "", out);
    }
    if (any)
        (void)fprintf(out, "\n%s\n", fb_accuracy_legend);
    return status == FB_OK ? fb_accuracy_speed_print(groups, mode, out, arena, error) : status;
}

/* ---- markdown -------------------------------------------------------------------------------- */

static void write_markdown_block(const struct fb_accuracy_groups *groups, size_t block, FILE *out)
{
    char cells[COLUMNS][CELL_SIZE];
    for (size_t c = 0; c < COLUMNS; c++)
        (void)fprintf(out, "| %s ", fb_accuracy_headings[c]);
    (void)fputs("|\n", out);
    for (size_t c = 0; c < COLUMNS; c++)
        (void)fputs(fb_accuracy_column_is_number(c) ? "|---:" : "|---", out);
    (void)fputs("|\n", out);
    for (size_t i = 0; i < groups->count; i++) {
        if (groups->items[i].block != block)
            continue;
        fb_accuracy_cells(&groups->items[i], cells);
        for (size_t c = 0; c < COLUMNS; c++)
            (void)fprintf(out, "| %s ", cells[c]);
        (void)fputs("|\n", out);
    }
}

enum fb_status fb_accuracy_markdown(const struct fb_accuracy_groups *groups, const char *title,
                                    FILE *out, struct fb_error *error)
{
    char block_title[256];
    bool any = false;
    (void)fprintf(out, "# %s\n", title);
    for (size_t block = 0; block < groups->blocks; block++) {
        if (fb_accuracy_is_timed(groups, block))
            continue;
        any = true;
        fb_accuracy_block_title(fb_accuracy_block(groups, block)->any, block_title,
                                sizeof block_title);
        (void)fprintf(out, "\n## %s\n\n", block_title);
        write_markdown_block(groups, block, out);
        (void)fputc('\n', out);
        print_missing(groups, block, out);
        print_pairs(groups, block, "- ", out);
    }
    if (any)
        (void)fprintf(out, "\n%s\n", fb_accuracy_legend);
    fb_accuracy_speed_markdown(groups, out);
    return ferror(out) ? fb_error_set(error, FB_ERROR_IO, "the tables could not be written")
                       : FB_OK;
}
