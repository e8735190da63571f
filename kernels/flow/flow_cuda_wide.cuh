/*
 * Flow-Attention, normal form, spread over the whole device: what its kernels are told. Every sum
 * over a head's tokens is a pass over slices of them whose parts have fixed places and are added in
 * order; every scalar of a token is written once; products with the D x M state go by panels of 64
 * (cuda_panels.cuh). With g = dout, r = s alpha, M = scale G, ratio = L/S, x' = x + eps:
 *
 *   forward                                                                        reads
 *   sums      sk = sum k, sq = sum q                                               q, k
 *   flows     u = sum beta k, w = sum alpha q                                      q, k
 *   scores    o; r = s alpha                                                       q, k
 *   share     e = exp(clamp(o) - peak), scale = S / Z; over heads each token's share, scale = S
 *   product   G = sum k (e v)^T                                                    k, v
 *   out       r scale q G                                                          q
 *
 *   backward, from sk, sq, u, w, scale, peak and G
 *   pairs     y = g out, which is s alpha (h q) with h = g M^T                     g, out
 *   prepare   alpha, r, dc = ratio y (1 - s), du = sum dc q'; beta, o, p = e scale q, k
 *   product   dM = sum q (r g)^T                                                   q, g
 *   dv        p k dM, and z = v dv, which is p (k dM v)                            k, v
 *   do        z - p (sum of z over what competes) / S inside the clamp
 *   sources   db = -beta^2 k du, dw = sum do k', dsq = sum db k'                   k
 *   sinks     da = -alpha y - alpha^2 q dw, dsk = sum da q'                        q
 *   dq        (r h + dc u' + alpha dw + da sk' + dsq) phi'(q)                      q, g
 *   dk        (p v dM^T + do w' + beta du + db sq' + dsk) phi'(k)                  k, v
 *
 * Grouped queries: dv and dk are added up over the heads of a group, a launch for each.
 */
#ifndef FB_FLOW_CUDA_WIDE_CUH
#define FB_FLOW_CUDA_WIDE_CUH

#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
#include "flow_cuda_plan.h"
#include "flow_options.h"

struct wide_arguments {
    panel_tensor q, k, v, out, dout, dq, dk, dv;
    enum fb_flow_phi phi;
    enum fb_flow_competition competition;
    float clamp, extra_eps;
    bool allocation;
    int batch, heads, kv_heads, group, round; /* round: the head of each group that is served */
    int q_len, kv_len;
    const int32_t *lengths; /* [2][batch]: queries, keys; NULL: all are full */
    int dim, value_dim, cols, value_cols;
    int slices, slice_len;            /* of passes over rows, in tokens */
    int panel_slices, slice_panels;   /* of products */
    int result_slices, result_panels; /* of rows times a state */
    float *totals;                    /* [heads][totals_count]: see flow_cuda_plan.h */
    int64_t totals_count;
    float *gradients; /* [heads][gradients_count]: du, dw, dsq, dsk; dM */
    int64_t gradients_count;
    float *parts;                   /* [heads][slices][2][cols] */
    float *peaks;                   /* [heads][slices][2]: peak and Z, or sum of z and nothing */
    float *matrices;                /* [heads][panel_slices][cols][value_cols] */
    float *r, *alpha, *y, *dc, *da; /* [heads][q_len] */
    float *p, *beta, *db;           /* [heads][kv_len]; p: o, then e in forward */
    float *o;                       /* likewise, later do */
    float *z;                       /* [value panels][heads][kv_len] */
};

enum wide_vector { WIDE_SK, WIDE_SQ, WIDE_U, WIDE_W };
enum wide_gradient { WIDE_DU, WIDE_DW, WIDE_DSQ, WIDE_DSK, WIDE_GRADIENTS };

struct wide_unit {
    int64_t index, b, h, kv_h;
    int q_valid, kv_valid; /* queries that no key answers are not visited: all of theirs is 0 */
};

