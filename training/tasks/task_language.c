/*
 * Language models. Characters of tiny Shakespeare (DIR/tiny-shakespeare/input.txt): the last tenth
 * is the test split, the tenth before it validates where that is wanted; a training example starts
 * at any character. Words of WikiText (DIR/wikitext-{2,103}/wiki.{train,valid,test}.tokens) in
 * blocks, as fairseq trains on them.
 *
 * Scoring: windows of `context` tokens of which the last `scored` count, so that every token of a
 * split is scored once, after up to context - scored tokens of its past.
 */
#include "data_file.h"
#include "nn_loss.h"
#include "task.h"
#include "task_list.h"
#include "word_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CONTEXT, SCORED, PARAM_COUNT };

struct language_data {
    int64_t context, scored, vocabulary;
    struct fb_word_stream splits[FB_SPLIT_COUNT];
    int32_t first;  /* what comes before the first token of a stream; -1: the first token itself */
    bool any_start; /* training examples start at any token, not only at multiples of context */
};

static enum fb_status set_windows(struct language_data *data, const struct fb_task *task,
                                  const struct fb_task_options *options, struct fb_error *error)
{
    data->context = (int64_t)options->params[CONTEXT];
    data->scored = (int64_t)options->params[SCORED];
    if (data->scored > data->context)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "task %s: scored %" PRId64 " is more than context %" PRId64
                            ": a window scores at most all of its tokens",
                            task->name, data->scored, data->context);
    return FB_OK;
}

static enum fb_status check_length(const struct language_data *data, const struct fb_task *task,
                                   struct fb_error *error)
{
    for (int split = 0; split < FB_SPLIT_COUNT; split++)
        if (split != FB_SPLIT_VALIDATION && data->splits[split].count <= data->context)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "task %s: a split has %" PRId64 " tokens, no more than one context "
                                "of %" PRId64 ": the text is truncated",
                                task->name, data->splits[split].count, data->context);
    return FB_OK;
}

/* ---- characters ---------------------------------------------------------------------------- */

/* Ids of the text's distinct bytes, in their order. */
static int32_t *number_bytes(const struct fb_data_file *file, int64_t *vocabulary,
                             struct fb_arena *arena, struct fb_error *error)
{
    int32_t ids_of[256] = {0};
    int32_t *ids = fb_arena_alloc(arena, (size_t)file->size + 1, sizeof *ids, error);
    *vocabulary = 0;
    for (int64_t i = 0; i < file->size && ids; i++)
        ids_of[(unsigned char)file->bytes[i]] = 1;
    for (int byte = 0; byte < 256; byte++)
        if (ids_of[byte])
            ids_of[byte] = (int32_t)(*vocabulary)++;
    for (int64_t i = 0; i < file->size && ids; i++)
        ids[i] = ids_of[(unsigned char)file->bytes[i]];
    return ids;
}

static enum fb_status characters_open(const struct fb_task *task,
                                      const struct fb_task_options *options, struct fb_arena *arena,
                                      void **out, struct fb_error *error)
{
    const char *path = NULL;
    struct fb_data_file file;
    struct language_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    enum fb_status status = set_windows(data, task, options, error);
    if (status == FB_OK)
        status = fb_task_path(task, options, "tiny-shakespeare/input.txt", arena, &path, error);
    if (status == FB_OK)
        status = fb_data_file_read(&file, path, arena, error);
    if (status != FB_OK)
        return status;
    int32_t *ids = number_bytes(&file, &data->vocabulary, arena, error);
    if (!ids)
        return FB_ERROR_MEMORY;
    const int64_t tenth = file.size / 10, held = options->cut_validation ? tenth : 0;
    const int64_t train = file.size - tenth - held;
    data->splits[FB_SPLIT_TRAIN] = (struct fb_word_stream){train, ids};
    data->splits[FB_SPLIT_VALIDATION] = (struct fb_word_stream){held, ids + train};
    data->splits[FB_SPLIT_TEST] = (struct fb_word_stream){tenth, ids + train + held};
    data->first = -1;
    data->any_start = true;
    *out = data;
    return check_length(data, task, error);
}

/* ---- words --------------------------------------------------------------------------------- */

static enum fb_status words_open(const struct fb_task *task, const struct fb_task_options *options,
                                 struct fb_arena *arena, void **out, struct fb_error *error)
{
    static const char *const names[FB_SPLIT_COUNT] = {
        [FB_SPLIT_TRAIN] = "train", [FB_SPLIT_VALIDATION] = "valid", [FB_SPLIT_TEST] = "test"};
    struct fb_words *words = NULL;
    struct language_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    if (!data)
        return FB_ERROR_MEMORY;
    enum fb_status status = set_windows(data, task, options, error);
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        char relative[64];
        const char *path = NULL;
        (void)snprintf(relative, sizeof relative, "%s/wiki.%s.tokens", task->name, names[split]);
        status = fb_task_path(task, options, relative, arena, &path, error);
        if (status == FB_OK && split == FB_SPLIT_TRAIN) {
            words = fb_words_read(path, arena, error);
            status = words ? FB_OK : error->code;
        }
        if (status == FB_OK)
            status = fb_word_stream_read(&data->splits[split], words, path, arena, error);
    }
    if (status != FB_OK)
        return status;
    data->vocabulary = fb_words_count(words);
    data->first = FB_WORD_END;
    *out = data;
    return check_length(data, task, error);
}

