/* Batches and scores: see fit_batch.h. */
#include "fit_batch.h"

#include "nn_loss.h"

#include <math.h>
#include <string.h>

/* Streams of a run's seed: examples with replacement, batches from their window, and the order of
 * each epoch. */
#define DRAW_STREAM   0x64726177U
#define WINDOW_STREAM 0x77696e64U
#define ORDER_STREAM  ((uint64_t)1 << 40)

int64_t fb_fit_steps_per_epoch(const struct fb_recipe *recipe, int64_t examples)
{
    const int64_t whole = examples / recipe->batch;
    const bool partial = examples % recipe->batch != 0 && (!recipe->drop_partial || whole == 0);
    return whole + partial;
}

enum fb_status fb_fit_batch_init(struct fb_fit_batch *b, const struct fb_fit_options *o,
                                 struct fb_trainer *trainer, int input, struct fb_arena *arena,
                                 struct fb_error *error)
{
    const struct fb_recipe *r = o->recipe;
    *b = (struct fb_fit_batch){
        .options = o, .trainer = trainer, .order_epoch = -1, .loaded_step = -1};
    o->task->shape(o->data, &b->shape);
    b->sequences = b->shape.pairs ? 2 * r->batch : r->batch;
    b->target_rows = o->task->family == FB_FAMILY_LANGUAGE ? b->shape.tokens : 1;
    b->train_count = o->task->count(o->data, FB_SPLIT_TRAIN);
    b->steps_per_epoch = fb_fit_steps_per_epoch(r, b->train_count);
    const size_t tokens = (size_t)(b->sequences * b->shape.tokens);
    const size_t targets = (size_t)(r->batch * b->target_rows);
    b->row_mask = fb_arena_alloc(arena, tokens, sizeof *b->row_mask, error);
    b->buffers.ids = fb_arena_alloc(arena, tokens, sizeof *b->buffers.ids, error);
    b->buffers.lengths =
        fb_arena_alloc(arena, (size_t)b->sequences, sizeof *b->buffers.lengths, error);
    b->kv_lengths = fb_arena_alloc(arena, (size_t)b->sequences, sizeof *b->kv_lengths, error);
    for (int i = 0; i < 2; i++)
        b->targets[i] = fb_arena_alloc(arena, targets, sizeof *b->targets[i], error);
    b->chosen = fb_arena_alloc(arena, (size_t)r->batch, sizeof *b->chosen, error);
    b->order = fb_arena_alloc(arena, (size_t)b->train_count + 1, sizeof *b->order, error);
    if (!b->row_mask || !b->buffers.ids || !b->buffers.lengths || !b->targets[0] ||
        !b->targets[1] || !b->kv_lengths || !b->chosen || !b->order)
        return FB_ERROR_MEMORY;
    if (input >= 0)
        b->buffers.values = fb_graph_run_values(&trainer->run, input);
    trainer->run.ids = b->buffers.ids;
    trainer->run.row_mask = b->row_mask;
    trainer->run.lengths = b->kv_lengths;
    if (r->batch_window == 0)
        return FB_OK;
    b->window = fb_arena_alloc(arena, (size_t)r->batch_window, sizeof *b->window, error);
    b->window_step = -1;
    return b->window ? FB_OK : FB_ERROR_MEMORY;
}

/* The examples chosen[0 .. count-1]; the rest of the batch repeats the last one and is not scored.
 */
static void load(struct fb_fit_batch *b, enum fb_split split, int64_t count)
{
    const struct fb_fit_options *o = b->options;
    const int64_t batch = o->recipe->batch, tokens = b->shape.tokens;
    for (int64_t i = count; i < batch; i++)
        b->chosen[i] = b->chosen[count - 1];
    b->turn = 1 - b->turn;
    b->buffers.targets = b->targets[b->turn];
    b->trainer->targets = b->buffers.targets;
    o->task->fill(o->data, split, b->chosen, batch, &b->buffers);
    for (int64_t i = count * b->target_rows; i < batch * b->target_rows; i++)
        b->buffers.targets[i] = FB_NN_IGNORED;
    const bool cls = o->task->family == FB_FAMILY_ENCODER && o->recipe->pooling == FB_POOL_CLS;
    for (int64_t s = 0; s < b->sequences; s++) {
        b->kv_lengths[s] = b->buffers.lengths[s] + cls;
        for (int64_t t = 0; t < tokens; t++)
            b->row_mask[s * tokens + t] = t < b->buffers.lengths[s] ? 1.0F : 0.0F;
    }
}

static void shuffle(struct fb_fit_batch *b, int64_t epoch)
{
    struct fb_random random;
    if (b->order_epoch == epoch)
        return;
    b->order_epoch = epoch;
    fb_random_init(&random, b->options->seed, ORDER_STREAM + (uint64_t)epoch);
    for (int64_t i = 0; i < b->train_count; i++) {
        const int64_t j = (int64_t)fb_random_below(&random, (uint64_t)i + 1);
        b->order[i] = b->order[j];
        b->order[j] = i;
    }
}

/* The number of a step's batch. A draw depends on all draws before it, so a run that goes on from a
 * checkpoint repeats them. */
