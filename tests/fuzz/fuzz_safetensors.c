/*
 * Safetensors: any file is either refused in words, or every tensor that the reader describes lies
 * inside the file, reads as numbers where its type allows that, and no reader of golden vectors
 * trips over it.
 */
#include "fuzz_input.h"

#include "golden.h"
#include "safetensors.h"

#include <string.h>

#define ARENA_BYTES ((size_t)256 << 20)

static void check_tensor(const struct fb_safetensors *file,
                         const struct fb_safetensors_tensor *tensor)
{
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    const struct fb_safetensors_tensor *found = NULL;
    float *f32 = NULL;
    double *f64 = NULL;
    const unsigned char *begin = file->mapping;
    const unsigned char *data = tensor->data;
    fuzz_check(tensor->bytes == 0 ||
                   (data >= begin && tensor->bytes <= file->mapping_bytes &&
                    (size_t)(data - begin) <= file->mapping_bytes - tensor->bytes),
               "a tensor lies outside its file");
    fuzz_check((size_t)tensor->count * fb_safetensors_type_bytes(tensor->type) == tensor->bytes,
               "count and bytes of a tensor disagree");
    fb_arena_init(&arena, ARENA_BYTES);
    enum fb_status status =
        fb_safetensors_read_f32(file, tensor->name, &arena, &f32, &found, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    status = fb_safetensors_read_f64(file, tensor->name, &arena, &f64, &found, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    else
        fuzz_check(found->count == tensor->count, "another tensor was read");
    fb_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct fuzz_file input;
    struct fb_safetensors file;
    struct fb_golden golden;
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    fuzz_file_set(&input, bytes, count);
    enum fb_status status = fb_safetensors_open(&file, input.path, &error);
    if (status != FB_OK) {
        fuzz_check_refusal(status, &error);
        return 0;
    }
    for (size_t i = 0; i < file.tensor_count; i++)
        check_tensor(&file, &file.tensors[i]);
    (void)fb_safetensors_metadata_find(&file, "format");
    fb_safetensors_close(&file);

    fb_arena_init(&arena, ARENA_BYTES);
    status = fb_golden_read(&golden, input.path, &arena, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    fb_arena_free(&arena);
    return 0;
}
