/* Tables of ratios, a line per series and a column per size: to the floor, and to external peers.
 */
#include "quantity.h"
#include "summary.h"

/* What a cell says of a point; NULL: nothing. `own` is NULL where nothing is compared. */
typedef const char *(*cell_fn)(const struct fb_point *point, const struct fb_series *own,
                               struct fb_arena *arena, struct fb_error *error);

static const char *floor_cell(const struct fb_point *point, const struct fb_series *own,
                              struct fb_arena *arena, struct fb_error *error)
{
    char text[FB_QUANTITY_SIZE];
    (void)own;
    return fb_arena_strdup(arena, fb_quantity_ratio(point->row->floor_ratio, text), error);
}

static const struct fb_point *ok_point_at(const struct fb_series *series, double x)
{
    for (size_t i = 0; series && i < series->points_count; i++) {
        if (series->points[i].ok && series->points[i].x == x) {
            return &series->points[i];
        }
    }
    return NULL;
}

static const char *peer_cell(const struct fb_point *point, const struct fb_series *own,
                             struct fb_arena *arena, struct fb_error *error)
{
    char text[FB_QUANTITY_SIZE];
    const struct fb_point *ours = ok_point_at(own, point->x);
    if (!ours) {
        return "-";
    }
    const double ratio = point->row->time_median_s / ours->row->time_median_s;
    return fb_arena_printf(arena, error, "%sx", fb_quantity_ratio(ratio, text));
}

struct columns {
    struct fb_summary_columns factors;
    const struct fb_point *values[FB_SUMMARY_VALUES_MAX + 1];
    size_t values_count, at[FB_SUMMARY_VALUES_MAX];
};

static enum fb_status add_row(struct fb_text_table *table, const struct fb_series *series,
                              const struct fb_series *own, const struct columns *columns,
                              cell_fn cell, struct fb_error *error)
{
    enum fb_status status = fb_text_table_row(table, error);
    if (status == FB_OK) {
        status = fb_summary_set_columns(table, series, &columns->factors, error);
    }
    for (size_t v = 0; status == FB_OK && v < columns->values_count; v++) {
        const struct fb_point *point = ok_point_at(series, columns->values[v]->x);
        const char *text = point ? cell(point, own, table->arena, error) : "-";
        if (!text) {
            return FB_ERROR_MEMORY;
        }
        fb_text_table_set(table, columns->at[v], text, FB_TEXT_PLAIN);
    }
    return status;
}

/* The rows of `set` that are wanted; `all` holds what they are compared with, or is NULL. */
static enum fb_status print_table(const struct fb_summary_job *job, const struct fb_series_set *set,
                                  const struct fb_series_set *all, const char *title, cell_fn cell,
                                  struct fb_error *error)
{
    struct fb_text_table table;
    struct columns columns = {.values_count = 0};
    columns.values_count = fb_series_axis_places(set, columns.values, FB_SUMMARY_VALUES_MAX);
    fb_text_table_init(&table, job->arena);
    fb_summary_add_columns(&table, set, &columns.factors);
    enum fb_status status =
        fb_summary_add_values(&table, set, columns.values, columns.values_count, columns.at, error);
    for (size_t i = 0; status == FB_OK && i < set->count; i++) {
        const struct fb_series *own = all ? fb_series_own(all, &set->items[i]) : NULL;
        status = add_row(&table, &set->items[i], own, &columns, cell, error);
    }
    if (status == FB_OK) {
        (void)fprintf(job->out, "\n%s\n\n", title);
        fb_text_table_print(&table, job->mode, job->out);
    }
    return status;
}

enum fb_status fb_summary_print_floors(const struct fb_summary_job *job, struct fb_error *error)
{
    struct fb_series_set set;
    enum fb_status status =
        fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &set, error);
    if (status != FB_OK) {
        return status;
    }
    fb_series_filter(&set, fb_series_has_floor);
    return set.count == 0 ? FB_OK
                          : print_table(job, &set, NULL,
                                        "floor ratio: time over the least time that this machine "
                                        "could take",
                                        floor_cell, error);
}

static bool is_external(const struct fb_series *series)
{
    return series->key->program[0] != '\0' && series->ok_count > 0;
}

enum fb_status fb_summary_print_peers(const struct fb_summary_job *job, struct fb_error *error)
{
    struct fb_series_set all, peers;
    enum fb_status status =
        fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &all, error);
    if (status == FB_OK) {
        status = fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &peers, error);
    }
    if (status != FB_OK) {
        return status;
    }
    fb_series_filter(&peers, is_external);
    return peers.count == 0 ? FB_OK
                            : print_table(job, &peers, &all,
                                          "peers: their time over that of our default variant of "
                                          "the same mechanism",
                                          peer_cell, error);
}
