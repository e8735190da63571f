/* Grouping rows into series, and the bootstrap of one point. See series.h. */
#include "series.h"

#include "attention.h"
#include "random.h"
#include "registry.h"
#include "stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RESAMPLE_EXACT_MAX = 1000 };

static bool same_params(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->params, b->params) == 0;
}

static bool moves_heads(enum fb_axis axis)
{
    return axis == FB_AXIS_HEADS || axis == FB_AXIS_HEADS_TIED || axis == FB_AXIS_HEAD_DIM_TIED;
}

static bool moves_head_dim(enum fb_axis axis)
{
    return axis == FB_AXIS_HEAD_DIM || axis == FB_AXIS_HEADS_TIED || axis == FB_AXIS_HEAD_DIM_TIED;
}

/* L = S moves with the axis as one size; L != S keeps the second length as a factor. */
static bool same_lengths(const struct fb_row *a, const struct fb_row *b, bool along_axis)
{
    if (!along_axis) {
        return a->seq_len == b->seq_len && a->kv_len == b->kv_len;
    }
    bool square_a = a->kv_len == a->seq_len || a->kv_len == FB_ROW_NONE;
    bool square_b = b->kv_len == b->seq_len || b->kv_len == FB_ROW_NONE;
    return square_a && square_b ? true : a->kv_len == b->kv_len;
}

static bool same_dims(const struct fb_row *a, const struct fb_row *b, bool along_axis)
{
    if (!along_axis) {
        return a->head_dim == b->head_dim && a->value_dim == b->value_dim;
    }
    bool square_a = a->value_dim == a->head_dim || a->value_dim == FB_ROW_NONE;
    bool square_b = b->value_dim == b->head_dim || b->value_dim == FB_ROW_NONE;
    return square_a && square_b ? true : a->value_dim == b->value_dim;
}

/* As many heads of keys as of queries move with the axis as one size. An older results.csv has no
 * such column: that is the same number. */
static bool same_kv_heads(const struct fb_row *a, const struct fb_row *b, bool along_axis)
{
    int64_t kv_a = a->kv_heads == FB_ROW_NONE ? a->heads : a->kv_heads;
    int64_t kv_b = b->kv_heads == FB_ROW_NONE ? b->heads : b->kv_heads;
    return (along_axis && kv_a == a->heads && kv_b == b->heads) || kv_a == kv_b;
}

static bool same_padding(const struct fb_row *a, const struct fb_row *b)
{
    const char *full = "full";
    return strcmp(a->lengths[0] ? a->lengths : full, b->lengths[0] ? b->lengths : full) == 0;
}

/* The factors that two series must share to be comparable, whatever their mechanism. Numbers first:
 * most pairs of rows differ in one, and these are cheap to compare. */
static bool same_setting(const struct fb_row *a, const struct fb_row *b, enum fb_axis axis)
{
    return a->batch == b->batch && (axis == FB_AXIS_THREADS || a->threads == b->threads) &&
           (moves_heads(axis) || a->heads == b->heads) && same_kv_heads(a, b, moves_heads(axis)) &&
           same_lengths(a, b, axis == FB_AXIS_SEQ_LEN) && same_dims(a, b, moves_head_dim(axis)) &&
           a->seed == b->seed && strcmp(a->causal, b->causal) == 0 &&
           strcmp(a->pass, b->pass) == 0 && strcmp(a->device, b->device) == 0 &&
           strcmp(a->dtype, b->dtype) == 0 && strcmp(a->layout, b->layout) == 0 &&
           same_padding(a, b) && strcmp(a->device_name, b->device_name) == 0;
}

bool fb_series_same_factors(const struct fb_row *a, const struct fb_row *b, enum fb_axis axis)
{
    return same_setting(a, b, axis) && strcmp(a->mechanism, b->mechanism) == 0 &&
           strcmp(a->variant, b->variant) == 0 && same_params(a, b) &&
           strcmp(a->program, b->program) == 0 &&
           (axis == FB_AXIS_ISA || strcmp(a->isa, b->isa) == 0);
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    for (; *text; text++) {
        hash = (hash ^ (unsigned char)*text) * 0x100000001B3U; /* FNV-1a */
    }
    return (hash ^ 0xFFU) * 0x100000001B3U;
}

