/*
 * One case of an accuracy suite: a model trained on a task by a recipe, evaluated on the way,
 * selected, scored. Every batch follows from the seed and the step alone, so a fit that was stopped
 * and goes on from its checkpoint ends with the same bits.
 */
#ifndef FB_FIT_H
#define FB_FIT_H

#include "nn_cuda.h"
#include "recipe.h"

/* One evaluation of the split that the recipe selects on. */
struct fb_fit_point {
    int trial;
    int64_t step;
    double epoch; /* passes over the training split so far */
    double
        train_loss; /* mean over the steps since the last evaluation; NaN before the first step */
    double loss, metric;
    double elapsed_s; /* of the whole fit, interruptions left out */
};

struct fb_fit_options {
    const struct fb_task *task;
    const void *data; /* opened */
    const struct fb_recipe *recipe;
    struct fb_graph_attention attention; /* causal as the task says */
    uint64_t seed;                       /* weights, dropout, order of the examples */
    int threads;
    enum fb_backend backend;
    enum fb_nn_precision precision; /* FB_CUDA only */
    const char *checkpoint;         /* path; NULL: none is written or read */
    double checkpoint_every_s;
    /* Asked after every step; true stops the fit with a checkpoint. NULL: never. */
    bool (*should_stop)(void *context);
    void (*on_point)(void *context, const struct fb_fit_point *point); /* NULL: nobody listens */
    void *context;
};

struct fb_fit_result {
    bool stopped;        /* by should_stop: nothing below is final */
    const char *warning; /* NULL: none; a checkpoint that could not be used */
    const char *split;   /* that evaluations were made on: "validation" or "test" */
    struct fb_fit_point *points;
    size_t points_count;
    double metric;      /* the result, on the test split; selected as the recipe says */
    double metric_last; /* on the test split after the last step of the selected trial */
    double metric_best; /* the best evaluation on `split` */
    int64_t selected_step;
    int selected_trial;
    double lr;            /* of the selected trial, the base of its schedule */
    int64_t plateau_step; /* of the selected trial: the first of two successive evaluations beyond
                             the plateau; -1: never, or none is known */
    int64_t steps;        /* of one trial */
    int64_t parameters;
    double train_s, elapsed_s;
    double steps_per_s;   /* of the steps after the first of each process */
    int64_t resumed_step; /* the checkpoint's that this process went on from; 0: from the start */
    unsigned char
        *correct; /* per test example 1 or 0 at the selected evaluation; NULL: perplexity */
    int64_t correct_count;
};

/* Everything of the result lives in the arena. FB_ERROR_INPUT when the loss is not finite: the text
 * names step, parameter and the last good checkpoint. */
enum fb_status fb_fit(const struct fb_fit_options *options, struct fb_arena *arena,
                      struct fb_fit_result *result, struct fb_error *error) FB_MUST_CHECK;

/* What a fit will take, without running it. */
struct fb_fit_cost {
    int64_t steps, evaluations, parameters;
    double flop, bytes; /* of arithmetic and of memory traffic, all steps and evaluations */
    size_t memory_bytes;
};
enum fb_status fb_fit_predict(const struct fb_fit_options *options, struct fb_fit_cost *cost,
                              struct fb_error *error) FB_MUST_CHECK;

#endif
