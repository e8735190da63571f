/* The table of factors. */
#include "factor.h"

#include "nn_precision.h"
#include "registry.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *device_name(int value)
{
    return fb_backend_name((enum fb_backend)value);
}

static const char *isa_name(int value)
{
    return fb_isa_name((enum fb_isa)value);
}

static const char *dtype_name(int value)
{
    return fb_dtype_name((enum fb_dtype)value);
}

static const char *layout_name(int value)
{
    return fb_layout_name((enum fb_layout)value);
}

static const char *pass_name(int value)
{
    return fb_pass_name((enum fb_pass)value);
}

static const char *lengths_name(int value)
{
    return fb_lengths_name((enum fb_lengths)value);
}

static const char *recipe_name(int value)
{
    return fb_recipe_kind_name((enum fb_recipe_kind)value);
}

static const char *model_name(int value)
{
    return fb_recipe_size_name((enum fb_recipe_size)value);
}

static const char *precision_name(int value)
{
    return fb_nn_precision_name((enum fb_nn_precision)(value - 1));
}

#define SIZE_MAX_ELEMENTS (INT64_C(1) << 48)

/* clang-format off */
static const struct fb_factor factors_table[FB_FACTOR_COUNT] = {
    [FB_FACTOR_MECHANISM] = {.name = "mechanism", .type = FB_FACTOR_NAME},
    [FB_FACTOR_VARIANT]   = {.name = "variant", .type = FB_FACTOR_NAME},
    [FB_FACTOR_DEVICE]    = {.name = "device", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_BACKEND_COUNT - 1, .choice_name = device_name},
    [FB_FACTOR_ISA]       = {.name = "isa", .type = FB_FACTOR_CHOICE, .min = FB_ISA_ANY + 1,
                             .max = FB_ISA_COUNT - 1, .special = "best", .special_value = -1,
                             .choice_name = isa_name},
    [FB_FACTOR_THREADS]   = {.name = "threads", .type = FB_FACTOR_NUMBER, .min = 1, .max = 4096,
                             .special = "max", .special_value = 0, .ordered = true},
    [FB_FACTOR_DTYPE]     = {.name = "dtype", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_DTYPE_COUNT - 1, .choice_name = dtype_name},
    [FB_FACTOR_LAYOUT]    = {.name = "layout", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_LAYOUT_COUNT - 1, .choice_name = layout_name},
    [FB_FACTOR_CAUSAL]    = {.name = "causal", .type = FB_FACTOR_BOOL, .min = 0, .max = 1},
    [FB_FACTOR_PASS]      = {.name = "pass", .type = FB_FACTOR_CHOICE, .min = FB_FORWARD,
                             .max = FB_DECODE, .choice_name = pass_name},
    [FB_FACTOR_BATCH]     = {.name = "batch", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = SIZE_MAX_ELEMENTS, .ordered = true},
    [FB_FACTOR_HEADS]     = {.name = "heads", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = SIZE_MAX_ELEMENTS, .ordered = true},
    [FB_FACTOR_SEQ_LEN]   = {.name = "seq_len", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = SIZE_MAX_ELEMENTS, .ordered = true},
    [FB_FACTOR_KV_LEN]    = {.name = "kv_len", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = SIZE_MAX_ELEMENTS, .ordered = true},
    [FB_FACTOR_HEAD_DIM]  = {.name = "head_dim", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = FB_HEAD_DIM_MAX, .ordered = true},
    [FB_FACTOR_VALUE_DIM] = {.name = "value_dim", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = FB_HEAD_DIM_MAX, .ordered = true},
    [FB_FACTOR_SEED]      = {.name = "seed", .type = FB_FACTOR_NUMBER, .min = 0, .max = INT64_MAX,
                             .ordered = true},
    [FB_FACTOR_KV_HEADS]  = {.name = "kv_heads", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = SIZE_MAX_ELEMENTS, .ordered = true, .younger = true},
    [FB_FACTOR_LENGTHS]   = {.name = "lengths", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_LENGTHS_COUNT - 1, .choice_name = lengths_name,
                             .younger = true},
    [FB_FACTOR_TASK]      = {.name = "task", .type = FB_FACTOR_NAME, .younger = true,
                             .training = true},
    [FB_FACTOR_RECIPE]    = {.name = "recipe", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_RECIPE_COUNT - 1, .choice_name = recipe_name,
                             .younger = true, .training = true},
    [FB_FACTOR_MODEL]     = {.name = "model", .type = FB_FACTOR_CHOICE, .min = 0,
                             .max = FB_RECIPE_SIZE_COUNT - 1, .choice_name = model_name,
                             .younger = true, .training = true},
    [FB_FACTOR_EPOCHS]    = {.name = "epochs", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = 1000000, .special = "recipe", .special_value = 0,
                             .ordered = true, .younger = true, .training = true},
    [FB_FACTOR_STEPS]     = {.name = "steps", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = 1000000000, .special = "recipe", .special_value = 0,
                             .ordered = true, .younger = true, .training = true},
    /* apart from `batch`, which names every training case with its default of 1 */
    [FB_FACTOR_BATCH_SIZE] = {.name = "batch_size", .type = FB_FACTOR_NUMBER, .min = 1,
                             .max = 1000000, .special = "recipe", .special_value = 0,
                             .ordered = true, .younger = true, .training = true},
    [FB_FACTOR_PRECISION] = {.name = "precision", .type = FB_FACTOR_CHOICE, .min = 1,
                             .max = FB_NN_PRECISION_COUNT, .choice_name = precision_name,
                             .special = "device", .special_value = 0, .younger = true, .training = true},
};
static const char *const factor_name_list[FB_FACTOR_COUNT] = {
    "mechanism", "variant", "device", "isa", "threads", "dtype", "layout", "causal",
    "pass", "batch", "heads", "seq_len", "kv_len", "head_dim", "value_dim", "seed",
    "kv_heads", "lengths", "task", "recipe", "model", "epochs", "steps", "batch_size",
    "precision",
};
/* clang-format on */

