/* What the two kernels of window_cuda*.cu are told. */
#ifndef FB_WINDOW_CUDA_CUH
#define FB_WINDOW_CUDA_CUH

#include "cuda_launch.cuh"
#include "cuda_tile.cuh"
#include "window_cuda.h"

#include <initializer_list>

struct window_arguments {
    tensor_view q, k, v, out;
    int heads, group, batch;
    int q_len, kv_len;
    const int32_t *lengths; /* [2][batch]: queries, keys; NULL: all are full */
    int dim, value_dim, cols, value_cols;
    int64_t back, ahead;
    float scale; /* of the scores, times log2(e): exponentials are powers of two */
    float
        *lse; /* [batch heads][q_len] the logarithms to base 2 of the row sums; NULL: not wanted */
};

window_arguments window_arguments_of(const struct fb_problem *problem, const struct fb_call *call,
                                     const struct fb_cuda_band *band);

struct window_head {
    int64_t b, h, kv_h;
    int q_len, kv_len;
};

__device__ inline window_head window_head_of(const window_arguments &s, int64_t index)
{
    window_head head;
    head.b = index / s.heads;
    head.h = index % s.heads;
    head.kv_h = head.h / s.group;
    head.q_len = s.lengths == nullptr ? s.q_len : s.lengths[head.b];
    head.kv_len = s.lengths == nullptr ? s.kv_len : s.lengths[s.batch + head.b];
    return head;
}

/* The keys that any of the rows first .. first + rows - 1 sees: from, and one beyond the last. */
struct window_range {
    int from, to;
};

__device__ inline window_range window_range_of(const window_arguments &s, int kv_len, int first,
                                               int rows)
{
    const int64_t from = (int64_t)first - s.back;
    const int64_t to = (int64_t)first + rows + s.ahead;
    return {(int)(from > 0 ? from : 0), (int)(to < kv_len ? to : kv_len)};
}

/* The queries that see any of the keys first .. first + rows - 1: from, and one beyond the last. */
__device__ inline window_range queries_of(const window_arguments &s, int q_len, int first, int rows)
{
    const int64_t from = (int64_t)first - s.ahead;
    const int64_t to = (int64_t)first + rows + s.back;
    return {(int)(from > 0 ? from : 0), (int)(to < q_len ? to : q_len)};
}

__device__ inline bool window_sees(const window_arguments &s, int i, int j)
{
    return j >= i - s.back && j <= i + s.ahead;
}

__device__ inline float window_power(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Whether a window is no more than a few tiles wide. */
inline bool window_cuda_is_band(const window_arguments &a)
{
    return a.back <= 512 && a.ahead <= 512;
}

/* The most keys that any of so many rows see, as window_range_of has them. */
inline int64_t window_cuda_most_keys(const window_arguments &a, int rows)
{
    const int64_t band = a.back + a.ahead + rows;
    return band < a.kv_len ? band : a.kv_len;
}

/* How many keys a query sees, about; exact for full and for causal rows. */
inline double window_cuda_mean_keys(const window_arguments &a)
{
    const double keys = a.kv_len;
    return ((double)a.back < keys ? (double)a.back : keys / 2) +
           ((double)a.ahead < keys ? (double)a.ahead : keys / 2);
}

/* Heads of 64 of bf16 or f16 with rows of 16-byte chunks: window_cuda_wide.cu. */
enum fb_status window_cuda_wide(enum fb_dtype dtype, const window_arguments &arguments,
                                unsigned heads, cudaStream_t stream, struct fb_error *error);
/* The same where every key up to the sink, or every one, is seen, on Hopper: window_cuda_groups.cu.
 */
bool window_cuda_has_groups(const window_arguments &arguments);
/* Whether rows begin at multiples of 16 bytes, which hold so many numbers. */
bool window_cuda_has_chunks(const tensor_view &view, int numbers);
/* Whether heads are of 64, of 16 bits, and every row is one of whole 16-byte chunks. */
bool window_cuda_is_wide(const struct fb_problem *problem,
                         std::initializer_list<const tensor_view *> tensors);
enum fb_status window_cuda_groups(enum fb_dtype dtype, const window_arguments &arguments,
                                  unsigned heads, cudaStream_t stream, struct fb_error *error);

/* f32 and heads of 64 with rows of 16-byte chunks, on Hopper: window_cuda_split.cu. */
bool window_cuda_is_split(const struct fb_problem *problem,
                          std::initializer_list<const tensor_view *> tensors);
enum fb_status window_cuda_split(const window_arguments &arguments, unsigned heads,
                                 cudaStream_t stream, struct fb_error *error);

/* One query per head: window_cuda_single.cu. parts: see fb_window_cuda_is_single. */
enum fb_status window_cuda_single(const struct fb_problem *problem, const struct fb_call *call,
                                  const window_arguments &arguments, float *parts,
                                  cudaStream_t stream, struct fb_error *error);
enum fb_status window_cuda_single_gradient(const struct fb_problem *problem,
                                           const struct fb_call *call,
                                           const window_arguments &arguments, const float *shares,
                                           float *parts, cudaStream_t stream,
                                           struct fb_error *error);

#endif
