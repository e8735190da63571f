/* Reading and writing the history's CSV: see history_csv.h. */
#include "history_csv.h"

#include "cell.h"
#include "nearest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- writing -------------------------------------------------------------------------------- */

struct writing {
    FILE *out;
    const char *path;
    struct fb_csv_line line;
    size_t lines;
};

static enum fb_status fail_write(const struct writing *writing, struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", writing->path,
                        strerror(errno));
}

static enum fb_status write_line(struct writing *writing, struct fb_error *error)
{
    if (writing->line.failed)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to write '%s'", writing->path);
    if (fwrite(writing->line.data, 1, writing->line.length, writing->out) != writing->line.length)
        return fail_write(writing, error);
    writing->line.length = 0;
    return FB_OK;
}

static enum fb_status write_row(void *context, int64_t run_id,
                                const struct fb_history_provenance *from, const struct fb_row *row,
                                struct fb_error *error)
{
    struct writing *writing = context;

    (void)run_id;
    fb_history_add_line(&writing->line, from, row);
    writing->lines++;
    return write_line(writing, error);
}

static enum fb_status write_all(struct fb_store *store, FILE *out, const char *path, size_t *lines,
                                struct fb_error *error)
{
    struct writing writing = {.out = out, .path = path};

    fb_csv_line_init(&writing.line);
    fb_history_add_header(&writing.line);
    enum fb_status status = write_line(&writing, error);
    if (status == FB_OK)
        status = fb_store_each(store, FB_STORE_BY_RUN, write_row, &writing, error);
    if (status == FB_OK && fflush(out) != 0)
        status = fail_write(&writing, error);
    fb_csv_line_free(&writing.line);
    *lines = writing.lines;
    return status;
}

static enum fb_status replace_file(struct fb_store *store, const char *path, const char *new_path,
                                   size_t *lines, struct fb_error *error)
{
    FILE *file = fopen(new_path, "wb");

    if (file == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    enum fb_status status = write_all(store, file, path, lines, error);
    bool failed = status == FB_OK && fsync(fileno(file)) != 0 && errno != EINVAL;
    failed |= fclose(file) != 0;
    failed |= status == FB_OK && !failed && rename(new_path, path) != 0;
    if (status == FB_OK && failed)
        status = fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    if (status != FB_OK)
        (void)unlink(new_path);
    return status;
}

enum fb_status fb_history_export(struct fb_store *store, const char *path, FILE *out, size_t *lines,
                                 struct fb_error *error)
{
    if (path == NULL)
        return write_all(store, out, "standard output", lines, error);

    char *new_path = malloc(strlen(path) + sizeof ".new");
    if (new_path == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to write '%s'", path);
    (void)snprintf(new_path, strlen(path) + sizeof ".new", "%s.new", path);
    const enum fb_status status = replace_file(store, path, new_path, lines, error);
    free(new_path);
    return status;
}

/* ---- the header ----------------------------------------------------------------------------- */

/* Where a cell goes: a column of the run or of the row, or the format. */
struct target {
    const struct fb_column *column; /* NULL: the column `history` */
    bool of_run;
};

struct parser {
    const char *path;
    struct target *targets; /* by place in the line */
    size_t targets_count;
    fb_history_take_run *take;
    void *context;
    struct fb_history_run run; /* the one whose lines are read; its rows are owned */
    size_t rows_capacity;
    size_t first_line; /* of the run */
};

/* Every name that a header may hold; returns how many. */
static size_t list_names(const char **names)
{
    size_t count = 0;

    names[count++] = "history";
    for (size_t i = 0; i < fb_history_column_count(); i++)
        names[count++] = fb_history_column_at(i)->name;
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (fb_history_keeps_row_column(fb_column_at(i)))
            names[count++] = fb_column_at(i)->name;
    }
    return count;
}

static enum fb_status find_target(const char *name, const char *path, size_t line_number,
                                  struct target *target, struct fb_error *error)
{
    const char *names[256];

    *target = (struct target){.column = fb_history_column_find(name), .of_run = true};
    if (target->column != NULL || strcmp(name, "history") == 0)
        return FB_OK;
    *target = (struct target){.column = fb_column_find(name), .of_run = false};
    if (target->column != NULL)
        return FB_OK;
    const char *near = fb_nearest_name(name, names, list_names(names));
    return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: there is no column '%.60s'%s%s%s", path,
                        line_number, name, near != NULL ? "; did you mean '" : "",
                        near != NULL ? near : "", near != NULL ? "'?" : "");
}

