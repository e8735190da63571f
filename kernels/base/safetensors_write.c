/*
 * Writer of safetensors files. See safetensors.h.
 */
#include "safetensors.h"

#include "checked.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 8 };

static enum fb_status bytes_of(const char *path, const struct fb_safetensors_tensor *tensor,
                               size_t *bytes, struct fb_error *error)
{
    bool fits = tensor->rank >= 0 && tensor->rank <= FB_SAFETENSORS_RANK_MAX;
    *bytes = fb_safetensors_type_bytes(tensor->type);
    for (int i = 0; fits && i < tensor->rank; i++)
        fits =
            tensor->shape[i] >= 0 && fb_checked_mul_size(*bytes, (size_t)tensor->shape[i], bytes);
    if (!fits)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': its shape has a negative size, more than %d "
                            "dimensions or a product that overflows",
                            path, tensor->name, FB_SAFETENSORS_RANK_MAX);
    return FB_OK;
}

/* Tensor indices by falling element size, otherwise in the caller's order. */
static void sort_by_alignment(const struct fb_safetensors_tensor *tensors, size_t count,
                              size_t *order)
{
    size_t used = 0;
    for (size_t bytes = ALIGNMENT; bytes >= 1; bytes /= 2)
        for (size_t i = 0; i < count; i++)
            if (fb_safetensors_type_bytes(tensors[i].type) == bytes)
                order[used++] = i;
}

static json_t *describe_tensor(const struct fb_safetensors_tensor *tensor, size_t begin, size_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", fb_safetensors_type_name(tensor->type),
                     "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* Adds value (stolen) under a key that must be new. */
static enum fb_status add_entry(const char *path, json_t *object, const char *key, json_t *value,
                                struct fb_error *error)
{
    if (json_object_get(object, key)) {
        json_decref(value);
        return fb_error_set(error, FB_ERROR_INPUT, "%s: the name '%s' is given twice", path, key);
    }
    if (!value || json_object_set_new(object, key, value) != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: '%s' cannot become JSON: is it valid UTF-8, is memory left?", path,
                            key);
    return FB_OK;
}

static enum fb_status fill_header(const char *path, json_t *header,
                                  const struct fb_safetensors_tensor *tensors, size_t tensor_count,
                                  const size_t *order, const struct fb_safetensors_text *metadata,
                                  size_t metadata_count, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    if (metadata_count > 0)
        status = add_entry(path, header, "__metadata__", json_object(), error);
    for (size_t i = 0; status == FB_OK && i < metadata_count; i++)
        status = add_entry(path, json_object_get(header, "__metadata__"), metadata[i].key,
                           json_string(metadata[i].value), error);
    size_t begin = 0;
    for (size_t i = 0; status == FB_OK && i < tensor_count; i++) {
        const struct fb_safetensors_tensor *tensor = &tensors[order[i]];
        size_t bytes = 0, end = 0;
        status = bytes_of(path, tensor, &bytes, error);
        if (status == FB_OK && !fb_checked_add_size(begin, bytes, &end))
            status = fb_error_set(error, FB_ERROR_INPUT, "%s: the total size overflows", path);
        if (status == FB_OK)
            status =
                add_entry(path, header, tensor->name, describe_tensor(tensor, begin, end), error);
        begin = end;
    }
    return status;
}

static enum fb_status write_all(int fd, const char *path, const void *data, size_t bytes,
                                struct fb_error *error)
{
    const unsigned char *at = data;
    while (bytes > 0) {
        const ssize_t written = write(fd, at, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fb_error_set(error, FB_ERROR_IO, "%s: cannot write: %s", path, strerror(errno));
        at += written;
        bytes -= (size_t)written;
    }
    return FB_OK;
}

static enum fb_status write_content(int fd, const char *path, const char *json,
                                    const struct fb_safetensors_tensor *tensors,
                                    size_t tensor_count, const size_t *order,
                                    struct fb_error *error)
{
    assert(json != NULL);
    const size_t json_bytes = strlen(json);
    const size_t padding = (ALIGNMENT - json_bytes % ALIGNMENT) % ALIGNMENT;
    const uint64_t header_bytes = (uint64_t)json_bytes + padding;
    if (header_bytes > FB_SAFETENSORS_HEADER_MAX_BYTES)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: a header of %" PRIu64 " bytes passes the limit of %" PRIu64, path,
                            header_bytes, FB_SAFETENSORS_HEADER_MAX_BYTES);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(header_bytes >> (8 * i));
    enum fb_status status = write_all(fd, path, length, sizeof length, error);
    if (status == FB_OK)
        status = write_all(fd, path, json, json_bytes, error);
    if (status == FB_OK)
        status = write_all(fd, path, "        ", padding, error);
    for (size_t i = 0; status == FB_OK && i < tensor_count; i++) {
        size_t bytes = 0;
        status = bytes_of(path, &tensors[order[i]], &bytes, error);
        if (status == FB_OK)
            status = write_all(fd, path, tensors[order[i]].data, bytes, error);
    }
    if (status == FB_OK && fsync(fd) != 0)
        status = fb_error_set(error, FB_ERROR_IO, "%s: cannot sync: %s", path, strerror(errno));
    return status;
}

/* The rename itself must reach the disk: sync the folder. */
static enum fb_status sync_folder(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    char *copy = fb_arena_strdup(arena, path, error);
    if (!copy)
        return FB_ERROR_MEMORY;
    const char *folder = dirname(copy);
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "%s: cannot open to sync: %s", folder,
                            strerror(errno));
    /* some file systems have no sync of folders and say EINVAL */
    const bool failed = fsync(fd) != 0 && errno != EINVAL;
    const int reason = errno;
    close(fd);
    if (failed)
        return fb_error_set(error, FB_ERROR_IO, "%s: cannot sync: %s", folder, strerror(reason));
    return FB_OK;
}

