/* Names of cases, no longer than it takes to tell them apart: see comparison.h. */
#include "comparison.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_SIZE = 640 };

static const struct {
    const char *column, *prefix;
    const char *unless; /* left out where it equals this column */
} parts[] = {
    {"device", "", NULL},
    {"isa", "", NULL},
    {"threads", "threads ", NULL},
    {"dtype", "", NULL},
    {"layout", "", NULL},
    {"causal", "", NULL},
    {"pass", "", NULL},
    {"batch", "B", NULL},
    {"heads", "H", NULL},
    {"kv_heads", "KV", "heads"},
    {"seq_len", "N", NULL},
    {"kv_len", "M", "seq_len"},
    {"head_dim", "D", NULL},
    {"value_dim", "E", "head_dim"},
    {"lengths", "lengths ", NULL},
    {"seed", "seed ", NULL},
};
enum { PARTS_COUNT = sizeof parts / sizeof parts[0] };

static const struct fb_row *row_of(const struct fb_compared *one)
{
    return one->fresh != NULL ? one->fresh : one->base;
}

/* "" when the row does not state it. */
static const char *value_of(const struct fb_row *row, const char *name, char *text)
{
    const struct fb_column *column = fb_column_find(name);
    const char *field = (const char *)row + column->offset;
    int64_t value;

    if (column->type == FB_COLUMN_TEXT) {
        (void)snprintf(text, VALUE_SIZE, "%s", field);
        return text;
    }
    memcpy(&value, field, sizeof value);
    text[0] = '\0';
    if (value != FB_ROW_NONE)
        (void)snprintf(text, VALUE_SIZE, "%" PRId64, value);
    return text;
}

static bool equal_values(const struct fb_row *a, const char *a_name, const struct fb_row *b,
                         const char *b_name)
{
    char x[VALUE_SIZE];
    char y[VALUE_SIZE];

    return strcmp(value_of(a, a_name, x), value_of(b, b_name, y)) == 0;
}

static void append_part(char *text, const struct fb_row *row, size_t part)
{
    char value[VALUE_SIZE];
    const char *between = text[0] == '\0' ? "" : " ";

    if (value_of(row, parts[part].column, value)[0] == '\0' ||
        (parts[part].unless != NULL &&
         equal_values(row, parts[part].column, row, parts[part].unless)))
        return;
    if (strcmp(parts[part].column, "causal") == 0)
        fb_comparison_append(text, FB_COMPARE_NAME_SIZE, "%s%s", between,
                             strcmp(value, "true") == 0 ? "causal" : "not causal");
    else
        fb_comparison_append(text, FB_COMPARE_NAME_SIZE, "%s%s%s", between, parts[part].prefix,
                             value);
}

static bool same_variant(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->mechanism, b->mechanism) == 0 && strcmp(a->variant, b->variant) == 0;
}

static int by_variant(const void *a, const void *b)
{
    const struct fb_row *x = row_of(a);
    const struct fb_row *y = row_of(b);
    const int order = strcmp(x->mechanism, y->mechanism);

    return order != 0 ? order : strcmp(x->variant, y->variant);
}

/* Of cases in the order of by_variant: adds the parameters where a variant has more than one set.
 */
static void append_params(struct fb_compared *cases, size_t count)
{
    for (size_t first = 0, next; first < count; first = next) {
        const struct fb_row *row = row_of(&cases[first]);
        bool tell = false;
        for (next = first + 1; next < count && same_variant(row, row_of(&cases[next])); next++)
            tell = tell || strcmp(row->params, row_of(&cases[next])->params) != 0;
        for (size_t i = first; tell && i < next; i++)
            fb_comparison_append(cases[i].name, sizeof cases[i].name, " %.120s",
                                 row_of(&cases[i])->params);
    }
}

void fb_comparison_name_cases(struct fb_comparison *comparison)
{
    bool differs[PARTS_COUNT] = {false};

    comparison->common[0] = '\0';
    if (comparison->cases_count == 0)
        return;
    const struct fb_row *first = row_of(&comparison->cases[0]);
    for (size_t part = 0; part < PARTS_COUNT; part++) {
        const char *column = parts[part].column;
        differs[part] =
            strcmp(column, "seq_len") == 0; /* a name without a length tells nobody much */
        for (size_t i = 1; i < comparison->cases_count && !differs[part]; i++)
            differs[part] = !equal_values(first, column, row_of(&comparison->cases[i]), column);
        if (!differs[part])
            append_part(comparison->common, first, part);
    }
    for (size_t i = 0; i < comparison->cases_count; i++) {
        struct fb_compared *one = &comparison->cases[i];
        const struct fb_row *row = row_of(one);
        (void)snprintf(one->name, sizeof one->name, "%s/%s", row->mechanism, row->variant);
        for (size_t part = 0; part < PARTS_COUNT; part++) {
            if (differs[part])
                append_part(one->name, row, part);
        }
    }
    qsort(comparison->cases, comparison->cases_count, sizeof *comparison->cases, by_variant);
    append_params(comparison->cases, comparison->cases_count);
}
