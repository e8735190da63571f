/*
 * Reader of safetensors files: the checks of the header. See safetensors.h.
 */
#include "safetensors.h"

#include "checked.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, QUOTED_SIZE = 96 };

/* A name from the file, cut to a readable length and without control characters: error texts go to
 * terminals. */
static const char *quoted(char *buffer, const char *name)
{
    size_t i = 0;
    for (; name[i] && i < QUOTED_SIZE - 1; i++)
        buffer[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    buffer[i] = '\0';
    return buffer;
}

static enum fb_status map_file(struct fb_safetensors *file, struct fb_error *error)
{
    /* O_NONBLOCK: a FIFO is refused below instead of waiting for a writer */
    const int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "%s: cannot open: %s", file->path, strerror(errno));
    struct stat info;
    enum fb_status status = FB_OK;
    if (fstat(fd, &info) != 0)
        status =
            fb_error_set(error, FB_ERROR_IO, "%s: cannot stat: %s", file->path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = fb_error_set(error, FB_ERROR_INPUT, "%s: not a regular file", file->path);
    else if (info.st_size < LENGTH_BYTES)
        status =
            fb_error_set(error, FB_ERROR_INPUT,
                         "%s: %" PRId64 " bytes are too few for a safetensors file; the header "
                         "length alone takes 8",
                         file->path, (int64_t)info.st_size);
    if (status == FB_OK) {
        file->mapping_bytes = (size_t)info.st_size;
        file->mapping = mmap(NULL, file->mapping_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file->mapping == MAP_FAILED) {
            file->mapping = NULL;
            status =
                fb_error_set(error, FB_ERROR_IO, "%s: cannot map: %s", file->path, strerror(errno));
        }
    }
    close(fd);
    return status;
}

/* The JSON header, and where the data begin. */
static enum fb_status parse_header(const struct fb_safetensors *file, json_t **header,
                                   size_t *data_start, struct fb_error *error)
{
    const unsigned char *bytes = file->mapping;
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    if (length > FB_SAFETENSORS_HEADER_MAX_BYTES)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: the header says %" PRIu64 " bytes, more than the limit of %" PRIu64
                            "; this is no safetensors file",
                            file->path, length, FB_SAFETENSORS_HEADER_MAX_BYTES);
    if (length > file->mapping_bytes - LENGTH_BYTES)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: the header says %" PRIu64
                            " bytes, but only %zu follow; the file is truncated",
                            file->path, length, file->mapping_bytes - LENGTH_BYTES);
    json_error_t json_error;
    *header = json_loadb((const char *)bytes + LENGTH_BYTES, (size_t)length, JSON_REJECT_DUPLICATES,
                         &json_error);
    if (!*header) {
        char text[QUOTED_SIZE];
        return fb_error_set(error, FB_ERROR_INPUT, "%s: the header is not valid JSON: %s (byte %d)",
                            file->path, quoted(text, json_error.text), json_error.position);
    }
    if (!json_is_object(*header))
        return fb_error_set(error, FB_ERROR_INPUT, "%s: the header is not a JSON object",
                            file->path);
    *data_start = LENGTH_BYTES + (size_t)length;
    return FB_OK;
}

static enum fb_status read_metadata(struct fb_safetensors *file, json_t *object,
                                    struct fb_error *error)
{
    if (!json_is_object(object))
        return fb_error_set(error, FB_ERROR_INPUT, "%s: __metadata__ is not an object", file->path);
    const size_t count = json_object_size(object);
    if (count == 0)
        return FB_OK;
    file->metadata = fb_arena_alloc(&file->arena, count, sizeof *file->metadata, error);
    if (!file->metadata)
        return FB_ERROR_MEMORY;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char text[QUOTED_SIZE];
        if (!json_is_string(value))
            return fb_error_set(error, FB_ERROR_INPUT, "%s: metadata '%s' is not a string",
                                file->path, quoted(text, key));
        struct fb_safetensors_text *entry = &file->metadata[file->metadata_count];
        entry->key = fb_arena_strdup(&file->arena, key, error);
        entry->value =
            entry->key ? fb_arena_strdup(&file->arena, json_string_value(value), error) : NULL;
        if (!entry->value)
            return FB_ERROR_MEMORY;
        file->metadata_count++;
    }
    return FB_OK;
}

