/*
 * The history in one SQLite file. Writers take turns (immediate transactions, a busy time-out), a
 * transaction is whole or not there whenever its process dies, and whatever is not a history of
 * this format is refused without being touched.
 */
#ifndef FB_STORE_H
#define FB_STORE_H

#include "history_run.h"

#include <sqlite3.h>
#include <stdbool.h>

enum {
    FB_STORE_APPLICATION_ID = 0x66624869, /* "fbHi" */
    FB_STORE_BUSY_S = 30
};

struct fb_store {
    sqlite3 *db;
    const char *path;                            /* the caller's */
    bool *row_columns_known, *run_columns_known; /* owned: what the tables have, by column */
};

enum fb_store_mode {
    FB_STORE_READ, /* it must be there */
    FB_STORE_WRITE /* made with its folders when it is absent or empty */
};

/* FB_ERROR_INPUT: absent (to read), damaged, another program's, or of a newer format; FB_ERROR_IO:
 * the operating system refuses; FB_ERROR_TIMEOUT: another process has been writing for
 * FB_STORE_BUSY_S. On failure there is nothing to close. */
enum fb_status fb_store_open(const char *path, enum fb_store_mode mode, struct fb_store *store,
                             struct fb_error *error) FB_MUST_CHECK;
void fb_store_close(struct fb_store *store);

/* Several adds as one; without them each add is a transaction of its own. */
enum fb_status fb_store_begin(struct fb_store *store, struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_store_commit(struct fb_store *store, struct fb_error *error) FB_MUST_CHECK;
void fb_store_rollback(struct fb_store *store);

/* Adds a run that fb_history_run_check accepts. *added is false when the same run is there already.
 * FB_ERROR_INPUT when a run of that name, suite and machine is there with other content. */
enum fb_status fb_store_add(struct fb_store *store, const struct fb_history_run *run, bool *added,
                            struct fb_error *error) FB_MUST_CHECK;

enum fb_store_order {
    FB_STORE_BY_RUN,   /* as they were started; the rows of a run together, in their order */
    FB_STORE_BY_COMMIT /* by the time of the commit, then as they were started; likewise */
};

/* Calls visit for every row. `from` stays at the same address while the run does. Stops at the
 * first status other than FB_OK. */
typedef enum fb_status fb_store_visit(void *context, int64_t run_id,
                                      const struct fb_history_provenance *from,
                                      const struct fb_row *row, struct fb_error *error);
enum fb_status fb_store_each(struct fb_store *store, enum fb_store_order order,
                             fb_store_visit *visit, void *context,
                             struct fb_error *error) FB_MUST_CHECK;

/* ---- shared by the files of the store ------------------------------------------------------- */

/* The status and the words for what SQLite has just reported. */
enum fb_status fb_store_fail(const struct fb_store *store, const char *doing,
                             struct fb_error *error);
enum fb_status fb_store_execute(struct fb_store *store, const char *sql, const char *doing,
                                struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_store_prepare(struct fb_store *store, const char *sql, sqlite3_stmt **statement,
                                struct fb_error *error) FB_MUST_CHECK;
/* Makes the tables, or adds columns that this flowbench knows and an older one did not. */
enum fb_status fb_store_update_schema(struct fb_store *store, struct fb_error *error) FB_MUST_CHECK;
/* Which columns the tables have. */
enum fb_status fb_store_read_columns(struct fb_store *store, struct fb_error *error) FB_MUST_CHECK;

#endif