/* Equal for rows of one series: one comparison of numbers rules out almost all other rows. */
static uint64_t hash_factors(const struct fb_row *row, enum fb_axis axis)
{
    const char *const texts[] = {row->mechanism, row->variant, row->params,
                                 row->causal,    row->pass,    row->device,
                                 row->dtype,     row->layout,  axis == FB_AXIS_ISA ? "" : row->isa};
    const int64_t numbers[] = {row->batch,
                               row->seed,
                               axis == FB_AXIS_THREADS ? 0 : row->threads,
                               moves_heads(axis) ? 0 : row->heads,
                               axis == FB_AXIS_SEQ_LEN ? 0 : row->seq_len,
                               moves_head_dim(axis) ? 0 : row->head_dim};
    uint64_t hash = 0xCBF29CE484222325U;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        hash = mix_text(hash, texts[i]);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        hash = (hash ^ (uint64_t)numbers[i]) * 0x9E3779B97F4A7C15U;
    }
    return hash;
}

static double axis_position(const struct fb_row *row, enum fb_axis axis)
{
    switch (axis) {
    case FB_AXIS_SEQ_LEN:
        return (double)row->seq_len;
    case FB_AXIS_HEADS:
    case FB_AXIS_HEADS_TIED:
        return (double)row->heads;
    case FB_AXIS_HEAD_DIM:
    case FB_AXIS_HEAD_DIM_TIED:
        return (double)row->head_dim;
    case FB_AXIS_THREADS:
        return (double)row->threads;
    case FB_AXIS_ISA:
        return (double)fb_isa_parse(row->isa);
    case FB_AXIS_COUNT:
        break;
    }
    return (double)NAN;
}

static int compare_samples(const void *a, const void *b)
{
    const struct fb_sample *x = *(const struct fb_sample *const *)a;
    const struct fb_sample *y = *(const struct fb_sample *const *)b;
    int order = strcmp(x->case_id, y->case_id);
    if (order == 0) {
        order = (x->process > y->process) - (x->process < y->process);
    }
    return order ? order : (x->sample > y->sample) - (x->sample < y->sample);
}

/* The samples of a run sorted by case and process, and where a case starts. */
struct sample_index {
    const struct fb_sample **sorted;
    size_t count;
};

static enum fb_status index_samples(const struct fb_results *run, struct fb_arena *arena,
                                    struct sample_index *index, struct fb_error *error)
{
    index->count = run->samples_count;
    index->sorted = fb_arena_alloc(arena, run->samples_count + 1, sizeof(void *), error);
    if (!index->sorted) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < run->samples_count; i++) {
        index->sorted[i] = &run->samples[i];
    }
    qsort(index->sorted, index->count, sizeof(const struct fb_sample *), compare_samples);
    return FB_OK;
}

static size_t first_sample_of(const struct sample_index *index, const char *case_id)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(index->sorted[middle]->case_id, case_id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Copies the samples of one case: medians per process first, then all of them ascending. */
static enum fb_status attach_samples(const struct sample_index *index, struct fb_arena *arena,
                                     struct fb_point *point, struct fb_error *error)
{
    size_t first = first_sample_of(index, point->row->case_id), end = first, processes = 0;
    while (end < index->count && strcmp(index->sorted[end]->case_id, point->row->case_id) == 0) {
        processes += end == first || index->sorted[end]->process != index->sorted[end - 1]->process;
        end++;
    }
    if (end == first) {
        return FB_OK;
    }
    double *times = fb_arena_alloc(arena, end - first, sizeof *times, error);
    double *medians = fb_arena_alloc(arena, processes, sizeof *medians, error);
    if (!times || !medians) {
        return FB_ERROR_MEMORY;
    }
    size_t process = 0;
    for (size_t i = first; i < end;) {
        size_t next = i;
        while (next < end && index->sorted[next]->process == index->sorted[i]->process) {
            times[next - first] = index->sorted[next]->time_s;
            next++;
        }
        fb_stats_sort(times + (i - first), next - i);
        medians[process++] = fb_stats_median(times + (i - first), next - i);
        i = next;
    }
    fb_stats_sort(times, end - first);
    fb_stats_sort(medians, processes);
    point->times_s = times;
    point->times_count = end - first;
    point->process_medians_s = medians;
    point->processes_count = processes;
    return FB_OK;
}

static int compare_points(const void *a, const void *b)
{
    const struct fb_point *p = a, *q = b;
    if (p->x != q->x) {
        return p->x < q->x ? -1 : 1;
    }
    return (p->row > q->row) - (p->row < q->row);
}

/* Fills one series with every row from `start` on that belongs to it, and marks those rows. */
static enum fb_status fill_series(const struct fb_results *run, size_t start, enum fb_axis axis,
                                  const struct sample_index *index, const uint64_t *hashes,
                                  bool *taken, struct fb_arena *arena, struct fb_series *series,
                                  struct fb_error *error)
{
    size_t count = 0;
    for (size_t i = start; i < run->rows_count; i++) {
        count += hashes[i] == hashes[start] && !taken[i] &&
                 fb_series_same_factors(&run->rows[start], &run->rows[i], axis);
    }
    series->key = &run->rows[start];
    series->points = fb_arena_alloc(arena, count, sizeof *series->points, error);
    if (!series->points) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = start; i < run->rows_count; i++) {
        const struct fb_row *row = &run->rows[i];
        if (hashes[i] != hashes[start] || taken[i] ||
            !fb_series_same_factors(series->key, row, axis)) {
            continue;
        }
        taken[i] = true;
        struct fb_point *point = &series->points[series->points_count++];
        point->row = row;
        point->x = axis_position(row, axis);
        point->ok = strcmp(row->status, "ok") == 0 && row->time_median_s > 0;
        series->ok_count += point->ok;
        enum fb_status status = attach_samples(index, arena, point, error);
        if (status != FB_OK) {
            return status;
        }
    }
    qsort(series->points, series->points_count, sizeof *series->points, compare_points);
    return FB_OK;
}

