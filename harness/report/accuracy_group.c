/* Groups of seeds and what they say: see accuracy_group.h. */
#include "accuracy_group.h"

#include "accuracy_pair.h"
#include "registry.h"
#include "stats_infer.h"
#include "stats_survival.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALPHA 0.05
/* The paper prints one decimal (accuracies) or one (perplexities): half of it is rounding. */
#define PRINTED_ROUNDING 0.05
/* An interval that is wider to each side contains almost any number: it shows nothing. */
#define WIDEST_HALF_POINTS 5.0

const char *fb_accuracy_verdict_name(enum fb_accuracy_verdict verdict)
{
    static const char *const names[FB_VERDICT_COUNT] = {
        [FB_VERDICT_NONE] = "",
        [FB_VERDICT_REPRODUCED] = "reproduced",
        [FB_VERDICT_NOT_REPRODUCED] = "not reproduced",
        [FB_VERDICT_INCONCLUSIVE] = "inconclusive",
        [FB_VERDICT_DIFFERENT] = "different protocol",
        [FB_VERDICT_COPIED] = "copied by the paper",
        [FB_VERDICT_NOT_RUN] = "not run",
    };
    return names[verdict];
}

/* ---- which rows belong together -------------------------------------------------------------- */

/* A case that its recipe refuses has no batch, and stands beside those that have one. */
static bool same_batch(const struct fb_accuracy_row *a, const struct fb_accuracy_row *b)
{
    return a->batch == b->batch || a->batch == FB_ROW_NONE || b->batch == FB_ROW_NONE;
}

bool fb_accuracy_same_setting(const struct fb_accuracy_row *a, const struct fb_accuracy_row *b)
{
    return strcmp(a->task, b->task) == 0 && same_batch(a, b) && strcmp(a->recipe, b->recipe) == 0 &&
           strcmp(a->model, b->model) == 0 && a->epochs_cap == b->epochs_cap &&
           a->steps_cap == b->steps_cap && strcmp(a->device, b->device) == 0 &&
           strcmp(a->device_name, b->device_name) == 0 && strcmp(a->precision, b->precision) == 0 &&
           strcmp(a->isa, b->isa) == 0 && strcmp(a->run, b->run) == 0;
}

static bool same_block(const struct fb_accuracy_row *a, const struct fb_accuracy_row *b)
{
    return fb_accuracy_same_setting(a, b) && strcmp(a->task_params, b->task_params) == 0;
}

static bool same_group(const struct fb_accuracy_row *a, const struct fb_accuracy_row *b)
{
    return same_block(a, b) && strcmp(a->mechanism, b->mechanism) == 0 &&
           strcmp(a->variant, b->variant) == 0 && strcmp(a->params, b->params) == 0;
}

/* ---- the numbers of a group ------------------------------------------------------------------ */

static bool is_perplexity(const struct fb_accuracy_row *row)
{
    return strcmp(row->metric_name, "perplexity") == 0;
}

double fb_accuracy_shown(const struct fb_accuracy_row *row, double metric)
{
    return is_perplexity(row) ? metric : 100.0 * metric;
}

static int by_seed(const void *left, const void *right)
{
    const struct fb_accuracy_row *a = *(const struct fb_accuracy_row *const *)left;
    const struct fb_accuracy_row *b = *(const struct fb_accuracy_row *const *)right;
    return (a->seed > b->seed) - (a->seed < b->seed);
}

static double mean_of(const struct fb_accuracy_group *g, size_t offset, double *values)
{
    for (size_t i = 0; i < g->rows_count; i++) {
        double metric;
        memcpy(&metric, (const char *)g->rows[i] + offset, sizeof metric);
        values[i] = fb_accuracy_shown(g->any, metric);
    }
    return g->rows_count > 0 ? fb_stats_mean(values, g->rows_count) : (double)NAN;
}

static void tell_speed(struct fb_accuracy_group *g, double *values)
{
    for (size_t i = 0; i < g->rows_count; i++)
        values[i] = g->rows[i]->steps_per_s;
    fb_stats_sort(values, g->rows_count);
    g->steps_per_s = fb_stats_median(values, g->rows_count);
    g->speed = fb_stats_median_interval(values, g->rows_count, ALPHA);
}

