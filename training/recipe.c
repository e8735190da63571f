/* Recipes and the models that they describe: see recipe.h. The numbers are those of the released
 * configurations of Flowformer's tasks. */
#include "recipe.h"

#include <inttypes.h>
#include <string.h>

enum {
    ROWS_SERIES,
    ROWS_ADDER,
    ROWS_CHARACTERS,
    ROWS_WORDS,
    ROWS_LISTOPS,
    ROWS_TEXT,
    ROWS_RETRIEVAL,
    ROWS_IMAGE,
    ROWS_PATHFINDER,
    ROWS_COUNT
};

#define TORCH_ADAM(wd)                                                                             \
    {                                                                                              \
        FB_NN_ADAM, 0.9, 0.95, 1e-8, (wd)                                                          \
    }
#define FLAX_ADAM(wd)                                                                              \
    {                                                                                              \
        FB_NN_ADAM, 0.9, 0.98, 1e-9, (wd)                                                          \
    }
#define ONE_TRIAL .trials = 1, .lr_factors = {1.0}

/* clang-format off */
static const struct fb_recipe rows[ROWS_COUNT] = {
    [ROWS_SERIES] = {512, 512, 2048, 8, 2, FB_POOL_FIRST, true, 0.1, false,
        {FB_NN_RADAM, 0.9, 0.999, 1e-8, 0.0}, {FB_NN_CONSTANT, 1e-3, 0.0, 0, 0}, 4.0,
        16, 100, 0, 2, 0, false, false, 0, true, 0.0, ONE_TRIAL},
    /* the released run has no end; the adder is learnt by then */
    [ROWS_ADDER] = {48, 48, 192, 3, 3, FB_POOL_FIRST, true, 0.1, false,
        TORCH_ADAM(0.1), {FB_NN_CONSTANT, 5e-4, 0.0, 0, 0}, 1.0,
        64, 0, 5000, 0, 500, false, true, 0, true, 0.25, ONE_TRIAL},
    [ROWS_CHARACTERS] = {192, 192, 768, 6, 6, FB_POOL_FIRST, true, 0.1, false,
        TORCH_ADAM(0.1), {FB_NN_CONSTANT, 5e-4, 0.0, 0, 0}, 1.0,
        64, 0, 5000, 0, 500, false, true, 0, true, 0.0, ONE_TRIAL},
    /* the released optimiser; its model (tied embeddings, ReLU, sinusoids) is not ours */
    [ROWS_WORDS] = {512, 512, 2048, 8, 6, FB_POOL_FIRST, true, 0.1, false,
        {FB_NN_ADAM_RAW_EPS, 0.9, 0.98, 1e-8, 0.01}, {FB_NN_INVERSE_SQRT, 1e-3, 1e-7, 6000, 0},
        0.0, 4, 0, 150000, 0, 1000, false, false, 0, true, 0.0, ONE_TRIAL},
    [ROWS_LISTOPS] = {512, 512, 1024, 2, 1, FB_POOL_CLS, false, 0.1, false,
        FLAX_ADAM(0.1), {FB_NN_RSQRT, 0.005, 0.0, 1000, 0}, 0.0,
        32, 0, 5000, 0, 50, false, false, 0, true, 0.25, ONE_TRIAL},
    [ROWS_TEXT] = {256, 256, 1024, 4, 1, FB_POOL_CLS, false, 0.1, false,
        FLAX_ADAM(0.1), {FB_NN_RSQRT, 0.005, 0.0, 8000, 0}, 0.0,
        32, 0, 20000, 0, 100, false, false, 0, true, 0.0, ONE_TRIAL},
    [ROWS_RETRIEVAL] = {128, 128, 512, 4, 4, FB_POOL_FIRST, false, 0.1, false,
        FLAX_ADAM(0.1), {FB_NN_RSQRT, 0.05, 0.0, 8000, 0}, 0.0,
        32, 0, 5000, 0, 100, true, false, 0, true, 0.0, ONE_TRIAL},
    [ROWS_IMAGE] = {128, 64, 128, 4, 1, FB_POOL_CLS, true, 0.3, false,
        FLAX_ADAM(0.0), {FB_NN_COSINE, 5e-4, 0.0, 175, 35000}, 0.0,
        256, 0, 35000, 0, 175, true, false, 0, false, 0.0, ONE_TRIAL},
    [ROWS_PATHFINDER] = {256, 128, 256, 8, 1, FB_POOL_MEAN, false, 0.2, false,
        FLAX_ADAM(0.0), {FB_NN_COSINE, 1e-4, 0.0, 312, 62400}, 0.0,
        512, 0, 62400, 0, 312, true, false, 0, false, 0.0, ONE_TRIAL},
};