__device__ inline wide_unit wide_unit_of(const wide_arguments &a, int64_t index)
{
    wide_unit u = {index, index / a.heads, index % a.heads, 0, a.q_len, a.kv_len};
    u.kv_h = u.h / a.group;
    if (a.lengths != nullptr) {
        u.kv_valid = a.lengths[a.batch + u.b];
        u.q_valid = u.kv_valid == 0 ? 0 : a.lengths[u.b];
    }
    return u;
}

/* The head of this round of the unit-th head of keys. */
__device__ inline wide_unit wide_round_of(const wide_arguments &a, int64_t unit)
{
    const int64_t b = unit / a.kv_heads, kv_h = unit % a.kv_heads;
    return wide_unit_of(a, b * a.heads + kv_h * a.group + a.round);
}

__device__ inline float *wide_vector_of(const wide_arguments &a, int64_t head, int vector)
{
    return a.totals + head * a.totals_count + vector * a.cols;
}

/* scale and peak; G follows them */
__device__ inline float *wide_scalars_of(const wide_arguments &a, int64_t head)
{
    return wide_vector_of(a, head, FB_FLOW_CUDA_VECTORS);
}

__device__ inline float *wide_gradient_of(const wide_arguments &a, int64_t head, int vector)
{
    return a.gradients + head * a.gradients_count + vector * a.cols;
}

/* ---- phi ------------------------------------------------------------------------------------- */

__device__ inline float wide_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Types of 16 bits take the hardware's exponential: its error is far below their rounding. */
template <typename T> __device__ float wide_power(float x)
{
    float y = x * 1.44269504F;
    if (sizeof(T) == 4)
        return expf(x);
    asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(y));
    return y;
}

template <typename T> __device__ float wide_sigmoid(float x)
{
    return wide_reciprocal(1.0F + wide_power<T>(-x));
}

template <typename T> __device__ void wide_phi(enum fb_flow_phi phi, float (&x)[8])
{
    if (phi == FB_FLOW_SIGMOID) {
#pragma unroll
        for (int e = 0; e < 8; e++)
            x[e] = wide_sigmoid<T>(x[e]);
    } else if (phi == FB_FLOW_RELU) {
#pragma unroll
        for (int e = 0; e < 8; e++)
            x[e] = larger_of(x[e], 0.0F) + FB_FLOW_EPSILON;
    } else {
#pragma unroll
        for (int e = 0; e < 8; e++)
            x[e] = fmaxf(x[e], 0.0F) + wide_power<T>(smaller_of(x[e], 0.0F));
    }
}

/* phi'(x), by the form that keeps its digits. */
template <typename T> __device__ float wide_slope(enum fb_flow_phi phi, float x)
{
    if (phi == FB_FLOW_SIGMOID) {
        const float e = wide_power<T>(-fabsf(x));
        return e * wide_reciprocal((1.0F + e) * (1.0F + e));
    }
    if (x > 0.0F)
        return 1.0F;
    return phi == FB_FLOW_ELU ? wide_power<T>(x) : 0.0F;
}

__device__ inline float wide_clamp(float o, float clamp)
{
    return fminf(fmaxf(o, -clamp), clamp);
}

/* ---- launchers ------------------------------------------------------------------------------- */

/* flow_cuda_wide_rows.cu */
enum wide_pass { WIDE_SUMS, WIDE_FLOWS, WIDE_SCORES, WIDE_PREPARE, WIDE_SOURCES, WIDE_SINKS };
enum fb_status flow_wide_walk(enum fb_dtype dtype, enum wide_pass pass, const wide_arguments &a,
                              cudaStream_t stream, struct fb_error *error);

/* flow_cuda_wide_products.cu: the state of keys and values or of queries and dout, by slices; then
 * rows times a state. */
enum wide_result { WIDE_OUT, WIDE_DV, WIDE_DQ, WIDE_DK };
enum fb_status flow_wide_product(enum fb_dtype dtype, bool of_queries, const wide_arguments &a,
                                 cudaStream_t stream, struct fb_error *error);
enum fb_status flow_wide_result(enum fb_dtype dtype, enum wide_result result,
                                const wide_arguments &a, cudaStream_t stream,
                                struct fb_error *error);

#endif
