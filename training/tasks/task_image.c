/*
 * Images read pixel by pixel, row by row, the grey value as id: CIFAR-10 made grey
 * (DIR/cifar-10-batches-bin, the first 45,000 images train, 5,000 validate) and Pathfinder
 * (DIR/pathfinder/pathfinder32_hard.bin, of which 80, 10 and 10 % train, validate and test, in
 * stored order), both as the Long Range Arena has them.
 */
#include "image_file.h"
#include "task.h"
#include "task_list.h"

#include <stdio.h>

enum {
    CIFAR_BATCHES = 5,
    CIFAR_RECORDS = 10000, /* of a batch */
    CIFAR_TRAIN = 45000,
    CIFAR_CLASSES = 10,
    PATHFINDER_CLASSES = 2
};

struct image_data {
    struct fb_images images;
    int64_t first[FB_SPLIT_COUNT], held[FB_SPLIT_COUNT];
    int classes;
};

static void set_splits(struct image_data *data, int64_t train, int64_t validation)
{
    data->held[FB_SPLIT_TRAIN] = train;
    data->held[FB_SPLIT_VALIDATION] = validation;
    data->held[FB_SPLIT_TEST] = data->images.count - train - validation;
    data->first[FB_SPLIT_VALIDATION] = train;
    data->first[FB_SPLIT_TEST] = train + validation;
}

static enum fb_status cifar_open(const struct fb_task *task, const struct fb_task_options *options,
                                 struct fb_arena *arena, void **out, struct fb_error *error)
{
    struct image_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    enum fb_status status =
        fb_images_init(&data->images, (int64_t)(CIFAR_BATCHES + 1) * CIFAR_RECORDS, arena, error);
    for (int batch = 0; batch <= CIFAR_BATCHES && status == FB_OK; batch++) {
        char relative[64];
        const char *path = NULL;
        if (batch < CIFAR_BATCHES)
            (void)snprintf(relative, sizeof relative, "cifar-10-batches-bin/data_batch_%d.bin",
                           batch + 1);
        else
            (void)snprintf(relative, sizeof relative, "cifar-10-batches-bin/test_batch.bin");
        status = fb_task_path(task, options, relative, arena, &path, error);
        if (status == FB_OK)
            status = fb_images_read(&data->images, (int64_t)batch * CIFAR_RECORDS, CIFAR_RECORDS,
                                    FB_IMAGE_COLOUR_BYTES, CIFAR_CLASSES, path, error);
    }
    data->classes = CIFAR_CLASSES;
    set_splits(data, CIFAR_TRAIN, (int64_t)CIFAR_BATCHES * CIFAR_RECORDS - CIFAR_TRAIN);
    *out = data;
    return status;
}

static enum fb_status pathfinder_open(const struct fb_task *task,
                                      const struct fb_task_options *options, struct fb_arena *arena,
                                      void **out, struct fb_error *error)
{
    const int64_t images = (int64_t)options->params[0];
    const char *path = NULL;
    struct image_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    enum fb_status status =
        fb_task_path(task, options, "pathfinder/pathfinder32_hard.bin", arena, &path, error);
    if (status == FB_OK)
        status = fb_images_init(&data->images, images, arena, error);
    if (status == FB_OK)
        status = fb_images_read(&data->images, 0, images, FB_IMAGE_GREY_BYTES, PATHFINDER_CLASSES,
                                path, error);
    data->classes = PATHFINDER_CLASSES;
    set_splits(data, images * 8 / 10, images / 10);
    *out = data;
    return status;
}

static void image_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct image_data *data = opaque;
    *shape = (struct fb_task_shape){
        .tokens = FB_IMAGE_PIXELS, .vocabulary = 256, .classes = data->classes};
}

static int64_t image_count(const void *opaque, enum fb_split split)
{
    const struct image_data *data = opaque;
    return data->held[split];
}

static void image_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                       int64_t count, const struct fb_task_batch *batch)
{
    const struct image_data *data = opaque;
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = data->first[split] + chosen[i];
        const uint8_t *pixels = data->images.pixels + index * FB_IMAGE_PIXELS;
        for (int64_t t = 0; t < FB_IMAGE_PIXELS; t++)
            batch->ids[i * FB_IMAGE_PIXELS + t] = pixels[t];
        batch->lengths[i] = FB_IMAGE_PIXELS;
        batch->targets[i] = data->images.labels[index];
    }
}

static const struct fb_param pathfinder_params[] = {
    {"images", FB_PARAM_INT, 200000.0, 10.0, 1e7, NULL, "records in the file"},
};

const struct fb_task fb_task_image = {
    .name = "image",
    .title = "Image",
    .source = "CIFAR-10 in grey, www.cs.toronto.edu/~kriz/cifar.html",
    .paper_area = "LRA",
    .paper_dataset = "Image",
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .needs_data = true,
    .open = cifar_open,
    .shape = image_shape,
    .count = image_count,
    .fill = image_fill,
};

const struct fb_task fb_task_pathfinder = {
    .name = "pathfinder",
    .title = "Pathfinder",
    .source = "generated by the original generator's rules",
    .paper_area = "LRA",
    .paper_dataset = "Pathfinder",
    .made = true,
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .needs_data = true,
    .params = pathfinder_params,
    .param_count = sizeof pathfinder_params / sizeof pathfinder_params[0],
    .open = pathfinder_open,
    .shape = image_shape,
    .count = image_count,
    .fill = image_fill,
};
