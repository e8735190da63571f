/*
 * --filter over stored rows: comma-separated conditions `column OP value` as `run --filter` has
 * them, on any column of results.csv, with alternatives by | for = and !=. Numbers compare as
 * numbers, texts as texts.
 */
#ifndef FB_ROW_FILTER_H
#define FB_ROW_FILTER_H

#include "arena.h"
#include "row.h"

#include <stdbool.h>

struct fb_row_condition;

struct fb_row_filter {
    struct fb_row_condition *conditions; /* in the arena */
    size_t count;                        /* 0: every row matches */
};

/* FB_ERROR_USAGE names the condition and what is wrong with it. */
enum fb_status fb_row_filter_parse(const char *text, struct fb_arena *arena,
                                   struct fb_row_filter *filter,
                                   struct fb_error *error) FB_MUST_CHECK;

bool fb_row_filter_holds(const struct fb_row_filter *filter, const struct fb_row *row);

#endif