/* Where the long-range benchmark's own configuration of a mechanism differs from Flowformer's. */
struct baseline {
    int row;
    const char *mechanism;
    int64_t layers, d_model, qkv_dim, d_ff, heads;
    enum fb_model_pooling pooling;
    double dropout, lr;
};
static const struct baseline baselines[] = {
    {ROWS_IMAGE, "softmax",   1, 128, 64, 128, 8, FB_POOL_CLS, 0.3, 5e-4},
    {ROWS_IMAGE, "linear",    1, 128, 64, 128, 8, FB_POOL_CLS, 0.3, 5e-4},
    {ROWS_IMAGE, "performer", 1, 128, 64, 128, 8, FB_POOL_CLS, 0.3, 5e-4},
    {ROWS_IMAGE, "local",     1, 128, 64, 128, 2, FB_POOL_MEAN, 0.3, 5e-4},
    {ROWS_PATHFINDER, "softmax",   4, 32, 16, 32, 4, FB_POOL_MEAN, 0.2, 1e-3},
    {ROWS_PATHFINDER, "linear",    1, 128, 64, 128, 2, FB_POOL_MEAN, 0.2, 1e-3},
    {ROWS_PATHFINDER, "performer", 4, 32, 16, 32, 8, FB_POOL_MEAN, 0.2, 1e-3},
    {ROWS_PATHFINDER, "local",     2, 64, 32, 64, 4, FB_POOL_MEAN, 0.1, 1e-3},
    {ROWS_LISTOPS, NULL,   4, 512, 512, 1024, 8, FB_POOL_CLS, 0.1, 0.05},
    {ROWS_TEXT, NULL,      4, 256, 256, 1024, 4, FB_POOL_CLS, 0.1, 0.05},
    {ROWS_RETRIEVAL, NULL, 4, 128, 128, 512, 4, FB_POOL_FIRST, 0.1, 0.05},
};

/* Parameters that the released code of a task gives a mechanism. */
struct paper_param {
    const char *area, *dataset, *mechanism, *param; /* dataset NULL: all of the area */
    double value;
};
static const struct paper_param paper_params[] = {
    {"UEA", NULL, "flow", "clamp", 0.0},
    {"LRA", NULL, "flow", "phi", 1.0},         /* relu */
    {"LRA", NULL, "flow", "clamp", 0.0},
    {"LRA", NULL, "flow", "competition", 1.0}, /* over heads */
    {"LRA", "ListOps", "performer", "features", 2.0},
    {"LRA", "Text", "performer", "kernel", 1.0}, /* relu */
    {"LRA", "Retrieval", "performer", "kernel", 1.0},
    {"LRA", "Image", "performer", "kernel", 1.0},
    {"LRA", "Pathfinder", "performer", "kernel", 1.0},
    {"LRA", NULL, "local", "pattern", 1.0}, /* strided */
    {"LRA", "ListOps", "local", "block", 50.0},
    {"LRA", "Text", "local", "block", 50.0},
    {"LRA", "Retrieval", "local", "block", 50.0},
};
/* clang-format on */

const char *fb_recipe_kind_name(enum fb_recipe_kind kind)
{
    static const char *const names[FB_RECIPE_COUNT] = {
        [FB_RECIPE_SAME] = "same", [FB_RECIPE_PAPER] = "paper", [FB_RECIPE_TUNED] = "tuned"};
    return names[kind];
}

const char *fb_recipe_size_name(enum fb_recipe_size size)
{
    static const char *const names[FB_RECIPE_SIZE_COUNT] = {
        [FB_RECIPE_FULL] = "full", [FB_RECIPE_SMALL] = "small"};
    return names[size];
}

static bool is_named(const char *text, const char *name)
{
    return text && strcmp(text, name) == 0;
}

