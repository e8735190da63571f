/*
 * What the kernels of linear attention on a GPU are told, and who takes which part in which pass.
 *
 * With N = sum_j fk_j v_j^T, z = sum_j fk_j (fq = phi(q), fk = phi(k)), y_i = fq_i z + eps and
 * w_i = dout_i out_i, every pass is one form, X Y^T restricted to what the mask lets through, times
 * Z:
 *
 *   pass      row   sum over        X      Y         Z         extra term of X Y^T    then
 *   forward   i     j <= i          fq     fk        v         -                      / y_i
 *   dv        j     i >= j          fk     fq        dout / y  -                      -
 *   dq        i     j <= i          dout   v         fk        - w_i                  / y_i, slope
 *   dk        j     i >= j          v      dout / y  fq        - w_i / y_i            slope
 *
 * Without a mask the sum is X (Y^T Z): the state Y^T Z of all tokens. With one, a slice of tokens
 * starts with the state of the slices before it (behind it, for dv and dk) and goes through its
 * panels of 64 tokens one after the other. Features and values are cut into panels, too: a block
 * has one panel of the result's columns. Without a mask heads of more than one panel go in tiles
 * instead (linear_cuda_wide.cuh), bf16 and f16 of one panel in strips (linear_cuda_strip.cuh), and
 * a few queries by themselves (linear_cuda_few.cu).
 */
#ifndef FB_LINEAR_CUDA_CUH
#define FB_LINEAR_CUDA_CUH

#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
#include "linear_cuda.h"

enum linear_pass { LINEAR_OUT, LINEAR_DV, LINEAR_DQ, LINEAR_DK };

struct linear_arguments {
    panel_tensor q, k, v, out, dout, dq, dk, dv;
    int batch, heads, kv_heads, group, q_len, kv_len;
    const int32_t *lengths; /* [2][batch]: queries, keys; NULL: all are full */
    int slices, slice_panels;
    int features, feature_panels, value_panels;
    enum fb_linear_cuda_map map;
    float epsilon;
    float *denominators; /* [batch heads][q_len] y; NULL in forward: not wanted */
    float *weights;      /* [batch heads][q_len] w */
    float *sums, *back;  /* [batch kv_heads or heads][slices][count] N and z; of queries: dN, dz */
    const float *sum_total, *back_total; /* [batch kv_heads][count] */
    int64_t count;                       /* feature_panels value_panels 64 64 + feature_panels 64 */
    int row_panels;                      /* of a block's slice of rows, in strips */
    int few_lanes;                       /* of a token; 0 unless the queries are few */
    float few_apart;                     /* what all keys' features lack, but in dq */
};

struct linear_unit {
    int64_t b, h, kv_h;
    int q_valid, kv_valid;
};

__device__ inline linear_unit linear_unit_of(const linear_arguments &a, int64_t b, int64_t h,
                                             int64_t kv_h)
{
    linear_unit u = {b, h, kv_h, a.q_len, a.kv_len};
    if (a.lengths != nullptr) {
        u.q_valid = a.lengths[b];
        u.kv_valid = a.lengths[a.batch + b];
    }
    return u;
}

/* phi of eight numbers, and times its slope at x. */
template <typename P> __device__ void linear_phi(enum fb_linear_cuda_map map, float (&x)[8])
{
#pragma unroll
    for (int e = 0; e < 8; e++) {
        if (map == FB_LINEAR_CUDA_ELU)
            x[e] = fmaxf(x[e], 0.0F) + P::power(smaller_of(x[e], 0.0F));
        else if (map == FB_LINEAR_CUDA_RELU)
            x[e] = larger_of(x[e], 0.0F) + 1e-3F;
    }
}

/* The features of a panel of inputs, in place; features are seen only. See finish_panel. */
template <typename P, typename T, typename See>
__device__ void linear_finish(const linear_arguments &a, char *panel, const panel_rows<T> &from,
                              int first, int part, See see)
{
    if (a.map == FB_LINEAR_CUDA_IDENTITY)
        see_panel<P>(panel, see);
    else
        finish_panel<P>(
            panel, from, first, part, [&](int, float(&x)[8]) { linear_phi<P>(a.map, x); }, see);
}

template <typename P> __device__ float linear_slope(enum fb_linear_cuda_map map, float x)
{
    if (map == FB_LINEAR_CUDA_ELU)
        return P::power(fminf(x, 0.0F));
    if (map == FB_LINEAR_CUDA_RELU)
        return x > 0.0F ? 1.0F : 0.0F;
    return 1.0F;
}

/* Roundings of features average out over a head's dimensions; with few of them bf16 is too coarse.
 */
static inline bool linear_is_narrow(const linear_arguments &a)
{
    return a.features < 16;
}

