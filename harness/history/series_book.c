/* From rows in the order of their commits to series: see series_book.h. */
#include "series_book.h"

#include "changes.h"
#include "quantity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- what is followed ----------------------------------------------------------------------- */

#define LEAST_STEP_EXACT 0.00995033085316808 /* ln 1.01: memory and instructions */

/* "1.234 M" */
static char *print_count(double value, char *text)
{
    static const char *const suffixes[] = {"", " k", " M", " G", " T"};
    size_t s = 0;

    for (; value >= 999.95 && s < 4; s++)
        value /= 1000.0;
    (void)snprintf(text, FB_QUANTITY_SIZE, "%.4g%s", value, suffixes[s]);
    return text;
}

static const struct fb_history_metric metrics[] = {
    [FB_METRIC_TIME] = {"time", "time_median_s", "time_ci_low_s", "time_ci_high_s",
                        FB_CHANGE_LEAST_STEP, fb_quantity_time},
    [FB_METRIC_INSTRUCTIONS] = {"instructions", "instructions", NULL, NULL, LEAST_STEP_EXACT,
                                print_count},
    {"memory", "mem_peak_bytes", NULL, NULL, LEAST_STEP_EXACT, fb_quantity_bytes},
};
enum { METRIC_COUNT = sizeof metrics / sizeof metrics[0] };

const char *const fb_history_size_columns[FB_HISTORY_SIZES] = {
    "mem_workspace_bytes", "mem_saved_bytes", "mem_state_bytes"};

size_t fb_history_metric_count(void)
{
    return METRIC_COUNT;
}

const struct fb_history_metric *fb_history_metric_at(size_t index)
{
    return index < METRIC_COUNT ? &metrics[index] : NULL;
}

size_t fb_history_metric_find(const char *name)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        if (strcmp(metrics[i].name, name) == 0)
            return i;
    }
    return SIZE_MAX;
}

bool fb_book_point_usable(const struct fb_book_series *series, size_t at, size_t metric)
{
    const struct fb_book_point *point = &series->points[at];

    if (metric == FB_METRIC_INSTRUCTIONS &&
        strcmp(point->counted, series->points[series->count - 1].counted) != 0)
        return false;
    return strcmp(point->status, "ok") == 0 && isfinite(point->value[metric]) &&
           point->value[metric] > 0.0;
}

const char *fb_book_run_commit(const struct fb_book_run *run, char *text)
{
    (void)snprintf(text, 16, "%.12s%s", *run->git_sha != '\0' ? run->git_sha : "-",
                   run->git_dirty == 1 ? "+" : "");
    return text;
}

/* ---- one row -------------------------------------------------------------------------------- */

static double number_at(const struct fb_row *row, const char *name)
{
    const struct fb_column *column = name != NULL ? fb_column_find(name) : NULL;
    double real = (double)NAN;
    int64_t integer;

    if (column == NULL || column->type == FB_COLUMN_TEXT)
        return real;
    const char *field = (const char *)row + column->offset;
    if (column->type == FB_COLUMN_REAL) {
        memcpy(&real, field, sizeof real);
        return real;
    }
    memcpy(&integer, field, sizeof integer);
    return integer == FB_ROW_NONE ? real : (double)integer;
}

static const char *status_of(const struct fb_row *row)
{
    for (int i = 0; fb_row_statuses[i] != NULL; i++) {
        if (strcmp(fb_row_statuses[i], row->status) == 0)
            return fb_row_statuses[i];
    }
    return "error";
}

/* One text for a run of equal ones. */
static const char *counted_by(struct fb_series_book *book, const struct fb_book_series *series,
                              const struct fb_row *row, struct fb_error *error)
{
    char text[sizeof row->counter + sizeof row->toolchain + 2];

    if (*row->counter == '\0')
        return "";
    (void)snprintf(text, sizeof text, "%s, %s", row->counter, row->toolchain);
    if (series->count > 0 && strcmp(series->points[series->count - 1].counted, text) == 0)
        return series->points[series->count - 1].counted;
    return fb_arena_strdup(book->arena, text, error);
}

static struct fb_book_point make_point(const struct fb_row *row, size_t run)
{
    struct fb_book_point point = {.run = run,
                                  .err_rel = row->err_rel,
                                  .err_budget = row->err_budget,
                                  .status = status_of(row)};

