/* Bars per instruction set: how much faster than the weakest one that was measured, with the time
 * above each bar. A line of the figure is an instruction set; x is the mechanism's place. */
#include "figure_builder.h"

#include "attention.h"
#include "quantity.h"

#include <string.h>

static const struct {
    const char *color;
} shades[FB_ISA_COUNT] = {
    [FB_ISA_ANY] = {"#999999"},  [FB_ISA_SCALAR] = {"#999999"}, [FB_ISA_NEON] = {"#009E73"},
    [FB_ISA_AVX2] = {"#56B4E9"}, [FB_ISA_AVX512] = {"#0072B2"},
};

/* The measured instruction sets over all members; how many. */
static int present_isas(const struct fb_figure_builder *builder, bool *present)
{
    int count = 0;
    for (size_t i = 0; i < builder->members_count; i++) {
        for (size_t j = 0; j < builder->members[i]->points_count; j++) {
            const struct fb_point *point = &builder->members[i]->points[j];
            int isa = (int)point->x;
            if (point->ok && isa > FB_ISA_ANY && isa < FB_ISA_COUNT && !present[isa]) {
                present[isa] = true;
                count++;
            }
        }
    }
    return count;
}

/* Members that are compared over instruction sets get a place on the x axis, the same in both
 * panels; returns the tics as gnuplot reads them. */
static const char *place_members(struct fb_figure_builder *builder, int *places, int *count)
{
    char name[FB_FIGURE_LABEL_SIZE];
    const char *tics = "(";
    *count = 0;
    for (size_t i = 0; i < builder->members_count && tics; i++) {
        const struct fb_row *row = builder->members[i]->key;
        places[i] = -1;
        for (size_t j = 0; j < i && places[i] < 0; j++) {
            const struct fb_row *other = builder->members[j]->key;
            if (places[j] >= 0 && strcmp(row->mechanism, other->mechanism) == 0 &&
                strcmp(row->variant, other->variant) == 0 &&
                strcmp(row->params, other->params) == 0 &&
                builder->members[i]->run_index == builder->members[j]->run_index &&
                fb_figure_panel_of(builder, builder->members[i]) !=
                    fb_figure_panel_of(builder, builder->members[j])) {
                places[i] = places[j];
            }
        }
        if (builder->members[i]->ok_count < 2 || places[i] >= 0) {
            continue;
        }
        places[i] = (*count)++;
        fb_figure_name_series(builder, builder->members[i], name);
        for (char *c = name; *c; c++) {
            *c = (char)(strchr("'\"`\\", *c) ? ' ' : *c);
        }
        char *escaped = fb_figure_escape(builder->job->arena, name, builder->error);
        tics = escaped ? fb_arena_printf(builder->job->arena, builder->error, "%s%s'%s' %d", tics,
                                         places[i] ? ", " : "", escaped, places[i])
                       : NULL;
    }
    return tics ? fb_arena_printf(builder->job->arena, builder->error, "%s)", tics) : NULL;
}

/* Adds the bar of one member and instruction set to a line. */
static enum fb_status add_bar(struct fb_figure_builder *builder, const struct fb_series *series,
                              int isa, double x, struct fb_figure_line *line)
{
    const struct fb_point *base = NULL, *here = NULL;
    char text[FB_QUANTITY_SIZE];
    for (size_t i = 0; i < series->points_count; i++) {
        const struct fb_point *point = &series->points[i];
        base = !base && point->ok ? point : base;
        here = point->ok && (int)point->x == isa ? point : here;
    }
    if (!here) {
        return FB_OK;
    }
    double time = here->row->time_median_s, first = base->row->time_median_s;
    size_t length = strlen(fb_quantity_time(time, text));
    bool micro = strcmp(text + length - 2, "us") == 0;
    char *label =
        fb_arena_printf(builder->job->arena, builder->error, "%.*s%s",
                        (int)(micro ? length - 2 : length), text, micro ? "\xc2\xb5s" : "");
    if (!label) {
        return FB_ERROR_MEMORY;
    }
    double y = first / time;
    line->points[line->points_count++] = (struct fb_figure_point){x, y, y, y, label};
    return FB_OK;
}

enum fb_status fb_figure_fill_bars(struct fb_figure_builder *builder)
{
    struct fb_figure *figure = builder->figure;
    struct fb_arena *arena = builder->job->arena;
    bool present[FB_ISA_COUNT] = {false};
    int isas = present_isas(builder, present), places_count = 0;
    int *places = fb_arena_alloc(arena, builder->members_count, sizeof *places, builder->error);
    figure->lines = fb_arena_alloc(arena, FB_FIGURE_PANELS_MAX * ((size_t)isas + 1),
                                   sizeof *figure->lines, builder->error);
    if (!places || !figure->lines) {
        return FB_ERROR_MEMORY;
    }
    figure->x_tics = place_members(builder, places, &places_count);
    if (!figure->x_tics) {
        return FB_ERROR_MEMORY;
    }
    figure->x_min = -0.6;
    figure->x_max = places_count - 0.4;
    for (int panel = 0; panel < (int)figure->panels_count && places_count > 0; panel++) {
        int order = 0;
        for (int isa = FB_ISA_SCALAR; isa < FB_ISA_COUNT; isa++) {
            if (!present[isa]) {
                continue;
            }
            struct fb_figure_line *line = &figure->lines[figure->lines_count++];
            *line = (struct fb_figure_line){.panel = panel,
                                            .label = fb_isa_name((enum fb_isa)isa),
                                            .color = shades[isa].color,
                                            .dash = 1,
                                            .symbol = 5};
            line->points =
                fb_arena_alloc(arena, builder->members_count, sizeof *line->points, builder->error);
            if (!line->points) {
                return FB_ERROR_MEMORY;
            }
            double offset = (order++ - 0.5 * (isas - 1)) * 0.8 / isas;
            for (size_t m = 0; m < builder->members_count; m++) {
                if (places[m] < 0 || fb_figure_panel_of(builder, builder->members[m]) != panel) {
                    continue;
                }
                enum fb_status status =
                    add_bar(builder, builder->members[m], isa, places[m] + offset, line);
                if (status != FB_OK) {
                    return status;
                }
            }
            figure->lines_count -= line->points_count == 0;
        }
    }
    figure->reference = "the weakest instruction set";
    figure->label_step = 0.8 / (isas > 0 ? isas : 1); /* the width of a bar */
    return FB_OK;
}