static void judge_escape(struct fb_accuracy_group *g, struct fb_survival *times)
{
    double sum = 0.0;
    g->has_plateau = g->rows_count > 0 && !isnan(g->rows[0]->plateau);
    for (size_t i = 0; i < g->rows_count && g->has_plateau; i++) {
        times[i] = fb_accuracy_escape(g->rows[i]);
        g->escaped += times[i].event;
        sum += times[i].event ? fb_accuracy_shown(g->any, g->rows[i]->metric) : 0.0;
    }
    if (!g->has_plateau)
        return;
    fb_survival_sort(times, g->rows_count);
    g->escape = fb_stats_clopper_pearson((long)g->escaped, (long)g->rows_count, ALPHA);
    g->escape_median_step = fb_survival_median(times, g->rows_count);
    g->given_escape = g->escaped > 0 ? sum / (double)g->escaped : (double)NAN;
}

/* A single number of the paper against a prediction interval of ours. */
static enum fb_accuracy_verdict judge(const struct fb_accuracy_group *g)
{
    const struct fb_accuracy_row *row = g->any;
    const double half = 0.5 * (g->prediction.high - g->prediction.low);
    if (isnan(row->paper_value))
        return FB_VERDICT_NONE;
    if (g->rows_count == 0)
        return FB_VERDICT_NOT_RUN;
    if (strcmp(row->paper_protocol, "copied") == 0)
        return FB_VERDICT_COPIED;
    if (strcmp(row->paper_protocol, "released") != 0)
        return FB_VERDICT_DIFFERENT;
    if (g->descriptive)
        return FB_VERDICT_INCONCLUSIVE;
    if (row->paper_value < g->prediction.low - PRINTED_ROUNDING ||
        row->paper_value > g->prediction.high + PRINTED_ROUNDING)
        return FB_VERDICT_NOT_REPRODUCED;
    return half > WIDEST_HALF_POINTS ? FB_VERDICT_INCONCLUSIVE : FB_VERDICT_REPRODUCED;
}

/* Whether a parameter in JSON has its default value. */
static bool is_default(const struct fb_param *param, const json_t *json)
{
    const double value = json_number_value(json);
    if (param->type == FB_PARAM_BOOL)
        return json_is_true(json) == (param->default_value > 0.0);
    if (param->type == FB_PARAM_CHOICE)
        return json_is_string(json) &&
               strcmp(json_string_value(json), param->choices[(size_t)param->default_value]) == 0;
    return !(value < param->default_value) && !(value > param->default_value);
}

void fb_accuracy_put_params(char *text, size_t text_size, const struct fb_param *params, int count,
                            const char *json_text)
{
    json_t *values = json_loads(json_text, 0, NULL);
    size_t used = strlen(text);
    for (int i = 0; i < count && used < text_size; i++) {
        const json_t *json = json_object_get(values, params[i].name);
        char *dumped =
            json && !is_default(&params[i], json) ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
        const char *value = json_is_string(json) ? json_string_value(json) : dumped;
        if (dumped)
            used +=
                (size_t)snprintf(text + used, text_size - used, " %s=%s", params[i].name, value);
        free(dumped);
    }
    json_decref(values);
}

/* "performer/fused kernel=relu" */
static void label(struct fb_accuracy_group *g)
{
    const struct fb_accuracy_row *row = g->any;
    const struct fb_mechanism *mechanism = fb_mechanism_find(row->mechanism);
    snprintf(g->label, sizeof g->label, "%s/%s", row->mechanism, row->variant);
    if (mechanism)
        fb_accuracy_put_params(g->label, sizeof g->label, mechanism->params, mechanism->param_count,
                               row->params);
}

