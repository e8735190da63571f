/*
 * A run as the history keeps it: where it comes from, and its rows. The table of columns is the
 * only place that lists what is kept of a run's provenance; the database and the CSV follow it.
 */
#ifndef FB_HISTORY_RUN_H
#define FB_HISTORY_RUN_H

#include "arena.h"
#include "csv.h"
#include "row.h"

#include <stdbool.h>

/* Format of the CSV and of the database: a reader refuses a newer one. */
enum { FB_HISTORY_FORMAT = 1 };

/* clang-format off */
#define FB_HISTORY_RUN_COLUMNS(TEXT, INT) \
    TEXT(run, 96) TEXT(suite, 64) TEXT(started_utc, 24) TEXT(ended_utc, 24) \
    TEXT(git_sha, 65) TEXT(git_time_utc, 24) INT(git_dirty) \
    TEXT(machine, 32) TEXT(machine_name, 64) \
    TEXT(flowbench, 32) TEXT(compiler, 128) TEXT(compiler_flags, 512) TEXT(build_type, 32) \
    TEXT(argv, 4096)
/* clang-format on */

#define FB_HISTORY_FIELD_TEXT(name, size) char name[size];
#define FB_HISTORY_FIELD_INT(name)        int64_t name;
/* Absent values as in a row: "", FB_ROW_NONE. */
struct fb_history_provenance {
    FB_HISTORY_RUN_COLUMNS(FB_HISTORY_FIELD_TEXT, FB_HISTORY_FIELD_INT)
};

struct fb_history_run {
    struct fb_history_provenance from;
    struct fb_row *rows;
    size_t rows_count;
};

size_t fb_history_column_count(void);
const struct fb_column *fb_history_column_at(size_t index);
const struct fb_column *fb_history_column_find(const char *name);
void fb_history_provenance_init(struct fb_history_provenance *from);
bool fb_history_provenance_equal(const struct fb_history_provenance *a,
                                 const struct fb_history_provenance *b);

/* The columns of a row that the run does not have already: without run and suite. */
bool fb_history_keeps_row_column(const struct fb_column *column);

/* Reads the folder of a finished run (or the results.csv in it, with its run.json beside). Refuses,
 * with FB_ERROR_INPUT and the reason, a run that is not finished, holds no row, holds a case twice,
 * or does not say on what machine it was measured. */
enum fb_status fb_history_run_read(const char *path, struct fb_arena *arena,
                                   struct fb_history_run *run,
                                   struct fb_error *error) FB_MUST_CHECK;

/* What every stored run fulfils, wherever it comes from: names, times in UTC, one row per case.
 * `where` stands before the message. */
enum fb_status fb_history_run_check(const struct fb_history_run *run, const char *where,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Header and lines of the CSV. */
void fb_history_add_header(struct fb_csv_line *line);
void fb_history_add_line(struct fb_csv_line *line, const struct fb_history_provenance *from,
                         const struct fb_row *row);

enum { FB_HISTORY_FINGERPRINT_SIZE = 33 };
/* Equal for runs with equal lines in the CSV. FB_ERROR_MEMORY. */
enum fb_status fb_history_fingerprint(const struct fb_history_run *run,
                                      char text[FB_HISTORY_FINGERPRINT_SIZE],
                                      struct fb_error *error) FB_MUST_CHECK;

#endif