/* -1: there is no recipe for the task. */
static int row_of(const struct fb_task *task)
{
    static const struct {
        const char *dataset;
        int row;
    } long_range[] = {{"ListOps", ROWS_LISTOPS},
                      {"Text", ROWS_TEXT},
                      {"Retrieval", ROWS_RETRIEVAL},
                      {"Image", ROWS_IMAGE},
                      {"Pathfinder", ROWS_PATHFINDER}};
    if (task->times_only)
        return ROWS_TEXT;
    if (task->family == FB_FAMILY_SERIES)
        return ROWS_SERIES;
    if (task->family == FB_FAMILY_LANGUAGE)
        return task->metric == FB_METRIC_ACCURACY ? ROWS_ADDER
               : task->paper_area                 ? ROWS_WORDS
                                                  : ROWS_CHARACTERS;
    for (size_t i = 0; i < sizeof long_range / sizeof long_range[0]; i++)
        if (is_named(task->paper_dataset, long_range[i].dataset))
            return long_range[i].row;
    return -1;
}

/* ---- recipe `paper` -------------------------------------------------------------------------- */

/* Mechanisms of ours that the paper's table of an area has a row of. */
static bool paper_has(const struct fb_task *task, const struct fb_mechanism *mechanism)
{
    const bool series = task->family == FB_FAMILY_SERIES;
    const bool local = strcmp(mechanism->name, "local") == 0;
    return is_named(task->paper_area, "LRA") || (series && !local) ||
           strcmp(mechanism->name, "flow") == 0;
}

static void apply_baseline(int row, const struct fb_mechanism *mechanism, struct fb_recipe *recipe)
{
    for (size_t i = 0; i < sizeof baselines / sizeof baselines[0]; i++) {
        const struct baseline *b = &baselines[i];
        if (b->row != row || (b->mechanism && strcmp(b->mechanism, mechanism->name) != 0))
            continue;
        recipe->layers = b->layers;
        recipe->d_model = b->d_model;
        recipe->qkv_dim = b->qkv_dim;
        recipe->d_ff = b->d_ff;
        recipe->heads = b->heads;
        recipe->pooling = b->pooling;
        recipe->dropout = b->dropout;
        recipe->schedule.base = b->lr;
        return;
    }
}

static enum fb_status as_in_paper(const struct fb_task *task, int row,
                                  const struct fb_mechanism *mechanism, struct fb_recipe *recipe,
                                  struct fb_error *error)
{
    if (row == ROWS_WORDS)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "recipe paper: the released language model of %s (fairseq, tied "
                            "embeddings) is not among ours; use recipe same or tuned",
                            task->name);
    if (!paper_has(task, mechanism))
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "the paper has no %s on %s: recipe paper has nothing to repeat; use "
                            "recipe same or tuned",
                            mechanism->name, task->name);
    /* these two input pipelines batch before they shuffle, whatever the mechanism */
    if (row == ROWS_IMAGE)
        recipe->batch_window = 256;
    if (row == ROWS_PATHFINDER)
        recipe->batch_window = 2048;
    if (strcmp(mechanism->name, "flow") != 0)
        apply_baseline(row, mechanism, recipe);
    recipe->mask_padding =
        strcmp(mechanism->name, "softmax") == 0 && task->family != FB_FAMILY_LANGUAGE;
    if (is_named(task->paper_dataset, "PEMS-SF"))
        recipe->epochs = 400;
    if (is_named(task->paper_dataset, "SpokenArabicDigits"))
        recipe->optimiser.kind = FB_NN_ADAM;
    return FB_OK;
}

