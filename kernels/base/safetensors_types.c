/*
 * The element types of safetensors files, their names and sizes, and reading them as numbers.
 */
#include "safetensors.h"

#include "dtype.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data are little-endian; a big-endian machine needs a byte swap here"
#endif

static const struct {
    const char *name;
    size_t bytes;
} types[FB_ST_TYPE_COUNT] = {
    [FB_ST_BOOL] = {"BOOL", 1},       [FB_ST_U8] = {"U8", 1},           [FB_ST_I8] = {"I8", 1},
    [FB_ST_F8_E5M2] = {"F8_E5M2", 1}, [FB_ST_F8_E4M3] = {"F8_E4M3", 1}, [FB_ST_U16] = {"U16", 2},
    [FB_ST_I16] = {"I16", 2},         [FB_ST_F16] = {"F16", 2},         [FB_ST_BF16] = {"BF16", 2},
    [FB_ST_U32] = {"U32", 4},         [FB_ST_I32] = {"I32", 4},         [FB_ST_F32] = {"F32", 4},
    [FB_ST_U64] = {"U64", 8},         [FB_ST_I64] = {"I64", 8},         [FB_ST_F64] = {"F64", 8},
};

const char *fb_safetensors_type_name(enum fb_safetensors_type type)
{
    return types[type].name;
}

size_t fb_safetensors_type_bytes(enum fb_safetensors_type type)
{
    return types[type].bytes;
}

/* Element i of F32, F16 or BF16 data. */
static float load_f32(const struct fb_safetensors_tensor *tensor, int64_t i)
{
    const unsigned char *at =
        (const unsigned char *)tensor->data + (size_t)i * types[tensor->type].bytes;
    if (tensor->type == FB_ST_F32) {
        float value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return tensor->type == FB_ST_F16 ? fb_f16_widen(bits) : fb_bf16_widen(bits);
}

static enum fb_status find_real(const struct fb_safetensors *file, const char *name, bool allow_f64,
                                const struct fb_safetensors_tensor **tensor, struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = fb_safetensors_find(file, name);
    if (!t)
        return fb_error_set(error, FB_ERROR_INPUT, "%s: there is no tensor '%s'", file->path, name);
    const bool narrow = t->type == FB_ST_F32 || t->type == FB_ST_F16 || t->type == FB_ST_BF16;
    if (!narrow && !(allow_f64 && t->type == FB_ST_F64))
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' has type %s; expected F32, F16 or BF16%s", file->path,
                            name, types[t->type].name, allow_f64 ? " or F64" : "");
    *tensor = t;
    return FB_OK;
}

enum fb_status fb_safetensors_read_f32(const struct fb_safetensors *file, const char *name,
                                       struct fb_arena *arena, float **values,
                                       const struct fb_safetensors_tensor **tensor,
                                       struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = NULL;
    const enum fb_status status = find_real(file, name, false, &t, error);
    if (status != FB_OK)
        return status;
    assert(t != NULL);
    float *copy = fb_arena_alloc(arena, (size_t)t->count + 1, sizeof *copy, error);
    if (!copy)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < t->count; i++)
        copy[i] = load_f32(t, i);
    *values = copy;
    if (tensor)
        *tensor = t;
    return FB_OK;
}

enum fb_status fb_safetensors_read_f64(const struct fb_safetensors *file, const char *name,
                                       struct fb_arena *arena, double **values,
                                       const struct fb_safetensors_tensor **tensor,
                                       struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = NULL;
    const enum fb_status status = find_real(file, name, true, &t, error);
    if (status != FB_OK)
        return status;
    assert(t != NULL);
    double *copy = fb_arena_alloc(arena, (size_t)t->count + 1, sizeof *copy, error);
    if (!copy)
        return FB_ERROR_MEMORY;
    if (t->type == FB_ST_F64 && t->bytes > 0)
        memcpy(copy, t->data, t->bytes);
    else
        for (int64_t i = 0; i < t->count; i++)
            copy[i] = (double)load_f32(t, i);
    *values = copy;
    if (tensor)
        *tensor = t;
    return FB_OK;
}
