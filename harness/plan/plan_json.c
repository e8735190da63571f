/* Cases as JSON: what run.json records and what a worker process receives. */
#include "plan_case.h"

#include "factor.h"
#include "peer_program.h"
#include "registry.h"

#include <string.h>

enum { VALUE_SIZE = 96 };

static json_t *param_value(const struct fb_param *param, double value)
{
    switch (param->type) {
    case FB_PARAM_INT:
        return json_integer((json_int_t)value);
    case FB_PARAM_REAL:
        return json_real(value);
    case FB_PARAM_BOOL:
        return json_boolean(value > 0.0);
    case FB_PARAM_CHOICE:
        return json_string(param->choices[(size_t)value]);
    }
    return NULL;
}

static json_t *params_json(const struct fb_param *params, int param_count, const double *values)
{
    bool taken[FB_PARAMS_MAX] = {false};
    json_t *object = json_object();
    for (int n = 0; object != NULL && n < param_count; n++) {
        int next = -1;
        for (int i = 0; i < param_count; i++) {
            if (!taken[i] && (next < 0 || strcmp(params[i].name, params[next].name) < 0)) {
                next = i;
            }
        }
        taken[next] = true;
        const struct fb_param *param = &params[next];
        if (json_object_set_new(object, param->name, param_value(param, values[next])) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

json_t *fb_case_params_json(const struct fb_case *item)
{
    return params_json(item->mechanism->params, item->mechanism->param_count, item->params);
}

json_t *fb_case_task_params_json(const struct fb_case *item)
{
    return item->task == NULL
               ? json_object()
               : params_json(item->task->params, item->task->param_count, item->task_params);
}

static json_t *factor_value(const struct fb_factors *factors, enum fb_factor_key key)
{
    const struct fb_factor *factor = fb_factor_at(key);
    char text[VALUE_SIZE];
    if (factor->type == FB_FACTOR_NUMBER) {
        return json_integer((json_int_t)fb_factor_get(factors, key));
    }
    if (factor->type == FB_FACTOR_BOOL) {
        return json_boolean(fb_factor_get(factors, key) != 0);
    }
    fb_factor_format(factors, key, text, sizeof text);
    return json_string(text);
}

json_t *fb_case_to_json(const struct fb_case *item)
{
    struct fb_factors factors;
    fb_case_factors(item, &factors);
    json_t *object = json_object();
    bool fine = object != NULL && json_object_set_new(object, "id", json_string(item->id)) == 0;
    for (int key = 0; fine && key < FB_FACTOR_COUNT; key++) {
        if (fb_factor_at((enum fb_factor_key)key)->training && item->task == NULL) {
            continue;
        }
        fine = json_object_set_new(object, fb_factor_names()[key],
                                   factor_value(&factors, (enum fb_factor_key)key)) == 0;
    }
    fine = fine && json_object_set_new(object, "params", fb_case_params_json(item)) == 0;
    if (fine && item->task != NULL) {
        fine = json_object_set_new(object, "task_params", fb_case_task_params_json(item)) == 0;
    }
    if (fine && item->program != NULL) {
        fine = json_object_set_new(object, "program", json_string(item->program)) == 0;
    }
    if (fine && item->skip_reason != NULL) {
        fine = json_object_set_new(object, "skip_reason", json_string(item->skip_reason)) == 0;
    }
    if (!fine) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* ---- and back ------------------------------------------------------------------------------ */

static bool find_choice(enum fb_factor_key key, const char *text, int64_t *value)
{
    const struct fb_factor *factor = fb_factor_at(key);
    if (key == FB_FACTOR_ISA && strcmp(text, fb_isa_name(FB_ISA_ANY)) == 0) {
        *value = FB_ISA_ANY; /* device code: no suite names it, a resolved case does */
        return true;
    }
    const char *names[FB_FACTOR_CHOICES_MAX];
    int64_t values[FB_FACTOR_CHOICES_MAX];
    size_t count = fb_factor_choices(factor, names, values);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = values[i];
            return true;
        }
    }
    return false;
}

static enum fb_status read_factor(const json_t *object, enum fb_factor_key key,
                                  struct fb_factors *factors, struct fb_error *error)
{
    const struct fb_factor *factor = fb_factor_at(key);
    const json_t *json = json_object_get(object, factor->name);
    int64_t value = 0;
    bool fine = false;
    if (json == NULL && factor->younger) {
        return FB_OK; /* a row of an earlier version, or of another kind; zero is the default */
    }
    if (key == FB_FACTOR_MECHANISM) {
        factors->mechanism =
            json_is_string(json) ? fb_mechanism_find(json_string_value(json)) : NULL;
        fine = factors->mechanism != NULL;
    } else if (key == FB_FACTOR_VARIANT) {
        factors->variant = json_string_value(json);
        fine = factors->variant != NULL;
    } else if (key == FB_FACTOR_TASK) {
        factors->task = json_is_string(json) ? fb_task_find(json_string_value(json)) : NULL;
        fine = factors->task != NULL;
    } else if (factor->type == FB_FACTOR_NUMBER) {
        const bool special = factor->training && json_integer_value(json) == factor->special_value;
        value = json_integer_value(json);
        fine = json_is_integer(json) && (special || (value >= factor->min && value <= factor->max));
    } else if (factor->type == FB_FACTOR_BOOL) {
        value = json_is_true(json) ? 1 : 0;
        fine = json_is_boolean(json);
    } else {
        fine = json_is_string(json) && find_choice(key, json_string_value(json), &value);
    }
    if (!fine) {
        return fb_error_set(error, FB_ERROR_INPUT, "a case in JSON lacks a valid '%s'",
                            factor->name);
    }
    fb_factor_set(factors, key, value);
    return FB_OK;
}

/* Whether the value is of the parameter's type and within its range; *number is then its value. */
static bool param_number(const struct fb_param *param, const json_t *json, double *number)
{
    const char *const *choices = param->choices;
    size_t at = 0;
    switch (param->type) {
    case FB_PARAM_INT:
    case FB_PARAM_REAL:
        *number = json_number_value(json);
        return (param->type == FB_PARAM_INT ? json_is_integer(json) : json_is_number(json)) &&
               *number >= param->min && *number <= param->max;
    case FB_PARAM_BOOL:
        *number = json_is_true(json) ? 1.0 : 0.0;
        return json_is_boolean(json);
    case FB_PARAM_CHOICE:
        if (!json_is_string(json)) {
            return false;
        }
        while (choices[at] != NULL && strcmp(choices[at], json_string_value(json)) != 0) {
            at++;
        }
        *number = (double)at;
        return choices[at] != NULL;
    }
    return false;
}

/* Who has the parameters: a mechanism or a task. */
struct owner {
    const char *name;
    const struct fb_param *params;
    int param_count;
};

/* The parameters of a JSON object over their defaults. */
static enum fb_status read_params(const struct owner *owner, json_t *object, double *values,
                                  struct fb_error *error)
{
    const char *name;
    json_t *json;
    for (int i = 0; i < owner->param_count; i++) {
        values[i] = owner->params[i].default_value;
    }
    json_object_foreach(object, name, json)
    {
        int index = 0;
        while (index < owner->param_count && strcmp(owner->params[index].name, name) != 0) {
            index++;
        }
        if (index == owner->param_count ||
            !param_number(&owner->params[index], json, &values[index])) {
            return fb_error_set(error, FB_ERROR_INPUT,
                                "a case in JSON has an invalid parameter '%.60s' of %s", name,
                                owner->name);
        }
    }
    return FB_OK;
}

static enum fb_status copy_text(struct fb_arena *arena, const char **text, struct fb_error *error)
{
    if (*text == NULL) {
        return FB_OK;
    }
    *text = fb_arena_strdup(arena, *text, error);
    return *text != NULL ? FB_OK : FB_ERROR_MEMORY;
}

enum fb_status fb_case_from_json(const json_t *json, struct fb_arena *arena, struct fb_case *item,
                                 struct fb_error *error)
{
    struct fb_factors factors = {0};
    enum fb_status status = FB_OK;
    *item = (struct fb_case){0};
    for (int key = 0; status == FB_OK && key < FB_FACTOR_COUNT; key++) {
        status = read_factor(json, (enum fb_factor_key)key, &factors, error);
    }
    if (status != FB_OK) {
        return status;
    }
    const struct owner mechanism = {factors.mechanism->name, factors.mechanism->params,
                                    factors.mechanism->param_count};
    status = read_params(&mechanism, json_object_get(json, "params"), factors.params, error);
    if (status == FB_OK && factors.task != NULL) {
        const struct owner task = {factors.task->name, factors.task->params,
                                   factors.task->param_count};
        status =
            read_params(&task, json_object_get(json, "task_params"), factors.task_params, error);
    }
    if (status != FB_OK) {
        return status;
    }
    factors.program = json_string_value(json_object_get(json, "program"));
    if (factors.program != NULL && strlen(factors.program) > FB_PEER_PROGRAM_SIZE_MAX) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "a case in JSON has a program of %zu bytes; the limit is %d",
                            strlen(factors.program), FB_PEER_PROGRAM_SIZE_MAX);
    }
    fb_case_set_factors(item, &factors);
    item->skip_reason = json_string_value(json_object_get(json, "skip_reason"));
    status = copy_text(arena, &item->variant, error);
    if (status == FB_OK) {
        status = copy_text(arena, &item->program, error);
    }
    if (status == FB_OK) {
        status = copy_text(arena, &item->skip_reason, error);
    }
    if (status == FB_OK) {
        status = fb_case_identify(item, error);
    }
    const char *id = json_string_value(json_object_get(json, "id"));
    if (status == FB_OK && (id == NULL || strcmp(id, item->id) != 0)) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the case %.20s in JSON has the factors of case %s: was it written by "
                            "another version?",
                            id != NULL ? id : "without id", item->id);
    }
    if (status == FB_OK && item->skip_reason == NULL && item->program != NULL) {
        return fb_peer_attention(item, arena, error);
    }
    if (status == FB_OK && item->skip_reason == NULL) {
        item->attention =
            fb_attention_find(item->mechanism, item->variant, item->device, item->isa);
        if (item->attention == NULL) {
            return fb_error_set(error, FB_ERROR_UNSUPPORTED, "%s/%s is not built for %s %s",
                                item->mechanism->name, item->variant, fb_backend_name(item->device),
                                fb_isa_name(item->isa));
        }
    }
    return status;
}
