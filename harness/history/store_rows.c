/* Runs into and out of a history: see store.h. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text that grows: the longest statement names every column. */
struct sql {
    char text[16384];
    size_t length;
};

static void append(struct sql *sql, const char *text)
{
    const size_t left = sizeof sql->text - sql->length;
    const int written = snprintf(sql->text + sql->length, left, "%s", text);

    sql->length += written > 0 && (size_t)written < left ? (size_t)written : 0;
}

static void append_name(struct sql *sql, const char *before, const char *name)
{
    append(sql, before);
    append(sql, "\"");
    append(sql, name);
    append(sql, "\"");
}

/* ---- one field ------------------------------------------------------------------------------ */

/* Absent values are NULL, and so is NaN, which SQLite would store as that anyway. */
static void bind_field(sqlite3_stmt *statement, int at, const struct fb_column *column,
                       const void *object)
{
    const char *field = (const char *)object + column->offset;
    int64_t integer;
    double real;

    switch (column->type) {
    case FB_COLUMN_TEXT:
        if (*field != '\0')
            (void)sqlite3_bind_text(statement, at, field, -1, SQLITE_STATIC);
        else
            (void)sqlite3_bind_null(statement, at);
        break;
    case FB_COLUMN_INT:
        memcpy(&integer, field, sizeof integer);
        if (integer != FB_ROW_NONE)
            (void)sqlite3_bind_int64(statement, at, integer);
        else
            (void)sqlite3_bind_null(statement, at);
        break;
    case FB_COLUMN_REAL:
        memcpy(&real, field, sizeof real);
        (void)sqlite3_bind_double(statement, at, real);
        break;
    }
}

/* The field of a cleared object; a text that is too long for it is damage. */
static bool take_field(sqlite3_stmt *statement, int at, const struct fb_column *column,
                       void *object)
{
    char *field = (char *)object + column->offset;

    if (sqlite3_column_type(statement, at) == SQLITE_NULL)
        return true;
    if (column->type == FB_COLUMN_INT) {
        const int64_t integer = sqlite3_column_int64(statement, at);
        memcpy(field, &integer, sizeof integer);
    } else if (column->type == FB_COLUMN_REAL) {
        const double real = sqlite3_column_double(statement, at);
        memcpy(field, &real, sizeof real);
    } else {
        const char *text = (const char *)sqlite3_column_text(statement, at);
        if (text == NULL || strlen(text) >= column->size)
            return false;
        memcpy(field, text, strlen(text) + 1);
    }
    return true;
}

/* ---- adding --------------------------------------------------------------------------------- */

/* Is a run of this name there, and is it the same? *found is its fingerprint, "" for none. */
static enum fb_status find_run(struct fb_store *store, const struct fb_history_provenance *from,
                               char found[FB_HISTORY_FINGERPRINT_SIZE], struct fb_error *error)
{
    sqlite3_stmt *statement;
    enum fb_status status = fb_store_prepare(
        store, "SELECT fingerprint FROM runs WHERE run = ? AND suite = ? AND machine = ?",
        &statement, error);

    *found = '\0';
    if (status != FB_OK)
        return status;
    (void)sqlite3_bind_text(statement, 1, from->run, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 2, from->suite, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 3, from->machine, -1, SQLITE_STATIC);
    const int code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        (void)snprintf(found, FB_HISTORY_FINGERPRINT_SIZE, "%s",
                       (const char *)sqlite3_column_text(statement, 0));
    else if (code != SQLITE_DONE)
        status = fb_store_fail(store, "read", error);
    sqlite3_finalize(statement);
    return status;
}

static enum fb_status insert_run(struct fb_store *store, const struct fb_history_provenance *from,
                                 const char *fingerprint, int64_t *run_id, struct fb_error *error)
{
    struct sql sql = {.length = 0};
    sqlite3_stmt *statement;

    append(&sql, "INSERT INTO runs(fingerprint");
    for (size_t i = 0; i < fb_history_column_count(); i++)
        append_name(&sql, ", ", fb_history_column_at(i)->name);
    append(&sql, ") VALUES(?");
    for (size_t i = 0; i < fb_history_column_count(); i++)
        append(&sql, ",?");
    append(&sql, ")");
    enum fb_status status = fb_store_prepare(store, sql.text, &statement, error);
    if (status != FB_OK)
        return status;
    (void)sqlite3_bind_text(statement, 1, fingerprint, -1, SQLITE_STATIC);
    for (size_t i = 0; i < fb_history_column_count(); i++)
        bind_field(statement, (int)i + 2, fb_history_column_at(i), from);
    if (sqlite3_step(statement) != SQLITE_DONE)
        status = fb_store_fail(store, "write to", error);
    *run_id = sqlite3_last_insert_rowid(store->db);
    sqlite3_finalize(statement);
    return status;
}

static enum fb_status prepare_insert_row(struct fb_store *store, sqlite3_stmt **statement,
                                         struct fb_error *error)
{
    struct sql sql = {.length = 0};

    append(&sql, "INSERT INTO cases(run_id, position");
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (fb_history_keeps_row_column(fb_column_at(i)))
            append_name(&sql, ", ", fb_column_at(i)->name);
    }
    append(&sql, ") VALUES(?,?");
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (fb_history_keeps_row_column(fb_column_at(i)))
            append(&sql, ",?");
    }
    append(&sql, ")");
    return fb_store_prepare(store, sql.text, statement, error);
}

