/*
 * The factors of an experiment: what tells one case from another. One table lists them; suites,
 * --filter, results and case ids all follow it.
 */
#ifndef FB_FACTOR_H
#define FB_FACTOR_H

#include "suite.h"

#include <stdbool.h>

enum fb_factor_key {
    FB_FACTOR_MECHANISM,
    FB_FACTOR_VARIANT,
    FB_FACTOR_DEVICE,
    FB_FACTOR_ISA,
    FB_FACTOR_THREADS,
    FB_FACTOR_DTYPE,
    FB_FACTOR_LAYOUT,
    FB_FACTOR_CAUSAL,
    FB_FACTOR_PASS,
    FB_FACTOR_BATCH,
    FB_FACTOR_HEADS,
    FB_FACTOR_SEQ_LEN,
    FB_FACTOR_KV_LEN,
    FB_FACTOR_HEAD_DIM,
    FB_FACTOR_VALUE_DIM,
    FB_FACTOR_SEED,
    FB_FACTOR_KV_HEADS,
    FB_FACTOR_LENGTHS,
    FB_FACTOR_TASK,
    FB_FACTOR_RECIPE,
    FB_FACTOR_MODEL,
    FB_FACTOR_EPOCHS,
    FB_FACTOR_STEPS,
    FB_FACTOR_BATCH_SIZE,
    FB_FACTOR_PRECISION,
    FB_FACTOR_COUNT
};

enum fb_factor_type {
    FB_FACTOR_NAME,   /* mechanism, variant or task: a name of a registry */
    FB_FACTOR_CHOICE, /* one of a few words */
    FB_FACTOR_BOOL,
    FB_FACTOR_NUMBER
};

enum { FB_FACTOR_CHOICES_MAX = 8 };

struct fb_factor {
    const char *name;
    enum fb_factor_type type;
    int64_t min, max;    /* of a number; of a choice: the enum values allowed */
    const char *special; /* a word beside the numbers or choices ("max", "best"), or NULL */
    int64_t special_value;
    bool ordered;  /* '<' and '>' mean something */
    bool training; /* of suites of kind: training only */
    bool younger;  /* not in the first version: absent means its default, which is what that did */
    const char *(*choice_name)(int value);
};

const struct fb_factor *fb_factor_at(enum fb_factor_key key);
/* Index into the table, or -1. */
int fb_factor_find(const char *name);
/* Names of all factors, in table order; FB_FACTOR_COUNT of them. */
const char *const *fb_factor_names(void);

/* The words that a choice (or a special value) may be; returns their number. */
size_t fb_factor_choices(const struct fb_factor *factor, const char *names[FB_FACTOR_CHOICES_MAX],
                         int64_t values[FB_FACTOR_CHOICES_MAX]);

/* A factor's value as a number: enum values, 0 and 1, sizes. Not for names. */
int64_t fb_factor_get(const struct fb_factors *factors, enum fb_factor_key key);
void fb_factor_set(struct fb_factors *factors, enum fb_factor_key key, int64_t value);

/* Whether the factor stays out of the identity of a case: it is younger, and at its default. */
bool fb_factor_is_silent(const struct fb_factors *factors, enum fb_factor_key key);

/* The value as it stands in suites and in results.csv: "flow", "best", "4096", "true". */
void fb_factor_format(const struct fb_factors *factors, enum fb_factor_key key, char *text,
                      size_t text_size);

/* Names of the mechanisms, and of the variants of one (NULL: of all), without repetitions; at most
 * `room` of them. */
size_t fb_factor_mechanism_names(const char **names, size_t room);
size_t fb_factor_task_names(const char **names, size_t room);
size_t fb_factor_variant_names(const struct fb_mechanism *mechanism, const char **names,
                               size_t room);

#endif