static enum fb_status read_header(struct parser *p, const struct fb_csv_record *record,
                                  struct fb_arena *arena, struct fb_error *error)
{
    static const char *const required[] = {"history", "run",     "suite",     "started_utc",
                                           "machine", "case_id", "mechanism", "status"};

    p->targets = fb_arena_alloc(arena, record->cells_count, sizeof *p->targets, error);
    if (p->targets == NULL)
        return FB_ERROR_MEMORY;
    p->targets_count = record->cells_count;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        bool there = false;
        for (size_t c = 0; c < record->cells_count; c++)
            there |= strcmp(record->cells[c], required[i]) == 0;
        if (!there)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:%zu: not the CSV of a history: the header has no column '%s'",
                                p->path, record->line_number, required[i]);
    }
    for (size_t c = 0; c < record->cells_count; c++) {
        for (size_t before = 0; before < c; before++) {
            if (strcmp(record->cells[c], record->cells[before]) == 0)
                return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: column '%s' is there twice",
                                    p->path, record->line_number, record->cells[c]);
        }
        const enum fb_status status =
            find_target(record->cells[c], p->path, record->line_number, &p->targets[c], error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static enum fb_status check_format(const char *cell, const char *path, size_t line_number,
                                   struct fb_error *error)
{
    int64_t format;

    if (fb_cell_parse_int(cell, &format) != FB_OK || format < 1)
        return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: column 'history': '%.60s' is not %d",
                            path, line_number, cell, FB_HISTORY_FORMAT);
    if (format > FB_HISTORY_FORMAT)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:%zu: format %" PRId64 " is newer than %d, the newest that this "
                            "flowbench reads; use the flowbench that wrote the file",
                            path, line_number, format, FB_HISTORY_FORMAT);
    return FB_OK;
}

static enum fb_status read_line(const struct parser *p, const struct fb_csv_record *record,
                                struct fb_history_provenance *from, struct fb_row *row,
                                struct fb_error *error)
{
    enum fb_status status = FB_OK;

    fb_history_provenance_init(from);
    fb_row_init(row);
    if (record->cells_count != p->targets_count)
        return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: %zu cells, but the header has %zu",
                            p->path, record->line_number, record->cells_count, p->targets_count);
    for (size_t c = 0; c < p->targets_count && status == FB_OK; c++) {
        const struct target *target = &p->targets[c];
        const char *cell = record->cells[c];
        if (target->column == NULL)
            status = check_format(cell, p->path, record->line_number, error);
        else
            status = fb_cell_set(target->of_run ? (void *)from : (void *)row, target->column, cell,
                                 p->path, record->line_number, error);
    }
    if (status == FB_OK)
        status = fb_row_check(row, p->path, record->line_number, error);
    memcpy(row->run, from->run, sizeof row->run);
    memcpy(row->suite, from->suite, sizeof row->suite);
    return status;
}

/* Hands over the run whose lines have been read. */
static enum fb_status finish_run(struct parser *p, struct fb_error *error)
{
    char where[4200];

    if (p->run.rows_count == 0)
        return FB_OK;
    (void)snprintf(where, sizeof where, "%s:%zu", p->path, p->first_line);
    enum fb_status status = fb_history_run_check(&p->run, where, error);
    if (status == FB_OK)
        status = p->take(p->context, &p->run, error);
    if (status != FB_OK && error != NULL && strstr(error->text, where) == NULL)
        (void)fb_error_prefix(error, "%s", where);
    p->run.rows_count = 0;
    return status;
}

static bool is_same_run(const struct fb_history_provenance *a,
                        const struct fb_history_provenance *b)
{
    return strcmp(a->run, b->run) == 0 && strcmp(a->suite, b->suite) == 0 &&
           strcmp(a->machine, b->machine) == 0;
}