static enum fb_status insert_rows(struct fb_store *store, const struct fb_history_run *run,
                                  int64_t run_id, struct fb_error *error)
{
    sqlite3_stmt *statement;
    enum fb_status status = prepare_insert_row(store, &statement, error);

    if (status != FB_OK)
        return status;
    for (size_t r = 0; r < run->rows_count && status == FB_OK; r++) {
        int at = 3;
        (void)sqlite3_bind_int64(statement, 1, run_id);
        (void)sqlite3_bind_int64(statement, 2, (sqlite3_int64)r);
        for (size_t i = 0; i < fb_column_count(); i++) {
            if (fb_history_keeps_row_column(fb_column_at(i)))
                bind_field(statement, at++, fb_column_at(i), &run->rows[r]);
        }
        if (sqlite3_step(statement) != SQLITE_DONE || sqlite3_reset(statement) != SQLITE_OK)
            status = fb_store_fail(store, "write to", error);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum fb_status add_inside(struct fb_store *store, const struct fb_history_run *run,
                                 bool *added, struct fb_error *error)
{
    char fingerprint[FB_HISTORY_FINGERPRINT_SIZE], found[FB_HISTORY_FINGERPRINT_SIZE];
    int64_t run_id = 0;

    *added = false;
    enum fb_status status = fb_history_fingerprint(run, fingerprint, error);
    if (status == FB_OK)
        status = find_run(store, &run->from, found, error);
    if (status != FB_OK || strcmp(found, fingerprint) == 0)
        return status;
    if (*found != '\0')
        return fb_error_set(error, FB_ERROR_INPUT,
                            "a run '%s' of suite '%s' is in '%s' already, with other content: "
                            "stored runs do not change",
                            run->from.run, run->from.suite, store->path);
    status = insert_run(store, &run->from, fingerprint, &run_id, error);
    if (status == FB_OK)
        status = insert_rows(store, run, run_id, error);
    *added = status == FB_OK;
    return status;
}

enum fb_status fb_store_add(struct fb_store *store, const struct fb_history_run *run, bool *added,
                            struct fb_error *error)
{
    const bool alone = sqlite3_get_autocommit(store->db) != 0;

    *added = false;
    enum fb_status status = alone ? fb_store_begin(store, error) : FB_OK;
    if (status == FB_OK)
        status = add_inside(store, run, added, error);
    if (alone && status == FB_OK)
        status = fb_store_commit(store, error);
    if (alone && status != FB_OK)
        fb_store_rollback(store);
    *added = *added && status == FB_OK;
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

static enum fb_status prepare_select(struct fb_store *store, enum fb_store_order order,
                                     sqlite3_stmt **statement, struct fb_error *error)
{
    struct sql sql = {.length = 0};

    append(&sql, "SELECT runs.id");
    for (size_t i = 0; i < fb_history_column_count(); i++) {
        if (store->run_columns_known[i])
            append_name(&sql, ", runs.", fb_history_column_at(i)->name);
        else
            append(&sql, ", NULL");
    }
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (store->row_columns_known[i])
            append_name(&sql, ", cases.", fb_column_at(i)->name);
        else
            append(&sql, ", NULL");
    }
    append(&sql, " FROM runs JOIN cases ON cases.run_id = runs.id ORDER BY ");
    if (order == FB_STORE_BY_COMMIT)
        append(&sql, "coalesce(runs.git_time_utc, runs.started_utc), ");
    append(&sql, "runs.started_utc, runs.run, runs.suite, runs.machine, cases.position");
    return fb_store_prepare(store, sql.text, statement, error);
}

static enum fb_status take_row(struct fb_store *store, sqlite3_stmt *statement,
                               struct fb_history_provenance *from, struct fb_row *row,
                               struct fb_error *error)
{
    bool fine = true;
    int at = 1;

    fb_history_provenance_init(from);
    fb_row_init(row);
    for (size_t i = 0; i < fb_history_column_count(); i++)
        fine &= take_field(statement, at++, fb_history_column_at(i), from);
    for (size_t i = 0; i < fb_column_count(); i++)
        fine &= take_field(statement, at++, fb_column_at(i), row);
    if (!fine)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is damaged: a text of run '%s' is longer than flowbench writes "
                            "it",
                            store->path, from->run);
    memcpy(row->run, from->run, sizeof row->run);
    memcpy(row->suite, from->suite, sizeof row->suite);
    return FB_OK;
}

enum fb_status fb_store_each(struct fb_store *store, enum fb_store_order order,
                             fb_store_visit *visit, void *context, struct fb_error *error)
{
    struct fb_history_provenance from;
    struct fb_row row;
    sqlite3_stmt *statement;
    enum fb_status status = prepare_select(store, order, &statement, error);
    int code = SQLITE_DONE;

    if (status != FB_OK)
        return status;
    while (status == FB_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        status = take_row(store, statement, &from, &row, error);
        if (status == FB_OK)
            status = visit(context, sqlite3_column_int64(statement, 0), &from, &row, error);
    }
    if (status == FB_OK && code != SQLITE_DONE)
        status = fb_store_fail(store, "read", error);
    sqlite3_finalize(statement);
    return status;
}
