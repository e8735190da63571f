/* Columns of a run, its lines in the CSV, and what holds for every run: see history_run.h. */
#include "history_run.h"

#include "cell.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define COLUMN_TEXT(field, bytes)                                                                  \
    {#field, FB_COLUMN_TEXT, offsetof(struct fb_history_provenance, field), bytes},
#define COLUMN_INT(field)                                                                          \
    {#field, FB_COLUMN_INT, offsetof(struct fb_history_provenance, field), sizeof(int64_t)},

static const struct fb_column columns[] = {FB_HISTORY_RUN_COLUMNS(COLUMN_TEXT, COLUMN_INT)};
enum { COLUMN_COUNT = sizeof columns / sizeof columns[0] };

size_t fb_history_column_count(void)
{
    return COLUMN_COUNT;
}

const struct fb_column *fb_history_column_at(size_t index)
{
    return index < COLUMN_COUNT ? &columns[index] : NULL;
}

const struct fb_column *fb_history_column_find(const char *name)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (strcmp(columns[i].name, name) == 0)
            return &columns[i];
    }
    return NULL;
}

void fb_history_provenance_init(struct fb_history_provenance *from)
{
    memset(from, 0, sizeof *from);
    fb_cells_clear(from, columns, COLUMN_COUNT);
}

bool fb_history_provenance_equal(const struct fb_history_provenance *a,
                                 const struct fb_history_provenance *b)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        const char *x = (const char *)a + columns[i].offset;
        const char *y = (const char *)b + columns[i].offset;
        if (columns[i].type == FB_COLUMN_TEXT ? strcmp(x, y) != 0
                                              : memcmp(x, y, columns[i].size) != 0)
            return false;
    }
    return true;
}

bool fb_history_keeps_row_column(const struct fb_column *column)
{
    return fb_history_column_find(column->name) == NULL;
}

/* ---- what holds for every run --------------------------------------------------------------- */

/* "2026-11-24T03:15:00Z": fixed width, so that texts sort as times do. */
static bool is_utc(const char *text)
{
    static const char pattern[] = "dddd-dd-ddTdd:dd:ddZ";
    const size_t length = sizeof pattern - 1;

    if (strlen(text) != length)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (pattern[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != pattern[i])
            return false;
    }
    return true;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 127)
            return false;
    }
    return true;
}

static enum fb_status check_provenance(const struct fb_history_provenance *from, const char *where,
                                       struct fb_error *error)
{
    static const char *const required[] = {"run", "suite", "started_utc", "machine"};

    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        const char *text = (const char *)from + columns[i].offset;
        if (columns[i].type == FB_COLUMN_TEXT && !is_printable(text))
            return fb_error_set(error, FB_ERROR_INPUT, "%s: '%s' holds a control character", where,
                                columns[i].name);
    }
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        const char *text = (const char *)from + fb_history_column_find(required[i])->offset;
        if (*text == '\0')
            return fb_error_set(error, FB_ERROR_INPUT, "%s: there is no '%s'", where, required[i]);
    }
    const char *const times[] = {from->started_utc, from->ended_utc, from->git_time_utc};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        if (*times[i] != '\0' && !is_utc(times[i]))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: '%.40s' is not a time such as 2026-11-24T03:15:00Z", where,
                                times[i]);
    }
    if (from->git_dirty != FB_ROW_NONE && from->git_dirty != 0 && from->git_dirty != 1)
        return fb_error_set(error, FB_ERROR_INPUT, "%s: git_dirty %" PRId64 " is neither 0 nor 1",
                            where, from->git_dirty);
    return FB_OK;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum fb_status check_cases(const struct fb_history_run *run, const char *where,
                                  struct fb_error *error)
{
    const char **ids = calloc(run->rows_count + 1, sizeof *ids);
    enum fb_status status = FB_OK;

    if (ids == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu rows", run->rows_count);
    for (size_t i = 0; i < run->rows_count && status == FB_OK; i++) {
        const struct fb_row *row = &run->rows[i];
        ids[i] = row->case_id;
        if (*row->case_id == '\0' || *row->mechanism == '\0')
            status = fb_error_set(error, FB_ERROR_INPUT, "%s: row %zu has no %s", where, i + 1,
                                  *row->case_id == '\0' ? "case_id" : "mechanism");
        else if (*row->run != '\0' && strcmp(row->run, run->from.run) != 0)
            status =
                fb_error_set(error, FB_ERROR_INPUT, "%s: row %zu is of the run '%s', not of '%s'",
                             where, i + 1, row->run, run->from.run);
    }
    if (status == FB_OK)
        qsort(ids, run->rows_count, sizeof *ids, compare_ids);
    for (size_t i = 1; i < run->rows_count && status == FB_OK; i++) {
        if (strcmp(ids[i], ids[i - 1]) == 0)
            status =
                fb_error_set(error, FB_ERROR_INPUT, "%s: case %s is there twice", where, ids[i]);
    }
    free(ids);
    return status;
}

enum fb_status fb_history_run_check(const struct fb_history_run *run, const char *where,
                                    struct fb_error *error)
{
    if (run->rows_count == 0)
        return fb_error_set(error, FB_ERROR_INPUT, "%s: the run holds no row", where);
    enum fb_status status = check_provenance(&run->from, where, error);
    return status == FB_OK ? check_cases(run, where, error) : status;
}

/* ---- lines of the CSV ----------------------------------------------------------------------- */

void fb_history_add_header(struct fb_csv_line *line)
{
    fb_csv_add_text(line, "history");
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        fb_csv_add_text(line, columns[i].name);
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (fb_history_keeps_row_column(fb_column_at(i)))
            fb_csv_add_text(line, fb_column_at(i)->name);
    }
    fb_csv_end_line(line);
}

void fb_history_add_line(struct fb_csv_line *line, const struct fb_history_provenance *from,
                         const struct fb_row *row)
{
    fb_csv_add_int(line, FB_HISTORY_FORMAT);
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        fb_cell_add(line, &columns[i], from);
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (fb_history_keeps_row_column(fb_column_at(i)))
            fb_cell_add(line, fb_column_at(i), row);
    }
    fb_csv_end_line(line);
}

enum fb_status fb_history_fingerprint(const struct fb_history_run *run,
                                      char text[FB_HISTORY_FINGERPRINT_SIZE],
                                      struct fb_error *error)
{
    struct fb_csv_line line;
    bool failed = false;
    XXH3_state_t *state = XXH3_createState();

    if (state == NULL || XXH3_128bits_reset(state) != XXH_OK)
        failed = true;
    fb_csv_line_init(&line);
    for (size_t i = 0; i < run->rows_count && !failed; i++) {
        line.length = 0;
        fb_history_add_line(&line, &run->from, &run->rows[i]);
        failed = line.failed || XXH3_128bits_update(state, line.data, line.length) != XXH_OK;
    }
    if (!failed) {
        const XXH128_hash_t hash = XXH3_128bits_digest(state);
        (void)snprintf(text, FB_HISTORY_FINGERPRINT_SIZE, "%016" PRIx64 "%016" PRIx64,
                       (uint64_t)hash.high64, (uint64_t)hash.low64);
    }
    fb_csv_line_free(&line);
    XXH3_freeState(state);
    return failed ? fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu rows", run->rows_count)
                  : FB_OK;
}
