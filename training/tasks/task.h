/*
 * A task: data that a model is trained and scored on. One static object per task; the table of
 * task_list.c holds them all, and suites and commands find them there.
 *
 * Data are opened once per case, live in the caller's arena and are the same for every mechanism:
 * they depend on the folder, the parameters and `data_seed` alone, never on the seed of a run.
 */
#ifndef FB_TASK_H
#define FB_TASK_H

#include "arena.h"
#include "attention.h"

enum fb_split { FB_SPLIT_TRAIN, FB_SPLIT_VALIDATION, FB_SPLIT_TEST, FB_SPLIT_COUNT };

enum fb_task_metric {
    FB_METRIC_ACCURACY,  /* share of examples whose every scored row is predicted right */
    FB_METRIC_PERPLEXITY /* exp of the mean cross-entropy over the scored rows */
};

/* The model that a task is learnt with (models.h). */
enum fb_task_family { FB_FAMILY_SERIES, FB_FAMILY_ENCODER, FB_FAMILY_LANGUAGE };

/* What the harness opens data with: published numbers of one suite are all of the same data. */
#define FB_TASK_DATA_SEED UINT64_C(1)

struct fb_task_options {
    const char *data_dir; /* NULL: none was named; tasks that generate their data need none */
    uint64_t data_seed;   /* of generated data and of the cut below */
    const double *params; /* in the order of the task's table */
    /* Hold a validation split out of the training data where the task's own data have none; without
     * it such a task has an empty one (the released code then validates on the test split). */
    bool cut_validation;
};

struct fb_task_shape {
    int64_t tokens;     /* of one sequence; longer examples are cut, shorter ones padded */
    int64_t features;   /* FB_FAMILY_SERIES: values per time step, else 0 */
    int64_t vocabulary; /* the other families: ids are 0 .. vocabulary-1, else 0 */
    int64_t classes;    /* width of the logits: the vocabulary for FB_FAMILY_LANGUAGE */
    bool pairs;         /* an example is two sequences, next to each other in the batch */
};

/* Examples as a model reads them, in the caller's buffers. A sequence is one document: `count`
 * examples have count sequences, 2 count with `pairs`. */
struct fb_task_batch {
    float *values;    /* [sequences, tokens, features]; FB_FAMILY_SERIES only, padding 0 */
    int32_t *ids;     /* [sequences, tokens]; the other families, padding 0 */
    int64_t *lengths; /* [sequences]: tokens that are not padding, 1 .. tokens */
    int32_t *targets; /* classifiers [count], language [count, tokens]; FB_NN_IGNORED: not scored */
};

struct fb_task {
    const char *name;       /* as in suites: "listops", "JapaneseVowels" */
    const char *title;      /* as in tables */
    const char *source;     /* where the data come from, in words */
    const char *paper_area; /* of the paper's tables ("LRA", "UEA"), or NULL when it has none */
    const char *paper_dataset;
    enum fb_task_family family;
    enum fb_task_metric metric;
    bool causal;     /* tokens see only earlier ones */
    bool needs_data; /* reads files below data_dir; otherwise it generates all it needs */
    bool times_only; /* nothing can be learnt: its metric belongs into no table */
    bool made;       /* the files are made by `data make`, not fetched */
    const struct fb_param *params;
    int param_count;

    /* Reads or generates everything. Errors name file, line and the next step; a folder that is not
     * there is FB_ERROR_IO with how to get it (fb_task_missing). */
    enum fb_status (*open)(const struct fb_task *task, const struct fb_task_options *options,
                           struct fb_arena *arena, void **data, struct fb_error *error);
    void (*shape)(const void *data, struct fb_task_shape *shape);
    int64_t (*count)(const void *data, enum fb_split split); /* examples */
    /* Writes `count` examples of a split, chosen by index, into the batch. Pure: equal choices give
     * equal bytes, in any order and from any number of threads. */
    void (*fill)(const void *data, enum fb_split split, const int64_t *chosen, int64_t count,
                 const struct fb_task_batch *batch);
};

/* The table of every task. */
size_t fb_task_count(void);
const struct fb_task *fb_task_at(size_t index);
const struct fb_task *fb_task_find(const char *name); /* NULL when there is none */

/* ---- for task files -------------------------------------------------------------------------- */

/* data_dir/relative in the arena. FB_ERROR_IO with how to get the data when no folder was named or
 * the file is not there. */
enum fb_status fb_task_path(const struct fb_task *task, const struct fb_task_options *options,
                            const char *relative, struct fb_arena *arena, const char **path,
                            struct fb_error *error) FB_MUST_CHECK;

/* A seeded permutation of 0 .. count-1 in the arena; NULL with the error filled. */
int64_t *fb_task_permutation(int64_t count, uint64_t seed, uint64_t stream, struct fb_arena *arena,
                             struct fb_error *error);

/* Which example of the stored training data an index of a split means, when validation is cut from
 * it; both lists are in stored order. */
struct fb_task_cut {
    int64_t *train, *validation; /* indices into the stored training data */
    int64_t train_count, validation_count;
};

/* Holds out a share of the stored examples, seeded: of every class its share (labels NULL: of all),
 * rounded, and at least one example of each class stays in the training split. A share of 0 holds
 * out nothing. */
enum fb_status fb_task_cut(struct fb_task_cut *cut, int64_t count, const int32_t *labels,
                           int32_t classes, double share, uint64_t seed, struct fb_arena *arena,
                           struct fb_error *error) FB_MUST_CHECK;

#endif
