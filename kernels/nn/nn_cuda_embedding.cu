/* Sequences of embedded ids on the device: see nn_cuda.h, and nn_cuda_tokens.c for the index that
 * backward reads. */
#include "nn_cuda_cube.cuh"
#include "nn_cuda_dropout.cuh"
#include "nn_cuda_tokens.h"

namespace
{

constexpr int kThreads = 256;
constexpr int kSequences = 4;
constexpr int kColumnThreads = 64;
constexpr int kWarp = 32;
constexpr int kSummers = 8; /* warps that add up segments */

cudaStream_t stream_of(const struct fb_nn_cuda *c)
{
    return (cudaStream_t)fb_nn_cuda_stream(c);
}

struct embedded {
    struct fb_nn_cuda_keep keep;
    const float *table, *first, *positions;
    const int32_t *ids;
    int64_t batch, tokens, width;
};

/* What stands at token t of a sequence: the first row, if there is one, or the row of an id, and
 * the position added. A thread takes N columns of a token in kSequences sequences, for which the
 * position is read once. */
template <typename T, int N> __global__ void embedding_kernel(T *y, embedded e)
{
    const uint32_t columns = (uint32_t)e.width / N;
    const uint32_t at = blockIdx.x * kThreads + threadIdx.x;
    const int64_t t = at / columns, i = N * (int64_t)(at % columns);
    const int64_t extra = e.first != nullptr ? 1 : 0;
    if (t >= e.tokens)
        return;
    float position[N];
    fb_nn_cuda_load<float, N>(position, e.positions + t * e.width + i);
#pragma unroll
    for (int k = 0; k < kSequences; k++) {
        const int64_t b = (int64_t)blockIdx.y * kSequences + k;
        if (b >= e.batch)
            return;
        const float *row =
            t < extra ? e.first
                      : e.table + (int64_t)e.ids[b * (e.tokens - extra) + t - extra] * e.width;
        float v[N];
        fb_nn_cuda_load<float, N>(v, row + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] += position[j];
        const int64_t place = (b * e.tokens + t) * e.width + i;
        e.keep(v, place);
        fb_nn_cuda_store<T, N>(y + place, v);
    }
}

template <typename T, int N> void embed(struct fb_nn_cuda *c, T *y, const embedded &e)
{
    const dim3 grid(fb_nn_cuda_blocks(e.tokens * (e.width / N), kThreads),
                    fb_nn_cuda_blocks(e.batch, kSequences));
    embedding_kernel<T, N><<<grid, kThreads, 0, stream_of(c)>>>(y, e);
    fb_nn_cuda_note(c, cudaGetLastError(), "embedding");
}

/* The sum over the batch behind dropout, of every token. */
template <typename T> struct over_batch {
    struct fb_nn_cuda_keep keep;
    const T *dy;
    int64_t batch, tokens, width;
    __device__ __forceinline__ int64_t at(int64_t b, int64_t t, int64_t i) const
    {
        return (b * tokens + t) * width + i;
    }
    template <int N>
    __device__ __forceinline__ void operator()(float (&v)[N], int64_t, int64_t t, int64_t i) const
    {
        constexpr int kAtOnce = 4;
        double sums[N] = {};
        for (int64_t b = 0; b < batch; b += kAtOnce) {
            float some[kAtOnce][N];
#pragma unroll
            for (int k = 0; k < kAtOnce; k++)
                fb_nn_cuda_load<T, N>(some[k], dy + at(b + k < batch ? b + k : b, t, i));
#pragma unroll
            for (int k = 0; k < kAtOnce; k++) {
                if (b + k >= batch)
                    break;
                keep(some[k], at(b + k, t, i));
#pragma unroll
                for (int j = 0; j < N; j++)
                    sums[j] += (double)some[k][j];
            }
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = (float)sums[j];
    }
};

/* partials [segments, width]: the sum of a segment's rows behind dropout, in order; a thread sums N
 * columns. The step knows how many segments there are; the grid has room for the most. extra: rows
 * before the ids of a sequence, of which there are `ids_each`. */
template <typename T, int N>
__global__ void segment_kernel(float *partials, const T *dy, const int32_t *order,
                               const int32_t *segments, const struct fb_nn_cuda_step *step,
                               uint32_t ids_each, uint32_t extra, int64_t width,
                               struct fb_nn_cuda_keep keep)
{
    constexpr int kAtOnce = 4;
    const int64_t column = N * ((int64_t)blockIdx.y * kColumnThreads + threadIdx.x);
    const int64_t segment = blockIdx.x;
    if (column >= width || segment >= step->segments)
        return;
    const int32_t *range = segments + FB_NN_CUDA_SEGMENT_INTS * segment;
    float sums[N] = {};
    for (int32_t i = range[1]; i < range[2]; i += kAtOnce) {
        float v[kAtOnce][N];
        int64_t at[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; k++) {
            const uint32_t id = (uint32_t)order[i + k < range[2] ? i + k : i];
            at[k] = ((int64_t)id + extra * (id / ids_each + 1)) * width + column;
            fb_nn_cuda_load<T, N>(v[k], dy + at[k]);
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; k++) {
            if (i + k >= range[2])
                break;
            keep(v[k], at[k]);
#pragma unroll
            for (int j = 0; j < N; j++)
                sums[j] += v[k][j];
        }
    }
    for (int j = 0; j < N; j++)
        partials[segment * width + column + j] = sums[j];
}

/* A block adds up 32 columns of one id's segments, which follow one another: each of its warps
 * every eighth, then the warps' sums in order. */
__global__ void segments_add_kernel(float *dtable, const float *partials, const int32_t *groups,
                                    const int32_t *segments, const struct fb_nn_cuda_step *step,
                                    int64_t width)
{
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.y * kWarp + lane, group = blockIdx.x;
    if (group >= step->groups)
        return;
    const int32_t first = groups[group], end = groups[group + 1];
    double sum = 0.0;
    if (column < width) {
#pragma unroll 4
        for (int32_t i = first + warp; i < end; i += kSummers)
            sum += (double)partials[i * width + column];
    }
    sum = fb_nn_cuda_over_warps<kSummers>(sum);
    if (warp > 0 || column >= width)
        return;
    dtable[segments[FB_NN_CUDA_SEGMENT_INTS * (int64_t)first] * width + column] += (float)sum;
}

template <typename T, int N>
void add_rows(struct fb_nn_cuda *c, const struct fb_nn_cuda_embedding *e, float *dtable,
              float *partials, const T *dy, const struct fb_nn_cuda_keep &keep)
{
    const struct fb_nn_cuda_tokens *tokens = e->ids;
    const int32_t *groups = tokens->index + tokens->count;
    const int64_t most = fb_nn_cuda_groups_max(tokens->count, tokens->vocabulary);
    const int32_t *segments = groups + most + 1;
    const dim3 grid((unsigned int)fb_nn_cuda_segments_max(tokens->count, tokens->vocabulary),
                    fb_nn_cuda_blocks(e->width, N * kColumnThreads));
    const dim3 add_grid((unsigned int)most, fb_nn_cuda_blocks(e->width, kWarp));
    const uint32_t extra = e->has_first ? 1 : 0;
    segment_kernel<T, N><<<grid, kColumnThreads, 0, stream_of(c)>>>(
        partials, dy, tokens->index, segments, fb_nn_cuda_step_there(c),
        (uint32_t)e->tokens - extra, extra, e->width, keep);
    segments_add_kernel<<<add_grid, kSummers * kWarp, 0, stream_of(c)>>>(
        dtable, partials, groups, segments, fb_nn_cuda_step_there(c), e->width);
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of the embedding");
}

} // namespace

extern "C" void fb_nn_cuda_embedding_forward(struct fb_nn_cuda *c,
                                             const struct fb_nn_cuda_embedding *e, void *y,
                                             const float *table, const float *first,
                                             const float *positions)
{
    const embedded f = {fb_nn_cuda_keep_of(c, &e->dropout),
                        table,
                        first,
                        positions,
                        e->ids->ids,
                        e->batch,
                        e->tokens,
                        e->width};
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        if (e->width % fb_nn_cuda_pack<T> == 0)
            embed<T, fb_nn_cuda_pack<T>>(c, (T *)y, f);
        else
            embed<T, 1>(c, (T *)y, f);
    });
}

