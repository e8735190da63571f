/* The tables of a history, made of the columns of runs and rows: see store.h. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct table {
    const char *name;
    size_t (*count)(void);
    const struct fb_column *(*at)(size_t index);
};

static const struct table run_table = {"runs", fb_history_column_count, fb_history_column_at};
static const struct table case_table = {"cases", fb_column_count, fb_column_at};

static bool is_kept(const struct table *table, const struct fb_column *column)
{
    return table == &run_table || fb_history_keeps_row_column(column);
}

static const char *sql_type(const struct fb_column *column)
{
    static const char *const types[] = {
        [FB_COLUMN_TEXT] = "TEXT", [FB_COLUMN_INT] = "INTEGER", [FB_COLUMN_REAL] = "REAL"};

    return types[column->type];
}

/* Which of its columns the table has; *known is the caller's. None for a table that is not there.
 */
static enum fb_status read_table(struct fb_store *store, const struct table *table, bool **known,
                                 struct fb_error *error)
{
    sqlite3_stmt *statement;
    char sql[64];

    (void)snprintf(sql, sizeof sql, "PRAGMA table_info(%s)", table->name);
    free(*known);
    *known = calloc(table->count(), sizeof **known);
    if (*known == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to open '%s'", store->path);
    enum fb_status status = fb_store_prepare(store, sql, &statement, error);
    if (status != FB_OK)
        return status;
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(statement, 1);
        for (size_t i = 0; i < table->count(); i++)
            (*known)[i] |= name != NULL && strcmp(table->at(i)->name, name) == 0;
    }
    if (code != SQLITE_DONE)
        status = fb_store_fail(store, "read", error);
    sqlite3_finalize(statement);
    return status;
}

enum fb_status fb_store_read_columns(struct fb_store *store, struct fb_error *error)
{
    const enum fb_status status = read_table(store, &run_table, &store->run_columns_known, error);

    return status == FB_OK ? read_table(store, &case_table, &store->row_columns_known, error)
                           : status;
}

/* Columns come at the end of a table one by one: the same way when it is made as when it grows. */
static enum fb_status add_columns(struct fb_store *store, const struct table *table,
                                  const bool *known, struct fb_error *error)
{
    enum fb_status status = FB_OK;

    for (size_t i = 0; i < table->count() && status == FB_OK; i++) {
        const struct fb_column *column = table->at(i);
        char sql[192];
        if (known[i] || !is_kept(table, column))
            continue;
        (void)snprintf(sql, sizeof sql, "ALTER TABLE %s ADD COLUMN \"%s\" %s", table->name,
                       column->name, sql_type(column));
        status = fb_store_execute(store, sql, "write to", error);
    }
    return status;
}

enum fb_status fb_store_update_schema(struct fb_store *store, struct fb_error *error)
{
    static const char made[] =
        "CREATE TABLE IF NOT EXISTS runs(id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL,"
        " run TEXT NOT NULL, suite TEXT NOT NULL, machine TEXT NOT NULL,"
        " UNIQUE(run, suite, machine));"
        "CREATE TABLE IF NOT EXISTS cases(run_id INTEGER NOT NULL REFERENCES runs(id),"
        " position INTEGER NOT NULL, case_id TEXT NOT NULL,"
        " PRIMARY KEY(run_id, position), UNIQUE(run_id, case_id)) WITHOUT ROWID;";
    char identity[96];

    (void)snprintf(identity, sizeof identity,
                   "PRAGMA application_id = %d; PRAGMA user_version = %d", FB_STORE_APPLICATION_ID,
                   FB_HISTORY_FORMAT);
    enum fb_status status = fb_store_read_columns(store, error);
    if (status == FB_OK && !store->run_columns_known[0]) {
        status = fb_store_execute(store, made, "write to", error);
        if (status == FB_OK)
            status = fb_store_execute(store, identity, "write to", error);
        if (status == FB_OK)
            status = fb_store_read_columns(store, error);
    }
    if (status == FB_OK)
        status = add_columns(store, &run_table, store->run_columns_known, error);
    return status == FB_OK ? add_columns(store, &case_table, store->row_columns_known, error)
                           : status;
}
