/* Names, legends and styles of pictures: how lines and pictures are told apart. */
#include "figure_builder.h"

#include "attention.h"
#include "quantity.h"
#include "registry.h"
#include "row_factor.h"
#include "scaling.h"

#include <stdio.h>
#include <string.h>

/* Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is too light here. */
static const struct {
    const char *mechanism, *color;
    int symbol;
} palette[] = {
    {"flow", "#D55E00", 7},       {"softmax", "#000000", 5}, {"linear", "#0072B2", 9},
    {"performer", "#009E73", 13}, {"local", "#CC79A7", 11},  {"", "#E69F00", 15},
    {"", "#56B4E9", 7},
};
enum { PALETTE_COUNT = sizeof palette / sizeof palette[0], PALETTE_NAMED = 5 };

const char *fb_figure_color(const char *mechanism)
{
    size_t index = 0;
    while (index < PALETTE_NAMED && strcmp(palette[index].mechanism, mechanism) != 0) {
        index++;
    }
    return palette[index].color;
}

char *fb_figure_escape(struct fb_arena *arena, const char *text, struct fb_error *error)
{
    char *escaped = fb_arena_alloc(arena, 2 * strlen(text) + 1, 1, error);
    size_t length = 0;
    for (; escaped && *text; text++) {
        if (strchr("_^{}@&~\\", *text)) {
            escaped[length++] = '\\';
        }
        escaped[length++] = (char)((unsigned char)*text < ' ' ? ' ' : *text);
    }
    return escaped;
}

/* What must be equal inside one picture. */
static const enum fb_factor facet_factors[] = {
    FB_FACTOR_PASS,      FB_FACTOR_DTYPE,    FB_FACTOR_LAYOUT, FB_FACTOR_BATCH,
    FB_FACTOR_HEADS,     FB_FACTOR_SEQ_LEN,  FB_FACTOR_KV_LEN, FB_FACTOR_HEAD_DIM,
    FB_FACTOR_VALUE_DIM, FB_FACTOR_KV_HEADS, FB_FACTOR_LENGTHS};
enum { FACETS_COUNT = sizeof facet_factors / sizeof facet_factors[0] };

/* What tells the lines of one picture apart, besides mechanism and variant. */
static const enum fb_factor line_factors[] = {FB_FACTOR_PARAMS,      FB_FACTOR_DEVICE,
                                              FB_FACTOR_ISA,         FB_FACTOR_THREADS,
                                              FB_FACTOR_DEVICE_NAME, FB_FACTOR_SEED};
enum { LINE_FACTORS_COUNT = sizeof line_factors / sizeof line_factors[0] };

static bool same_value(const struct fb_row *a, const struct fb_row *b, enum fb_factor factor)
{
    char first[FB_FACTOR_TEXT_SIZE], second[FB_FACTOR_TEXT_SIZE];
    fb_factor_value(a, factor, first);
    fb_factor_value(b, factor, second);
    return strcmp(first, second) == 0;
}

/* kv_len and value_dim follow seq_len and head_dim unless they differ on purpose. */
bool fb_figure_same_facet(const struct fb_row *a, const struct fb_row *b, enum fb_axis axis)
{
    for (size_t i = 0; i < FACETS_COUNT; i++) {
        if (!fb_factor_is_axis(facet_factors[i], axis) && !same_value(a, b, facet_factors[i])) {
            return false;
        }
    }
    return axis != FB_AXIS_ISA || a->threads == b->threads;
}

/* An instruction set or a number of threads, of which one of the two has none: that it runs on a
 * GPU tells them apart. */
static bool one_lacks(const struct fb_row *a, const struct fb_row *b, enum fb_factor factor)
{
    return (factor == FB_FACTOR_ISA || factor == FB_FACTOR_THREADS) &&
           (fb_factor_is_plain(a, factor) || fb_factor_is_plain(b, factor));
}

