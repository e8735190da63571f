/* What every output must be, whatever the mechanism: written, finite, the same again. */
#include "measure_check.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* Infinite exponent, quiet bit clear, payload ours. */
static const struct {
    uint64_t infinity, poison;
} patterns[FB_DTYPE_COUNT] = {
    [FB_F32] = {UINT64_C(0x7f800000), UINT64_C(0x7fa5a5a5)},
    [FB_F64] = {UINT64_C(0x7ff0000000000000), UINT64_C(0x7ff5a5a5a5a5a5a5)},
    [FB_BF16] = {UINT64_C(0x7f80), UINT64_C(0x7fa5)},
    [FB_F16] = {UINT64_C(0x7c00), UINT64_C(0x7ca5)},
};

void fb_check_add_output(struct fb_check_outputs *outputs, const char *name,
                         const struct fb_tensor *tensor)
{
    assert(outputs->count < FB_CHECK_OUTPUTS_MAX);
    outputs->output[outputs->count++] = (struct fb_check_output){name, tensor};
}

uint32_t fb_check_poison_pattern(enum fb_dtype dtype)
{
    const uint32_t poison = (uint32_t)patterns[dtype].poison;
    return fb_dtype_bytes(dtype) == 2 ? poison << 16 | poison : poison;
}

static void poison_tensor(const struct fb_tensor *tensor, int threads)
{
    unsigned char *data = tensor->data;
    const size_t bytes = fb_dtype_bytes(tensor->dtype);
    const uint64_t poison = patterns[tensor->dtype].poison; /* little-endian: low bytes first */
    const int64_t count = fb_tensor_count(tensor);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++)
        memcpy(data + (size_t)i * bytes, &poison, bytes);
}

void fb_check_poison(const struct fb_check_outputs *outputs, int threads)
{
    for (int i = 0; i < outputs->count; i++)
        poison_tensor(outputs->output[i].tensor, threads);
}

/* Batch, head, row and component of the element at an offset of a dense tensor. */
static void describe_place(const struct fb_tensor *out, int64_t offset, char *text, size_t size)
{
    const int64_t dim = out->shape[3];
    const int64_t b = offset / out->stride[0];
    const int64_t within = offset % out->stride[0];
    const int64_t h = within / out->stride[1] % out->shape[1];
    const int64_t row = within / out->stride[2] % out->shape[2];
    snprintf(text, size, "b=%" PRId64 " h=%" PRId64 " row=%" PRId64 " component=%" PRId64, b, h,
             row, offset % dim);
}

static void set_wrong(struct fb_measure_result *result, int64_t bad, const char *what,
                      const struct fb_check_output *output, int64_t first)
{
    char place[128];
    describe_place(output->tensor, first, place, sizeof place);
    result->status = FB_MEASURE_WRONG;
    snprintf(result->reason, sizeof result->reason,
             "%" PRId64 " of %" PRId64 " elements of %s %s, the first at %s", bad,
             fb_tensor_count(output->tensor), output->name, what, place);
}

static bool is_written(const struct fb_check_output *output, struct fb_measure_result *result)
{
    /* by their bits: loading a signalling NaN as a float may quiet it */
    const unsigned char *data = output->tensor->data;
    const size_t bytes = fb_dtype_bytes(output->tensor->dtype);
    const uint64_t infinity = patterns[output->tensor->dtype].infinity;
    const uint64_t poison = patterns[output->tensor->dtype].poison;
    const int64_t count = fb_tensor_count(output->tensor);
    int64_t unwritten = 0, first_unwritten = -1, infinite = 0, first_infinite = -1;
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = 0;
        memcpy(&bits, data + (size_t)i * bytes, bytes);
        if ((bits & infinity) != infinity)
            continue;
        if (bits == poison) {
            unwritten++;
            first_unwritten = first_unwritten < 0 ? i : first_unwritten;
        } else {
            infinite++;
            first_infinite = first_infinite < 0 ? i : first_infinite;
        }
    }
    if (unwritten > 0)
        set_wrong(result, unwritten, "were never written", output, first_unwritten);
    else if (infinite > 0)
        set_wrong(result, infinite, "are NaN or infinite", output, first_infinite);
    return unwritten == 0 && infinite == 0;
}

bool fb_check_written(const struct fb_check_outputs *outputs, struct fb_measure_result *result)
{
    for (int i = 0; i < outputs->count; i++)
        if (!is_written(&outputs->output[i], result))
            return false;
    return true;
}

enum fb_status fb_check_hash(const struct fb_check_outputs *outputs,
                             char hash[FB_MEASURE_HASH_SIZE], struct fb_error *error)
{
    XXH64_state_t *state = XXH64_createState();
    if (!state || XXH64_reset(state, 0) != XXH_OK) {
        (void)XXH64_freeState(state);
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory to hash the outputs");
    }
    for (int i = 0; i < outputs->count; i++) {
        const struct fb_tensor *tensor = outputs->output[i].tensor;
        (void)XXH64_update(state, tensor->data,
                           (size_t)fb_tensor_count(tensor) * fb_dtype_bytes(tensor->dtype));
    }
    snprintf(hash, FB_MEASURE_HASH_SIZE, "%016" PRIx64, (uint64_t)XXH64_digest(state));
    (void)XXH64_freeState(state);
    return FB_OK;
}
