/*
 * Text read byte by byte, as the Long Range Arena has it: the sentiment of IMDb reviews (the first
 * 1000 bytes; DIR/aclImdb) and whether two papers are related (the first 4000 bytes of each;
 * DIR/aan/new_aan_pairs.{train,eval,test}.tsv). The reviews have no validation split of their own.
 */
#include "documents.h"
#include "task.h"
#include "task_list.h"

/* Of the training reviews, where a validation split is cut. */
#define VALIDATION_SHARE 0.1

struct text_data {
    int64_t tokens;
    struct fb_documents splits[FB_SPLIT_COUNT]; /* as stored */
    struct fb_task_cut cut;                     /* of the training reviews */
    bool is_cut;
};

static struct text_data *new_data(const struct fb_task_options *options, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct text_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (data)
        data->tokens = (int64_t)options->params[0];
    return data;
}

static enum fb_status reviews_open(const struct fb_task *task,
                                   const struct fb_task_options *options, struct fb_arena *arena,
                                   void **out, struct fb_error *error)
{
    static const char *const folders[FB_SPLIT_COUNT] = {
        [FB_SPLIT_TRAIN] = "aclImdb/train", [FB_SPLIT_TEST] = "aclImdb/test"};
    struct text_data *data = new_data(options, arena, error);
    enum fb_status status = data ? FB_OK : FB_ERROR_MEMORY;
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        const char *path = NULL;
        if (!folders[split])
            continue;
        status = fb_task_path(task, options, folders[split], arena, &path, error);
        if (status == FB_OK)
            status = fb_reviews_read(&data->splits[split], path, data->tokens, arena, error);
    }
    if (status != FB_OK)
        return status;
    const struct fb_documents *train = &data->splits[FB_SPLIT_TRAIN];
    data->is_cut = true;
    *out = data;
    return fb_task_cut(&data->cut, train->count, train->labels, 2,
                       options->cut_validation ? VALIDATION_SHARE : 0.0, options->data_seed, arena,
                       error);
}

static enum fb_status pairs_open(const struct fb_task *task, const struct fb_task_options *options,
                                 struct fb_arena *arena, void **out, struct fb_error *error)
{
    static const char *const files[FB_SPLIT_COUNT] = {
        [FB_SPLIT_TRAIN] = "aan/new_aan_pairs.train.tsv",
        [FB_SPLIT_VALIDATION] = "aan/new_aan_pairs.eval.tsv",
        [FB_SPLIT_TEST] = "aan/new_aan_pairs.test.tsv"};
    struct text_data *data = new_data(options, arena, error);
    enum fb_status status = data ? FB_OK : FB_ERROR_MEMORY;
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        const char *path = NULL;
        status = fb_task_path(task, options, files[split], arena, &path, error);
        if (status == FB_OK)
            status = fb_pairs_read(&data->splits[split], path, data->tokens, arena, error);
    }
    *out = data;
    return status;
}

static void reviews_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct text_data *data = opaque;
    *shape = (struct fb_task_shape){
        .tokens = data->tokens, .vocabulary = FB_BYTE_VOCABULARY, .classes = 2};
}

static void pairs_shape(const void *opaque, struct fb_task_shape *shape)
{
    reviews_shape(opaque, shape);
    shape->pairs = true;
}

static int64_t text_count(const void *opaque, enum fb_split split)
{
    const struct text_data *data = opaque;
    if (!data->is_cut || split == FB_SPLIT_TEST)
        return data->splits[split].count;
    return split == FB_SPLIT_TRAIN ? data->cut.train_count : data->cut.validation_count;
}

static void text_fill(const void *opaque, enum fb_split split, const int64_t *chosen, int64_t count,
                      const struct fb_task_batch *batch)
{
    const struct text_data *data = opaque;
    const bool cut = data->is_cut && split != FB_SPLIT_TEST;
    const struct fb_documents *set = &data->splits[cut ? FB_SPLIT_TRAIN : split];
    const int64_t *map = !cut                      ? NULL
                         : split == FB_SPLIT_TRAIN ? data->cut.train
                                                   : data->cut.validation;
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = map ? map[chosen[i]] : chosen[i];
        fb_documents_fill(set, index, data->tokens, batch->ids + i * set->each * data->tokens,
                          batch->lengths + i * set->each);
        batch->targets[i] = set->labels[index];
    }
}

static const struct fb_param reviews_params[] = {
    {"length", FB_PARAM_INT, 1000.0, 16.0, 16384.0, NULL, "bytes read of a review"},
};

static const struct fb_param pairs_params[] = {
    {"length", FB_PARAM_INT, 4000.0, 16.0, 10000.0, NULL, "bytes read of each paper"},
};

const struct fb_task fb_task_text = {
    .name = "text",
    .title = "Text",
    .source = "IMDb reviews, ai.stanford.edu/~amaas/data/sentiment",
    .paper_area = "LRA",
    .paper_dataset = "Text",
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .needs_data = true,
    .params = reviews_params,
    .param_count = 1,
    .open = reviews_open,
    .shape = reviews_shape,
    .count = text_count,
    .fill = text_fill,
};

const struct fb_task fb_task_retrieval = {
    .name = "retrieval",
    .title = "Retrieval",
    .source = "AAN pairs of the Long Range Arena's release",
    .paper_area = "LRA",
    .paper_dataset = "Retrieval",
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .needs_data = true,
    .params = pairs_params,
    .param_count = 1,
    .open = pairs_open,
    .shape = pairs_shape,
    .count = text_count,
    .fill = text_fill,
};