/* Whether some two members differ in the factor (`within`: of the same mechanism and variant). */
static bool members_differ(const struct fb_figure_builder *builder, enum fb_factor factor,
                           bool within)
{
    for (size_t i = 0; i < builder->members_count; i++) {
        for (size_t j = i + 1; j < builder->members_count; j++) {
            const struct fb_row *a = builder->members[i]->key, *b = builder->members[j]->key;
            bool related =
                strcmp(a->mechanism, b->mechanism) == 0 && strcmp(a->variant, b->variant) == 0;
            if ((related || !within) && !one_lacks(a, b, factor) && !same_value(a, b, factor)) {
                return true;
            }
        }
    }
    return false;
}

static bool has_other_variant(const struct fb_figure_builder *builder, const struct fb_row *row)
{
    for (size_t i = 0; i < builder->members_count; i++) {
        const struct fb_row *other = builder->members[i]->key;
        if (strcmp(other->mechanism, row->mechanism) == 0 &&
            strcmp(other->variant, row->variant) != 0) {
            return true;
        }
    }
    return false;
}

/* Whether no two runs were made on devices of the same name. */
static bool devices_name_runs(const struct fb_figure_builder *builder)
{
    for (size_t i = 0; i < builder->members_count; i++) {
        for (size_t j = i + 1; j < builder->members_count; j++) {
            const struct fb_series *a = builder->members[i], *b = builder->members[j];
            if (a->run_index != b->run_index && same_value(a->key, b->key, FB_FACTOR_DEVICE_NAME)) {
                return false;
            }
        }
    }
    return true;
}

/* Whether a factor belongs into the legend: not what another says already. */
static bool tells_lines_apart(const struct fb_figure_builder *builder, const struct fb_row *row,
                              enum fb_factor factor)
{
    const bool said =
        factor == FB_FACTOR_DEVICE && members_differ(builder, FB_FACTOR_DEVICE_NAME, true);
    return !said && !fb_factor_is_axis(factor, builder->set->axis) &&
           !fb_factor_is_plain(row, factor) && members_differ(builder, factor, true);
}

/* "Softmax (plain), 2 threads": only what is needed to tell the lines apart; not escaped. */
void fb_figure_name_series(const struct fb_figure_builder *builder, const struct fb_series *series,
                           char *label)
{
    char phrase[FB_FACTOR_TEXT_SIZE];
    const struct fb_row *row = series->key;
    const struct fb_mechanism *mechanism = fb_mechanism_find(row->mechanism);
    int length =
        snprintf(label, FB_FIGURE_LABEL_SIZE, "%s", mechanism ? mechanism->title : row->mechanism);
    if (has_other_variant(builder, row) || row->program[0] != '\0' ||
        (mechanism && !fb_series_is_default(series))) {
        length +=
            snprintf(label + length, FB_FIGURE_LABEL_SIZE - (size_t)length, " (%s)", row->variant);
    }
    for (size_t i = 0; i < LINE_FACTORS_COUNT && length < FB_FIGURE_LABEL_SIZE; i++) {
        if (!tells_lines_apart(builder, row, line_factors[i])) {
            continue;
        }
        fb_factor_phrase(row, line_factors[i], phrase);
        length += snprintf(label + length, FB_FIGURE_LABEL_SIZE - (size_t)length, ", %s", phrase);
    }
    if (length < FB_FIGURE_LABEL_SIZE && !devices_name_runs(builder)) {
        (void)snprintf(label + length, FB_FIGURE_LABEL_SIZE - (size_t)length, ", run %zu",
                       series->run_index + 1);
    }
}

