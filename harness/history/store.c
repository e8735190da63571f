/* Opening a history, and refusing what is none: see store.h. */
#include "store.h"

#include "run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- failures ------------------------------------------------------------------------------- */

enum fb_status fb_store_fail(const struct fb_store *store, const char *doing,
                             struct fb_error *error)
{
    const int code = sqlite3_errcode(store->db);
    const char *words = sqlite3_errmsg(store->db);

    switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is damaged (%s): nothing was written to it; take a copy from "
                            "before, or import an exported CSV into a new file",
                            store->path, words);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fb_error_set(error, FB_ERROR_TIMEOUT,
                            "cannot %s '%s': another process has been writing to it for %d s; try "
                            "again",
                            doing, store->path, FB_STORE_BUSY_S);
    case SQLITE_NOMEM:
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to %s '%s'", doing, store->path);
    default:
        return fb_error_set(error, FB_ERROR_IO,
                            "cannot %s '%s': %s; what it holds already is intact", doing,
                            store->path, words);
    }
}

enum fb_status fb_store_execute(struct fb_store *store, const char *sql, const char *doing,
                                struct fb_error *error)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? FB_OK
               : fb_store_fail(store, doing, error);
}

enum fb_status fb_store_prepare(struct fb_store *store, const char *sql, sqlite3_stmt **statement,
                                struct fb_error *error)
{
    return sqlite3_prepare_v2(store->db, sql, -1, statement, NULL) == SQLITE_OK
               ? FB_OK
               : fb_store_fail(store, "read", error);
}

/* ---- what is in the file, before SQLite may touch it ---------------------------------------- */

enum { HEADER_SIZE = 100, PAGES_AT = 28, VERSION_AT = 60, APPLICATION_AT = 68 };

static uint32_t big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static enum fb_status judge_format(const char *path, uint32_t application, uint32_t version,
                                   struct fb_error *error)
{
    if (application != FB_STORE_APPLICATION_ID)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is an SQLite database of another program (application id "
                            "%#" PRIx32 "), not a history of flowbench: name another file with "
                            "--db",
                            path, application);
    if (version > FB_HISTORY_FORMAT)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' has format %" PRIu32 ", newer than %d, the newest that this "
                            "flowbench reads; use the flowbench that wrote it",
                            path, version, FB_HISTORY_FORMAT);
    if (version < 1)
        return fb_error_set(error, FB_ERROR_INPUT, "'%s' is damaged: its format is 0", path);
    return FB_OK;
}

/* A journal beside the file says that its last writer died or is at work: then its length need not
 * fit yet, and SQLite puts it right. */
static enum fb_status judge_length(const char *path, const unsigned char *header, int fd,
                                   struct fb_error *error)
{
    char journal[4200];
    struct stat info;
    const uint32_t stored = (uint32_t)header[16] << 8 | header[17];
    const uint64_t page_bytes = stored == 1 ? 65536 : stored;
    const uint64_t bytes = page_bytes * big_endian(header + PAGES_AT);

    (void)snprintf(journal, sizeof journal, "%s-journal", path);
    if (access(journal, F_OK) == 0 || fstat(fd, &info) != 0 || (uint64_t)info.st_size >= bytes)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_INPUT,
                        "'%s' is cut: %lld of its %" PRIu64 " bytes are there; take a copy from "
                        "before, or import an exported CSV into a new file",
                        path, (long long)info.st_size, bytes);
}

static enum fb_status judge_header(const char *path, int fd, struct fb_error *error)
{
    static const char magic[16] = "SQLite format 3";
    unsigned char header[HEADER_SIZE];
    const ssize_t count = pread(fd, header, sizeof header, 0);

    if (count < 0)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    if (count == 0)
        return FB_OK;
    if (count < HEADER_SIZE || memcmp(header, magic, sizeof magic) != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is not a history: it is no SQLite database; a CSV comes in by "
                            "`flowbench history import`",
                            path);
    const enum fb_status status = judge_format(path, big_endian(header + APPLICATION_AT),
                                               big_endian(header + VERSION_AT), error);
    return status == FB_OK ? judge_length(path, header, fd, error) : status;
}

static enum fb_status judge_file(const char *path, enum fb_store_mode mode, struct fb_error *error)
{
    struct stat info;

    if (stat(path, &info) != 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
        if (mode == FB_STORE_WRITE)
            return FB_OK;
        return fb_error_set(error, FB_ERROR_INPUT,
                            "there is no history '%s': `flowbench history add RUN` makes it, --db "
                            "names another",
                            path);
    }
    if (!S_ISREG(info.st_mode))
        return fb_error_set(error, FB_ERROR_INPUT, "'%s' is not a regular file", path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    enum fb_status status = judge_header(path, fd, error);
    if (status == FB_OK && mode == FB_STORE_READ && info.st_size == 0)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "'%s' is empty: `flowbench history add RUN` fills it", path);
    close(fd);
    return status;
}

/* ---- opening -------------------------------------------------------------------------------- */

static enum fb_status make_folders(const char *path, struct fb_error *error)
{
    char *copy = strdup(path);