static enum fb_status finish(struct fb_accuracy_group *g, struct fb_arena *arena,
                             struct fb_error *error)
{
    const size_t room = g->rows_count + 1;
    double *values = fb_arena_alloc(arena, room, sizeof *values, error);
    struct fb_survival *times = values ? fb_arena_alloc(arena, room, sizeof *times, error) : NULL;
    if (!times)
        return FB_ERROR_MEMORY;
    qsort(g->rows, g->rows_count, sizeof(const struct fb_accuracy_row *), by_seed);
    g->last = mean_of(g, offsetof(struct fb_accuracy_row, metric_last), values);
    g->best = mean_of(g, offsetof(struct fb_accuracy_row, metric_best), values);
    g->mean = mean_of(g, offsetof(struct fb_accuracy_row, metric), values);
    g->deviation = g->rows_count > 1 ? fb_stats_deviation(values, g->rows_count) : (double)NAN;
    g->interval = fb_stats_mean_interval(values, g->rows_count, ALPHA);
    g->prediction = fb_stats_prediction_interval(values, g->rows_count, ALPHA);
    tell_speed(g, values);
    judge_escape(g, times);
    g->descriptive = g->rows_count <
                     (size_t)(g->has_plateau ? FB_ACCURACY_SEEDS_PLATEAU : FB_ACCURACY_SEEDS_MIN);
    g->verdict = judge(g);
    label(g);
    return FB_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static size_t find_group(const struct fb_accuracy_groups *groups, const struct fb_accuracy_row *row)
{
    size_t at = 0;
    while (at < groups->count && !same_group(groups->items[at].any, row))
        at++;
    return at;
}

static size_t find_block(const struct fb_accuracy_groups *groups, const struct fb_accuracy_row *row)
{
    for (size_t i = 0; i < groups->count; i++)
        if (same_block(groups->items[i].any, row))
            return groups->items[i].block;
    return groups->blocks;
}

static enum fb_status add_row(struct fb_accuracy_groups *groups, const struct fb_accuracy_row *row,
                              size_t rows_count, struct fb_arena *arena, struct fb_error *error)
{
    const size_t at = find_group(groups, row);
    struct fb_accuracy_group *g = &groups->items[at];
    if (at == groups->count) {
        *g = (struct fb_accuracy_group){.any = row, .block = find_block(groups, row)};
        g->rows = fb_arena_alloc(arena, rows_count, sizeof(const struct fb_accuracy_row *), error);
        if (!g->rows)
            return FB_ERROR_MEMORY;
        groups->blocks += g->block == groups->blocks;
        groups->count++;
    }
    g->rows_all++;
    if (strcmp(row->status, "ok") == 0)
        g->rows[g->rows_count++] = row;
    else
        g->failed = row;
    return FB_OK;
}

static size_t registry_place(const char *name)
{
    size_t at = 0;
    while (at < fb_mechanism_count() && strcmp(fb_mechanism_at(at)->name, name) != 0)
        at++;
    return at;
}

/* Rows come in the order in which they were run, which a seed shuffles. Groups stand by block, then
 * as the registry has the mechanisms; of one mechanism the form with the fewest parameters set
 * comes first, and its ablations follow. */
static int by_place(const void *left, const void *right)
{
    const struct fb_accuracy_group *a = left, *b = right;
    const size_t places[2] = {registry_place(a->any->mechanism), registry_place(b->any->mechanism)};
    const size_t lengths[2] = {strlen(a->label), strlen(b->label)};
    if (a->block != b->block)
        return a->block < b->block ? -1 : 1;
    if (places[0] != places[1])
        return places[0] < places[1] ? -1 : 1;
    if (lengths[0] != lengths[1])
        return lengths[0] < lengths[1] ? -1 : 1;
    return strcmp(a->label, b->label);
}

enum fb_status fb_accuracy_group(const struct fb_accuracy *accuracy, uint64_t seed,
                                 struct fb_arena *arena, struct fb_accuracy_groups *groups,
                                 struct fb_error *error)
{
    const size_t room = accuracy->rows_count + 1;
    enum fb_status status = FB_OK;
    *groups = (struct fb_accuracy_groups){0};
    groups->items = fb_arena_alloc(arena, room, sizeof *groups->items, error);
    groups->pairs = fb_arena_alloc(arena, room, sizeof *groups->pairs, error);
    if (!groups->items || !groups->pairs)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < accuracy->rows_count && status == FB_OK; i++)
        status = add_row(groups, &accuracy->rows[i], room, arena, error);
    for (size_t i = 0; i < groups->count && status == FB_OK; i++)
        status = finish(&groups->items[i], arena, error);
    if (status != FB_OK)
        return status;
    qsort(groups->items, groups->count, sizeof *groups->items, by_place);
    return fb_accuracy_compare(accuracy, seed, arena, groups, error);
}
