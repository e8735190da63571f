/* Training steps per second against tokens: see accuracy_speed.h. */
#include "accuracy_speed.h"

#include "accuracy_table.h"
#include "task.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CELL_SIZE = 64 };

const char fb_accuracy_speed_legend[] =
    "training steps per second: median over seeds, each in a process of its own, with its "
    "distribution-free 95 % interval from six seeds on, with the lowest and the highest below";

/* ---- sets ------------------------------------------------------------------------------------ */

static const struct fb_accuracy_row *row_of(const struct fb_accuracy_groups *groups, size_t block)
{
    return fb_accuracy_block(groups, block)->any;
}

bool fb_accuracy_is_timed(const struct fb_accuracy_groups *groups, size_t block)
{
    const struct fb_task *task = fb_task_find(row_of(groups, block)->task);
    return task && task->times_only;
}

static bool in_set(const struct fb_accuracy_groups *groups, size_t block, size_t index)
{
    return fb_accuracy_same_setting(row_of(groups, block), groups->items[index].any);
}

bool fb_accuracy_leads_speed(const struct fb_accuracy_groups *groups, size_t block)
{
    for (size_t before = 0; before < block; before++)
        if (fb_accuracy_same_setting(row_of(groups, before), row_of(groups, block)))
            return false;
    return fb_accuracy_is_timed(groups, block);
}

/* Adds a length to a sorted list; when that is full the shortest gives way. */
static void insert(int64_t *lengths, size_t *count, int64_t length)
{
    size_t at = 0;
    while (at < *count && lengths[at] < length)
        at++;
    if (at < *count && lengths[at] == length)
        return;
    if (*count == FB_SPEED_LENGTHS_MAX) {
        if (at == 0)
            return;
        memmove(lengths, lengths + 1, --at * sizeof *lengths);
    } else {
        memmove(lengths + at + 1, lengths + at, ((*count)++ - at) * sizeof *lengths);
    }
    lengths[at] = length;
}

size_t fb_accuracy_speed_lengths(const struct fb_accuracy_groups *groups, size_t block,
                                 int64_t lengths[FB_SPEED_LENGTHS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < groups->count; i++)
        if (groups->items[i].rows_count > 0 && in_set(groups, block, i))
            insert(lengths, &count, groups->items[i].rows[0]->tokens);
    return count;
}

bool fb_accuracy_speed_starts(const struct fb_accuracy_groups *groups, size_t block, size_t index)
{
    if (!in_set(groups, block, index))
        return false;
    for (size_t i = 0; i < index; i++)
        if (in_set(groups, block, i) &&
            strcmp(groups->items[i].label, groups->items[index].label) == 0)
            return false;
    return true;
}

const struct fb_accuracy_group *fb_accuracy_speed_at(const struct fb_accuracy_groups *groups,
                                                     size_t block, const char *label,
                                                     int64_t length)
{
    for (size_t i = 0; i < groups->count; i++) {
        const struct fb_accuracy_group *g = &groups->items[i];
        if (g->rows_count > 0 && g->rows[0]->tokens == length && in_set(groups, block, i) &&
            strcmp(g->label, label) == 0)
            return g;
    }
    return NULL;
}

/* ---- words ----------------------------------------------------------------------------------- */

void fb_accuracy_speed_title(const struct fb_accuracy_groups *groups, size_t block, char *text,
                             size_t text_size)
{
    struct fb_accuracy_row row = *row_of(groups, block);
    snprintf(row.task_params, sizeof row.task_params, "{}"); /* they tell the lengths apart */
    fb_accuracy_block_title(&row, text, text_size);
}

static int decimals_of(double value)
{
    return value < 1.0 ? 3 : value < 10.0 ? 2 : value < 100.0 ? 1 : 0;
}

void fb_accuracy_speed_cell(const struct fb_accuracy_groups *groups, size_t block,
                            const char *label, int64_t length, char *text, size_t text_size)
{
    const struct fb_accuracy_group *g = fb_accuracy_speed_at(groups, block, label, length);
    const int decimals = g ? decimals_of(g->steps_per_s) : 0;
    if (!g)
        snprintf(text, text_size, "-");
    else if (g->rows_count == 1)
        snprintf(text, text_size, "%.*f", decimals, g->steps_per_s);
    else
        snprintf(text, text_size, "%.*f (%.*f to %.*f)", decimals, g->steps_per_s, decimals,
                 g->speed.low, decimals, g->speed.high);
}

