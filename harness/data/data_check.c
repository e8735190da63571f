/* Verifying a data set: see data_sets.h. */
#include "data_sets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A file against its known sum, else against the one recorded when it was made. */
static enum fb_status check_sum(const struct fb_data_set *set, const char *data_dir, size_t index,
                                struct fb_error *error)
{
    char path[FB_DATA_PATH_SIZE], label[FB_DATA_LABEL_SIZE];
    char sum[FB_DATA_SUM_SIZE], recorded[FB_DATA_SUM_SIZE];
    const char *wanted = set->sums[index];
    (void)snprintf(label, sizeof label, "%s/%s", set->folder, set->files[index]);
    (void)snprintf(path, sizeof path, "%s/%s", data_dir, label);
    if (!wanted && fb_data_sum_recorded(data_dir, label, recorded))
        wanted = recorded;
    if (!wanted)
        return FB_OK;
    const enum fb_status status = fb_data_sum(path, sum, error);
    if (status != FB_OK || strcmp(sum, wanted) == 0)
        return status;
    return fb_error_set(error, FB_ERROR_INPUT,
                        "'%s' has the SHA-256 %s, not %s: it is damaged or another version; remove "
                        "it, then './bench data %s %s'",
                        path, sum, wanted, set->unpack == FB_UNPACK_MADE ? "make" : "fetch",
                        set->name);
}

/* ListOps is read, not drawn anew; a file of images has as many as the table says. */
static double param_of(const struct fb_data_set *set, const struct fb_param *param)
{
    if (strcmp(param->name, "from") == 0)
        return 1.0;
    if (strcmp(param->name, "images") == 0)
        return (double)(set->counts[0] + set->counts[1] + set->counts[2]);
    return param->default_value;
}

/* Opens the task on the data, which reads every example, and compares the counts. */
static enum fb_status check_examples(const struct fb_data_set *set, const char *data_dir,
                                     struct fb_arena *arena, struct fb_error *error)
{
    static const char *const splits[FB_SPLIT_COUNT] = {"training", "validation", "test"};
    const struct fb_task *task = fb_task_find(set->name);
    double params[FB_PARAMS_MAX] = {0.0};
    void *data = NULL;
    for (int i = 0; i < task->param_count; i++)
        params[i] = param_of(set, &task->params[i]);
    const struct fb_task_options options = {.data_dir = data_dir, .params = params};
    const enum fb_status status = task->open(task, &options, arena, &data, error);
    if (status != FB_OK)
        return status;
    for (int split = 0; split < FB_SPLIT_COUNT; split++) {
        const int64_t count = task->count(data, (enum fb_split)split);
        if (set->counts[split] > 0 && count != set->counts[split])
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s has %" PRId64 " %s examples, not %" PRId64
                                ": files are missing or of another version",
                                set->name, count, splits[split], set->counts[split]);
    }
    return FB_OK;
}

enum fb_status fb_data_check(const struct fb_data_set *set, const char *data_dir,
                             struct fb_error *error)
{
    struct fb_arena arena;
    int64_t bytes;
    const char *verb = set->unpack == FB_UNPACK_MADE ? "make" : "fetch";
    if (fb_data_set_state(set, data_dir, &bytes) != FB_DATA_COMPLETE)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s is not complete in '%s': './bench data %s %s' gets what is missing",
                            set->name, data_dir, verb, set->name);
    enum fb_status status = FB_OK;
    for (size_t i = 0; set->files[i] && status == FB_OK; i++)
        status = check_sum(set, data_dir, i, error);
    if (status != FB_OK)
        return status;
    fb_arena_init(&arena, 0);
    status = check_examples(set, data_dir, &arena, error);
    fb_arena_free(&arena);
    return status;
}