    for (size_t m = 0; m < METRIC_COUNT; m++) {
        point.value[m] = number_at(row, metrics[m].value);
        point.low[m] = number_at(row, metrics[m].low);
        point.high[m] = number_at(row, metrics[m].high);
    }
    for (size_t s = 0; s < FB_HISTORY_SIZES; s++) {
        const struct fb_column *column = fb_column_find(fb_history_size_columns[s]);
        memcpy(&point.sizes[s], (const char *)row + column->offset, sizeof point.sizes[s]);
    }
    return point;
}

/* ---- lists that grow in the arena ----------------------------------------------------------- */

static void *grow(struct fb_arena *arena, void *items, size_t count, size_t *capacity,
                  size_t item_bytes, struct fb_error *error)
{
    if (count < *capacity)
        return items;
    const size_t room = *capacity == 0 ? 16 : 2 * *capacity;
    void *larger = fb_arena_alloc(arena, room, item_bytes, error);
    if (larger != NULL) {
        if (count > 0)
            memcpy(larger, items, count * item_bytes);
        *capacity = room;
    }
    return larger;
}

static enum fb_status find_machine(struct fb_series_book *book,
                                   const struct fb_history_provenance *from, size_t *index,
                                   struct fb_error *error)
{
    for (*index = 0; *index < book->machines_count; (*index)++) {
        if (strcmp(book->machines[*index].identity, from->machine) == 0)
            return FB_OK;
    }
    book->machines = grow(book->arena, book->machines, book->machines_count,
                          &book->machines_capacity, sizeof *book->machines, error);
    if (book->machines == NULL)
        return FB_ERROR_MEMORY;
    struct fb_book_machine *machine = &book->machines[book->machines_count++];
    machine->identity = fb_arena_strdup(book->arena, from->machine, error);
    machine->name = fb_arena_strdup(
        book->arena, *from->machine_name != '\0' ? from->machine_name : from->machine, error);
    return machine->identity == NULL || machine->name == NULL ? FB_ERROR_MEMORY : FB_OK;
}

/* A tree with changes is no commit that another run could share. */
static size_t find_commit(const struct fb_series_book *book, const struct fb_book_run *run)
{
    for (size_t i = book->runs_count; i-- > 0 && *run->git_sha != '\0' && run->git_dirty != 1;) {
        if (strcmp(book->runs[i].git_sha, run->git_sha) == 0 && book->runs[i].git_dirty != 1)
            return book->runs[i].commit;
    }
    return book->runs_count;
}

static enum fb_status add_run(struct fb_series_book *book, int64_t id,
                              const struct fb_history_provenance *from, struct fb_error *error)
{
    struct fb_arena *arena = book->arena;

    book->runs =
        grow(arena, book->runs, book->runs_count, &book->runs_capacity, sizeof *book->runs, error);
    if (book->runs == NULL)
        return FB_ERROR_MEMORY;
    struct fb_book_run run = {.id = id,
                              .run = fb_arena_strdup(arena, from->run, error),
                              .suite = fb_arena_strdup(arena, from->suite, error),
                              .started_utc = fb_arena_strdup(arena, from->started_utc, error),
                              .git_sha = fb_arena_strdup(arena, from->git_sha, error),
                              .git_time_utc = fb_arena_strdup(arena, from->git_time_utc, error),
                              .compiler = fb_arena_strdup(arena, from->compiler, error),
                              .git_dirty = from->git_dirty};
    if (run.run == NULL || run.suite == NULL || run.started_utc == NULL || run.git_sha == NULL ||
        run.git_time_utc == NULL || run.compiler == NULL)
        return FB_ERROR_MEMORY;
    run.commit = find_commit(book, &run);
    const enum fb_status status = find_machine(book, from, &run.machine, error);
    if (status == FB_OK)
        book->runs[book->runs_count++] = run;
    return status;
}

static size_t slot_of(const struct fb_series_book *book, size_t machine, const char *case_id)
{
    size_t slot = (size_t)XXH64(case_id, strlen(case_id), machine) & (book->slots_count - 1);

    while (book->slots[slot] != 0) {
        const struct fb_book_series *series = book->series[book->slots[slot] - 1];
        if (series->machine == machine && strcmp(series->row.case_id, case_id) == 0)
            break;
        slot = (slot + 1) & (book->slots_count - 1);
    }
    return slot;
}

