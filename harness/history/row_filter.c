/* Conditions on the columns of a row: see row_filter.h. */
#include "row_filter.h"

#include "cell.h"
#include "condition.h"
#include "nearest.h"

#include <string.h>

enum { CONDITIONS_MAX = 32, VALUES_MAX = 64, COLUMNS_MAX = 128 };

struct fb_row_condition {
    const struct fb_column *column;
    enum fb_relation relation;
    const char **texts;
    double *numbers; /* of columns that are no text */
    size_t count;
};

/* The text from begin up to end, without the blanks around it. */
static char *cut(const char *begin, const char *end, struct fb_arena *arena, struct fb_error *error)
{
    while (begin < end && *begin == ' ')
        begin++;
    while (end > begin && end[-1] == ' ')
        end--;
    return fb_arena_printf(arena, error, "%.*s", (int)(end - begin), begin);
}

static enum fb_status find_column(const char *name, struct fb_row_condition *condition,
                                  struct fb_error *error)
{
    const char *names[COLUMNS_MAX];
    const size_t count = fb_column_count() < COLUMNS_MAX ? fb_column_count() : COLUMNS_MAX;

    condition->column = fb_column_find(name);
    if (condition->column != NULL)
        return FB_OK;
    for (size_t i = 0; i < count; i++)
        names[i] = fb_column_at(i)->name;
    const char *near = fb_nearest_name(name, names, count);
    return fb_error_set(error, FB_ERROR_USAGE, "--filter: results have no column '%.60s'%s%s%s",
                        name, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                        near != NULL ? "'?" : "");
}

static enum fb_status add_value(struct fb_row_condition *condition, char *text,
                                struct fb_error *error)
{
    if (condition->count == VALUES_MAX)
        return fb_error_set(error, FB_ERROR_USAGE, "--filter: more than %d values of '%s'",
                            VALUES_MAX, condition->column->name);
    if (*text == '\0')
        return fb_error_set(error, FB_ERROR_USAGE, "--filter: a value of '%s' is missing",
                            condition->column->name);
    if (condition->column->type != FB_COLUMN_TEXT &&
        fb_cell_parse_real(text, &condition->numbers[condition->count]) != FB_OK)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--filter: '%.60s' is no number, but '%s' holds numbers", text,
                            condition->column->name);
    condition->texts[condition->count++] = text;
    return FB_OK;
}

static enum fb_status read_values(const char *begin, const char *end,
                                  struct fb_row_condition *condition, struct fb_arena *arena,
                                  struct fb_error *error)
{
    const bool ordered =
        condition->relation != FB_RELATION_EQUAL && condition->relation != FB_RELATION_NOT_EQUAL;

    condition->texts = fb_arena_alloc(arena, VALUES_MAX, sizeof *condition->texts, error);
    condition->numbers = fb_arena_alloc(arena, VALUES_MAX, sizeof *condition->numbers, error);
    if (condition->texts == NULL || condition->numbers == NULL)
        return FB_ERROR_MEMORY;
    if (ordered && condition->column->type == FB_COLUMN_TEXT)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--filter: '%s' holds words, which have no order: use = or !=",
                            condition->column->name);
    if (ordered && memchr(begin, '|', (size_t)(end - begin)) != NULL)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--filter: alternatives of '%s' need = or !=", condition->column->name);
    for (;;) {
        const char *bar = memchr(begin, '|', (size_t)(end - begin));
        const char *stop = bar != NULL ? bar : end;
        char *text = cut(begin, stop, arena, error);
        const enum fb_status status =
            text == NULL ? FB_ERROR_MEMORY : add_value(condition, text, error);
        if (status != FB_OK || bar == NULL)
            return status;
        begin = bar + 1;
    }
}

static enum fb_status read_condition(const char *begin, const char *end,
                                     struct fb_row_condition *condition, struct fb_arena *arena,
                                     struct fb_error *error)
{
    const char *at = begin + strcspn(begin, "=!<>,");
    const size_t length = at < end ? fb_relation_parse(at, &condition->relation) : 0;
    const char *name = cut(begin, at < end ? at : end, arena, error);

    if (name == NULL)
        return FB_ERROR_MEMORY;
    if (length == 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--filter: '%.60s' is no condition: write column OP value with OP one "
                            "of = != < <= > >=, such as seq_len<=4096 or mechanism=flow|linear",
                            name);
    const enum fb_status status = find_column(name, condition, error);
    return status == FB_OK ? read_values(at + length, end, condition, arena, error) : status;
}

enum fb_status fb_row_filter_parse(const char *text, struct fb_arena *arena,
                                   struct fb_row_filter *filter, struct fb_error *error)
{
    filter->count = 0;
    filter->conditions = fb_arena_alloc(arena, CONDITIONS_MAX, sizeof *filter->conditions, error);
    if (filter->conditions == NULL)
        return FB_ERROR_MEMORY;
    for (const char *begin = text;;) {
        const char *end = begin + strcspn(begin, ",");
        if (filter->count == CONDITIONS_MAX)
            return fb_error_set(error, FB_ERROR_USAGE, "--filter: more than %d conditions",
                                CONDITIONS_MAX);
        const enum fb_status status =
            read_condition(begin, end, &filter->conditions[filter->count], arena, error);
        if (status != FB_OK)
            return status;
        filter->count++;
        if (*end == '\0')
            return FB_OK;
        begin = end + 1;
    }
}

/* ---- matching ------------------------------------------------------------------------------- */

/* False for an absent value. */
static bool number_of(const struct fb_row *row, const struct fb_column *column, double *number)
{
    const char *field = (const char *)row + column->offset;
    int64_t integer;

    if (column->type == FB_COLUMN_REAL) {
        memcpy(number, field, sizeof *number);
        return *number == *number;
    }
    memcpy(&integer, field, sizeof integer);
    *number = (double)integer;
    return integer != FB_ROW_NONE;
}

static bool equals_one(const struct fb_row_condition *condition, const struct fb_row *row)
{
    double number = 0.0;
    const bool is_text = condition->column->type == FB_COLUMN_TEXT;

    if (!is_text && !number_of(row, condition->column, &number))
        return false;
    for (size_t i = 0; i < condition->count; i++) {
        if (is_text
                ? strcmp((const char *)row + condition->column->offset, condition->texts[i]) == 0
                : number == condition->numbers[i])
            return true;
    }
    return false;
}

static bool holds(const struct fb_row_condition *condition, const struct fb_row *row)
{
    double number;

    if (condition->relation == FB_RELATION_EQUAL)
        return equals_one(condition, row);
    if (condition->relation == FB_RELATION_NOT_EQUAL)
        return !equals_one(condition, row);
    if (!number_of(row, condition->column, &number))
        return false;
    switch (condition->relation) {
    case FB_RELATION_LESS:
        return number < condition->numbers[0];
    case FB_RELATION_LESS_EQUAL:
        return number <= condition->numbers[0];
    case FB_RELATION_GREATER:
        return number > condition->numbers[0];
    default:
        return number >= condition->numbers[0];
    }
}

bool fb_row_filter_holds(const struct fb_row_filter *filter, const struct fb_row *row)
{
    for (size_t i = 0; i < filter->count; i++) {
        if (!holds(&filter->conditions[i], row))
            return false;
    }
    return true;
}