/* Where a series stands in tables and legends: mechanisms and variants as the registry lists them,
 * those it does not know last. */
static size_t registry_rank(const struct fb_row *row)
{
    const struct fb_mechanism *mechanism = fb_mechanism_find(row->mechanism);
    size_t count = fb_attention_count();
    for (size_t i = 0; mechanism && i < count; i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->mechanism == mechanism && strcmp(attention->variant, row->variant) == 0) {
            return i;
        }
    }
    return count;
}

static int compare_sizes(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Rows come in the order in which they were measured, which is shuffled: reports sort them. */
static int compare_series(const void *a, const void *b)
{
    const struct fb_series *x = a, *y = b;
    const struct fb_row *p = x->key, *q = y->key;
    size_t rank_p = registry_rank(p), rank_q = registry_rank(q);
    int orders[] = {(x->run_index > y->run_index) - (x->run_index < y->run_index),
                    strcmp(p->device, q->device),
                    strcmp(p->causal, q->causal),
                    (rank_p > rank_q) - (rank_p < rank_q),
                    strcmp(p->mechanism, q->mechanism),
                    strcmp(p->variant, q->variant),
                    strcmp(p->params, q->params),
                    strcmp(p->pass, q->pass),
                    strcmp(p->dtype, q->dtype),
                    compare_sizes(p->batch, q->batch),
                    compare_sizes(p->heads, q->heads),
                    compare_sizes(p->seq_len, q->seq_len),
                    compare_sizes(p->head_dim, q->head_dim),
                    compare_sizes(p->threads, q->threads),
                    compare_sizes(fb_isa_parse(p->isa), fb_isa_parse(q->isa)),
                    strcmp(p->case_id, q->case_id)};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        if (orders[i] != 0) {
            return orders[i];
        }
    }
    return 0;
}

/* Whether each number of heads comes with one head_dim and the other way round, and both vary. */
static bool heads_are_tied(const struct fb_results *runs, size_t runs_count)
{
    const struct fb_row *first = NULL;
    bool vary = false;
    for (size_t r = 0; r < runs_count; r++) {
        for (size_t i = 0; i < runs[r].rows_count; i++) {
            const struct fb_row *row = &runs[r].rows[i];
            first = first ? first : row;
            vary = vary || row->heads != first->heads;
            for (size_t j = 0; j < i; j++) {
                const struct fb_row *other = &runs[r].rows[j];
                if ((row->heads == other->heads) != (row->head_dim == other->head_dim)) {
                    return false;
                }
            }
        }
    }
    return vary;
}

