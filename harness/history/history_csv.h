/*
 * The history as CSV (RFC 4180), one line per run and case: what machines and tools exchange. An
 * export of an import is the same file. docs/history.md lists the columns.
 */
#ifndef FB_HISTORY_CSV_H
#define FB_HISTORY_CSV_H

#include "store.h"

#include <stdio.h>

struct fb_history_import {
    size_t runs_added, runs_known; /* known: were there already, the same */
};

/* Writes the whole history to path, replacing it in one step, or to `out` when path is NULL.
 * *lines gets the number of lines after the header. */
enum fb_status fb_history_export(struct fb_store *store, const char *path, FILE *out, size_t *lines,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Adds every run of the file, or, when any line is refused, none. FB_ERROR_INPUT as "path:line:
 * what is wrong". */
enum fb_status fb_history_import(struct fb_store *store, const char *path,
                                 struct fb_history_import *result,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Calls take for every run of a CSV text; rows live until it returns. Shared by import and its
 * fuzz target. */
typedef enum fb_status fb_history_take_run(void *context, const struct fb_history_run *run,
                                           struct fb_error *error);
enum fb_status fb_history_parse(const char *text, size_t length, const char *path,
                                fb_history_take_run *take, void *context,
                                struct fb_error *error) FB_MUST_CHECK;

#endif
