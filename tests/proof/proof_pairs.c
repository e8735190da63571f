/* Pairs of real processes, read and collected: see proof_pairs.h. */
#include "proof_pairs.h"

#include "csv.h"
#include "gate.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

static struct pair_case *case_of(struct pair_pool *pool, const char *name, struct fb_arena *arena,
                                 struct fb_error *error)
{
    for (size_t i = 0; i < pool->count; i++)
        if (strcmp(pool->cases[i].name, name) == 0)
            return &pool->cases[i];
    if (pool->count == PAIR_CASES_MAX) {
        (void)fb_error_set(error, FB_ERROR_INPUT, "more than %d cases", PAIR_CASES_MAX);
        return NULL;
    }
    struct pair_case *one = &pool->cases[pool->count];
    one->name = fb_arena_strdup(arena, name, error);
    one->ratios = fb_arena_alloc(arena, PAIR_CASE_PAIRS_MAX, sizeof *one->ratios, error);
    if (one->name == NULL || one->ratios == NULL)
        return NULL;
    pool->count++;
    return one;
}

static enum fb_status take_record(const struct fb_csv_record *record, const char *path,
                                  struct fb_arena *arena, struct pair_pool *pool,
                                  struct fb_error *error)
{
    char *end = NULL;
    const double ratio = record->cells_count == 2 ? strtod(record->cells[1], &end) : (double)NAN;

    if (record->cells_count != 2 || end == record->cells[1] || *end != '\0' || !isfinite(ratio))
        return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: not a case and a log ratio", path,
                            record->line_number);
    struct pair_case *one = case_of(pool, record->cells[0], arena, error);
    if (one == NULL)
        return error->code;
    if (one->count == PAIR_CASE_PAIRS_MAX)
        return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: more than %d pairs of a case", path,
                            record->line_number, PAIR_CASE_PAIRS_MAX);
    one->ratios[one->count++] = ratio;
    return FB_OK;
}

/* About zero: both processes of a pair are the same program. */
static double plain_deviation(const struct pair_case *one)
{
    double squares = 0.0;

    for (size_t i = 0; i < one->count; i++)
        squares += one->ratios[i] * one->ratios[i];
    return sqrt(squares / (double)one->count / 2.0);
}

enum fb_status pair_pool_read(const char *path, struct fb_arena *arena, struct pair_pool *pool,
                              struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    struct fb_gate_rule rule;
    char *text;
    size_t length;
    enum fb_status status = fb_csv_load(path, arena, &text, &length, error);

    memset(pool, 0, sizeof *pool);
    if (status != FB_OK)
        return status;
    fb_csv_reader_init(&reader, text, length, path);
    status = fb_csv_next(&reader, arena, &record, error); /* the header */
    while (status == FB_OK && record.cells_count > 0) {
        status = fb_csv_next(&reader, arena, &record, error);
        if (status == FB_OK && record.cells_count > 0)
            status = take_record(&record, path, arena, pool, error);
    }
    fb_gate_rule_init(&rule);
    for (size_t i = 0; status == FB_OK && i < pool->count; i++) {
        struct fb_gate_screen screen;
        struct pair_case *one = &pool->cases[i];
        status = fb_gate_screen(&rule, one->ratios, one->count, &screen, error);
        one->sigma = screen.sigma;
        one->deviation = plain_deviation(one);
        if (status == FB_OK && one->count < rule.screen_pairs + rule.confirm_pairs_noisy)
            status = fb_error_set(
                error, FB_ERROR_INPUT, "%s: %zu pairs of %s; a comparison may draw %zu", path,
                one->count, one->name, rule.screen_pairs + rule.confirm_pairs_noisy);
    }
    return status;
}

/* ---- collecting ------------------------------------------------------------------------------ */

static void collect_ratios(const char *name, const json_t *ratios, struct fb_csv_line *line)
{
    for (size_t i = 0; i < json_array_size(ratios); i++) {
        fb_csv_add_text(line, name);
        fb_csv_add_real(line, json_number_value(json_array_get(ratios, i)));
        fb_csv_end_line(line);
    }
}

static enum fb_status collect_document(const char *path, struct fb_csv_line *line,
                                       struct fb_error *error)
{
    json_error_t where;
    json_t *document = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    const json_t *cases = json_object_get(document, "cases");
    const json_t *one;
    size_t index;

    if (!json_is_array(cases)) {
        json_decref(document);
        return fb_error_set(error, FB_ERROR_INPUT, "%s: not a comparison: %s", path,
                            document == NULL ? where.text : "no cases");
    }
    json_array_foreach(cases, index, one)
    {
        const char *name = json_string_value(json_object_get(one, "case"));
        if (name == NULL)
            continue;
        collect_ratios(name, json_object_get(one, "screen_log_ratios"), line);
        collect_ratios(name, json_object_get(one, "fresh_log_ratios"), line);
    }
    json_decref(document);
    return FB_OK;
}

enum fb_status pair_pool_collect(char *const *documents, int count, FILE *out,
                                 struct fb_error *error)
{
    struct fb_csv_line line;
    enum fb_status status = FB_OK;

    fb_csv_line_init(&line);
    fb_csv_add_text(&line, "case");
    fb_csv_add_text(&line, "log_ratio");
    fb_csv_end_line(&line);
    for (int i = 0; i < count && status == FB_OK; i++)
        status = collect_document(documents[i], &line, error);
    if (status == FB_OK && line.failed)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the pairs");
    if (status == FB_OK && fwrite(line.data, 1, line.length, out) != line.length)
        status = fb_error_set(error, FB_ERROR_IO, "the pairs could not be written");
    fb_csv_line_free(&line);
    return status;
}