static int parse_type(const char *name)
{
    for (int type = 0; type < FB_ST_TYPE_COUNT; type++)
        if (strcmp(fb_safetensors_type_name((enum fb_safetensors_type)type), name) == 0)
            return type;
    return -1;
}

/* shape, count and bytes from the JSON array of sizes. */
static enum fb_status read_shape(const struct fb_safetensors *file, const char *name,
                                 const json_t *shape, struct fb_safetensors_tensor *tensor,
                                 struct fb_error *error)
{
    if (!json_is_array(shape))
        return fb_error_set(error, FB_ERROR_INPUT, "%s: tensor '%s': shape is not an array",
                            file->path, name);
    const size_t rank = json_array_size(shape);
    if (rank > FB_SAFETENSORS_RANK_MAX)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': %zu dimensions, more than the limit of %d",
                            file->path, name, rank, FB_SAFETENSORS_RANK_MAX);
    tensor->rank = (int)rank;
    tensor->count = 1;
    bool fits = true;
    for (size_t i = 0; i < rank; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: tensor '%s': dimension %zu is not a size >= 0", file->path,
                                name, i);
        tensor->shape[i] = (int64_t)json_integer_value(size);
        fits = fits && fb_checked_mul_i64(tensor->count, tensor->shape[i], &tensor->count);
    }
    fits = fits && (uint64_t)tensor->count <= SIZE_MAX &&
           fb_checked_mul_size((size_t)tensor->count, fb_safetensors_type_bytes(tensor->type),
                               &tensor->bytes);
    if (!fits)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': the product of its sizes overflows", file->path,
                            name);
    return FB_OK;
}

static enum fb_status read_offsets(const struct fb_safetensors *file, const char *name,
                                   const json_t *offsets, size_t data_start,
                                   struct fb_safetensors_tensor *tensor, struct fb_error *error)
{
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(first) ||
        !json_is_integer(last))
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': data_offsets are not two integers", file->path, name);
    const int64_t begin = (int64_t)json_integer_value(first);
    const int64_t end = (int64_t)json_integer_value(last);
    const size_t available = file->mapping_bytes - data_start;
    if (begin < 0 || end < begin || (uint64_t)end > available)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': data_offsets [%" PRId64 ", %" PRId64
                            "] lie outside the %zu bytes of data%s",
                            file->path, name, begin, end, available,
                            end > begin ? "; the file is truncated or its header lies" : "");
    if ((uint64_t)(end - begin) != tensor->bytes)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': data_offsets span %" PRId64
                            " bytes, but its shape and type %s need %zu",
                            file->path, name, end - begin, fb_safetensors_type_name(tensor->type),
                            tensor->bytes);
    tensor->data = (const unsigned char *)file->mapping + data_start + (size_t)begin;
    return FB_OK;
}

static enum fb_status read_tensor(struct fb_safetensors *file, const char *key, json_t *value,
                                  size_t data_start, struct fb_error *error)
{
    char name[QUOTED_SIZE], text[QUOTED_SIZE];
    quoted(name, key);
    struct fb_safetensors_tensor *tensor = &file->tensors[file->tensor_count];
    const char *type_name = json_string_value(json_object_get(value, "dtype"));
    if (!json_is_object(value) || json_object_size(value) != 3 || !type_name)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': expected an object of dtype, shape and data_offsets",
                            file->path, name);
    const int type = parse_type(type_name);
    if (type < 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s': unknown dtype '%s'; known are BOOL, U8 to U64, I8 to "
                            "I64, F8_E5M2, F8_E4M3, F16, BF16, F32, F64",
                            file->path, name, quoted(text, type_name));
    tensor->type = (enum fb_safetensors_type)type;
    enum fb_status status = read_shape(file, name, json_object_get(value, "shape"), tensor, error);
    if (status == FB_OK)
        status = read_offsets(file, name, json_object_get(value, "data_offsets"), data_start,
                              tensor, error);
    if (status != FB_OK)
        return status;
    tensor->name = fb_arena_strdup(&file->arena, key, error);
    if (!tensor->name)
        return FB_ERROR_MEMORY;
    file->tensor_count++;
    return FB_OK;
}