static void write_missing(const struct fb_accuracy_groups *groups, size_t block, FILE *out)
{
    for (size_t i = 0; i < groups->count; i++) {
        const struct fb_accuracy_group *g = &groups->items[i];
        if (g->failed && in_set(groups, block, i))
            (void)fprintf(out, "%s %s: %zu of %zu %s: %s\n", g->label, g->any->task_params,
                          g->rows_all - g->rows_count, g->rows_all, g->failed->status,
                          g->failed->reason);
    }
}

static enum fb_status print_set(const struct fb_accuracy_groups *groups, size_t block,
                                struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                struct fb_error *error)
{
    struct fb_text_table table;
    int64_t lengths[FB_SPEED_LENGTHS_MAX];
    const size_t count = fb_accuracy_speed_lengths(groups, block, lengths);
    fb_text_table_init(&table, arena);
    (void)fb_text_table_column(&table, "mechanism", false);
    for (size_t c = 0; c < count; c++) {
        const char *heading = fb_arena_printf(arena, error, "%" PRId64 " tokens", lengths[c]);
        if (!heading)
            return FB_ERROR_MEMORY;
        (void)fb_text_table_column(&table, heading, true);
    }
    for (size_t i = 0; i < groups->count; i++) {
        const char *label = groups->items[i].label;
        if (!fb_accuracy_speed_starts(groups, block, i))
            continue;
        const enum fb_status status = fb_text_table_row(&table, error);
        if (status != FB_OK)
            return status;
        fb_text_table_set(&table, 0, label, FB_TEXT_PLAIN);
        for (size_t c = 0; c < count; c++) {
            char cell[CELL_SIZE];
            fb_accuracy_speed_cell(groups, block, label, lengths[c], cell, sizeof cell);
            const char *text = fb_arena_strdup(arena, cell, error);
            if (!text)
                return FB_ERROR_MEMORY;
            fb_text_table_set(&table, 1 + c, text, FB_TEXT_PLAIN);
        }
    }
    fb_text_table_print(&table, mode, out);
    write_missing(groups, block, out);
    return FB_OK;
}

enum fb_status fb_accuracy_speed_print(const struct fb_accuracy_groups *groups,
                                       struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                       struct fb_error *error)
{
    char title[256];
    bool any = false;
    for (size_t block = 0; block < groups->blocks; block++) {
        if (!fb_accuracy_leads_speed(groups, block))
            continue;
        any = true;
        fb_accuracy_speed_title(groups, block, title, sizeof title);
        (void)fprintf(out, "\n%s\n", title);
        const enum fb_status status = print_set(groups, block, mode, out, arena, error);
        if (status != FB_OK)
            return status;
    }
    if (any)
        (void)fprintf(out, "\n%s\n", fb_accuracy_speed_legend);
    return FB_OK;
}

static void write_set(const struct fb_accuracy_groups *groups, size_t block, FILE *out)
{
    int64_t lengths[FB_SPEED_LENGTHS_MAX];
    const size_t count = fb_accuracy_speed_lengths(groups, block, lengths);
    (void)fputs("| mechanism ", out);
    for (size_t c = 0; c < count; c++)
        (void)fprintf(out, "| %" PRId64 " tokens ", lengths[c]);
    (void)fputs("|\n|---", out);
    for (size_t c = 0; c < count; c++)
        (void)fputs("|---:", out);
    (void)fputs("|\n", out);
    for (size_t i = 0; i < groups->count; i++) {
        if (!fb_accuracy_speed_starts(groups, block, i))
            continue;
        (void)fprintf(out, "| %s ", groups->items[i].label);
        for (size_t c = 0; c < count; c++) {
            char cell[CELL_SIZE];
            fb_accuracy_speed_cell(groups, block, groups->items[i].label, lengths[c], cell,
                                   sizeof cell);
            (void)fprintf(out, "| %s ", cell);
        }
        (void)fputs("|\n", out);
    }
    (void)fputc('\n', out);
    write_missing(groups, block, out);
}

void fb_accuracy_speed_markdown(const struct fb_accuracy_groups *groups, FILE *out)
{
    char title[256];
    bool any = false;
    for (size_t block = 0; block < groups->blocks; block++) {
        if (!fb_accuracy_leads_speed(groups, block))
            continue;
        any = true;
        fb_accuracy_speed_title(groups, block, title, sizeof title);
        (void)fprintf(out, "\n## %s\n\n", title);
        write_set(groups, block, out);
    }
    if (any)
        (void)fprintf(out, "\n%s\n", fb_accuracy_speed_legend);
}
