/*
 * Time-series classification on the ten UEA sets of the Flowformer paper (spec of the released
 * code): DIR/uea/NAME/NAME_TRAIN.ts and NAME_TEST.ts, standardised with the statistics of the
 * training file, all series cut or padded to the longest of the training file.
 */
#include "series_file.h"
#include "task.h"
#include "task_list.h"

#include <inttypes.h>
#include <stdio.h>

/* Of the training series, where a validation split is cut. */
#define VALIDATION_SHARE 0.2

struct series_data {
    struct fb_series_set train, test;
    struct fb_task_cut cut;
};

static enum fb_status read_split(const struct fb_task *task, const struct fb_task_options *options,
                                 const char *split, const struct fb_series_set *classes_of,
                                 struct fb_series_set *set, struct fb_arena *arena,
                                 struct fb_error *error)
{
    char relative[128];
    const char *path = NULL;
    snprintf(relative, sizeof relative, "uea/%s/%s_%s.ts", task->name, task->name, split);
    const enum fb_status status = fb_task_path(task, options, relative, arena, &path, error);
    return status == FB_OK ? fb_series_read(set, path, classes_of, arena, error) : status;
}

static enum fb_status cut_train(struct series_data *data, const struct fb_task_options *options,
                                struct fb_arena *arena, struct fb_error *error)
{
    int32_t *labels = fb_arena_alloc(arena, (size_t)data->train.count, sizeof *labels, error);
    if (!labels)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < data->train.count; i++)
        labels[i] = data->train.series[i].label;
    const double share = options->cut_validation ? VALIDATION_SHARE : 0.0;
    return fb_task_cut(&data->cut, data->train.count, labels, data->train.class_count, share,
                       options->data_seed, arena, error);
}

static enum fb_status series_open(const struct fb_task *task, const struct fb_task_options *options,
                                  struct fb_arena *arena, void **out, struct fb_error *error)
{
    struct series_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    enum fb_status status = read_split(task, options, "TRAIN", NULL, &data->train, arena, error);
    if (status == FB_OK)
        status = read_split(task, options, "TEST", &data->train, &data->test, arena, error);
    if (status == FB_OK && data->train.class_count < 2)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "task %s: the training file has a single class, '%.40s': there is "
                              "nothing to learn; './bench data check %s' names the file's checksum",
                              task->name, data->train.classes[0], task->name);
    if (status == FB_OK)
        status = fb_series_standardise(&data->train, &data->test, error);
    if (status == FB_OK)
        status = cut_train(data, options, arena, error);
    *out = data;
    return status;
}

static void series_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct series_data *data = opaque;
    *shape = (struct fb_task_shape){.tokens = data->train.longest,
                                    .features = data->train.dimensions,
                                    .classes = data->train.class_count};
}

static int64_t series_count(const void *opaque, enum fb_split split)
{
    const struct series_data *data = opaque;
    return split == FB_SPLIT_TRAIN        ? data->cut.train_count
           : split == FB_SPLIT_VALIDATION ? data->cut.validation_count
                                          : data->test.count;
}

static void series_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                        int64_t count, const struct fb_task_batch *batch)
{
    const struct series_data *data = opaque;
    const int64_t step = data->train.longest * data->train.dimensions;
    const int64_t *map = split == FB_SPLIT_TRAIN        ? data->cut.train
                         : split == FB_SPLIT_VALIDATION ? data->cut.validation
                                                        : NULL;
    const struct fb_series_set *set = map ? &data->train : &data->test;
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = map ? map[chosen[i]] : chosen[i];
        fb_series_fill(set, index, data->train.longest, batch->values + i * step,
                       &batch->lengths[i]);
        batch->targets[i] = set->series[index].label;
    }
}

/* The archive's names are the names of the files and of the paper's table. */
#define SERIES(id)                                                                                 \
    {                                                                                              \
        .name = (id), .title = (id), .source = "UEA archive, www.timeseriesclassification.com",    \
        .paper_area = "UEA", .paper_dataset = (id), .family = FB_FAMILY_SERIES,                    \
        .metric = FB_METRIC_ACCURACY, .needs_data = true, .open = series_open,                     \
        .shape = series_shape, .count = series_count, .fill = series_fill                          \
    }

const struct fb_task fb_task_series[FB_TASK_SERIES_COUNT] = {
    SERIES("EthanolConcentration"), SERIES("FaceDetection"),
    SERIES("Handwriting"),          SERIES("Heartbeat"),
    SERIES("JapaneseVowels"),       SERIES("PEMS-SF"),
    SERIES("SelfRegulationSCP1"),   SERIES("SelfRegulationSCP2"),
    SERIES("SpokenArabicDigits"),   SERIES("UWaveGestureLibrary"),
};