extern "C" void fb_nn_cuda_embedding_backward(struct fb_nn_cuda *c,
                                              const struct fb_nn_cuda_embedding *e, float *dtable,
                                              float *dfirst, float *dpositions, const void *dy)
{
    const struct fb_nn_cuda_keep keep = fb_nn_cuda_keep_of(c, &e->dropout);
    float *partials = fb_nn_cuda_partials(
        c, fb_nn_cuda_embedding_floats(e->ids->count, e->ids->vocabulary, e->width));
    if (partials == nullptr)
        return;
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        constexpr int pack = fb_nn_cuda_pack<T>;
        const over_batch<T> f = {keep, (const T *)dy, e->batch, e->tokens, e->width};
        if (e->width % pack == 0)
            add_rows<T, pack>(c, e, dtable, partials, (const T *)dy, keep);
        else
            add_rows<T, 1>(c, e, dtable, partials, (const T *)dy, keep);
        if (dfirst != nullptr)
            fb_nn_cuda_cube<pack>(c, dfirst, true, 1, 1, e->width, f,
                                  "the gradient of the first token");
        if (dpositions != nullptr)
            fb_nn_cuda_cube<pack>(c, dpositions, true, 1, e->tokens, e->width, f,
                                  "the gradient of positions");
    });
}

extern "C" void fb_nn_cuda_position_backward(struct fb_nn_cuda *c, float *dpositions,
                                             const void *dy, int64_t batch, int64_t tokens,
                                             int64_t width)
{
    const struct fb_nn_dropout none = {};
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        const over_batch<T> f = {fb_nn_cuda_keep_of(c, &none), (const T *)dy, batch, tokens, width};
        fb_nn_cuda_cube<fb_nn_cuda_pack<T>>(c, dpositions, true, 1, tokens, width, f,
                                            "the gradient of positions");
    });
}