    if (copy == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to open '%s'", path);
    const enum fb_status status = fb_folder_make_parents(copy, "--db FILE", error);
    free(copy);
    return status;
}

/* The one number that a statement answers with. */
static enum fb_status read_number(struct fb_store *store, const char *sql, uint32_t *value,
                                  struct fb_error *error)
{
    sqlite3_stmt *statement;
    enum fb_status status = fb_store_prepare(store, sql, &statement, error);

    if (status != FB_OK)
        return status;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *value = (uint32_t)sqlite3_column_int64(statement, 0);
    else
        status = fb_store_fail(store, "read", error);
    sqlite3_finalize(statement);
    return status;
}

/* Every page is looked at: a scribble in the middle is found before anything is believed. */
static enum fb_status check_pages(struct fb_store *store, struct fb_error *error)
{
    sqlite3_stmt *statement;
    enum fb_status status = fb_store_prepare(store, "PRAGMA quick_check(1)", &statement, error);

    if (status != FB_OK)
        return status;
    if (sqlite3_step(statement) != SQLITE_ROW) {
        status = fb_store_fail(store, "read", error);
    } else {
        const char *words = (const char *)sqlite3_column_text(statement, 0);
        if (words == NULL || strcmp(words, "ok") != 0)
            status = fb_error_set(error, FB_ERROR_INPUT,
                                  "'%s' is damaged (%.200s): nothing was written to it; take a "
                                  "copy from before, or import an exported CSV into a new file",
                                  store->path, words != NULL ? words : "no answer");
    }
    sqlite3_finalize(statement);
    return status;
}

/* Again under SQLite's own lock: another process may have made the file in between. */
static enum fb_status judge_open(struct fb_store *store, enum fb_store_mode mode,
                                 struct fb_error *error)
{
    uint32_t application = 0, version = 0, tables = 0;
    enum fb_status status =
        read_number(store, "SELECT count(*) FROM sqlite_master", &tables, error);

    if (status == FB_OK)
        status = read_number(store, "PRAGMA application_id", &application, error);
    if (status == FB_OK)
        status = read_number(store, "PRAGMA user_version", &version, error);
    if (status != FB_OK)
        return status;
    if (tables == 0 && application == 0 && version == 0)
        return mode == FB_STORE_WRITE
                   ? FB_OK
                   : fb_error_set(error, FB_ERROR_INPUT,
                                  "'%s' is empty: `flowbench history add RUN` fills it",
                                  store->path);
    status = judge_format(store->path, application, version, error);
    return status == FB_OK ? check_pages(store, error) : status;
}

static enum fb_status set_up(struct fb_store *store, enum fb_store_mode mode,
                             struct fb_error *error)
{
    /* FULL: a commit that was reported survives a power cut. */
    enum fb_status status = fb_store_execute(
        store, "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;",
        "open", error);

    if (status == FB_OK && mode == FB_STORE_WRITE) {
        status = fb_store_execute(store, "BEGIN IMMEDIATE", "write to", error);
        if (status == FB_OK)
            status = judge_open(store, mode, error);
        if (status == FB_OK)
            status = fb_store_update_schema(store, error);
        if (status == FB_OK)
            status = fb_store_execute(store, "COMMIT", "write to", error);
        if (status != FB_OK)
            fb_store_rollback(store);
    } else if (status == FB_OK) {
        status = judge_open(store, mode, error);
    }
    return status == FB_OK ? fb_store_read_columns(store, error) : status;
}

enum fb_status fb_store_open(const char *path, enum fb_store_mode mode, struct fb_store *store,
                             struct fb_error *error)
{
    const int flags = SQLITE_OPEN_READWRITE | (mode == FB_STORE_WRITE ? SQLITE_OPEN_CREATE : 0);

    *store = (struct fb_store){.path = path};
    enum fb_status status = judge_file(path, mode, error);
    if (status == FB_OK && mode == FB_STORE_WRITE)
        status = make_folders(path, error);
    if (status != FB_OK)
        return status;
    if (sqlite3_open_v2(path, &store->db, flags, NULL) != SQLITE_OK) {
        status = store->db == NULL
                     ? fb_error_set(error, FB_ERROR_MEMORY, "no memory to open '%s'", path)
                     : fb_store_fail(store, "open", error);
    } else {
        (void)sqlite3_busy_timeout(store->db, FB_STORE_BUSY_S * 1000);
        status = set_up(store, mode, error);
    }
    if (status != FB_OK)
        fb_store_close(store);
    return status;
}

void fb_store_close(struct fb_store *store)
{
    (void)sqlite3_close(store->db);
    free(store->row_columns_known);
    free(store->run_columns_known);
    *store = (struct fb_store){.path = store->path};
}

enum fb_status fb_store_begin(struct fb_store *store, struct fb_error *error)
{
    return fb_store_execute(store, "BEGIN IMMEDIATE", "write to", error);
}

enum fb_status fb_store_commit(struct fb_store *store, struct fb_error *error)
{
    return fb_store_execute(store, "COMMIT", "write to", error);
}

void fb_store_rollback(struct fb_store *store)
{
    if (sqlite3_get_autocommit(store->db) == 0)
        (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}