/* "intel-xeon, avx512, 2 threads, f32, forward, B·H = 8, d = 64" */
char *fb_figure_describe(const struct fb_figure_builder *builder)
{
    static const enum fb_factor shown[] = {
        FB_FACTOR_DEVICE_NAME, FB_FACTOR_ISA,     FB_FACTOR_THREADS,  FB_FACTOR_DTYPE,
        FB_FACTOR_PASS,        FB_FACTOR_SEQ_LEN, FB_FACTOR_HEAD_DIM, FB_FACTOR_VALUE_DIM,
        FB_FACTOR_KV_HEADS,    FB_FACTOR_LENGTHS};
    char text[FB_FIGURE_LABEL_SIZE] = "", phrase[FB_FACTOR_TEXT_SIZE];
    int length = 0;
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        const struct fb_row *row = builder->members[0]->key;
        for (size_t m = 0; shown[i] == FB_FACTOR_ISA && m < builder->members_count; m++) {
            row = strcmp(row->isa, "any") == 0 ? builder->members[m]->key : row;
        }
        if (fb_factor_is_axis(shown[i], builder->set->axis) ||
            members_differ(builder, shown[i], true) || fb_factor_is_plain(row, shown[i]) ||
            length > FB_FIGURE_LABEL_SIZE / 2) {
            continue;
        }
        fb_factor_phrase(row, shown[i], phrase);
        if (phrase[0]) {
            length += snprintf(text + length, sizeof text - (size_t)length, "%s%.200s",
                               length ? ", " : "", phrase);
        }
        if (shown[i] == FB_FACTOR_PASS) {
            const struct fb_row *key = builder->members[0]->key;
            length += fb_factor_is_axis(FB_FACTOR_HEADS, builder->set->axis)
                          ? snprintf(text + length, sizeof text - (size_t)length, ", B %lld",
                                     (long long)key->batch)
                          : snprintf(text + length, sizeof text - (size_t)length,
                                     ", B\xc2\xb7H = %lld\xc2\xb7%lld", (long long)key->batch,
                                     (long long)key->heads);
        }
    }
    return fb_figure_escape(builder->job->arena, text, builder->error);
}

/* Whether some measured series of the set has another value. Found out once for each factor: where
 * two of them differ, one of the two differs from any row. */
static bool differs_from_any(const struct fb_figure_builder *builder, const struct fb_row *row,
                             enum fb_factor factor)
{
    enum fb_figure_differs *known = &builder->differs[factor];
    const struct fb_row *first = NULL;
    for (size_t s = 0; s < builder->set->count && *known != FB_FIGURE_DIFFERS; s++) {
        const struct fb_series *series = &builder->set->items[s];
        if (series->ok_count == 0) {
            continue;
        }
        if (first && *known == FB_FIGURE_SAME) {
            break;
        }
        first = first ? first : series->key;
        if (!same_value(series->key, first, factor)) {
            *known = FB_FIGURE_DIFFERS;
        }
    }
    if (*known == FB_FIGURE_UNKNOWN) {
        *known = FB_FIGURE_SAME;
    }
    return *known == FB_FIGURE_DIFFERS || (first && !same_value(first, row, factor));
}

/* "-bf16-h16": the factors in which this picture differs from its siblings of the same kind. */
char *fb_figure_name(const struct fb_figure_builder *builder)
{
    char name[FB_FIGURE_LABEL_SIZE], value[FB_FACTOR_TEXT_SIZE];
    const struct fb_row *row = builder->members[0]->key;
    int length = snprintf(name, sizeof name, "%s", fb_plot_kind_name(builder->figure->kind));
    for (size_t i = 0; i < FACETS_COUNT + 1 && length < FB_FIGURE_LABEL_SIZE / 2; i++) {
        enum fb_factor factor = i < FACETS_COUNT ? facet_factors[i] : FB_FACTOR_THREADS;
        if (fb_factor_is_axis(factor, builder->set->axis) ||
            (factor == FB_FACTOR_THREADS && builder->set->axis != FB_AXIS_ISA) ||
            fb_factor_is_plain(row, factor)) {
            continue;
        }
        if (differs_from_any(builder, row, factor)) {
            static const char *const prefix[FB_FACTOR_COUNT] = {
                [FB_FACTOR_BATCH] = "b",         [FB_FACTOR_HEADS] = "h",
                [FB_FACTOR_SEQ_LEN] = "n",       [FB_FACTOR_KV_LEN] = "s",
                [FB_FACTOR_HEAD_DIM] = "d",      [FB_FACTOR_VALUE_DIM] = "m",
                [FB_FACTOR_THREADS] = "t",       [FB_FACTOR_KV_HEADS] = "hkv",
                [FB_FACTOR_LENGTHS] = "lengths-"};
            fb_factor_value(row, factor, value);
            length += snprintf(name + length, sizeof name - (size_t)length, "-%s%.60s",
                               prefix[factor] ? prefix[factor] : "", value);
        }
    }
    return fb_arena_strdup(builder->job->arena, name, builder->error);
}

