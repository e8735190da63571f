/* Cases: identity, problem, bytes, and their form in words and in JSON. */
#include "plan_case.h"

#include "factor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { VALUE_SIZE = 96, CANONICAL_SIZE = 4096 };

void fb_case_factors(const struct fb_case *item, struct fb_factors *factors)
{
    *factors = (struct fb_factors){
        .mechanism = item->mechanism,
        .variant = item->variant,
        .program = item->program,
        .device = item->device,
        .isa = (int)item->isa,
        .threads = item->threads,
        .dtype = item->dtype,
        .layout = item->layout,
        .causal = item->causal,
        .pass = item->pass,
        .batch = item->batch,
        .heads = item->heads,
        .seq_len = item->seq_len,
        .kv_len = item->kv_len,
        .head_dim = item->head_dim,
        .value_dim = item->value_dim,
        .kv_heads = item->kv_heads > 0 ? item->kv_heads : item->heads,
        .lengths = item->lengths,
        .task = item->task,
        .recipe = item->recipe,
        .model = item->model,
        .epochs = item->epochs,
        .steps = item->steps,
        .batch_size = item->batch_size,
        .precision = item->precision,
        .seed = item->seed,
    };
    memcpy(factors->params, item->params, sizeof factors->params);
    memcpy(factors->task_params, item->task_params, sizeof factors->task_params);
}

void fb_case_set_factors(struct fb_case *item, const struct fb_factors *factors)
{
    item->mechanism = factors->mechanism;
    item->variant = factors->variant;
    item->program = factors->program;
    item->device = factors->device;
    item->isa = (enum fb_isa)factors->isa;
    item->threads = factors->threads;
    item->dtype = factors->dtype;
    item->layout = factors->layout;
    item->causal = factors->causal;
    item->pass = factors->pass;
    item->batch = factors->batch;
    item->heads = factors->heads;
    item->seq_len = factors->seq_len;
    item->kv_len = factors->kv_len;
    item->head_dim = factors->head_dim;
    item->value_dim = factors->value_dim;
    item->kv_heads = factors->kv_heads;
    item->lengths = factors->lengths;
    item->task = factors->task;
    item->recipe = factors->recipe;
    item->model = factors->model;
    item->epochs = factors->epochs;
    item->steps = factors->steps;
    item->batch_size = factors->batch_size;
    item->precision = factors->precision;
    item->seed = factors->seed;
    memcpy(item->params, factors->params, sizeof item->params);
    memcpy(item->task_params, factors->task_params, sizeof item->task_params);
}

/* "name=value;" for every factor in the order of the table (younger factors only where they are not
 * at their defaults), then the parameters that are not at their defaults as sorted JSON. This text
 * is the identity of a case across runs and versions: harness and mechanisms may gain factors and
 * parameters without a change of identity, never change a default. */