static int64_t draw_batch(struct fb_fit_batch *b, int64_t step)
{
    const int64_t window = b->options->recipe->batch_window;
    int64_t drawn = 0;
    if (b->window_step < 0 || step < b->window_step) {
        fb_random_init(&b->window_random, b->options->seed, WINDOW_STREAM);
        for (int64_t i = 0; i < window; i++)
            b->window[i] = i;
        b->window_step = 0;
    }
    for (; b->window_step <= step; b->window_step++) {
        const int64_t j = (int64_t)fb_random_below(&b->window_random, (uint64_t)window);
        drawn = b->window[j];
        b->window[j] = window + b->window_step;
    }
    return drawn;
}

void fb_fit_batch_load(struct fb_fit_batch *b, int64_t step)
{
    const struct fb_recipe *r = b->options->recipe;
    int64_t count = r->batch;
    if (b->loaded_step == step)
        return;
    if (r->replacement) {
        struct fb_random random;
        fb_random_init(&random, b->options->seed ^ DRAW_STREAM, (uint64_t)step);
        for (int64_t i = 0; i < count; i++)
            b->chosen[i] = (int64_t)fb_random_below(&random, (uint64_t)b->train_count);
    } else if (b->window) {
        const int64_t first = draw_batch(b, step) * count;
        for (int64_t i = 0; i < count; i++)
            b->chosen[i] = (first + i) % b->train_count;
    } else {
        const int64_t first = step % b->steps_per_epoch * r->batch;
        count = count < b->train_count - first ? count : b->train_count - first;
        shuffle(b, step / b->steps_per_epoch);
        memcpy(b->chosen, b->order + first, (size_t)count * sizeof *b->chosen);
    }
    load(b, FB_SPLIT_TRAIN, count);
    b->loaded_step = step;
}

/* An evaluation under way. */
struct scoring {
    unsigned char *correct;
    int64_t right, scored;
    double sum;
    /* the batch that was started last, count 0: none */
    const int32_t *targets;
    int64_t first, count;
};

/* Whether every scored row of an example is predicted right. */
static bool is_right(const struct fb_fit_batch *b, const int32_t *targets, const float *logits,
                     int64_t example)
{
    for (int64_t r = example * b->target_rows; r < (example + 1) * b->target_rows; r++)
        if (targets[r] != FB_NN_IGNORED &&
            fb_nn_argmax(logits + r * b->shape.classes, b->shape.classes) != targets[r])
            return false;
    return true;
}

static int64_t count_scored(const struct fb_fit_batch *b, const int32_t *targets)
{
    int64_t scored = 0;
    for (int64_t r = 0; r < b->options->recipe->batch * b->target_rows; r++)
        scored += targets[r] != FB_NN_IGNORED;
    return scored;
}

static enum fb_status settle(const struct fb_fit_batch *b, struct scoring *s,
                             struct fb_error *error)
{
    const float *logits = NULL;
    double loss = 0.0;
    if (s->count == 0)
        return FB_OK;
    const enum fb_status status =
        fb_trainer_finish_evaluation(b->trainer, s->targets, &loss, &logits, error);
    if (status != FB_OK)
        return status;
    const int64_t rows = count_scored(b, s->targets);
    s->sum += loss * (double)rows;
    s->scored += rows;
    for (int64_t i = 0; i < s->count; i++) {
        const bool one = is_right(b, s->targets, logits, i);
        s->right += one;
        if (s->correct)
            s->correct[s->first + i] = one;
    }
    s->count = 0;
    return FB_OK;
}

/* Each batch is loaded and started before the one before it is settled. */
static enum fb_status score_batches(struct fb_fit_batch *b, enum fb_split split, int64_t examples,
                                    struct scoring *s, struct fb_error *error)
{
    const int64_t batch = b->options->recipe->batch;
    for (int64_t first = 0; first < examples; first += batch) {
        const int64_t count = batch < examples - first ? batch : examples - first;
        for (int64_t i = 0; i < count; i++)
            b->chosen[i] = first + i;
        load(b, split, count);
        enum fb_status status = fb_trainer_start_evaluation(b->trainer, error);
        if (status == FB_OK)
            status = settle(b, s, error);
        if (status != FB_OK)
            return status;
        s->targets = b->buffers.targets;
        s->first = first;
        s->count = count;
    }
    return settle(b, s, error);
}

enum fb_status fb_fit_batch_score(struct fb_fit_batch *b, enum fb_split split,
                                  unsigned char *correct, struct fb_fit_score *score,
                                  struct fb_error *error)
{
    const struct fb_fit_options *o = b->options;
    const int64_t examples = o->task->count(o->data, split);
    struct scoring s = {.right = 0};
    s.correct = correct;
    b->loaded_step = -1;
    const enum fb_status status = score_batches(b, split, examples, &s, error);
    if (status != FB_OK)
        return status;
    score->examples = examples;
    score->loss = s.scored > 0 ? s.sum / (double)s.scored : (double)NAN;
    score->metric = o->task->metric == FB_METRIC_PERPLEXITY ? exp(score->loss)
                    : examples > 0                          ? (double)s.right / (double)examples
                                                            : (double)NAN;
    return FB_OK;
}
