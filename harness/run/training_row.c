/* From a training case to its row: see training_runner.h. */
#include "training_runner.h"

#include "paper.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A JSON object as text, which it frees. */
static void put_json(char *text, size_t size, json_t *object)
{
    char *words = object ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    snprintf(text, size, "%s", words ? words : "");
    free(words);
    json_decref(object);
}

static void put_paper(const struct fb_case *item, struct fb_accuracy_row *row)
{
    struct fb_paper_number number;
    const bool altered = item->epochs > 0 || item->steps > 0 || item->batch_size > 0 ||
                         item->model != FB_RECIPE_FULL;
    fb_paper_find(item->task, item->mechanism, item->params, item->recipe, altered, &number);
    snprintf(row->paper_model, sizeof row->paper_model, "%s", number.model);
    snprintf(row->paper_protocol, sizeof row->paper_protocol, "%s",
             fb_paper_protocol_name(number.protocol));
    row->paper_value = number.value;
}

void fb_accuracy_row_from_case(const struct fb_row_context *context, const struct fb_case *item,
                               struct fb_accuracy_row *row)
{
    const bool cpu = item->device == FB_CPU;
    struct fb_recipe recipe;
    struct fb_error refused; /* such a case has a row that says so, and no batch */
    const char *name = cpu ? context->device_name : context->gpu_name;
    fb_accuracy_row_init(row);
    row->schema = FB_ACCURACY_SCHEMA;
    snprintf(row->run, sizeof row->run, "%s", context->run_id);
    snprintf(row->suite, sizeof row->suite, "%s", context->suite_name);
    snprintf(row->case_id, sizeof row->case_id, "%s", item->id);
    snprintf(row->task, sizeof row->task, "%s", item->task->name);
    snprintf(row->recipe, sizeof row->recipe, "%s", fb_recipe_kind_name(item->recipe));
    snprintf(row->model, sizeof row->model, "%s", fb_recipe_size_name(item->model));
    snprintf(row->mechanism, sizeof row->mechanism, "%s", item->mechanism->name);
    snprintf(row->variant, sizeof row->variant, "%s", item->variant);
    put_json(row->task_params, sizeof row->task_params, fb_case_task_params_json(item));
    put_json(row->params, sizeof row->params, fb_case_params_json(item));
    snprintf(row->device, sizeof row->device, "%s", fb_backend_name(item->device));
    snprintf(row->device_name, sizeof row->device_name, "%s", name ? name : "");
    snprintf(row->isa, sizeof row->isa, "%s", cpu ? fb_isa_name(item->isa) : "");
    snprintf(row->precision, sizeof row->precision, "%s",
             fb_nn_precision_name(fb_case_precision(item)));
    row->threads = item->threads;
    row->epochs_cap = item->epochs > 0 ? item->epochs : FB_ROW_NONE;
    row->steps_cap = item->steps > 0 ? item->steps : FB_ROW_NONE;
    row->seed = (int64_t)item->seed;
    if (fb_case_recipe(item, &recipe, &refused) == FB_OK)
        row->batch = recipe.batch;
    snprintf(row->metric_name, sizeof row->metric_name, "%s",
             item->task->metric == FB_METRIC_PERPLEXITY ? "perplexity" : "accuracy");
    put_paper(item, row);
}
