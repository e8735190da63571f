/* The history's file: what goes in comes out, once, whoever writes and whoever dies. */
#include "history_csv.h"
#include "made_history.h"
#include "store.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/fb_history_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void open_store(const char *path, enum fb_store_mode mode, struct fb_store *store)
{
    struct fb_error error = {FB_OK, ""};
    if (fb_store_open(path, mode, store, &error) != FB_OK)
        fail_msg("%s", error.text);
}

static bool add(struct fb_store *store, int number, const char *machine)
{
    struct fb_error error = {FB_OK, ""};
    const struct fb_history_run run = fb_made_run(number, machine, 1e-3);
    bool added;
    if (fb_store_add(store, &run, &added, &error) != FB_OK)
        fail_msg("%s", error.text);
    return added;
}

/* ---- counting what is there ----------------------------------------------------------------- */

struct tally {
    long rows, runs;
    int64_t last_run;
    long rows_of_run;
    bool half; /* a run with fewer rows than it was added with */
};

static enum fb_status count_row(void *context, int64_t run_id,
                                const struct fb_history_provenance *from, const struct fb_row *row,
                                struct fb_error *error)
{
    struct tally *tally = context;
    (void)error;
    if (tally->runs == 0 || run_id != tally->last_run) {
        tally->half |= tally->runs > 0 && tally->rows_of_run != FB_MADE_CASES;
        tally->runs++;
        tally->rows_of_run = 0;
        tally->last_run = run_id;
    }
    tally->rows_of_run++;
    tally->rows++;
    assert_string_equal(row->run, from->run);
    assert_true(row->time_median_s > 0.0);
    return FB_OK;
}

static struct tally count_all(const char *path)
{
    struct fb_store store;
    struct fb_error error = {FB_OK, ""};
    struct tally tally = {.runs = 0};
    open_store(path, FB_STORE_READ, &store);
    if (fb_store_each(&store, FB_STORE_BY_COMMIT, count_row, &tally, &error) != FB_OK)
        fail_msg("%s", error.text);
    tally.half |= tally.runs > 0 && tally.rows_of_run != FB_MADE_CASES;
    fb_store_close(&store);
    return tally;
}

static void assert_integrity(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 10000);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
    sqlite3_finalize(statement);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- adding --------------------------------------------------------------------------------- */

static void test_store_same_run_twice_is_one(void **state)
{
    const char *path = in_folder("deep/er/h.sqlite");
    struct fb_store store;
    (void)state;
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(add(&store, 1, "m"));
    assert_false(add(&store, 1, "m"));
    assert_true(add(&store, 2, "m"));
    /* The same name on another machine is another run. */
    struct fb_history_run run = fb_made_run(1, "m", 1e-3);
    bool added = false;
    (void)snprintf(run.from.machine, sizeof run.from.machine, "other");
    assert_int_equal(fb_store_add(&store, &run, &added, NULL), FB_OK);
    assert_true(added);
    fb_store_close(&store);
    const struct tally tally = count_all(path);
    assert_int_equal(tally.runs, 3);
    assert_false(tally.half);
}

static void test_store_same_name_other_content_is_refused(void **state)
{
    const char *path = in_folder("conflict.sqlite");
    struct fb_store store;
    struct fb_error error;
    bool added = true;
    (void)state;
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(add(&store, 1, "m"));
    const struct fb_history_run run = fb_made_run(1, "m", 2e-3);
    assert_int_equal(fb_store_add(&store, &run, &added, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "with other content"));
    assert_false(added);
    fb_store_close(&store);
    assert_int_equal(count_all(path).runs, 1);
}

static void test_store_rollback_leaves_nothing(void **state)
{
    const char *path = in_folder("rollback.sqlite");
    struct fb_store store;
    (void)state;
    open_store(path, FB_STORE_WRITE, &store);
    assert_int_equal(fb_store_begin(&store, NULL), FB_OK);
    assert_true(add(&store, 1, "m"));
    assert_true(add(&store, 2, "m"));
    fb_store_rollback(&store);
    assert_true(add(&store, 3, "m"));
    fb_store_close(&store);
    assert_int_equal(count_all(path).runs, 1);
}