static enum fb_status take_line(struct parser *p, const struct fb_csv_record *record,
                                struct fb_error *error)
{
    struct fb_history_provenance from;
    struct fb_row row;
    enum fb_status status = read_line(p, record, &from, &row, error);

    if (status == FB_OK && p->run.rows_count > 0 && !is_same_run(&from, &p->run.from))
        status = finish_run(p, error);
    if (status != FB_OK)
        return status;
    if (p->run.rows_count == 0) {
        p->run.from = from;
        p->first_line = record->line_number;
    } else if (!fb_history_provenance_equal(&from, &p->run.from)) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:%zu: the line says something else about the run '%s' than line %zu",
                            p->path, record->line_number, from.run, p->first_line);
    }
    if (p->run.rows_count == p->rows_capacity) {
        const size_t capacity = p->rows_capacity == 0 ? 64 : 2 * p->rows_capacity;
        struct fb_row *rows = realloc(p->run.rows, capacity * sizeof *rows);
        if (rows == NULL)
            return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu rows", capacity);
        p->run.rows = rows;
        p->rows_capacity = capacity;
    }
    p->run.rows[p->run.rows_count++] = row;
    return FB_OK;
}

static enum fb_status parse(struct parser *p, struct fb_csv_reader *reader,
                            struct fb_arena *header_arena, struct fb_error *error)
{
    for (;;) {
        struct fb_csv_record record;
        struct fb_arena arena;
        fb_arena_init(&arena, 0);
        enum fb_status status =
            fb_csv_next(reader, p->targets == NULL ? header_arena : &arena, &record, error);
        const bool ended = status == FB_OK && record.cells_count == 0;
        if (status == FB_OK && record.cut)
            status =
                fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: the last line is cut: it has no end",
                             p->path, record.line_number);
        else if (status == FB_OK && !ended)
            status = p->targets == NULL ? read_header(p, &record, header_arena, error)
                                        : take_line(p, &record, error);
        fb_arena_free(&arena);
        if (status != FB_OK)
            return status;
        if (ended)
            return p->targets == NULL
                       ? fb_error_set(error, FB_ERROR_INPUT, "%s:1: there is nothing here", p->path)
                       : finish_run(p, error);
    }
}

enum fb_status fb_history_parse(const char *text, size_t length, const char *path,
                                fb_history_take_run *take, void *context, struct fb_error *error)
{
    struct parser p = {.path = path, .take = take, .context = context};
    struct fb_csv_reader reader;
    struct fb_arena arena;

    fb_arena_init(&arena, 0);
    fb_csv_reader_init(&reader, text, length, path);
    const enum fb_status status = parse(&p, &reader, &arena, error);
    free(p.run.rows);
    fb_arena_free(&arena);
    return status;
}

/* ---- import --------------------------------------------------------------------------------- */

struct importing {
    struct fb_store *store;
    struct fb_history_import *result;
};

static enum fb_status add_run(void *context, const struct fb_history_run *run,
                              struct fb_error *error)
{
    const struct importing *importing = context;
    bool added;
    const enum fb_status status = fb_store_add(importing->store, run, &added, error);

    if (status == FB_OK && added)
        importing->result->runs_added++;
    else if (status == FB_OK)
        importing->result->runs_known++;
    return status;
}

enum fb_status fb_history_import(struct fb_store *store, const char *path,
                                 struct fb_history_import *result, struct fb_error *error)
{
    struct importing importing = {.store = store, .result = result};
    struct fb_arena arena;
    char *text;
    size_t length;

    *result = (struct fb_history_import){.runs_added = 0};
    fb_arena_init(&arena, 0);
    enum fb_status status = fb_csv_load(path, &arena, &text, &length, error);
    /* A file that cannot be read is a mistake on the command line. */
    if (status == FB_ERROR_IO && error != NULL)
        status = error->code = FB_ERROR_INPUT;
    if (status == FB_OK)
        status = fb_store_begin(store, error);
    if (status == FB_OK) {
        status = fb_history_parse(text, length, path, add_run, &importing, error);
        if (status == FB_OK)
            status = fb_store_commit(store, error);
        if (status != FB_OK)
            fb_store_rollback(store);
    }
    fb_arena_free(&arena);
    return status;
}
