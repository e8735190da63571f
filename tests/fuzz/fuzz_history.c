/*
 * The CSV of a history: any file is either refused in words, or its runs can be stored, and what is
 * exported of them is, imported again, the same text.
 */
#include "fuzz_input.h"

#include "history_check.h"
#include "history_csv.h"
#include "series_book.h"

#include <stdlib.h>
#include <string.h>

/* In memory: SQLite's own files are not what is looked at. Made once, emptied for every input. */
static void empty_store(struct fb_store *store)
{
    struct fb_error error = {FB_OK, ""};
    if (store->db != NULL) {
        fuzz_check(fb_store_execute(store, "DELETE FROM cases; DELETE FROM runs", "empty",
                                    &error) == FB_OK,
                   error.text);
        return;
    }
    *store = (struct fb_store){.path = "memory"};
    fuzz_check(sqlite3_open(":memory:", &store->db) == SQLITE_OK, "no memory for a database");
    fuzz_check(fb_store_update_schema(store, &error) == FB_OK &&
                   fb_store_read_columns(store, &error) == FB_OK,
               error.text);
}

static void export_text(struct fb_store *store, char **text, size_t *length)
{
    struct fb_error error = {FB_OK, ""};
    size_t lines;
    FILE *file = open_memstream(text, length);
    fuzz_check(file != NULL, "no memory for a text");
    fuzz_check(fb_history_export(store, NULL, file, &lines, &error) == FB_OK, error.text);
    (void)fclose(file);
}

/* What was stored can be judged, whatever it says. */
static void check_verdicts(struct fb_store *store)
{
    const struct fb_book_request request = {.window = 200};
    struct fb_series_book book;
    struct fb_history_check result;
    struct fb_error error = {FB_OK, ""};
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    fuzz_check(fb_series_book_read(store, &request, &arena, &book, &error) == FB_OK, error.text);
    fuzz_check(fb_history_check(&book, &arena, &result, &error) == FB_OK, error.text);
    fb_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct fuzz_file input, copy;
    static struct fb_store store, second;
    struct fb_history_import result;
    struct fb_error error = {FB_OK, ""};
    fuzz_file_set(&input, bytes, count);
    empty_store(&store);
    const enum fb_status status = fb_history_import(&store, input.path, &result, &error);
    if (status == FB_OK) {
        char *once = NULL, *twice = NULL;
        size_t once_length = 0, twice_length = 0;
        export_text(&store, &once, &once_length);
        check_verdicts(&store);
        fuzz_file_set(&copy, once, once_length);
        empty_store(&second);
        fuzz_check(fb_history_import(&second, copy.path, &result, &error) == FB_OK, error.text);
        export_text(&second, &twice, &twice_length);
        fuzz_check(once_length == twice_length && memcmp(once, twice, once_length) == 0,
                   "an export of an import differs");
        free(once);
        free(twice);
    } else {
        fuzz_check_refusal(status, &error);
    }
    return 0;
}