/* Whether strips serve a problem without a mask. Features in memory are f32 in f16. */
static inline bool linear_is_strip(const linear_arguments &a, enum fb_dtype dtype)
{
    const bool fits = dtype == FB_BF16 || (dtype == FB_F16 && a.map != FB_LINEAR_CUDA_IDENTITY);
    return fits && a.feature_panels == 1 && a.value_panels == 1 && !linear_is_narrow(a);
}

/* Whether the tiles of wide heads serve a problem without a mask. */
static inline bool linear_is_wide(const linear_arguments &a, enum fb_dtype dtype)
{
    return (a.feature_panels > 1 || a.value_panels > 1) &&
           !(dtype == FB_BF16 && linear_is_narrow(a));
}

__device__ inline float linear_inverse(float y)
{
    return y <= 0.0F ? 0.0F : 1.0F / y;
}

/* linear_cuda_sums.cu: the states of every slice; then their totals (as_bf16: N's in bf16, in the
 * place of as many floats), or in place what comes before (after, backwards) each slice. Y of
 * queries: by head, Z is dout / y. */
enum fb_status linear_cuda_sum(enum fb_dtype features, enum fb_dtype dtype,
                               const linear_arguments &a, bool of_queries, cudaStream_t stream,
                               struct fb_error *error);