void fb_recipe_set_paper_params(const struct fb_task *task, const struct fb_mechanism *mechanism,
                                double params[FB_PARAMS_MAX])
{
    for (size_t i = 0; i < sizeof paper_params / sizeof paper_params[0]; i++) {
        const struct paper_param *p = &paper_params[i];
        const int index =
            strcmp(p->mechanism, mechanism->name) == 0 ? fb_param_index(mechanism, p->param) : -1;
        if (index < 0 || !is_named(task->paper_area, p->area) ||
            (p->dataset && !is_named(task->paper_dataset, p->dataset)))
            continue;
        const double standard = mechanism->params[index].default_value;
        if (!(params[index] < standard) && !(params[index] > standard))
            params[index] = p->value;
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* A model for seconds instead of minutes. */
static void shrink(const struct fb_task *task, struct fb_recipe *recipe)
{
    const bool series = task->family == FB_FAMILY_SERIES;
    recipe->d_model = recipe->qkv_dim = series ? 64 : 32;
    recipe->d_ff = 2 * recipe->d_model;
    recipe->heads = series ? 4 : 2;
    recipe->layers = series ? 2 : 1;
}

enum fb_status fb_recipe_find(const struct fb_task *task, enum fb_recipe_kind kind,
                              enum fb_recipe_size size, const struct fb_mechanism *mechanism,
                              struct fb_recipe *recipe, struct fb_error *error)
{
    static const double factors[FB_RECIPE_TRIALS_MAX] = {0.1, 0.3, 1.0, 3.0};
    const int row = row_of(task);
    enum fb_status status = FB_OK;
    if (row < 0)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED, "there is no recipe for the task %s",
                            task->name);
    *recipe = rows[row];
    if (kind == FB_RECIPE_PAPER) {
        status = as_in_paper(task, row, mechanism, recipe, error);
    } else {
        recipe->best_on_test = false;
        if (row ==
            ROWS_LISTOPS) /* 2000 trees: every 50 steps they would take a third of the time */
            recipe->evaluate_steps = 200;
    }
    if (kind == FB_RECIPE_TUNED) {
        recipe->trials = FB_RECIPE_TRIALS_MAX;
        memcpy(recipe->lr_factors, factors, sizeof factors);
    }
    if (size == FB_RECIPE_SMALL)
        shrink(task, recipe);
    /* of a CLS token's last block one row is computed: that would time no attention */
    if (task->times_only)
        recipe->pooling = FB_POOL_MEAN;
    return status;
}

static enum fb_status refuse_longer(const char *what, int64_t wanted, int64_t released,
                                    struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                        "recipe paper: the released code trained for %" PRId64 " %s, so %" PRId64
                        " would be another protocol: leave %s out, or use recipe same or tuned",
                        released, what, wanted, what);
}

enum fb_status fb_recipe_set_length(struct fb_recipe *recipe, enum fb_recipe_kind kind,
                                    int64_t epochs, int64_t steps, struct fb_error *error)
{
    if (epochs == 0 && steps == 0)
        return FB_OK;
    if (kind != FB_RECIPE_PAPER) {
        recipe->epochs = epochs;
        recipe->steps = steps;
        return FB_OK;
    }
    if (recipe->epochs > 0 && epochs > recipe->epochs)
        return refuse_longer("epochs", epochs, recipe->epochs, error);
    if (recipe->steps > 0 && steps > recipe->steps)
        return refuse_longer("steps", steps, recipe->steps, error);
    recipe->epochs = epochs > 0 ? epochs : recipe->epochs;
    recipe->steps = steps > 0 ? steps : recipe->steps;
    return FB_OK;
}

int fb_recipe_build(const struct fb_recipe *r, const struct fb_task *task,
                    const struct fb_task_shape *shape, const struct fb_graph_attention *attention,
                    struct fb_graph *graph, int *input)
{
    *input = -1;
    if (task->family == FB_FAMILY_SERIES) {
        const struct fb_model_series m = {
            r->batch, shape->tokens, shape->features, shape->classes, r->d_model,
            r->heads, r->d_ff,       r->layers,       r->dropout,     attention};
        return fb_model_series_build(graph, &m, input);
    }
    if (task->family == FB_FAMILY_LANGUAGE) {
        const struct fb_model_language m = {r->batch, shape->tokens, shape->vocabulary, r->d_model,
                                            r->heads, r->layers,     r->dropout,        attention};
        return fb_model_language_build(graph, &m);
    }
    const struct fb_model_encoder m = {.batch = r->batch,
                                       .tokens = shape->tokens,
                                       .vocabulary = shape->vocabulary,
                                       .classes = shape->classes,
                                       .d_model = r->d_model,
                                       .qkv_dim = r->qkv_dim,
                                       .d_ff = r->d_ff,
                                       .heads = r->heads,
                                       .layers = r->layers,
                                       .pooling = r->pooling,
                                       .learned_positions = r->learned_positions,
                                       .pairs = shape->pairs,
                                       .dropout = r->dropout,
                                       .attention = attention};
    return fb_model_encoder_build(graph, &m);
}