/* At most half full. */
static enum fb_status make_room(struct fb_series_book *book, struct fb_error *error)
{
    if (2 * (book->series_count + 1) <= book->slots_count)
        return FB_OK;
    book->slots_count = book->slots_count == 0 ? 256 : 2 * book->slots_count;
    book->slots = fb_arena_alloc(book->arena, book->slots_count, sizeof *book->slots, error);
    if (book->slots == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < book->series_count; i++)
        book->slots[slot_of(book, book->series[i]->machine, book->series[i]->row.case_id)] = i + 1;
    return FB_OK;
}

static enum fb_status find_series(struct fb_series_book *book, size_t machine, const char *case_id,
                                  struct fb_book_series **series, struct fb_error *error)
{
    const enum fb_status status = make_room(book, error);
    if (status != FB_OK)
        return status;
    const size_t slot = slot_of(book, machine, case_id);
    if (book->slots[slot] != 0) {
        *series = book->series[book->slots[slot] - 1];
        return FB_OK;
    }
    book->series = grow(book->arena, book->series, book->series_count, &book->series_capacity,
                        sizeof(struct fb_book_series *), error);
    *series = fb_arena_alloc(book->arena, 1, sizeof **series, error);
    if (book->series == NULL || *series == NULL)
        return FB_ERROR_MEMORY;
    (*series)->machine = machine;
    book->series[book->series_count++] = *series;
    book->slots[slot] = book->series_count;
    return FB_OK;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct reading {
    struct fb_series_book *book;
    const struct fb_book_request *request;
    bool since_reached, machine_met;
};

static bool is_wanted(struct reading *reading, const struct fb_history_provenance *from,
                      const struct fb_row *row)
{
    const struct fb_book_request *request = reading->request;

    if (request->since != NULL &&
        strncmp(from->git_sha, request->since, strlen(request->since)) == 0)
        reading->since_reached = true;
    if (request->machine != NULL && strcmp(request->machine, from->machine) != 0 &&
        strcmp(request->machine, from->machine_name) != 0)
        return false;
    reading->machine_met = true;
    if (request->since != NULL && !reading->since_reached)
        return false;
    if (request->case_prefix != NULL &&
        strncmp(row->case_id, request->case_prefix, strlen(request->case_prefix)) != 0)
        return false;
    return request->filter == NULL || fb_row_filter_holds(request->filter, row);
}

static enum fb_status take_row(void *context, int64_t run_id,
                               const struct fb_history_provenance *from, const struct fb_row *row,
                               struct fb_error *error)
{
    struct reading *reading = context;
    struct fb_series_book *book = reading->book;
    struct fb_book_series *series = NULL;
    enum fb_status status = FB_OK;

    if (!is_wanted(reading, from, row))
        return FB_OK;
    if (book->runs_count == 0 || book->runs[book->runs_count - 1].id != run_id)
        status = add_run(book, run_id, from, error);
    const size_t run = book->runs_count - 1;
    if (status == FB_OK)
        status = find_series(book, book->runs[run].machine, row->case_id, &series, error);
    if (status != FB_OK)
        return status;
    series->row = *row;
    series->points = grow(book->arena, series->points, series->count, &series->capacity,
                          sizeof *series->points, error);
    if (series->points == NULL)
        return FB_ERROR_MEMORY;
    struct fb_book_point point = make_point(row, run);
    point.counted = counted_by(book, series, row, error);
    if (point.counted == NULL)
        return FB_ERROR_MEMORY;
    series->points[series->count++] = point;
    return FB_OK;
}

enum fb_status fb_series_book_read(struct fb_store *store, const struct fb_book_request *request,
                                   struct fb_arena *arena, struct fb_series_book *book,
                                   struct fb_error *error)
{
    struct reading reading = {.book = book, .request = request};

    *book = (struct fb_series_book){.arena = arena};
    const enum fb_status status =
        fb_store_each(store, FB_STORE_BY_COMMIT, take_row, &reading, error);
    if (status != FB_OK)
        return status;
    if (request->since != NULL && !reading.since_reached)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--since '%.60s': no run of such a commit is in '%s'", request->since,
                            store->path);
    if (request->machine != NULL && !reading.machine_met)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--machine '%.60s': no run of such a machine is in '%s'; `flowbench "
                            "history show` names those that there are",
                            request->machine, store->path);
    for (size_t i = 0; i < book->series_count && request->window > 0; i++) {
        struct fb_book_series *series = book->series[i];
        if (series->count > request->window) {
            series->points += series->count - request->window;
            series->count = request->window;
        }
    }
    return FB_OK;
}