enum fb_status fb_series_collect(const struct fb_results *runs, size_t runs_count,
                                 enum fb_axis axis, struct fb_arena *arena,
                                 struct fb_series_set *set, struct fb_error *error)
{
    size_t rows = 0;
    for (size_t r = 0; r < runs_count; r++) {
        rows += runs[r].rows_count;
    }
    if ((axis == FB_AXIS_HEADS || axis == FB_AXIS_HEAD_DIM) && heads_are_tied(runs, runs_count)) {
        axis = axis == FB_AXIS_HEADS ? FB_AXIS_HEADS_TIED : FB_AXIS_HEAD_DIM_TIED;
    }
    *set = (struct fb_series_set){.axis = axis};
    set->items = fb_arena_alloc(arena, rows + 1, sizeof *set->items, error);
    if (!set->items) {
        return FB_ERROR_MEMORY;
    }
    for (size_t r = 0; r < runs_count; r++) {
        struct sample_index index;
        enum fb_status status = index_samples(&runs[r], arena, &index, error);
        bool *taken = fb_arena_alloc(arena, runs[r].rows_count + 1, sizeof *taken, error);
        uint64_t *hashes = fb_arena_alloc(arena, runs[r].rows_count + 1, sizeof *hashes, error);
        if (status != FB_OK || !taken || !hashes) {
            return FB_ERROR_MEMORY;
        }
        for (size_t i = 0; i < runs[r].rows_count; i++) {
            hashes[i] = hash_factors(&runs[r].rows[i], axis);
        }
        for (size_t i = 0; i < runs[r].rows_count; i++) {
            if (taken[i]) {
                continue;
            }
            struct fb_series *series = &set->items[set->count++];
            series->run_index = r;
            status = fill_series(&runs[r], i, axis, &index, hashes, taken, arena, series, error);
            if (status != FB_OK) {
                return status;
            }
        }
    }
    qsort(set->items, set->count, sizeof *set->items, compare_series);
    return FB_OK;
}

void fb_series_filter(struct fb_series_set *set, bool (*keep)(const struct fb_series *series))
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (keep(&set->items[i])) {
            set->items[kept++] = set->items[i];
        }
    }
    set->count = kept;
}

bool fb_series_was_tried(const struct fb_series *series)
{
    for (size_t i = 0; i < series->points_count; i++) {
        const char *status = series->points[i].row->status;
        if (strcmp(status, "skipped") != 0 && strcmp(status, "oom") != 0 &&
            strcmp(status, "timeout") != 0) {
            return true;
        }
    }
    return false;
}

bool fb_series_has_floor(const struct fb_series *series)
{
    for (size_t i = 0; i < series->points_count; i++) {
        if (series->points[i].ok && series->points[i].row->floor_s > 0) {
            return true;
        }
    }
    return false;
}

bool fb_series_is_swept(const struct fb_series *series)
{
    return series->points_count > 1 &&
           series->points[0].x < series->points[series->points_count - 1].x;
}

size_t fb_series_axis_places(const struct fb_series_set *set, const struct fb_point **places,
                             size_t places_max)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        for (size_t j = 0; j < set->items[i].points_count; j++) {
            const struct fb_point *point = &set->items[i].points[j];
            size_t at = 0;
            if (strcmp(point->row->status, "skipped") == 0) {
                continue; /* a value that no series was tried at stands under "not measured" */
            }
            while (at < count && places[at]->x < point->x) {
                at++;
            }
            if ((at < count && places[at]->x == point->x) || at >= places_max) {
                continue;
            }
            count += count < places_max;
            memmove(places + at + 1, places + at,
                    (count - at - 1) * sizeof(const struct fb_point *));
            places[at] = point;
        }
    }
    return count;
}

const struct fb_point *fb_series_last_ok(const struct fb_series *series)
{
    for (size_t i = series->points_count; i > 0; i--) {
        if (series->points[i - 1].ok) {
            return &series->points[i - 1];
        }
    }
    return NULL;
}

const char *fb_series_default_variant(const char *mechanism)
{
    const struct fb_mechanism *found = fb_mechanism_find(mechanism);
    for (size_t i = 0; found && i < fb_attention_count(); i++) {
        if (fb_attention_at(i)->mechanism == found) {
            return fb_attention_at(i)->variant;
        }
    }
    return NULL;
}

bool fb_series_is_default(const struct fb_series *series)
{
    const char *variant = fb_series_default_variant(series->key->mechanism);
    return variant && strcmp(variant, series->key->variant) == 0;
}

static bool isa_comparable(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->isa, b->isa) == 0 || strcmp(a->isa, "any") == 0 || strcmp(b->isa, "any") == 0;
}

/* Whether `a` is the better reference of the two: it reaches further, or as far in more sizes, or
 * in as many and faster. */
static bool better_reference(const struct fb_series *a, const struct fb_series *b)
{
    const struct fb_point *last_a = fb_series_last_ok(a), *last_b = fb_series_last_ok(b);
    if (last_a->x != last_b->x) {
        return last_a->x > last_b->x;
    }
    if (a->ok_count != b->ok_count) {
        return a->ok_count > b->ok_count;
    }
    return last_a->row->time_median_s < last_b->row->time_median_s;
}

