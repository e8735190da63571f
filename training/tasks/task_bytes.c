/*
 * Random bytes of a given length with random labels, read as the Text task reads reviews: examples
 * whose only use is the time that a training step on them takes. Nothing can be learnt.
 */
#include "random.h"
#include "task.h"
#include "task_list.h"

#define BYTES_STREAM UINT64_C(0x62797465)

enum { LENGTH, EXAMPLES, PARAM_COUNT, VOCABULARY = 257, CLASSES = 2, HELD_SHARE = 32 };

struct bytes_data {
    int64_t length, held[FB_SPLIT_COUNT];
    uint64_t seed;
};

static const struct fb_param bytes_params[PARAM_COUNT] = {
    [LENGTH] = {"length", FB_PARAM_INT, 1000.0, 1.0, 65536.0, NULL, "bytes of an example"},
    [EXAMPLES] = {"examples", FB_PARAM_INT, 1024.0, 1.0, 1e6, NULL,
                  "to train on; a 32nd of that, at least one, to validate and to test on"},
};

static enum fb_status bytes_open(const struct fb_task *task, const struct fb_task_options *options,
                                 struct fb_arena *arena, void **out, struct fb_error *error)
{
    struct bytes_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    (void)task;
    if (!data)
        return FB_ERROR_MEMORY;
    const int64_t examples = (int64_t)options->params[EXAMPLES];
    const int64_t held = examples < HELD_SHARE ? 1 : examples / HELD_SHARE;
    *data = (struct bytes_data){
        .length = (int64_t)options->params[LENGTH],
        .held = {[FB_SPLIT_TRAIN] = examples, [FB_SPLIT_VALIDATION] = held, [FB_SPLIT_TEST] = held},
        .seed = options->data_seed};
    *out = data;
    return FB_OK;
}

static void bytes_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct bytes_data *data = opaque;
    *shape = (struct fb_task_shape){
        .tokens = data->length, .vocabulary = VOCABULARY, .classes = CLASSES};
}

static int64_t bytes_count(const void *opaque, enum fb_split split)
{
    const struct bytes_data *data = opaque;
    return data->held[split];
}

/* Drawn anew whenever they are asked for: a random number holds eight bytes. */
static void bytes_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                       int64_t count, const struct fb_task_batch *batch)
{
    const struct bytes_data *data = opaque;
    for (int64_t i = 0; i < count; i++) {
        struct fb_random random;
        int32_t *ids = batch->ids + i * data->length;
        fb_random_init(&random, data->seed,
                       (BYTES_STREAM << 32) + ((uint64_t)split << 28) + (uint64_t)chosen[i]);
        for (int64_t t = 0; t < data->length; t += 8) {
            uint64_t word = fb_random_next(&random);
            for (int64_t j = t; j < data->length && j < t + 8; j++, word >>= 8)
                ids[j] = 1 + (int32_t)(word & 0xff); /* 0 is padding */
        }
        batch->lengths[i] = data->length;
        batch->targets[i] = (int32_t)fb_random_below(&random, CLASSES);
    }
}

const struct fb_task fb_task_bytes = {
    .name = "bytes",
    .title = "Bytes",
    .source = "generated: random bytes, for times alone",
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .times_only = true,
    .params = bytes_params,
    .param_count = PARAM_COUNT,
    .open = bytes_open,
    .shape = bytes_shape,
    .count = bytes_count,
    .fill = bytes_fill,
};