static enum fb_status write_atomically(const char *path, const char *json,
                                       const struct fb_safetensors_tensor *tensors,
                                       size_t tensor_count, const size_t *order,
                                       struct fb_arena *arena, struct fb_error *error)
{
    const char *temporary = fb_arena_printf(arena, error, "%s.tmp.%ld", path, (long)getpid());
    if (!temporary)
        return FB_ERROR_MEMORY;
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "%s: cannot create: %s", temporary,
                            strerror(errno));
    enum fb_status status = write_content(fd, temporary, json, tensors, tensor_count, order, error);
    if (close(fd) != 0 && status == FB_OK)
        status =
            fb_error_set(error, FB_ERROR_IO, "%s: cannot close: %s", temporary, strerror(errno));
    if (status == FB_OK && rename(temporary, path) != 0)
        status = fb_error_set(error, FB_ERROR_IO, "%s: cannot rename to %s: %s", temporary, path,
                              strerror(errno));
    if (status != FB_OK) {
        unlink(temporary);
        return status;
    }
    return sync_folder(path, arena, error);
}

enum fb_status fb_safetensors_write(const char *path, const struct fb_safetensors_tensor *tensors,
                                    size_t tensor_count, const struct fb_safetensors_text *metadata,
                                    size_t metadata_count, struct fb_error *error)
{
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    json_t *header = json_object();
    char *json = NULL;
    size_t *order = fb_arena_alloc(&arena, tensor_count + 1, sizeof *order, error);
    enum fb_status status = order ? FB_OK : FB_ERROR_MEMORY;
    if (status == FB_OK) {
        sort_by_alignment(tensors, tensor_count, order);
        status = fill_header(path, header, tensors, tensor_count, order, metadata, metadata_count,
                             error);
    }
    if (status == FB_OK) {
        json = json_dumps(header, JSON_COMPACT);
        if (!json)
            status = fb_error_set(error, FB_ERROR_MEMORY, "%s: no memory for the header", path);
    }
    if (status == FB_OK)
        status = write_atomically(path, json, tensors, tensor_count, order, &arena, error);
    free(json);
    json_decref(header);
    fb_arena_free(&arena);
    return status;
}
