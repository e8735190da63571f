/*
 * Reading and writing safetensors files (https://github.com/huggingface/safetensors): an 8-byte
 * little-endian header length, a JSON header, then the raw data of the tensors without holes.
 *
 * The reader trusts nothing: every length, offset and product is checked against the file before
 * it is used, and every error names the file and, where there is one, the tensor.
 */
#ifndef FB_SAFETENSORS_H
#define FB_SAFETENSORS_H

#include "arena.h"
#include "status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FB_SAFETENSORS_RANK_MAX = 8 };

/* Longest header that is read, in bytes: that of the reference implementation. */
#define FB_SAFETENSORS_HEADER_MAX_BYTES ((uint64_t)100000000)

enum fb_safetensors_type {
    FB_ST_BOOL,
    FB_ST_U8,
    FB_ST_I8,
    FB_ST_F8_E5M2,
    FB_ST_F8_E4M3,
    FB_ST_U16,
    FB_ST_I16,
    FB_ST_F16,
    FB_ST_BF16,
    FB_ST_U32,
    FB_ST_I32,
    FB_ST_F32,
    FB_ST_U64,
    FB_ST_I64,
    FB_ST_F64,
    FB_ST_TYPE_COUNT
};

struct fb_safetensors_tensor {
    const char *name;
    enum fb_safetensors_type type;
    int rank;
    int64_t shape[FB_SAFETENSORS_RANK_MAX]; /* outermost first; rank 0 is a scalar */
    int64_t count;                          /* elements */
    size_t bytes;
    const void *data; /* aligned to nothing: copy before reading it as numbers */
};

struct fb_safetensors_text {
    const char *key, *value;
};

/* An open file. The tensors point into a mapping that lives until close; names and metadata live
 * in the file's own arena. The file must not be shortened while it is open. */
struct fb_safetensors {
    const char *path;
    struct fb_safetensors_tensor *tensors; /* in the order of their data */
    size_t tensor_count;
    struct fb_safetensors_text *metadata;
    size_t metadata_count;
    struct fb_arena arena;
    void *mapping;
    size_t mapping_bytes;
};

/* FB_ERROR_IO: cannot be opened or mapped; FB_ERROR_INPUT: not a well-formed file. On failure there
 * is nothing to close. */
enum fb_status fb_safetensors_open(struct fb_safetensors *file, const char *path,
                                   struct fb_error *error) FB_MUST_CHECK;
void fb_safetensors_close(struct fb_safetensors *file);

/* NULL when the file has none of this name. */
const struct fb_safetensors_tensor *fb_safetensors_find(const struct fb_safetensors *file,
                                                        const char *name);
const char *fb_safetensors_metadata_find(const struct fb_safetensors *file, const char *key);

/* The named tensor as numbers, allocated in arena (aligned to FB_ALIGNMENT): f32 from F32, F16 or
 * BF16, f64 from these or F64. Each conversion is exact. FB_ERROR_INPUT when the tensor is absent
 * or of another type. *tensor (may be NULL) gets its description. */
enum fb_status fb_safetensors_read_f32(const struct fb_safetensors *file, const char *name,
                                       struct fb_arena *arena, float **values,
                                       const struct fb_safetensors_tensor **tensor,
                                       struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_safetensors_read_f64(const struct fb_safetensors *file, const char *name,
                                       struct fb_arena *arena, double **values,
                                       const struct fb_safetensors_tensor **tensor,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Writes a new file beside path, syncs it and renames it to path: a reader sees the old file or the
 * whole new one. Of each tensor name, type, rank, shape and data are used. Tensors are stored by
 * falling element size, so that all data are aligned to their type. */
enum fb_status fb_safetensors_write(const char *path, const struct fb_safetensors_tensor *tensors,
                                    size_t tensor_count, const struct fb_safetensors_text *metadata,
                                    size_t metadata_count, struct fb_error *error) FB_MUST_CHECK;

const char *fb_safetensors_type_name(enum fb_safetensors_type type);
size_t fb_safetensors_type_bytes(enum fb_safetensors_type type);

#ifdef __cplusplus
}
#endif
#endif
