/*
 * ListOps of the Long Range Arena: the value of a nested expression, one token per digit, operator
 * and bracket. Drawn anew from the data seed, distinct and in a random order, or read from
 * DIR/listops/basic_{train,val,test}.tsv in the benchmark's own form.
 *
 * Drawn, the test split has 20,000 trees, ten times the benchmark's, for intervals a third as wide.
 */
#include "listops_file.h"
#include "task.h"
#include "task_list.h"

enum { LENGTH, TRAIN, VALIDATION, TEST, FROM, PARAM_COUNT };
enum { FROM_GENERATED, FROM_FILES };

static const char *const sources[] = {"generated", "files", NULL};

static const struct fb_param listops_params[PARAM_COUNT] = {
    [LENGTH] = {"length", FB_PARAM_INT, 2000.0, 16.0, 2000.0, NULL,
                "tokens read of a tree; longer ones are cut"},
    [TRAIN] = {"train", FB_PARAM_INT, 96000.0, 10.0, 1e6, NULL, "generated training trees"},
    [VALIDATION] = {"validation", FB_PARAM_INT, 2000.0, 10.0, 1e6, NULL,
                    "generated validation trees"},
    [TEST] = {"test", FB_PARAM_INT, 20000.0, 10.0, 1e6, NULL, "generated test trees"},
    [FROM] = {"from", FB_PARAM_CHOICE, FROM_GENERATED, FROM_GENERATED, FROM_FILES, sources,
              "draw the trees, or read them from the data folder"},
};

struct listops_data {
    int64_t length;
    struct fb_listops_examples splits[FB_SPLIT_COUNT];
};

static enum fb_status read_splits(const struct fb_task *task, const struct fb_task_options *options,
                                  struct listops_data *data, struct fb_arena *arena,
                                  struct fb_error *error)
{
    static const char *const files[FB_SPLIT_COUNT] = {[FB_SPLIT_TRAIN] = "listops/basic_train.tsv",
                                                      [FB_SPLIT_VALIDATION] =
                                                          "listops/basic_val.tsv",
                                                      [FB_SPLIT_TEST] = "listops/basic_test.tsv"};
    enum fb_status status = FB_OK;
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        const char *path = NULL;
        status = fb_task_path(task, options, files[split], arena, &path, error);
        if (status == FB_OK)
            status = fb_listops_read(&data->splits[split], path, arena, error);
    }
    return status;
}

/* One split of the chosen trees, drawn again into one block. */
static enum fb_status draw_split(struct fb_listops_examples *examples, const uint64_t *streams,
                                 int64_t count, uint64_t seed, struct fb_arena *arena,
                                 struct fb_error *error)
{
    uint8_t drawn[FB_LISTOPS_LENGTH_MAX];
    int64_t *starts = fb_arena_alloc(arena, (size_t)count + 1, sizeof *starts, error);
    uint8_t *targets = starts ? fb_arena_alloc(arena, (size_t)count, 1, error) : NULL;
    if (!targets)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < count; i++)
        starts[i + 1] = starts[i] + fb_listops_redraw(seed, streams[i], drawn);
    /* Room for a whole tree behind the last, since drawing may write that far. */
    uint8_t *tokens =
        fb_arena_alloc(arena, (size_t)starts[count] + FB_LISTOPS_LENGTH_MAX, 1, error);
    if (!tokens)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        int value = 0;
        const int length = fb_listops_redraw(seed, streams[i], tokens + starts[i]);
        if (!fb_listops_evaluate(tokens + starts[i], length, &value))
            return fb_error_set(error, FB_ERROR_INTERNAL, "a drawn ListOps tree has no value");
        targets[i] = (uint8_t)value;
    }
    *examples = (struct fb_listops_examples){count, starts, tokens, targets};
    return FB_OK;
}

static enum fb_status draw_splits(const struct fb_task_options *options, struct listops_data *data,
                                  struct fb_arena *arena, struct fb_error *error)
{
    const int64_t counts[FB_SPLIT_COUNT] = {[FB_SPLIT_TRAIN] = (int64_t)options->params[TRAIN],
                                            [FB_SPLIT_VALIDATION] =
                                                (int64_t)options->params[VALIDATION],
                                            [FB_SPLIT_TEST] = (int64_t)options->params[TEST]};
    const uint64_t *streams =
        fb_listops_choose(counts[0] + counts[1] + counts[2], options->data_seed, arena, error);
    enum fb_status status = streams ? FB_OK : FB_ERROR_MEMORY;
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        status = draw_split(&data->splits[split], streams, counts[split], options->data_seed, arena,
                            error);
        streams += counts[split];
    }
    return status;
}

static enum fb_status listops_open(const struct fb_task *task,
                                   const struct fb_task_options *options, struct fb_arena *arena,
                                   void **out, struct fb_error *error)
{
    struct listops_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    data->length = (int64_t)options->params[LENGTH];
    *out = data;
    return (int)options->params[FROM] == FROM_FILES ? read_splits(task, options, data, arena, error)
                                                    : draw_splits(options, data, arena, error);
}

static void listops_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct listops_data *data = opaque;
    *shape = (struct fb_task_shape){
        .tokens = data->length, .vocabulary = FB_LISTOPS_VOCABULARY, .classes = 10};
}

static int64_t listops_count(const void *opaque, enum fb_split split)
{
    const struct listops_data *data = opaque;
    return data->splits[split].count;
}

static void listops_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                         int64_t count, const struct fb_task_batch *batch)
{
    const struct listops_data *data = opaque;
    const struct fb_listops_examples *examples = &data->splits[split];
    for (int64_t i = 0; i < count; i++) {
        const int64_t start = examples->starts[chosen[i]];
        const int64_t whole = examples->starts[chosen[i] + 1] - start;
        const int64_t length = whole < data->length ? whole : data->length;
        int32_t *ids = batch->ids + i * data->length;
        for (int64_t t = 0; t < data->length; t++)
            ids[t] = t < length ? examples->tokens[start + t] : 0;
        batch->lengths[i] = length;
        batch->targets[i] = examples->targets[chosen[i]];
    }
}

const struct fb_task fb_task_listops = {
    .name = "listops",
    .title = "ListOps",
    .source = "generated by the Long Range Arena's rules",
    .paper_area = "LRA",
    .paper_dataset = "ListOps",
    .made = true,
    .family = FB_FAMILY_ENCODER,
    .metric = FB_METRIC_ACCURACY,
    .params = listops_params,
    .param_count = PARAM_COUNT,
    .open = listops_open,
    .shape = listops_shape,
    .count = listops_count,
    .fill = listops_fill,
};
