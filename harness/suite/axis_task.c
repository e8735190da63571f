/* Tasks in a suite: a name, or a map {name, parameters} checked against the task's own table. */
#include "axis.h"
#include "suite_values.h"

#include <string.h>

enum { TASKS_MAX = 64 };

bool fb_axis_find_task(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                       struct fb_axis_value *value)
{
    const char *names[TASKS_MAX];
    size_t index;
    if (!fb_value_choice(reader->diagnostics, node, "task", names,
                         fb_factor_task_names(names, TASKS_MAX), &index)) {
        return false;
    }
    const struct fb_task *task = fb_task_find(names[index]);
    double *params = fb_suite_alloc(reader, FB_PARAMS_MAX, sizeof *params);
    for (int i = 0; params != NULL && i < task->param_count; i++) {
        params[i] = task->params[i].default_value;
    }
    value->task = task;
    value->task_params = params;
    return params != NULL;
}

static const struct fb_param *find_param(const struct fb_task *task, const char *name, int *index)
{
    for (*index = 0; *index < task->param_count; (*index)++) {
        if (strcmp(task->params[*index].name, name) == 0) {
            return &task->params[*index];
        }
    }
    return NULL;
}

static void report_unknown(const struct fb_suite_reader *reader, const struct fb_task *task,
                           const struct fb_yaml_node *key)
{
    const char *names[FB_PARAMS_MAX + 1] = {"name"};
    char map_name[80] = "the task ";
    for (int i = 0; i < task->param_count; i++) {
        names[1 + i] = task->params[i].name;
    }
    strncat(map_name, task->name, 60);
    fb_suite_unknown_key(reader, key, map_name, names, 1 + (size_t)task->param_count);
}

bool fb_axis_read_task(const struct fb_suite_reader *reader, const struct fb_yaml_node *map,
                       struct fb_axis_value *value)
{
    const struct fb_yaml_pair *name = fb_yaml_find(map, "name");
    *value = (struct fb_axis_value){.node = map};
    if (name == NULL) {
        fb_diagnose(reader->diagnostics, map->mark,
                    "a task's map needs its name: {name: adder, digits: 3}");
        return false;
    }
    if (!fb_axis_find_task(reader, name->value, value)) {
        return false;
    }
    double *params = fb_suite_alloc(reader, FB_PARAMS_MAX, sizeof *params);
    if (params == NULL) {
        return false;
    }
    memcpy(params, value->task_params, FB_PARAMS_MAX * sizeof *params);
    value->task_params = params;
    bool fine = true;
    for (size_t i = 0; i < map->count; i++) {
        const struct fb_yaml_pair *pair = &map->pairs[i];
        int index;
        const struct fb_param *param = find_param(value->task, pair->key->text, &index);
        if (param != NULL) {
            fine = fb_axis_read_param(reader, param, pair->value, &params[index]) && fine;
        } else if (strcmp(pair->key->text, "name") != 0) {
            report_unknown(reader, value->task, pair->key);
            fine = false;
        }
    }
    return fine;
}
