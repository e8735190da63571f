/*
 * Recipes: how a task is trained. Model, optimiser, schedule, length and selection, as data.
 *
 * same: one recipe for every mechanism, the released one of Flow-Attention for this task; padding
 * seen by all alike; selected on a validation split, the test split scored once.
 * paper: what the released code did, per mechanism, its selection on the test split included.
 * tuned: `same` with four learning rates for each mechanism, the best taken on validation.
 */
#ifndef FB_RECIPE_H
#define FB_RECIPE_H

#include "models.h"
#include "nn_optimiser.h"
#include "task.h"

enum fb_recipe_kind { FB_RECIPE_SAME, FB_RECIPE_PAPER, FB_RECIPE_TUNED, FB_RECIPE_COUNT };
enum fb_recipe_size { FB_RECIPE_FULL, FB_RECIPE_SMALL, FB_RECIPE_SIZE_COUNT };

enum { FB_RECIPE_TRIALS_MAX = 4 };

struct fb_recipe {
    /* the model */
    int64_t d_model, qkv_dim, d_ff, heads, layers;
    enum fb_model_pooling pooling;
    bool learned_positions;
    double dropout;
    bool mask_padding; /* attention does not see keys that are padding */
    /* training */
    struct fb_nn_optimiser optimiser;
    struct fb_nn_schedule schedule;
    double clip_norm;
    int64_t batch;
    int64_t epochs, steps;                   /* of training: the one that is not 0, or that ends
                                                first */
    int64_t evaluate_epochs, evaluate_steps; /* between evaluations: likewise */
    bool drop_partial;                       /* the last batch of an epoch, where not full */
    bool replacement;                        /* examples are drawn uniformly, with replacement */
    /* Not 0: batches are formed first, of neighbours in stored order and across the ends of epochs,
     * then drawn from the next so many of them. 0: the examples of an epoch are shuffled. */
    int64_t batch_window;
    /* judging */
    bool best_on_test; /* the best evaluation on the test split is the result */
    double plateau;    /* metric above which the plateau is left; 0: none is known */
    int trials;        /* learning rates tried */
    double lr_factors[FB_RECIPE_TRIALS_MAX];
};

const char *fb_recipe_kind_name(enum fb_recipe_kind kind); /* "same" */
const char *fb_recipe_size_name(enum fb_recipe_size size); /* "full", "small" */

/* The recipe of a task for a mechanism. FB_ERROR_UNSUPPORTED when there is none: a task without a
 * recipe, or `paper` for a mechanism that the paper's table of the task lacks. */
enum fb_status fb_recipe_find(const struct fb_task *task, enum fb_recipe_kind kind,
                              enum fb_recipe_size size, const struct fb_mechanism *mechanism,
                              struct fb_recipe *recipe, struct fb_error *error) FB_MUST_CHECK;

/* Another length of training than the recipe's, where epochs or steps are not 0; of both, whichever
 * ends first. The schedule stays the recipe's: it is of steps, not of shares of a run. `paper` may
 * be shortened; more than was released is FB_ERROR_UNSUPPORTED. */
enum fb_status fb_recipe_set_length(struct fb_recipe *recipe, enum fb_recipe_kind kind,
                                    int64_t epochs, int64_t steps,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Recipe `paper`: parameters at their defaults become those of the released code of the task. */
void fb_recipe_set_paper_params(const struct fb_task *task, const struct fb_mechanism *mechanism,
                                double params[FB_PARAMS_MAX]);

/* Adds the task's model to an initialised graph; returns its logits, or -1 (fb_graph_finish tells).
 * *input: the values that a time series is read from, -1 in the other families. */
int fb_recipe_build(const struct fb_recipe *recipe, const struct fb_task *task,
                    const struct fb_task_shape *shape, const struct fb_graph_attention *attention,
                    struct fb_graph *graph, int *input);

#endif