/* ---- examples ------------------------------------------------------------------------------ */

static void language_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct language_data *data = opaque;
    *shape = (struct fb_task_shape){
        .tokens = data->context, .vocabulary = data->vocabulary, .classes = data->vocabulary};
}

/* Tokens that are predicted: all, or all but the first where nothing comes before it. */
static int64_t predicted(const struct language_data *data, enum fb_split split)
{
    const int64_t count = data->splits[split].count;
    return data->first >= 0 || count == 0 ? count : count - 1;
}

static int64_t language_count(const void *opaque, enum fb_split split)
{
    const struct language_data *data = opaque;
    const int64_t count = predicted(data, split);
    if (split == FB_SPLIT_TRAIN)
        return data->any_start ? count - data->context + 1
                               : (count + data->context - 1) / data->context;
    return (count + data->scored - 1) / data->scored;
}

/* Targets from .. from + length - 1 of a split with their inputs, the first `silent` unscored. */
static void fill_window(const struct language_data *data, const struct fb_word_stream *stream,
                        int64_t from, int64_t length, int64_t silent, int32_t *ids,
                        int32_t *targets)
{
    const int32_t *words = stream->ids + (data->first >= 0 ? 0 : 1);
    for (int64_t t = 0; t < data->context; t++) {
        const int64_t at = from + t;
        const bool real = t < length;
        ids[t] = !real ? 0 : data->first >= 0 && at == 0 ? data->first : words[at - 1];
        targets[t] = real && t >= silent ? words[at] : FB_NN_IGNORED;
    }
}

static void language_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                          int64_t count, const struct fb_task_batch *batch)
{
    const struct language_data *data = opaque;
    const int64_t all = predicted(data, split), past = data->context - data->scored;
    for (int64_t i = 0; i < count; i++) {
        int64_t from, length, silent = 0;
        if (split == FB_SPLIT_TRAIN) {
            from = chosen[i] * (data->any_start ? 1 : data->context);
            length = all - from < data->context ? all - from : data->context;
        } else {
            const int64_t scored = chosen[i] * data->scored;
            silent = scored < past ? scored : past;
            from = scored - silent;
            length = silent + (all - scored < data->scored ? all - scored : data->scored);
        }
        fill_window(data, &data->splits[split], from, length, silent,
                    batch->ids + i * data->context, batch->targets + i * data->context);
        batch->lengths[i] = length;
    }
}

static const struct fb_param characters_params[PARAM_COUNT] = {
    [CONTEXT] = {"context", FB_PARAM_INT, 128.0, 8.0, 65536.0, NULL, "tokens of a window"},
    [SCORED] = {"scored", FB_PARAM_INT, 128.0, 1.0, 65536.0, NULL,
                "tokens of a window that are scored outside of training"},
};

static const struct fb_param words_params[PARAM_COUNT] = {
    [CONTEXT] = {"context", FB_PARAM_INT, 512.0, 8.0, 65536.0, NULL, "tokens of a window"},
    [SCORED] = {"scored", FB_PARAM_INT, 112.0, 1.0, 65536.0, NULL,
                "tokens of a window that are scored outside of training"},
};

const struct fb_task fb_task_characters = {
    .name = "tiny-shakespeare",
    .title = "Tiny Shakespeare",
    .source = "karpathy/char-rnn on GitHub",
    .family = FB_FAMILY_LANGUAGE,
    .metric = FB_METRIC_PERPLEXITY,
    .causal = true,
    .needs_data = true,
    .params = characters_params,
    .param_count = PARAM_COUNT,
    .open = characters_open,
    .shape = language_shape,
    .count = language_count,
    .fill = language_fill,
};

/* The name is also that of the folder. */
#define WIKITEXT(id, head, area, dataset)                                                          \
    {                                                                                              \
        .name = (id), .title = (head), .source = "Merity et al. 2017", .paper_area = (area),       \
        .paper_dataset = (dataset), .family = FB_FAMILY_LANGUAGE, .metric = FB_METRIC_PERPLEXITY,  \
        .causal = true, .needs_data = true, .params = words_params, .param_count = PARAM_COUNT,    \
        .open = words_open, .shape = language_shape, .count = language_count,                      \
        .fill = language_fill                                                                      \
    }

const struct fb_task fb_task_wikitext[FB_TASK_WIKITEXT_COUNT] = {
    WIKITEXT("wikitext-103", "WikiText-103", "WikiText-103", "WikiText-103"),
    WIKITEXT("wikitext-2", "WikiText-2", NULL, NULL),
};
