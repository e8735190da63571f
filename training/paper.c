/* Looking the paper's numbers up: see paper.h. */
#include "paper.h"

#include "paper_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *fb_paper_protocol_name(enum fb_paper_protocol protocol)
{
    static const char *const names[FB_PAPER_PROTOCOL_COUNT] = {[FB_PAPER_NONE] = "",
                                                               [FB_PAPER_RELEASED] = "released",
                                                               [FB_PAPER_COPIED] = "copied",
                                                               [FB_PAPER_DIFFERENT] = "different"};
    return names[protocol];
}

/* ---- the table ------------------------------------------------------------------------------- */

enum { CELLS = 6, CELL_SIZE = 64 };

/* The cells of a line: no cell of the table holds a comma or a quote. Returns the next line. */
static const char *read_line(const char *line, char cells[CELLS][CELL_SIZE])
{
    for (int i = 0; i < CELLS; i++) {
        const size_t length = strcspn(line, ",\n");
        const size_t kept = length < CELL_SIZE - 1 ? length : CELL_SIZE - 1;
        memcpy(cells[i], line, kept);
        cells[i][kept] = '\0';
        line += length;
        line += *line == ',';
    }
    return *line == '\n' ? line + 1 : line;
}

static double look_up(const char *area, const char *dataset, const char *model, const char *metric)
{
    char cells[CELLS][CELL_SIZE];
    for (const char *line = fb_paper_text; *line != '\0';) {
        line = read_line(line, cells);
        if (strcmp(cells[0], area) == 0 && strcmp(cells[1], dataset) == 0 &&
            strcasecmp(cells[2], model) == 0 && strcmp(cells[3], metric) == 0)
            return strtod(cells[4], NULL);
    }
    return (double)NAN;
}

/* ---- which row ------------------------------------------------------------------------------- */

static double value_of(const struct fb_mechanism *mechanism, const double *params, const char *name)
{
    const int index = fb_param_index(mechanism, name);
    return index >= 0 ? params[index] : 0.0;
}

static const char *model_of(const struct fb_task *task, const struct fb_mechanism *mechanism,
                            const double *params)
{
    enum { COMPETITION_OFF = 2 };
    static const char *const others[][2] = {{"softmax", "Transformer"},
                                            {"linear", "Linear Trans."},
                                            {"performer", "Performer"},
                                            {"local", "Local Attention"}};
    if (strcmp(mechanism->name, "flow") == 0) {
        const bool competes = value_of(mechanism, params, "competition") < COMPETITION_OFF;
        const bool allocates = value_of(mechanism, params, "allocation") > 0.0;
        return competes && allocates    ? "Flowformer"
               : !competes && allocates ? "Flowformer w/o competition"
                                        : (competes ? "Flowformer w/o allocation" : NULL);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(others[i][0], mechanism->name) == 0)
            return strcmp(mechanism->name, "local") == 0 && strcmp(task->paper_area, "LRA") != 0
                       ? NULL
                       : others[i][1];
    return NULL;
}

/* Whether the parameters are those of the released code. */
static bool is_as_released(const struct fb_task *task, const struct fb_mechanism *mechanism,
                           const double *params)
{
    double released[FB_PARAMS_MAX] = {0.0};
    for (int i = 0; i < mechanism->param_count; i++)
        released[i] = mechanism->params[i].default_value;
    fb_recipe_set_paper_params(task, mechanism, released);
    for (int i = 0; i < mechanism->param_count; i++) {
        const bool ablation = strcmp(mechanism->name, "flow") == 0 &&
                              (strcmp(mechanism->params[i].name, "competition") == 0 ||
                               strcmp(mechanism->params[i].name, "allocation") == 0);
        if (!ablation && (params[i] < released[i] || params[i] > released[i]))
            return false;
    }
    return true;
}

void fb_paper_find(const struct fb_task *task, const struct fb_mechanism *mechanism,
                   const double params[FB_PARAMS_MAX], enum fb_recipe_kind recipe, bool altered,
                   struct fb_paper_number *number)
{
    const char *metric = task->metric == FB_METRIC_PERPLEXITY ? "perplexity" : "accuracy_percent";
    const char *model = task->paper_area ? model_of(task, mechanism, params) : NULL;
    *number = (struct fb_paper_number){.value = (double)NAN};
    if (!model)
        return;
    number->value = look_up(task->paper_area, task->paper_dataset, model, metric);
    if (isnan(number->value))
        return;
    (void)snprintf(number->model, sizeof number->model, "%s", model);
    /* the eleven classic rows of that table equal an older leaderboard digit for digit */
    if (strcmp(task->paper_area, "LRA") == 0 && strcmp(mechanism->name, "flow") != 0)
        number->protocol = FB_PAPER_COPIED;
    else if (recipe == FB_RECIPE_PAPER && !altered && is_as_released(task, mechanism, params))
        number->protocol = FB_PAPER_RELEASED;
    else
        number->protocol = FB_PAPER_DIFFERENT;
}