const struct fb_series *fb_series_softmax(const struct fb_series_set *set,
                                          const struct fb_series *series)
{
    const struct fb_series *best = NULL;
    bool best_preferred = false;
    for (size_t i = 0; i < set->count; i++) {
        const struct fb_series *other = &set->items[i];
        if (other->run_index != series->run_index || other->ok_count == 0 ||
            strcmp(other->key->mechanism, "softmax") != 0 ||
            !same_setting(other->key, series->key, set->axis) ||
            (set->axis != FB_AXIS_ISA && !isa_comparable(other->key, series->key))) {
            continue;
        }
        bool is_preferred = fb_series_is_default(other);
        if (!best || (is_preferred && !best_preferred) ||
            (is_preferred == best_preferred && better_reference(other, best))) {
            best = other;
            best_preferred = is_preferred;
        }
    }
    return best == series ? NULL : best;
}

static const struct fb_series *find_like(const struct fb_series_set *set,
                                         const struct fb_series *series, const char *variant,
                                         bool external)
{
    for (size_t i = 0; variant && i < set->count; i++) {
        const struct fb_series *other = &set->items[i];
        if (other->run_index == series->run_index && other->ok_count > 0 &&
            (other->key->program[0] != '\0') == external &&
            strcmp(other->key->mechanism, series->key->mechanism) == 0 &&
            strcmp(other->key->variant, variant) == 0 && same_params(other->key, series->key) &&
            same_setting(other->key, series->key, set->axis) &&
            (set->axis == FB_AXIS_ISA || isa_comparable(other->key, series->key))) {
            return other;
        }
    }
    return NULL;
}

const struct fb_series *fb_series_peer(const struct fb_series_set *set,
                                       const struct fb_series *series, const char *variant)
{
    return find_like(set, series, variant, true);
}

const struct fb_series *fb_series_own(const struct fb_series_set *set,
                                      const struct fb_series *series)
{
    return find_like(set, series, fb_series_default_variant(series->key->mechanism), false);
}

size_t fb_series_axis_values(const struct fb_series_set *set)
{
    size_t widest = 0;
    for (size_t i = 0; i < set->count; i++) {
        size_t values = 0;
        for (size_t j = 0; j < set->items[i].points_count; j++) {
            values += j == 0 || set->items[i].points[j].x != set->items[i].points[j - 1].x;
        }
        widest = values > widest ? values : widest;
    }
    return widest;
}

double fb_point_resample(const struct fb_point *point, bool resample_processes,
                         struct fb_random *random, uint32_t *counts)
{
    const double *values = resample_processes ? point->process_medians_s : point->times_s;
    size_t n = resample_processes ? point->processes_count : point->times_count;
    if (n > RESAMPLE_EXACT_MAX) {
        /* The rank of a resampled median is normal with variance n/4 to well under one rank. */
        double rank = 0.5 * (double)n + 0.5 * sqrt((double)n) * fb_random_normal(random);
        double clamped = fmin(fmax(rank, 0.0), (double)n - 1.0);
        return values[(size_t)clamped];
    }
    memset(counts, 0, n * sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        counts[fb_random_below(random, n)]++;
    }
    size_t lower = (n + 1) / 2, upper = n / 2 + 1, seen = 0; /* ranks of the middle, from 1 */
    double low_value = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        seen += counts[i];
        if (isnan(low_value) && seen >= lower) {
            low_value = values[i];
        }
        if (seen >= upper) {
            return 0.5 * (low_value + values[i]);
        }
    }
    return low_value;
}

enum fb_spread_kind fb_series_spread_kind(const struct fb_series *series)
{
    enum fb_spread_kind kind = FB_SPREAD_PROCESSES;
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_point *point = &series->points[i];
        if (!point->ok) {
            continue;
        }
        if (point->times_count == 0) {
            return FB_SPREAD_NONE;
        }
        if (point->processes_count < FB_CLAIM_PROCESSES_MIN) {
            kind = FB_SPREAD_SAMPLES;
        }
    }
    return series->ok_count > 0 ? kind : FB_SPREAD_NONE;
}

void fb_spread_from_replicates(double *replicates, size_t count, struct fb_spread *interval)
{
    fb_stats_sort(replicates, count);
    size_t tail = (size_t)(0.025 * (double)count);
    interval->low = replicates[tail];
    interval->high = replicates[count - 1 - tail];
}