const struct fb_factor *fb_factor_at(enum fb_factor_key key)
{
    return &factors_table[key];
}

int fb_factor_find(const char *name)
{
    for (int i = 0; i < FB_FACTOR_COUNT; i++) {
        if (strcmp(factors_table[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

const char *const *fb_factor_names(void)
{
    return factor_name_list;
}

size_t fb_factor_choices(const struct fb_factor *factor, const char *names[FB_FACTOR_CHOICES_MAX],
                         int64_t values[FB_FACTOR_CHOICES_MAX])
{
    size_t count = 0;
    if (factor->type == FB_FACTOR_CHOICE) {
        for (int64_t value = factor->min; value <= factor->max; value++) {
            names[count] = factor->choice_name((int)value);
            values[count++] = value;
        }
    }
    if (factor->special != NULL) {
        names[count] = factor->special;
        values[count++] = factor->special_value;
    }
    return count;
}

int64_t fb_factor_get(const struct fb_factors *f, enum fb_factor_key key)
{
    switch (key) {
    case FB_FACTOR_DEVICE:
        return (int64_t)f->device;
    case FB_FACTOR_ISA:
        return f->isa;
    case FB_FACTOR_THREADS:
        return f->threads;
    case FB_FACTOR_DTYPE:
        return (int64_t)f->dtype;
    case FB_FACTOR_LAYOUT:
        return (int64_t)f->layout;
    case FB_FACTOR_CAUSAL:
        return f->causal ? 1 : 0;
    case FB_FACTOR_PASS:
        return (int64_t)f->pass;
    case FB_FACTOR_BATCH:
        return f->batch;
    case FB_FACTOR_HEADS:
        return f->heads;
    case FB_FACTOR_SEQ_LEN:
        return f->seq_len;
    case FB_FACTOR_KV_LEN:
        return f->kv_len;
    case FB_FACTOR_HEAD_DIM:
        return f->head_dim;
    case FB_FACTOR_VALUE_DIM:
        return f->value_dim;
    case FB_FACTOR_SEED:
        return (int64_t)f->seed;
    case FB_FACTOR_KV_HEADS:
        return f->kv_heads;
    case FB_FACTOR_LENGTHS:
        return (int64_t)f->lengths;
    case FB_FACTOR_RECIPE:
        return (int64_t)f->recipe;
    case FB_FACTOR_MODEL:
        return (int64_t)f->model;
    case FB_FACTOR_EPOCHS:
        return f->epochs;
    case FB_FACTOR_STEPS:
        return f->steps;
    case FB_FACTOR_BATCH_SIZE:
        return f->batch_size;
    case FB_FACTOR_PRECISION:
        return f->precision;
    case FB_FACTOR_MECHANISM:
    case FB_FACTOR_VARIANT:
    case FB_FACTOR_TASK:
    case FB_FACTOR_COUNT:
        break;
    }
    return 0;
}

void fb_factor_set(struct fb_factors *f, enum fb_factor_key key, int64_t value)
{
    switch (key) {
    case FB_FACTOR_DEVICE:
        f->device = (enum fb_backend)value;
        break;
    case FB_FACTOR_ISA:
        f->isa = (int)value;
        break;
    case FB_FACTOR_THREADS:
        f->threads = (int)value;
        break;
    case FB_FACTOR_DTYPE:
        f->dtype = (enum fb_dtype)value;
        break;
    case FB_FACTOR_LAYOUT:
        f->layout = (enum fb_layout)value;
        break;
    case FB_FACTOR_CAUSAL:
        f->causal = value != 0;
        break;
    case FB_FACTOR_PASS:
        f->pass = (enum fb_pass)value;
        break;
    case FB_FACTOR_BATCH:
        f->batch = value;
        break;
    case FB_FACTOR_HEADS:
        f->heads = value;
        break;
    case FB_FACTOR_SEQ_LEN:
        f->seq_len = value;
        break;
    case FB_FACTOR_KV_LEN:
        f->kv_len = value;
        break;
    case FB_FACTOR_HEAD_DIM:
        f->head_dim = value;
        break;
    case FB_FACTOR_VALUE_DIM:
        f->value_dim = value;
        break;
    case FB_FACTOR_SEED:
        f->seed = (uint64_t)value;
        break;
    case FB_FACTOR_KV_HEADS:
        f->kv_heads = value;
        break;
    case FB_FACTOR_LENGTHS:
        f->lengths = (enum fb_lengths)value;
        break;
    case FB_FACTOR_RECIPE:
        f->recipe = (enum fb_recipe_kind)value;
        break;
    case FB_FACTOR_MODEL:
        f->model = (enum fb_recipe_size)value;
        break;
    case FB_FACTOR_EPOCHS:
        f->epochs = value;
        break;
    case FB_FACTOR_STEPS:
        f->steps = value;
        break;
    case FB_FACTOR_BATCH_SIZE:
        f->batch_size = value;
        break;
    case FB_FACTOR_PRECISION:
        f->precision = (int)value;
        break;
    case FB_FACTOR_MECHANISM:
    case FB_FACTOR_VARIANT:
    case FB_FACTOR_TASK:
    case FB_FACTOR_COUNT:
        break;
    }
}

bool fb_factor_is_silent(const struct fb_factors *f, enum fb_factor_key key)
{
    return (key == FB_FACTOR_KV_HEADS && f->kv_heads == f->heads) ||
           (key == FB_FACTOR_LENGTHS && f->lengths == FB_LENGTHS_FULL) ||
           (factors_table[key].training && f->task == NULL) ||
           (key == FB_FACTOR_MODEL && f->model == FB_RECIPE_FULL) ||
           (key == FB_FACTOR_EPOCHS && f->epochs == 0) ||
           (key == FB_FACTOR_STEPS && f->steps == 0) ||
           (key == FB_FACTOR_BATCH_SIZE && f->batch_size == 0) ||
           (key == FB_FACTOR_PRECISION && f->precision == 0);
}

void fb_factor_format(const struct fb_factors *f, enum fb_factor_key key, char *text,
                      size_t text_size)
{
    const struct fb_factor *factor = &factors_table[key];
    int64_t value = fb_factor_get(f, key);
    if (key == FB_FACTOR_MECHANISM) {
        (void)snprintf(text, text_size, "%s", f->mechanism != NULL ? f->mechanism->name : "");
    } else if (key == FB_FACTOR_VARIANT) {
        (void)snprintf(text, text_size, "%s", f->variant != NULL ? f->variant : "");
    } else if (key == FB_FACTOR_TASK) {
        (void)snprintf(text, text_size, "%s", f->task != NULL ? f->task->name : "");
    } else if (factor->special != NULL && value == factor->special_value) {
        (void)snprintf(text, text_size, "%s", factor->special);
    } else if (factor->type == FB_FACTOR_CHOICE) {
        (void)snprintf(text, text_size, "%s", factor->choice_name((int)value));
    } else if (factor->type == FB_FACTOR_BOOL) {
        (void)snprintf(text, text_size, "%s", value != 0 ? "true" : "false");
    } else {
        (void)snprintf(text, text_size, "%lld", (long long)value);
    }
}

size_t fb_factor_mechanism_names(const char **names, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < fb_mechanism_count() && count < room; i++) {
        names[count++] = fb_mechanism_at(i)->name;
    }
    return count;
}

size_t fb_factor_task_names(const char **names, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < fb_task_count() && count < room; i++) {
        names[count++] = fb_task_at(i)->name;
    }
    return count;
}

size_t fb_factor_variant_names(const struct fb_mechanism *mechanism, const char **names,
                               size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < fb_attention_count() && count < room; i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (mechanism != NULL && attention->mechanism != mechanism) {
            continue;
        }
        size_t known = 0;
        while (known < count && strcmp(names[known], attention->variant) != 0) {
            known++;
        }
        if (known == count) {
            names[count++] = attention->variant;
        }
    }
    return count;
}