/* Columns that a later flowbench added are left alone; those that an earlier one lacked come. */
static void test_store_columns_come_and_go(void **state)
{
    const char *path = in_folder("columns.sqlite");
    struct fb_store store;
    sqlite3 *db;
    (void)state;
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(add(&store, 1, "m"));
    fb_store_close(&store);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "ALTER TABLE cases ADD COLUMN colour TEXT;"
                                  "ALTER TABLE cases DROP COLUMN err_rel;"
                                  "ALTER TABLE runs DROP COLUMN argv",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(count_all(path).rows, FB_MADE_CASES);
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(store.row_columns_known[0]);
    assert_true(add(&store, 2, "m"));
    fb_store_close(&store);
    assert_int_equal(count_all(path).runs, 2);
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void write_bytes(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static size_t read_bytes(const char *path, unsigned char *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t count = fread(bytes, 1, room, file);
    assert_int_equal(fclose(file), 0);
    assert_true(count < room);
    return count;
}

enum { FILE_ROOM = 1 << 20 };

/* Both ways to open it refuse the file, with these words, and leave its bytes alone. */
static void assert_refused(const char *path, const char *words)
{
    static unsigned char before[FILE_ROOM], after[FILE_ROOM];
    const size_t count = read_bytes(path, before, FILE_ROOM);
    for (int mode = FB_STORE_READ; mode <= FB_STORE_WRITE; mode++) {
        struct fb_store store;
        struct fb_error error = {FB_OK, ""};
        assert_int_equal(fb_store_open(path, (enum fb_store_mode)mode, &store, &error),
                         FB_ERROR_INPUT);
        if (strstr(error.text, words) == NULL)
            fail_msg("'%s' lacks '%s'", error.text, words);
        assert_int_equal(read_bytes(path, after, FILE_ROOM), count);
        assert_memory_equal(before, after, count);
    }
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_store_foreign_and_future_files_are_refused(void **state)
{
    (void)state;
    const char *path = in_folder("foreign.sqlite");
    run_sql(path, "CREATE TABLE runs(id INTEGER PRIMARY KEY, run TEXT)");
    assert_refused(path, "is an SQLite database of another program");
    run_sql(path, "PRAGMA application_id = 1; PRAGMA journal_mode = WAL");
    assert_refused(path, "application id 0x1");
    path = in_folder("text.sqlite");
    write_bytes(path, "history,run\n1,2\n", 16);
    assert_refused(path, "it is no SQLite database");

    struct fb_store store;
    path = in_folder("future.sqlite");
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(add(&store, 1, "m"));
    fb_store_close(&store);
    run_sql(path, "PRAGMA user_version = 2");
    assert_refused(path, "format 2, newer than 1");
    run_sql(path, "PRAGMA user_version = 0");
    assert_refused(path, "its format is 0");
}

static void test_store_damaged_files_are_refused(void **state)
{
    static unsigned char bytes[FILE_ROOM];
    const char *whole = in_folder("whole.sqlite"), *path = in_folder("damaged.sqlite");
    struct fb_store store;
    (void)state;
    open_store(whole, FB_STORE_WRITE, &store);
    for (int i = 0; i < 40; i++)
        assert_true(add(&store, i, "m"));
    fb_store_close(&store);
    const size_t count = read_bytes(whole, bytes, FILE_ROOM);
    assert_true(count > 16384);
    write_bytes(path, bytes, count / 2);
    assert_refused(path, "is cut");
    write_bytes(path, bytes, count - 1);
    assert_refused(path, "is cut");
    write_bytes(path, bytes, 60);
    assert_refused(path, "it is no SQLite database");
    /* A scribble on a page in the middle. */
    memset(bytes + count / 4096 / 2 * 4096, 0xA5, 2048);
    write_bytes(path, bytes, count);
    assert_refused(path, "is damaged");
}

static void test_store_absent_and_empty(void **state)
{
    struct fb_store store;
    struct fb_error error;
    const char *path = in_folder("empty.sqlite");
    (void)state;
    assert_int_equal(fb_store_open(path, FB_STORE_READ, &store, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "there is no history"));
    assert_int_not_equal(access(path, F_OK), 0);
    write_bytes(path, "", 0);
    assert_int_equal(fb_store_open(path, FB_STORE_READ, &store, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "is empty"));
    open_store(path, FB_STORE_WRITE, &store);
    assert_true(add(&store, 1, "m"));
    fb_store_close(&store);
    assert_int_equal(fb_store_open(folder, FB_STORE_READ, &store, &error), FB_ERROR_INPUT);
    assert_int_equal(fb_store_open("/proc/no/h.sqlite", FB_STORE_WRITE, &store, &error),
                     FB_ERROR_IO);
    assert_non_null(strstr(error.text, "--db FILE"));
}

/* ---- two writers, and death ----------------------------------------------------------------- */

enum { WRITERS = 4, RUNS_EACH = 12 };

static pid_t start_writer(const char *path, int first, int count, int answers)
{
    const pid_t child = fork();
    if (child != 0)
        return child;
    for (int i = first; i < first + count; i++) {
        struct fb_store store;
        struct fb_error error = {FB_OK, ""};
        const struct fb_history_run run = fb_made_run(i, "m", 1e-3);
        bool added;
        /* As the command does: every run in a transaction of its own. */
        if (fb_store_open(path, FB_STORE_WRITE, &store, &error) != FB_OK ||
            fb_store_add(&store, &run, &added, &error) != FB_OK) {
            (void)fprintf(stderr, "writer: %s\n", error.text);
            _exit(1);
        }
        fb_store_close(&store);
        if (answers >= 0 && write(answers, &i, sizeof i) != sizeof i)
            _exit(2);
    }
    _exit(0);
}

static void test_store_writers_take_turns(void **state)
{
    const char *path = in_folder("parallel.sqlite");
    pid_t writers[WRITERS];
    (void)state;
    for (int w = 0; w < WRITERS; w++)
        /* They overlap by half: the same run from two writers is one. */
        writers[w] = start_writer(path, w * RUNS_EACH / 2, RUNS_EACH, -1);
    for (int w = 0; w < WRITERS; w++) {
        int code;
        assert_int_equal(waitpid(writers[w], &code, 0), writers[w]);
        assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    }
    assert_integrity(path);
    const struct tally tally = count_all(path);
    assert_int_equal(tally.runs, (WRITERS + 1) * RUNS_EACH / 2);
    assert_false(tally.half);
}

/* Killed at a random moment, again and again: what was reported as added is there, whole; at most
 * the one run under way is there without having been reported. */
static void test_store_kill_loses_nothing(void **state)
{
    const char *path = in_folder("killed.sqlite");
    const int kills = getenv("FB_LONG") != NULL ? 200 : 15;
    unsigned seed = (unsigned)time(NULL);
    int next = 0;
    (void)state;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int k = 0; k < kills; k++) {
        int ends[2], reported = -1, number;
        assert_int_equal(pipe(ends), 0);
        const pid_t writer = start_writer(path, next, 10000, ends[1]);
        (void)close(ends[1]);
        const struct timespec pause = {.tv_nsec = 1000L * (rand() % 60000)};
        (void)nanosleep(&pause, NULL);
        assert_int_equal(kill(writer, SIGKILL), 0);
        assert_int_equal(waitpid(writer, NULL, 0), writer);
        while (read(ends[0], &number, sizeof number) == sizeof number)
            reported = number;
        (void)close(ends[0]);
        next = reported >= 0 ? reported + 1 : next;
        if (access(path, F_OK) != 0)
            continue;
        struct fb_store store;
        open_store(path, FB_STORE_WRITE, &store);
        /* The run under way is there or not; now it is, and so the count is known. */
        (void)add(&store, next, "m");
        next++;
        fb_store_close(&store);
        assert_integrity(path);
        const struct tally tally = count_all(path);
        assert_int_equal(tally.runs, next);
        assert_false(tally.half);
    }
    assert_true(next > 0);
}

/* ---- CSV ------------------------------------------------------------------------------------ */

static size_t export_to(const char *db, const char *csv)
{
    struct fb_store store;
    struct fb_error error = {FB_OK, ""};
    size_t lines = 0;
    open_store(db, FB_STORE_READ, &store);
    if (fb_history_export(&store, csv, NULL, &lines, &error) != FB_OK)
        fail_msg("%s", error.text);
    fb_store_close(&store);
    return lines;
}

static enum fb_status import_from(const char *csv, const char *db, struct fb_history_import *result,
                                  struct fb_error *error)
{
    struct fb_store store;
    open_store(db, FB_STORE_WRITE, &store);
    const enum fb_status status = fb_history_import(&store, csv, result, error);
    fb_store_close(&store);
    return status;
}

static void test_csv_round_trip_is_exact(void **state)
{
    static unsigned char first[FILE_ROOM], second[FILE_ROOM];
    const char *db = in_folder("trip.sqlite"), *csv = in_folder("trip.csv");
    struct fb_store store;
    struct fb_error error = {FB_OK, ""};
    struct fb_history_import result;
    (void)state;
    open_store(db, FB_STORE_WRITE, &store);
    for (int i = 0; i < 12; i++) {
        struct fb_history_run run = fb_made_run((i * 5) % 12, i % 2 ? "m" : "other", 1e-3 / 3);
        bool added;
        (void)snprintf(run.rows[1].status, sizeof run.rows[1].status, "crash");
        (void)snprintf(run.rows[1].reason, sizeof run.rows[1].reason, "two\nlines, \"quoted\"");
        run.rows[1].time_median_s = (double)NAN;
        run.rows[2].time_ci_high_s = HUGE_VAL;
        run.from.git_dirty = i % 3 == 0 ? FB_ROW_NONE : i % 2;
        if (i % 4 == 0)
            run.from.git_sha[0] = run.from.git_time_utc[0] = '\0';
        assert_int_equal(fb_store_add(&store, &run, &added, NULL), FB_OK);
    }
    fb_store_close(&store);
    assert_int_equal(export_to(db, csv), 12 * FB_MADE_CASES);
    const size_t count = read_bytes(csv, first, FILE_ROOM);
    const char *copy = in_folder("copy.sqlite");
    assert_int_equal(import_from(csv, copy, &result, &error), FB_OK);
    assert_int_equal(result.runs_added, 12);
    assert_int_equal(export_to(copy, csv), 12 * FB_MADE_CASES);
    assert_int_equal(read_bytes(csv, second, FILE_ROOM), count);
    assert_memory_equal(first, second, count);
    /* Again: nothing new, in the copy as in the original. */
    assert_int_equal(import_from(csv, copy, &result, &error), FB_OK);
    assert_int_equal(result.runs_added, 0);
    assert_int_equal(result.runs_known, 12);
    assert_int_equal(import_from(csv, db, &result, &error), FB_OK);
    assert_int_equal(result.runs_known, 12);
}

#define HEADER "history,run,suite,started_utc,machine,case_id,mechanism,status,time_median_s\n"
#define LINE   "1,r,s,2026-01-01T00:00:00Z,m,c0,flow,ok,0.5\n"

static void test_csv_bad_lines_are_refused_with_their_place(void **state)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "bad.csv:1: there is nothing here"},
        {"a,b\n1,2\n", "bad.csv:1: not the CSV of a history: the header has no column 'history'"},
        {"mechanisn," HEADER, "bad.csv:1: there is no column 'mechanisn'; did you mean"},
        {"run," HEADER, "bad.csv:1: column 'run' is there twice"},
        {HEADER LINE "1,r\n", "bad.csv:3: 2 cells, but the header has 9"},
        {HEADER "2,r,s,2026-01-01T00:00:00Z,m,c0,flow,ok,1\n", "bad.csv:2: format 2 is newer"},
        {HEADER "x,r,s,2026-01-01T00:00:00Z,m,c0,flow,ok,1\n", "bad.csv:2: column 'history': 'x'"},
        {HEADER LINE "1,r,s,2026-01-01T00:00:00Z,m,c1,flow,ok,fast\n",
         "bad.csv:3: column 'time_median_s': 'fast' is not a number"},
        {HEADER LINE "1,r,s,2026-01-01T00:00:00Z,m,c1,flow,fine,1\n", "bad.csv:3: status 'fine'"},
        {HEADER LINE "1,r,s,2026-01-01T00:00:00Z,m,c0,flow,ok,1\n",
         "bad.csv:2: case c0 is there twice"},
        {HEADER LINE "1,r,s,2026-01-02T00:00:00Z,m,c1,flow,ok,1\n",
         "bad.csv:3: the line says something else about the run 'r' than line 2"},
        {HEADER "1,r,s,yesterday,m,c0,flow,ok,1\n", "bad.csv:2: 'yesterday' is not a time"},
        {HEADER "1,r,s,2026-01-01T00:00:00Z,,c0,flow,ok,1\n", "bad.csv:2: there is no 'machine'"},
        {HEADER "1,r\033[2J,s,2026-01-01T00:00:00Z,m,c0,flow,ok,1\n",
         "bad.csv:2: 'run' holds a control character"},
        {HEADER "1,r,s,2026-01-01T00:00:00Z,m,,flow,ok,1\n", "bad.csv:2: row 1 has no case_id"},
        {HEADER LINE "1,q,s,2026-01-01T00:00:00Z,m,c0,flow,ok,1\n"
                     "1,r,s,2026-01-01T00:00:00Z,m,c1,flow,ok,1\n",
         "bad.csv:4: a run 'r' of suite 's' is in"},
        {HEADER "1,r,s,2026-01-01T00:00:00Z,m,c0,flow,ok,0", "bad.csv:2: the last line is cut"},
        {HEADER "1,\"r\"x,s\n", "bad.csv:2: a quote in the wrong place"},
    };
    const char *db = in_folder("bad.sqlite"), *csv = in_folder("bad.csv");
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fb_error error = {FB_OK, ""};
        struct fb_history_import result;
        write_bytes(csv, bad[i].text, strlen(bad[i].text));
        assert_int_equal(import_from(csv, db, &result, &error), FB_ERROR_INPUT);
        if (strstr(error.text, bad[i].words) == NULL)
            fail_msg("'%s' lacks '%s'", error.text, bad[i].words);
    }
    /* Of none of them anything stayed. */
    assert_int_equal(count_all(db).runs, 0);
}