enum fb_status fb_case_identify(struct fb_case *item, struct fb_error *error)
{
    struct fb_factors factors;
    fb_case_factors(item, &factors);
    char canonical[CANONICAL_SIZE];
    size_t used = 0;
    for (int key = 0; key < FB_FACTOR_COUNT; key++) {
        char value[VALUE_SIZE];
        if (fb_factor_is_silent(&factors, (enum fb_factor_key)key)) {
            continue;
        }
        fb_factor_format(&factors, (enum fb_factor_key)key, value, sizeof value);
        used += (size_t)snprintf(canonical + used, sizeof canonical - used, "%s=%s;",
                                 fb_factor_at((enum fb_factor_key)key)->name, value);
    }
    if (item->program != NULL) {
        used += (size_t)snprintf(canonical + used, sizeof canonical - used, "program=%s;",
                                 item->program);
    }
    if (item->task != NULL) {
        json_t *task = fb_case_task_params_json(item);
        char *words = task != NULL ? json_dumps(task, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
        json_decref(task);
        if (words == NULL) {
            return fb_error_set(error, FB_ERROR_MEMORY, "out of memory while naming a case");
        }
        used +=
            (size_t)snprintf(canonical + used, sizeof canonical - used, "task_params=%s;", words);
        free(words);
    }
    json_t *params = fb_case_params_json(item);
    for (int i = 0; params != NULL && i < item->mechanism->param_count; i++) {
        const struct fb_param *param = &item->mechanism->params[i];
        if (item->params[i] == param->default_value) {
            (void)json_object_del(params, param->name);
        }
    }
    char *text = params != NULL ? json_dumps(params, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(params);
    if (text == NULL) {
        return fb_error_set(error, FB_ERROR_MEMORY, "out of memory while naming a case");
    }
    (void)snprintf(canonical + used, sizeof canonical - used, "params=%s;", text);
    free(text);
    XXH64_hash_t hash = XXH64(canonical, strlen(canonical), 0);
    (void)snprintf(item->id, sizeof item->id, "%016" PRIx64, (uint64_t)hash);
    return FB_OK;
}

/* " features=256" for parameters that differ from their defaults; empty when none does. */
static void describe_params(const struct fb_param *params, int count, const double *values,
                            char *text, size_t text_size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count && used + 1 < text_size; i++) {
        const struct fb_param *param = &params[i];
        bool is_default =
            !(values[i] < param->default_value) && !(values[i] > param->default_value);
        if (is_default) {
            continue;
        }
        const char *separator = used > 0 ? "," : " ";
        int wrote = param->type == FB_PARAM_CHOICE
                        ? snprintf(text + used, text_size - used, "%s%s=%s", separator, param->name,
                                   param->choices[(size_t)values[i]])
                        : snprintf(text + used, text_size - used, "%s%s=%g", separator, param->name,
                                   values[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

/* "adder digits=3 same small performer/fused kernel=relu cpu:avx2x2 seed 3, 400 steps". */
static void describe_training(const struct fb_case *item, char *text, size_t text_size)
{
    char params[VALUE_SIZE];
    char task_params[VALUE_SIZE];
    char machine[48];
    char epochs[40] = "";
    char steps[40] = "";
    char batch[40] = "";
    char precision[16] = "";
    describe_params(item->mechanism->params, item->mechanism->param_count, item->params, params,
                    sizeof params);
    describe_params(item->task->params, item->task->param_count, item->task_params, task_params,
                    sizeof task_params);
    if (item->device == FB_CPU) {
        (void)snprintf(machine, sizeof machine, "cpu:%sx%d", fb_isa_name(item->isa), item->threads);
    } else {
        (void)snprintf(machine, sizeof machine, "%s", fb_backend_name(item->device));
    }
    if (item->epochs > 0) {
        (void)snprintf(epochs, sizeof epochs, ", %" PRId64 " epochs", item->epochs);
    }
    if (item->steps > 0) {
        (void)snprintf(steps, sizeof steps, ", %" PRId64 " steps", item->steps);
    }
    if (item->batch_size > 0) {
        (void)snprintf(batch, sizeof batch, ", batches of %" PRId64, item->batch_size);
    }
    if (item->precision > 0) {
        (void)snprintf(precision, sizeof precision, " in %s",
                       fb_nn_precision_name(fb_case_precision(item)));
    }
    (void)snprintf(text, text_size, "%s%s %s%s %s/%s%s %s%s seed %" PRIu64 "%s%s%s",
                   item->task->name, task_params, fb_recipe_kind_name(item->recipe),
                   item->model == FB_RECIPE_SMALL ? " small" : "", item->mechanism->name,
                   item->variant, params, machine, precision, item->seed, epochs, steps, batch);
}

void fb_case_describe(const struct fb_case *item, char *text, size_t text_size)
{
    if (item->task != NULL) {
        describe_training(item, text, text_size);
        return;
    }
    char params[VALUE_SIZE];
    char kv_len[40] = "";
    char value_dim[40] = "";
    char kv_heads[40] = "";
    char machine[48];
    describe_params(item->mechanism->params, item->mechanism->param_count, item->params, params,
                    sizeof params);
    if (item->kv_len != item->seq_len) {
        (void)snprintf(kv_len, sizeof kv_len, " S%" PRId64, item->kv_len);
    }
    if (item->kv_heads > 0 && item->kv_heads != item->heads) {
        (void)snprintf(kv_heads, sizeof kv_heads, "/%" PRId64, item->kv_heads);
    }
    if (item->value_dim != item->head_dim) {
        (void)snprintf(value_dim, sizeof value_dim, " M%" PRId64, item->value_dim);
    }
    if (item->device == FB_CPU) {
        (void)snprintf(machine, sizeof machine, "cpu:%sx%d", fb_isa_name(item->isa), item->threads);
    } else {
        (void)snprintf(machine, sizeof machine, "%s", fb_backend_name(item->device));
    }
    (void)snprintf(
        text, text_size,
        "%s/%s%s%s%s %s %s %s%s %s B%" PRId64 " H%" PRId64 "%s N%" PRId64 "%s D%" PRId64 "%s%s",
        item->mechanism->name, item->variant, item->program != NULL ? " by " : "",
        item->program != NULL ? item->program : "", params, machine, fb_dtype_name(item->dtype),
        fb_layout_name(item->layout), item->causal ? " causal" : "", fb_pass_name(item->pass),
        item->batch, item->heads, kv_heads, item->seq_len, kv_len, item->head_dim, value_dim,
        item->lengths == FB_LENGTHS_FULL ? "" : " random lengths");
}
