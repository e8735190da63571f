/* The batches of a fit: which examples, in which order, and the score of a whole split. */
#ifndef FB_FIT_BATCH_H
#define FB_FIT_BATCH_H

#include "fit.h"
#include "random.h"
#include "trainer.h"

struct fb_fit_batch {
    const struct fb_fit_options *options;
    struct fb_trainer *trainer;
    struct fb_task_shape shape;
    struct fb_task_batch buffers;
    float *row_mask;
    int64_t *kv_lengths; /* of the sequences as attention sees them: with the CLS token */
    int64_t sequences;   /* of a full batch */
    int64_t target_rows; /* of one example */
    int64_t train_count, steps_per_epoch;
    int64_t *chosen;
    int64_t *order; /* of the training examples, in epoch order_epoch */
    int64_t order_epoch;
    int64_t *window; /* numbers of the batches that the next one is drawn from; NULL: none are */
    int64_t window_step;
    struct fb_random window_random;
    int32_t *targets[2]; /* of the batch at hand and the one before it, in turns */
    int turn;
    int64_t loaded_step; /* whose training batch the buffers hold; -1: none */
};

struct fb_fit_score {
    double loss; /* mean over the scored rows */
    double metric;
    int64_t examples;
};

/* Allocates from the arena and hooks the buffers to the trainer's run. */
enum fb_status fb_fit_batch_init(struct fb_fit_batch *batch, const struct fb_fit_options *options,
                                 struct fb_trainer *trainer, int input, struct fb_arena *arena,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Loads the training batch of a step, counted from 0, unless the buffers hold it. */
void fb_fit_batch_load(struct fb_fit_batch *batch, int64_t step);

/* Scores a whole split. correct (NULL: not wanted) gets 1 or 0 per example; accuracy only. */
enum fb_status fb_fit_batch_score(struct fb_fit_batch *batch, enum fb_split split,
                                  unsigned char *correct, struct fb_fit_score *score,
                                  struct fb_error *error) FB_MUST_CHECK;

/* Steps of one epoch over that many examples. */
int64_t fb_fit_steps_per_epoch(const struct fb_recipe *recipe, int64_t examples);

#endif