enum fb_status linear_cuda_total(const linear_arguments &a, bool of_queries, bool as_bf16,
                                 float *total, cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_scan(const linear_arguments &a, bool of_queries, cudaStream_t stream,
                                struct fb_error *error);

/* linear_cuda_whole.cu, linear_cuda_masked.cu: a pass without and with a mask. */
enum fb_status linear_cuda_whole(enum fb_dtype features, enum fb_dtype dtype, enum linear_pass pass,
                                 const linear_arguments &a, cudaStream_t stream,
                                 struct fb_error *error);
enum fb_status linear_cuda_masked(enum fb_dtype features, enum fb_dtype dtype,
                                  enum linear_pass pass, const linear_arguments &a,
                                  cudaStream_t stream, struct fb_error *error);

/* linear_cuda_pair.cu: forward in one launch for many heads of 64. kept: where the state of all
 * keys goes, or NULL. */
bool linear_cuda_pair_serves(const struct fb_problem *p, const struct fb_call *call,
                             const linear_arguments &a);
enum fb_status linear_cuda_pair(const struct fb_problem *p, const struct fb_call *call,
                                const linear_arguments &a, float *kept, cudaStream_t stream,
                                struct fb_error *error);

/* linear_cuda_strip_sums.cu, linear_cuda_strip_rows.cu: sums and rows in strips. The rows take
 * `slots` states of each head of keys, and keep their total unless NULL; dq also writes w. */
enum fb_status linear_cuda_strip_sum(enum fb_dtype dtype, const linear_arguments &a,
                                     bool of_queries, cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_strip_out(enum fb_dtype dtype, const linear_arguments &a,
                                     const float *states, int slots, float *kept,
                                     cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_strip_dq(enum fb_dtype dtype, const linear_arguments &a,
                                    cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_strip_dk_dv(enum fb_dtype dtype, const linear_arguments &a,
                                       const float *states, int slots, cudaStream_t stream,
                                       struct fb_error *error);

/* linear_cuda_causal.cu, linear_cuda_causal_gradient.cu: with a mask, bf16 or f16 with heads of 64
 * whose rows are whole, on Hopper. joined: a.slices, at most kCausalSlicesMost, are a cluster that
 * the device has room for and sum themselves up; else their running sums are in a.sums and a.back.
 * dq writes w; dk and dv ask for it, and for one head of queries for each of keys. */
constexpr int kCausalSlicesMost = 12;
bool linear_cuda_causal_out_joins(enum fb_dtype dtype, const linear_arguments &a);
bool linear_cuda_causal_gradients_join(enum fb_dtype dtype, const linear_arguments &a);
enum fb_status linear_cuda_causal_out(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                      cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_causal_dq(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                     cudaStream_t stream, struct fb_error *error);
enum fb_status linear_cuda_causal_dk_dv(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                        cudaStream_t stream, struct fb_error *error);

/* linear_cuda_wide_sums.cu, linear_cuda_wide.cu: likewise for wide heads without a mask; states
 * have features as rows and values as columns. Tiles: of a state (own_sums: as P::wide_sums says).
 * direct: where the only state of each head goes as its total, or NULL. */
int linear_cuda_wide_tiles(const linear_arguments &a, bool own_sums);
int linear_cuda_wide_blocks(const linear_arguments &a, bool own_sums); /* that an H100 runs */
enum fb_status linear_cuda_wide_sum(enum fb_dtype features, enum fb_dtype dtype,
                                    const linear_arguments &a, bool of_queries, float *direct,
                                    cudaStream_t stream, struct fb_error *error);
enum linear_wide_rows { LINEAR_WIDE_OUT, LINEAR_WIDE_DQ, LINEAR_WIDE_DK_DV };
enum fb_status linear_cuda_wide(enum fb_dtype features, enum fb_dtype dtype,
                                enum linear_wide_rows what, const linear_arguments &a,
                                cudaStream_t stream, struct fb_error *error);

/* linear_cuda_few.cu: the lanes of a token when the queries are few, else 0; forward, or the
 * gradients, whose w are known. a.count holds the sums of every row. */
int linear_cuda_few_lanes(const struct fb_problem *problem, int64_t features);
constexpr int kFewRowsMost = 4;
enum fb_status linear_cuda_few(enum fb_dtype features, enum fb_dtype dtype,
                               const linear_arguments &a, bool gradient, cudaStream_t stream,
                               struct fb_error *error);

/* ---- roles ----------------------------------------------------------------------------------- */

template <linear_pass Pass> constexpr bool linear_rows_are_queries()
{
    return Pass == LINEAR_OUT || Pass == LINEAR_DQ;
}

template <linear_pass Pass> constexpr bool linear_gives_features()
{
    return Pass == LINEAR_DQ || Pass == LINEAR_DK;
}

/* The types of X and Y, and of Z and the result. F is that of features, T that of values. */
template <linear_pass Pass, typename F, typename T, bool Features> struct linear_types_of {
    typedef F x;
    typedef T z;
};
template <linear_pass Pass, typename F, typename T> struct linear_types_of<Pass, F, T, true> {
    typedef T x;
    typedef F z;
};
template <linear_pass Pass, typename F, typename T>
struct linear_types : linear_types_of<Pass, F, T, linear_gives_features<Pass>()> {
};

template <linear_pass Pass> __device__ const panel_tensor &linear_x(const linear_arguments &a)
{
    return Pass == LINEAR_OUT ? a.q : Pass == LINEAR_DV ? a.k : Pass == LINEAR_DQ ? a.dout : a.v;
}
template <linear_pass Pass> __device__ const panel_tensor &linear_y(const linear_arguments &a)
{
    return Pass == LINEAR_OUT ? a.k : Pass == LINEAR_DV ? a.q : Pass == LINEAR_DQ ? a.v : a.dout;
}
template <linear_pass Pass> __device__ const panel_tensor &linear_z(const linear_arguments &a)
{
    return Pass == LINEAR_OUT ? a.v : Pass == LINEAR_DV ? a.dout : Pass == LINEAR_DQ ? a.k : a.q;
}
template <linear_pass Pass> __device__ const panel_tensor &linear_result(const linear_arguments &a)
{
    return Pass == LINEAR_OUT ? a.out : Pass == LINEAR_DV ? a.dv : Pass == LINEAR_DQ ? a.dq : a.dk;
}

template <linear_pass Pass> __host__ __device__ int linear_x_panels(const linear_arguments &a)
{
    return linear_gives_features<Pass>() ? a.value_panels : a.feature_panels;
}
template <linear_pass Pass> __host__ __device__ int linear_z_panels(const linear_arguments &a)
{
    return linear_gives_features<Pass>() ? a.feature_panels : a.value_panels;
}

/* The state's panel for columns x of X and z of Z; turned when the pass gives features, since
 * states are stored with features as rows. */
template <linear_pass Pass>
__device__ int64_t linear_state_panel(const linear_arguments &a, int x, int z)
{
    const int feature = linear_gives_features<Pass>() ? z : x;
    const int value = linear_gives_features<Pass>() ? x : z;
    return (int64_t)(feature * a.value_panels + value) * kPanelCount;
}

__host__ __device__ inline int64_t linear_key_sum(const linear_arguments &a, int feature_panel)
{
    return (int64_t)a.feature_panels * a.value_panels * kPanelCount + feature_panel * kPanel;
}

/* A result's strip to where it belongs: through the panel's own strip, for features times the slope
 * of their map. */
template <typename P, linear_pass Pass, typename T>
__device__ void linear_write(const linear_arguments &a, char *panel, int strip, strip_result &c,
                             int64_t b, int64_t h, int first, int z)
{
    const int count = linear_rows_are_queries<Pass>() ? a.q_len : a.kv_len;
    const panel_rows<T> to(linear_result<Pass>(a), b, h, count);
    const panel_rows<T> input(Pass == LINEAR_DK ? a.k : a.q, b, h, count);
    const enum fb_linear_cuda_map map = a.map;
    put_strip<P>(panel, strip, c);
    write_strip<P, T>(panel, strip, to, first, count, z, [&](int row, int col, float(&x)[8]) {
        if constexpr (linear_gives_features<Pass>()) {
            if (map == FB_LINEAR_CUDA_IDENTITY)
                return;
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (col + e < input.dim)
                    x[e] *= linear_slope<P>(map, to_f32(*input.at(row, col + e)));
        }
    });
}

#endif