static int compare_places(const void *left, const void *right)
{
    const struct fb_safetensors_tensor *a = left, *b = right;
    const uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    if (x != y)
        return x < y ? -1 : 1;
    /* empty tensors share the address of the next one and come first */
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

/* Sorts by place and demands that the tensors tile the data: no overlap, no hole, nothing after. */
static enum fb_status check_tiling(struct fb_safetensors *file, size_t data_start,
                                   struct fb_error *error)
{
    char name[QUOTED_SIZE];
    const unsigned char *expected = (const unsigned char *)file->mapping + data_start;
    const unsigned char *end = (const unsigned char *)file->mapping + file->mapping_bytes;
    if (file->tensor_count > 1)
        qsort(file->tensors, file->tensor_count, sizeof *file->tensors, compare_places);
    for (size_t i = 0; i < file->tensor_count; i++) {
        const struct fb_safetensors_tensor *tensor = &file->tensors[i];
        const unsigned char *begin = tensor->data;
        if (begin != expected)
            return fb_error_set(
                error, FB_ERROR_INPUT, "%s: tensor '%s' %s", file->path, quoted(name, tensor->name),
                begin < expected ? "overlaps the one before it" : "leaves a hole before its data");
        expected = begin + tensor->bytes;
    }
    if (expected != end)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: %zu bytes after the last tensor belong to none", file->path,
                            (size_t)(end - expected));
    return FB_OK;
}

static enum fb_status read_entries(struct fb_safetensors *file, json_t *header, size_t data_start,
                                   struct fb_error *error)
{
    const size_t entries = json_object_size(header);
    if (entries > 0) {
        file->tensors = fb_arena_alloc(&file->arena, entries, sizeof *file->tensors, error);
        if (!file->tensors)
            return FB_ERROR_MEMORY;
    }
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        const enum fb_status status = strcmp(key, "__metadata__") == 0
                                          ? read_metadata(file, value, error)
                                          : read_tensor(file, key, value, data_start, error);
        if (status != FB_OK)
            return status;
    }
    return check_tiling(file, data_start, error);
}

enum fb_status fb_safetensors_open(struct fb_safetensors *file, const char *path,
                                   struct fb_error *error)
{
    *file = (struct fb_safetensors){0};
    fb_arena_init(&file->arena, 0);
    file->path = fb_arena_strdup(&file->arena, path, error);
    enum fb_status status = file->path ? map_file(file, error) : FB_ERROR_MEMORY;
    json_t *header = NULL;
    size_t data_start = 0;
    if (status == FB_OK)
        status = parse_header(file, &header, &data_start, error);
    if (status == FB_OK)
        status = read_entries(file, header, data_start, error);
    json_decref(header);
    if (status != FB_OK)
        fb_safetensors_close(file);
    return status;
}

void fb_safetensors_close(struct fb_safetensors *file)
{
    if (file->mapping)
        munmap(file->mapping, file->mapping_bytes);
    fb_arena_free(&file->arena);
    *file = (struct fb_safetensors){0};
}

const struct fb_safetensors_tensor *fb_safetensors_find(const struct fb_safetensors *file,
                                                        const char *name)
{
    for (size_t i = 0; i < file->tensor_count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

const char *fb_safetensors_metadata_find(const struct fb_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0)
            return file->metadata[i].value;
    return NULL;
}
