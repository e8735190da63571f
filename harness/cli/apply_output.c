/* The result of `flowbench apply` as a file: see apply_output.h. */
#include "apply_output.h"

#include "plan.h"
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum fb_status check_folder(const char *path, struct fb_error *error)
{
    char *copy = strdup(path);
    enum fb_status status = FB_OK;

    if (copy == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a path");
    const char *folder = dirname(copy);
    struct stat info;
    if (stat(folder, &info) != 0 || access(folder, W_OK | X_OK) != 0)
        status = fb_error_set(error, FB_ERROR_IO, "cannot write '%s': folder '%s': %s", path,
                              folder, strerror(errno));
    else if (!S_ISDIR(info.st_mode))
        status =
            fb_error_set(error, FB_ERROR_IO, "cannot write '%s': '%s' is no folder", path, folder);
    free(copy);
    return status;
}

enum fb_status fb_apply_output_check(const char *path, const char *input_path, bool force,
                                     struct fb_error *error)
{
    struct stat input;
    struct stat output;

    if (stat(path, &output) != 0)
        return check_folder(path, error);
    if (stat(input_path, &input) == 0 && input.st_dev == output.st_dev &&
        input.st_ino == output.st_ino)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--out '%s' is the input itself; name another file", path);
    if (!S_ISREG(output.st_mode))
        return fb_error_set(error, FB_ERROR_USAGE, "--out '%s' is no regular file", path);
    if (!force)
        return fb_error_set(error, FB_ERROR_USAGE, "'%s' exists; --force replaces it", path);
    return check_folder(path, error);
}

static struct fb_safetensors_tensor stored(const char *name, const struct fb_tensor *tensor)
{
    static const enum fb_safetensors_type types[FB_DTYPE_COUNT] = {FB_ST_F32, FB_ST_F64, FB_ST_BF16,
                                                                   FB_ST_F16};
    struct fb_safetensors_tensor t = {.name = name, .type = types[tensor->dtype], .rank = 4};

    memcpy(t.shape, tensor->shape, sizeof tensor->shape);
    t.count = fb_tensor_count(tensor);
    t.bytes = (size_t)t.count * fb_dtype_bytes(tensor->dtype);
    t.data = tensor->data;
    return t;
}

static char *params_text(const struct fb_apply_output *output)
{
    struct fb_case item = {.mechanism = output->attention->mechanism};

    memcpy(item.params, output->problem->params, sizeof item.params);
    json_t *params = fb_case_params_json(&item);
    char *text = params != NULL ? json_dumps(params, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(params);
    return text;
}

enum fb_status fb_apply_output_write(const char *path, const struct fb_apply_output *output,
                                     struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_attention *attention = output->attention;
    const struct fb_call *call = output->call;
    const struct fb_safetensors_tensor tensors[] = {
        stored("out", &call->out),
        stored("dq", &call->dq),
        stored("dk", &call->dk),
        stored("dv", &call->dv),
    };
    const char *threads = fb_arena_printf(arena, error, "%d", call->threads);
    const char *seed = fb_arena_printf(arena, error, "%" PRIu64, output->seed);
    char *params = params_text(output);
    if (threads == NULL || seed == NULL || params == NULL) {
        free(params);
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the metadata");
    }
    const struct fb_safetensors_text metadata[] = {
        {"format", "attention-result-1"},
        {"flowbench", FLOWBENCH_VERSION},
        {"mechanism", attention->mechanism->name},
        {"variant", attention->variant},
        {"device", fb_backend_name(attention->backend)},
        {"isa", fb_isa_name(attention->isa)},
        {"dtype", fb_dtype_name(output->problem->dtype)},
        {"threads", threads},
        {"causal", output->problem->causal ? "true" : "false"},
        {"params", params},
        {"seed", seed},
    };
    const size_t metadata_count = sizeof metadata / sizeof metadata[0] - (output->seeded ? 0 : 1);
    const enum fb_status status = fb_safetensors_write(path, tensors, output->gradients ? 4 : 1,
                                                       metadata, metadata_count, error);
    free(params);
    return status;
}