int fb_figure_panel_of(const struct fb_figure_builder *builder, const struct fb_series *series)
{
    const char *causal = series->key->causal;
    return builder->figure->panels_count == 2 && strcmp(causal, "true") == 0 ? 1 : 0;
}

/* Mechanisms without a colour of their own share the last ones, in their order. */
static size_t palette_index(const struct fb_figure_builder *builder, const struct fb_series *series,
                            size_t order)
{
    if (builder->one_mechanism) {
        return order % PALETTE_COUNT;
    }
    size_t others = 0;
    for (size_t i = 0; i < PALETTE_NAMED; i++) {
        if (strcmp(palette[i].mechanism, series->key->mechanism) == 0) {
            return i;
        }
    }
    for (size_t i = 0; i < builder->members_count; i++) {
        if (strcmp(builder->members[i]->key->mechanism, series->key->mechanism) == 0) {
            break;
        }
        others++;
    }
    return PALETTE_NAMED + others % (PALETTE_COUNT - PALETTE_NAMED);
}

/* The legend of a line: its name, and for times the exponent and where it overtakes softmax. */
char *fb_figure_legend(const struct fb_figure_builder *builder, const struct fb_series *series)
{
    char name[FB_FIGURE_LABEL_SIZE], low[FB_QUANTITY_SIZE] = "";
    struct fb_arena *arena = builder->job->arena;
    fb_figure_name_series(builder, series, name);
    char *escaped = fb_figure_escape(arena, name, builder->error);
    if (!escaped || builder->figure->kind != FB_PLOT_TIME_VS_SEQ_LEN) {
        return escaped;
    }
    struct fb_scaling scaling;
    if (fb_scaling_of_time(series, builder->job->seed, arena, &scaling, builder->error) != FB_OK) {
        return NULL;
    }
    if (scaling.verdict == FB_SCALING_TOO_FEW) {
        return escaped;
    }
    if (scaling.verdict == FB_SCALING_NONE) {
        return fb_arena_printf(arena, builder->error, "%s: no single exponent", escaped);
    }
    char from[FB_QUANTITY_SIZE + 8] = "";
    if (scaling.first > 0) {
        (void)snprintf(from, sizeof from, " from %s",
                       fb_quantity_count(scaling.sizes[scaling.first], low));
    }
    if (scaling.p.kind == FB_SPREAD_NONE) {
        return fb_arena_printf(arena, builder->error, "%s: N^{%.2f}%s", escaped, scaling.fit.p,
                               from);
    }
    return fb_arena_printf(arena, builder->error, "%s: N^{%.2f} [%.2f, %.2f]%s", escaped,
                           scaling.fit.p, scaling.p.low, scaling.p.high, from);
}

enum fb_status fb_figure_add_note(struct fb_figure_builder *builder, int panel, const char *text)
{
    struct fb_arena *arena = builder->job->arena;
    const char **notes = &builder->figure->panel_notes[panel];
    char *line = fb_figure_escape(arena, text, builder->error);
    *notes = line ? fb_arena_printf(arena, builder->error, "%s%s%s", *notes,
                                    (*notes)[0] ? "\n" : "", line)
                  : NULL;
    return *notes ? FB_OK : FB_ERROR_MEMORY;
}

void fb_figure_style(const struct fb_figure_builder *builder, const struct fb_series *series,
                     size_t order, struct fb_figure_line *line)
{
    size_t index = palette_index(builder, series, order);
    int same_color = 0;
    line->color = palette[index].color;
    line->symbol = palette[index].symbol;
    for (size_t i = 0; i < builder->figure->lines_count; i++) {
        same_color += builder->figure->lines[i].panel == line->panel &&
                      strcmp(builder->figure->lines[i].color, line->color) == 0;
    }
    line->dash = 1 + same_color;
}
