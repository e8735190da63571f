/*
 * Where each id of a batch stands, in the order of the batch: what the device sums the gradient of
 * an embedding by. See nn_cuda.h. The index holds, for `count` ids:
 *   order [count]         positions, sorted by id and within an id by position
 *   groups [ids + 1]      of each id that occurs, in order, its first segment; the end of the last
 *   segments [s, 3]       id, first, end: ranges of order, of at most SEGMENT positions of one id
 * with room for as many groups as there can be.
 */
#include "nn_cuda_tokens.h"

#include <string.h>

int64_t fb_nn_cuda_groups_max(int64_t count, int64_t vocabulary)
{
    return count < vocabulary ? count : vocabulary;
}

int64_t fb_nn_cuda_segments_max(int64_t count, int64_t vocabulary)
{
    return count / FB_NN_CUDA_SEGMENT + fb_nn_cuda_groups_max(count, vocabulary);
}

int64_t fb_nn_cuda_tokens_used(int64_t count, int64_t vocabulary, int64_t segments)
{
    return count + fb_nn_cuda_groups_max(count, vocabulary) + 1 +
           FB_NN_CUDA_SEGMENT_INTS * segments;
}

int64_t fb_nn_cuda_tokens_ints(int64_t count, int64_t vocabulary)
{
    return fb_nn_cuda_tokens_used(count, vocabulary, fb_nn_cuda_segments_max(count, vocabulary));
}

struct fb_nn_cuda_sorted fb_nn_cuda_tokens_sort(int32_t *index, int32_t *counts, const int32_t *ids,
                                                int64_t count, int64_t vocabulary)
{
    int32_t *order = index, *groups = index + count;
    int32_t *segments = groups + fb_nn_cuda_groups_max(count, vocabulary) + 1;
    struct fb_nn_cuda_sorted sorted = {0, 0};
    memset(counts, 0, (size_t)vocabulary * sizeof *counts);
    for (int64_t i = 0; i < count; i++)
        counts[ids[i]]++;
    int32_t first = 0;
    for (int64_t id = 0; id < vocabulary; id++) {
        const int32_t end = first + counts[id];
        if (end > first)
            groups[sorted.groups++] = (int32_t)sorted.segments;
        for (int32_t at = first; at < end; at += FB_NN_CUDA_SEGMENT) {
            int32_t *segment = segments + FB_NN_CUDA_SEGMENT_INTS * sorted.segments++;
            segment[0] = (int32_t)id;
            segment[1] = at;
            segment[2] = at + FB_NN_CUDA_SEGMENT < end ? at + FB_NN_CUDA_SEGMENT : end;
        }
        counts[id] = first;
        first = end;
    }
    groups[sorted.groups] = (int32_t)sorted.segments;
    for (int64_t i = 0; i < count; i++)
        order[counts[ids[i]]++] = (int32_t)i;
    return sorted;
}

int64_t fb_nn_cuda_embedding_floats(int64_t count, int64_t vocabulary, int64_t width)
{
    return fb_nn_cuda_segments_max(count, vocabulary) * width;
}