static void test_csv_needs_few_columns_in_any_order(void **state)
{
    const char *db = in_folder("few.sqlite"), *csv = in_folder("few.csv");
    static const char text[] = "\xEF\xBB\xBFstatus,history,run,machine,suite,case_id,started_utc,"
                               "mechanism\r\nok,1,r,m,s,c0,2026-01-01T00:00:00Z,flow\r\n";
    struct fb_error error = {FB_OK, ""};
    struct fb_history_import result;
    (void)state;
    write_bytes(csv, text, sizeof text - 1);
    if (import_from(csv, db, &result, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_int_equal(result.runs_added, 1);
    assert_int_equal(export_to(db, csv), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_same_run_twice_is_one),
        cmocka_unit_test(test_store_same_name_other_content_is_refused),
        cmocka_unit_test(test_store_rollback_leaves_nothing),
        cmocka_unit_test(test_store_columns_come_and_go),
        cmocka_unit_test(test_store_foreign_and_future_files_are_refused),
        cmocka_unit_test(test_store_damaged_files_are_refused),
        cmocka_unit_test(test_store_absent_and_empty),
        cmocka_unit_test(test_store_writers_take_turns),
        cmocka_unit_test(test_store_kill_loses_nothing),
        cmocka_unit_test(test_csv_round_trip_is_exact),
        cmocka_unit_test(test_csv_bad_lines_are_refused_with_their_place),
        cmocka_unit_test(test_csv_needs_few_columns_in_any_order),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
