/* Grouping rows without a value. See missing.h. */
#include "missing.h"

#include <ctype.h>
#include <string.h>

bool fb_status_is_failure(const char *status)
{
    return strcmp(status, "wrong") == 0 || strcmp(status, "crash") == 0 ||
           strcmp(status, "error") == 0;
}

/* Equal but for the numbers in them: "predicted 93 s" and "predicted 370 s" are one reason. */
static bool same_reason(const char *a, const char *b)
{
    for (;;) {
        while (isdigit((unsigned char)*a) || *a == '.') {
            a++;
        }
        while (isdigit((unsigned char)*b) || *b == '.') {
            b++;
        }
        if (*a != *b || *a == '\0') {
            return *a == *b;
        }
        a++;
        b++;
    }
}

static bool same_name(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->mechanism, b->mechanism) == 0 && strcmp(a->variant, b->variant) == 0;
}

/* One cause: a device that is absent concerns every mechanism, a limit the ones that pass it. */
static bool same_group(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->status, b->status) == 0 && strcmp(a->device, b->device) == 0 &&
           same_reason(a->reason, b->reason);
}

static void add_row(struct fb_missing *group, const struct fb_row *row)
{
    group->count++;
    group->seq_len_min = row->seq_len < group->seq_len_min ? row->seq_len : group->seq_len_min;
    group->seq_len_max = row->seq_len > group->seq_len_max ? row->seq_len : group->seq_len_max;
    group->one_name = group->one_name && same_name(group->row, row);
    group->one_causal = group->one_causal && strcmp(group->row->causal, row->causal) == 0;
}

enum fb_status fb_missing_collect(const struct fb_results *results, struct fb_arena *arena,
                                  struct fb_missing **groups, size_t *count, struct fb_error *error)
{
    size_t missing = 0;
    *count = 0;
    for (size_t i = 0; i < results->rows_count; i++) {
        missing += strcmp(results->rows[i].status, "ok") != 0;
    }
    *groups = fb_arena_alloc(arena, missing + 1, sizeof **groups, error);
    if (!*groups) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < results->rows_count; i++) {
        const struct fb_row *row = &results->rows[i];
        size_t at = 0;
        if (strcmp(row->status, "ok") == 0) {
            continue;
        }
        while (at < *count && !same_group((*groups)[at].row, row)) {
            at++;
        }
        if (at == *count) {
            (*groups)[(*count)++] =
                (struct fb_missing){.row = row,
                                    .seq_len_min = row->seq_len,
                                    .seq_len_max = row->seq_len,
                                    .one_name = true,
                                    .one_causal = true,
                                    .failure = fb_status_is_failure(row->status)};
        }
        add_row(&(*groups)[at], row);
    }
    return FB_OK;
}
