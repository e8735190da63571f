/*
 * Adding two numbers of `digits` digits, as the released code's toy task has it: the sequence is
 * a, b and the reversed sum, digit by digit; the model reads all but its last token and predicts
 * the next one. The first 2 digits - 1 targets lie inside a and b and are not scored. An example is
 * right when every digit of its sum is: greedy decoding gives the same verdict, since it goes wrong
 * at the first wrong digit.
 *
 * All 10^(2 digits) pairs are permuted by the data seed; the first min(a fifth, 500) are the test
 * split, as many again are held out where a validation split is wanted, the others train.
 */
#include "nn_loss.h"
#include "task.h"
#include "task_list.h"

#define ADDER_STREAM 0x616464U

enum { DIGITS, PARAM_COUNT, TEST_MOST = 500 };

struct adder_data {
    int64_t digits, base, pairs; /* base: 10^digits */
    int64_t held[FB_SPLIT_COUNT], first[FB_SPLIT_COUNT];
    int64_t *order;
};

static const struct fb_param adder_params[PARAM_COUNT] = {
    [DIGITS] = {"digits", FB_PARAM_INT, 2.0, 1.0, 3.0, NULL, "digits of each of the two numbers"},
};

static enum fb_status adder_open(const struct fb_task *task, const struct fb_task_options *options,
                                 struct fb_arena *arena, void **out, struct fb_error *error)
{
    struct adder_data *data = fb_arena_alloc(arena, 1, sizeof *data, error);
    (void)task;
    if (!data)
        return FB_ERROR_MEMORY;
    data->digits = (int64_t)options->params[DIGITS];
    data->base = 1;
    for (int64_t i = 0; i < data->digits; i++)
        data->base *= 10;
    data->pairs = data->base * data->base;
    const int64_t fifth = data->pairs / 5, most = fifth < TEST_MOST ? fifth : TEST_MOST;
    data->held[FB_SPLIT_TEST] = most;
    data->held[FB_SPLIT_VALIDATION] = options->cut_validation ? most : 0;
    data->first[FB_SPLIT_VALIDATION] = most;
    data->first[FB_SPLIT_TRAIN] = most + data->held[FB_SPLIT_VALIDATION];
    data->held[FB_SPLIT_TRAIN] = data->pairs - data->first[FB_SPLIT_TRAIN];
    data->order = fb_task_permutation(data->pairs, options->data_seed, ADDER_STREAM, arena, error);
    *out = data;
    return data->order ? FB_OK : FB_ERROR_MEMORY;
}

static void adder_shape(const void *opaque, struct fb_task_shape *shape)
{
    const struct adder_data *data = opaque;
    *shape = (struct fb_task_shape){.tokens = 3 * data->digits, .vocabulary = 10, .classes = 10};
}

static int64_t adder_count(const void *opaque, enum fb_split split)
{
    const struct adder_data *data = opaque;
    return data->held[split];
}

/* a, b and the reversed sum: 3 digits + 1 tokens. */
static void write_sequence(const struct adder_data *data, int64_t pair, int32_t *sequence)
{
    int64_t a = pair / data->base, b = pair % data->base, sum = a + b;
    for (int64_t i = data->digits - 1; i >= 0; i--, a /= 10, b /= 10) {
        sequence[i] = (int32_t)(a % 10);
        sequence[data->digits + i] = (int32_t)(b % 10);
    }
    for (int64_t i = 0; i <= data->digits; i++, sum /= 10)
        sequence[2 * data->digits + i] = (int32_t)(sum % 10);
}

static void adder_fill(const void *opaque, enum fb_split split, const int64_t *chosen,
                       int64_t count, const struct fb_task_batch *batch)
{
    const struct adder_data *data = opaque;
    const int64_t tokens = 3 * data->digits, silent = 2 * data->digits - 1;
    int32_t sequence[16] = {0};
    for (int64_t i = 0; i < count; i++) {
        write_sequence(data, data->order[data->first[split] + chosen[i]], sequence);
        for (int64_t t = 0; t < tokens; t++) {
            batch->ids[i * tokens + t] = sequence[t];
            batch->targets[i * tokens + t] = t < silent ? FB_NN_IGNORED : sequence[t + 1];
        }
        batch->lengths[i] = tokens;
    }
}

const struct fb_task fb_task_adder = {
    .name = "adder",
    .title = "Adder",
    .source = "generated: every pair of numbers",
    .family = FB_FAMILY_LANGUAGE,
    .metric = FB_METRIC_ACCURACY,
    .causal = true,
    .params = adder_params,
    .param_count = PARAM_COUNT,
    .open = adder_open,
    .shape = adder_shape,
    .count = adder_count,
    .fill = adder_fill,
};
