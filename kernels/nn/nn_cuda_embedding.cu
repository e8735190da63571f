/* Embeddings on the device: see nn_cuda.h, and nn_cuda_tokens.c for the index that backward reads.
 */
#include "nn_cuda_private.h"
#include "nn_cuda_tokens.h"

namespace
{

constexpr int kThreads = 256;
constexpr int kRows = 8;
constexpr int kColumns = 64;

/* A block takes kRows ids, its threads the columns. */
__global__ void gather_kernel(float *y, const float *table, const int32_t *ids, int64_t count,
                              int64_t width)
{
    const int64_t first = (int64_t)blockIdx.x * kRows;
    for (int64_t i = first; i < first + kRows && i < count; i++) {
        const float *row = table + (int64_t)ids[i] * width;
        for (int64_t c = threadIdx.x; c < width; c += kThreads)
            y[i * width + c] = row[c];
    }
}

/* partials [segments, width]: the sum of a segment's rows, in order. */
__global__ void segment_kernel(float *partials, const float *dy, const int32_t *order,
                               const int32_t *segments, int64_t width)
{
    const int64_t column = (int64_t)blockIdx.y * kColumns + threadIdx.x, segment = blockIdx.x;
    if (column >= width)
        return;
    const int32_t *range = segments + FB_NN_CUDA_SEGMENT_INTS * segment;
    float sum = 0.0f;
    for (int32_t i = range[1]; i < range[2]; i++)
        sum += dy[(int64_t)order[i] * width + column];
    partials[segment * width + column] = sum;
}

/* The first segment of an id adds up those of the id, which follow one another. */
__global__ void segments_add_kernel(float *dtable, const float *partials, const int32_t *segments,
                                    int64_t count, int64_t width)
{
    const int64_t column = (int64_t)blockIdx.y * kColumns + threadIdx.x, segment = blockIdx.x;
    const int32_t id = segments[FB_NN_CUDA_SEGMENT_INTS * segment];
    if (column >= width || (segment > 0 && segments[FB_NN_CUDA_SEGMENT_INTS * (segment - 1)] == id))
        return;
    double sum = 0.0;
    for (int64_t i = segment; i < count && segments[FB_NN_CUDA_SEGMENT_INTS * i] == id; i++)
        sum += (double)partials[i * width + column];
    dtable[id * width + column] += (float)sum;
}

} // namespace

extern "C" void fb_nn_cuda_embedding_forward(struct fb_nn_cuda *c, float *y, const float *table,
                                             const struct fb_nn_cuda_tokens *tokens, int64_t width)
{
    const int64_t blocks = (tokens->count + kRows - 1) / kRows;
    gather_kernel<<<(unsigned int)blocks, kThreads, 0, (cudaStream_t)fb_nn_cuda_stream(c)>>>(
        y, table, tokens->ids, tokens->count, width);
    fb_nn_cuda_note(c, cudaGetLastError(), "embedding");
}

extern "C" void fb_nn_cuda_embedding_backward(struct fb_nn_cuda *c, float *dtable, const float *dy,
                                              const struct fb_nn_cuda_tokens *tokens, int64_t width)
{
    const int32_t *segments = tokens->index + tokens->count;
    float *partials = fb_nn_cuda_partials(c, tokens->segments * width);
    if (partials == nullptr)
        return;
    cudaStream_t stream = (cudaStream_t)fb_nn_cuda_stream(c);
    const dim3 grid((unsigned int)tokens->segments,
                    (unsigned int)((width + kColumns - 1) / kColumns));
    segment_kernel<<<grid, kColumns, 0, stream>>>(partials, dy, tokens->index, segments, width);
    segments_add_kernel<<<grid, kColumns, 0, stream>>>(dtable, partials, segments, tokens->segments,
                                                       width);
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of the embedding");
}
