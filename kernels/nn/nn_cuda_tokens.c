/*
 * Where each id of a batch stands, in the order of the batch: what the device sums the gradient of
 * an embedding by. See nn_cuda.h. The index holds, for `count` ids:
 *   order [count]         positions, sorted by id and within an id by position
 *   segments [s, 3]       id, first, end: ranges of order, of at most SEGMENT positions of one id
 */
#include "nn_cuda_tokens.h"

#include <string.h>

int64_t fb_nn_cuda_tokens_ints(int64_t count)
{
    return fb_nn_cuda_tokens_used(count, count);
}

int64_t fb_nn_cuda_tokens_used(int64_t count, int64_t segments)
{
    return count + FB_NN_CUDA_SEGMENT_INTS * segments;
}

int64_t fb_nn_cuda_tokens_sort(int32_t *index, int32_t *counts, const int32_t *ids, int64_t count,
                               int64_t vocabulary)
{
    int32_t *order = index, *segments = index + count;
    int64_t segment_count = 0;
    memset(counts, 0, (size_t)vocabulary * sizeof *counts);
    for (int64_t i = 0; i < count; i++)
        counts[ids[i]]++;
    int32_t first = 0;
    for (int64_t id = 0; id < vocabulary; id++) {
        const int32_t end = first + counts[id];
        for (int32_t at = first; at < end; at += FB_NN_CUDA_SEGMENT) {
            int32_t *segment = segments + FB_NN_CUDA_SEGMENT_INTS * segment_count++;
            segment[0] = (int32_t)id;
            segment[1] = at;
            segment[2] = at + FB_NN_CUDA_SEGMENT < end ? at + FB_NN_CUDA_SEGMENT : end;
        }
        counts[id] = first;
        first = end;
    }
    for (int64_t i = 0; i < count; i++)
        order[counts[ids[i]]++] = (int32_t)i;
    return segment_count;
}

int64_t fb_nn_cuda_embedding_floats(int64_t count, int64_t vocabulary, int64_t width)
{
    const int64_t distinct = count < vocabulary ? count : vocabulary;
    return (count / FB_NN_CUDA_SEGMENT + distinct) * width;
}
