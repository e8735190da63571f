/*
 * Stored results: any folder is either refused in words, or its rows can be written and read back
 * as they are, and can be reported.
 *
 * A line `--samples` in the input ends results.csv and begins samples.csv.
 */
#define _GNU_SOURCE
#include "fuzz_input.h"

#include "cell.h"
#include "csv.h"
#include "report.h"
#include "results.h"

#include <stdlib.h>
#include <string.h>

enum { REPORTED_SAMPLES_MAX = 2000 };
#define ARENA_BYTES ((size_t)256 << 20)

/* All columns of all rows, in the order of the table. */
static void write_rows(const struct fb_results *results, struct fb_csv_line *line)
{
    fb_csv_line_init(line);
    for (size_t c = 0; c < fb_column_count(); c++)
        fb_csv_add_text(line, fb_column_at(c)->name);
    fb_csv_end_line(line);
    for (size_t r = 0; r < results->rows_count; r++) {
        for (size_t c = 0; c < fb_column_count(); c++)
            fb_cell_add(line, fb_column_at(c), &results->rows[r]);
        fb_csv_end_line(line);
    }
    fuzz_check(!line->failed, "no memory for the rows");
}

/* Written, read and written again: the two texts are equal. */
static void check_round_trip(const struct fb_results *results)
{
    static struct fuzz_file copy;
    struct fb_arena arena;
    struct fb_results back;
    struct fb_csv_line first, second;
    struct fb_error error = {FB_OK, ""};
    fb_arena_init(&arena, ARENA_BYTES);
    write_rows(results, &first);
    fuzz_file_set(&copy, first.data, first.length);
    fuzz_check(fb_results_read(copy.path, &arena, &back, &error) == FB_OK, error.text);
    write_rows(&back, &second);
    fuzz_check(first.length == second.length && memcmp(first.data, second.data, first.length) == 0,
               "rows changed when they were written and read back");
    fb_csv_line_free(&first);
    fb_csv_line_free(&second);
    fb_arena_free(&arena);
}

static void check_report(const struct fb_results *results)
{
    static FILE *nowhere;
    struct fb_report_verdict verdict;
    struct fb_error error = {FB_OK, ""};
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "we");
    const struct fb_report_options options = {.out = nowhere, .messages = nowhere, .color = true};
    if (results->samples_count <= REPORTED_SAMPLES_MAX)
        fuzz_check(fb_report_run(results, NULL, &options, &verdict, &error) == FB_OK, error.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static const char mark[] = "\n--samples\n";
    static struct fuzz_file rows, samples;
    struct fb_arena arena;
    struct fb_results results;
    struct fb_error error = {FB_OK, ""};
    const bool linked = rows.fd != 0;
    const uint8_t *cut = count > 0 ? memmem(bytes, count, mark, strlen(mark)) : NULL;
    const size_t rows_length = cut != NULL ? (size_t)(cut - bytes) + 1 : count;
    const size_t skipped = cut != NULL ? rows_length + strlen(mark) - 1 : count;
    fuzz_file_set(&rows, bytes, rows_length);
    if (cut != NULL)
        fuzz_file_set(&samples, bytes + skipped, count - skipped);
    else
        fuzz_file_set(&samples, "case_id,process,sample,time_s\n", 30);
    if (!linked) {
        fuzz_folder_link(&rows, "results.csv");
        fuzz_folder_link(&samples, "samples.csv");
    }

    fb_arena_init(&arena, ARENA_BYTES);
    const enum fb_status status = fb_results_read(fuzz_folder(), &arena, &results, &error);
    if (status == FB_OK) {
        check_round_trip(&results);
        check_report(&results);
    } else {
        fuzz_check_refusal(status, &error);
    }
    fb_arena_free(&arena);
    return 0;
}
