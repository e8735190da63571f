/*
 * Passes over the rows of Flow-Attention's queries and keys: dot products of phi(x) with a few
 * vectors, scalars from them, sums of phi(x) weighted with scalars. Bound by memory. A row lies on
 * `Lanes` lanes, eight numbers each; a block takes a slice of a head's tokens, one side of it.
 */
#include "flow_cuda_wide.cuh"

namespace
{

constexpr int kThreads = 256;
constexpr int kBlocks = 2; /* of a multiprocessor */
constexpr int kDepth = 4;  /* rows that a lane has under way */

enum wide_side { KEYS, QUERIES };

/* ---- rows and what is summed over them ------------------------------------------------------- */

template <int Dots> struct lane_vectors {
    float x[Dots > 0 ? Dots : 1][8];
    /* the lane's columns of a vector plus eps, zero beyond the head's */
    __device__ void load(int i, const float *vector, int dim, int col, float eps)
    {
#pragma unroll
        for (int e = 0; e < 8; e++)
            x[i][e] = col + e < dim ? vector[col + e] + eps : 0.0F;
    }
};

/* Sums of a lane's columns that keep their rounding errors. */
template <int Sums> struct lane_sums {
    float value[Sums > 0 ? Sums : 1][8], error[Sums > 0 ? Sums : 1][8];
};

/*
 * The rows first .. end - 1: dots with vectors of x plus eps_dot; visit(row, first lane of the row,
 * dots, weights) gives the weights of x plus eps_sum in the sums.
 */
template <typename T, int Lanes, int Dots, int Sums, typename Visit>
__device__ void walk_rows(const panel_rows<T> &x, enum fb_flow_phi phi, int first, int end,
                          const lane_vectors<Dots> &vectors, float eps_dot, lane_sums<Sums> &sums,
                          float eps_sum, Visit visit)
{
    constexpr int groups = kThreads / Lanes;
    const int lane = (int)threadIdx.x % Lanes, group = (int)threadIdx.x / Lanes;
    for (int at = first; at < end; at += kDepth * groups) {
        packet<T> rows[kDepth];
        float part[Sums > 0 ? Sums : 1][8] = {};
#pragma unroll
        for (int d = 0; d < kDepth; d++)
            rows[d] = fetch_packet(x, at + d * groups + group, 8 * lane);
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            const int row = at + d * groups + group;
            float phi_x[8], dots[Dots > 0 ? Dots : 1] = {}, weights[Sums > 0 ? Sums : 1] = {};
#pragma unroll
            for (int e = 0; e < 8; e++)
                phi_x[e] = to_f32(rows[d].x[e]);
            wide_phi<T>(phi, phi_x);
#pragma unroll
            for (int i = 0; i < Dots; i++) {
                float dot = 0.0F;
#pragma unroll
                for (int e = 0; e < 8; e++)
                    dot = fmaf(phi_x[e] + eps_dot, vectors.x[i][e], dot);
                dots[i] = sum_of_lanes<Lanes>(dot);
            }
            if (row < end)
                visit(row, lane == 0, dots, weights);
#pragma unroll
            for (int s = 0; s < Sums; s++)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    part[s][e] = fmaf(weights[s], phi_x[e] + eps_sum, part[s][e]);
        }
#pragma unroll
        for (int s = 0; s < Sums; s++)
#pragma unroll
            for (int e = 0; e < 8; e++) {
                const float y = part[s][e] - sums.error[s][e], t = sums.value[s][e] + y;
                sums.error[s][e] = (t - sums.value[s][e]) - y;
                sums.value[s][e] = t;
            }
    }
}

/* The block's sum of every column, in order; shared: kThreads times 8 floats. */
template <int Lanes, int Sums>
__device__ void join_sums(const wide_arguments &a, const lane_sums<Sums> &sums, int sum,
                          float *shared, float *to)
{
    constexpr int groups = kThreads / Lanes, width = 8 * Lanes;
    const int lane = (int)threadIdx.x % Lanes, group = (int)threadIdx.x / Lanes;
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 8; e++)
        shared[group * width + 8 * lane + e] = sums.value[sum][e];
    __syncthreads();
    for (int col = (int)threadIdx.x; col < a.cols; col += kThreads) {
        float total = 0.0F;
        for (int g = 0; g < groups; g++)
            total += shared[g * width + col];
        to[col] = col < a.dim ? total : 0.0F;
    }
}

/* ---- one side of a slice --------------------------------------------------------------------- */

template <typename T> struct slice_rows {
    wide_unit unit;
    panel_rows<T> x;
    int first, end;
    float *part; /* the side's vector of the slice */
};

template <typename T> __device__ slice_rows<T> slice_of(const wide_arguments &a, int side)
{
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const int valid = side == KEYS ? u.kv_valid : u.q_valid;
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)valid);
    float *part = a.parts + ((u.index * a.slices + blockIdx.x) * 2 + side) * a.cols;
    return {u,
            side == KEYS ? panel_rows<T>(a.k, u.b, u.kv_h, end) : panel_rows<T>(a.q, u.b, u.h, end),
            first, end, part};
}

/* Likewise the two sums of keys that one block leaves. */
__device__ float *second_part(const wide_arguments &a, float *first)
{
    return first + a.cols;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* grid (slices, heads, 2 sides) */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sums_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[kThreads * 8];
    const slice_rows<T> s = slice_of<T>(a, (int)blockIdx.z);
    const lane_vectors<0> none = {};
    lane_sums<1> sums = {};
    walk_rows<T, Lanes, 0, 1>(
        s.x, a.phi, s.first, s.end, none, 0.0F, sums, 0.0F,
        [](int, bool, const float(&)[1], float(&weights)[1]) { weights[0] = 1.0F; });
    join_sums<Lanes>(a, sums, 0, shared, s.part);
}

/* grid (slices, heads, 2 sides): u from keys, w from queries */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    flows_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[kThreads * 8];
    const int side = (int)blockIdx.z, col = (int)threadIdx.x % Lanes * 8;
    const slice_rows<T> s = slice_of<T>(a, side);
    const float extra = a.extra_eps;
    lane_vectors<1> other;
    lane_sums<1> sums = {};
    other.load(0, wide_vector_of(a, s.unit.index, side == KEYS ? WIDE_SQ : WIDE_SK), a.dim, col,
               FB_FLOW_EPSILON);
    walk_rows<T, Lanes, 1, 1>(s.x, a.phi, s.first, s.end, other, FB_FLOW_EPSILON, sums, 0.0F,
                              [&](int, bool, const float(&dots)[1], float(&weights)[1]) {
                                  weights[0] = 1.0F / (dots[0] + extra);
                              });
    join_sums<Lanes>(a, sums, 0, shared, s.part);
}

/* A maximum and a sum of powers relative to it; careful: it keeps what rounding takes away (Kahan),
 * of some thousand terms of a thread. */
template <bool Careful> struct running_peak {
    float peak, sum, error;
    __device__ void add(float other_peak, float other_sum)
    {
        const float now = fmaxf(peak, other_peak);
        if (now == -INFINITY)
            return;
        const float keep = expf(peak - now), kept = __fmul_rn(sum, keep);
        const float term = other_sum * expf(other_peak - now);
        const float y = Careful ? term - keep * error : term;
        sum = kept + y;
        error = Careful ? (sum - kept) - y : 0.0F;
        peak = now;
    }
};

template <typename T, int Lanes>
__device__ void score_keys(const wide_arguments &a, const slice_rows<T> &s, float *shared)
{
    const int col = (int)threadIdx.x % Lanes * 8;
    float *o = a.p + s.unit.index * a.kv_len;
    lane_vectors<1> w;
    lane_sums<0> none;
    running_peak<sizeof(T) == sizeof(float)> peak = {-INFINITY, 0.0F, 0.0F};
    w.load(0, wide_vector_of(a, s.unit.index, WIDE_W), a.dim, col, FB_FLOW_EPSILON);
    walk_rows<T, Lanes, 1, 0>(s.x, a.phi, s.first, s.end, w, FB_FLOW_EPSILON, none, 0.0F,
                              [&](int row, bool leads, const float(&dots)[1], float(&)[1]) {
                                  const float x = wide_clamp(dots[0] + a.extra_eps, a.clamp);
                                  peak.add(x, 1.0F);
                                  if (leads)
                                      o[row] = x;
                              });
    constexpr int groups = kThreads / Lanes;
    if (threadIdx.x % Lanes == 0) {
        shared[2 * (threadIdx.x / Lanes)] = peak.peak;
        shared[2 * (threadIdx.x / Lanes) + 1] = peak.sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int g = 1; g < groups; g++)
            peak.add(shared[2 * g], shared[2 * g + 1]);
        float *to = a.peaks + 2 * (s.unit.index * a.slices + blockIdx.x);
        to[0] = peak.peak;
        to[1] = peak.sum;
    }
}

/* grid (slices, heads, 2 sides) */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    scores_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[2 * kThreads / Lanes];
    const int side = (int)blockIdx.z, col = (int)threadIdx.x % Lanes * 8;
    const slice_rows<T> s = slice_of<T>(a, side);
    if (side == KEYS) {
        if (a.competition != FB_FLOW_NO_COMPETITION)
            score_keys<T, Lanes>(a, s, shared);
        return;
    }
    const float ratio = (float)((double)s.unit.q_valid / (double)max(s.unit.kv_valid, 1));
    float *r = a.r + s.unit.index * a.q_len;
    lane_vectors<2> vectors;
    lane_sums<0> none;
    vectors.load(0, wide_vector_of(a, s.unit.index, WIDE_SK), a.dim, col, FB_FLOW_EPSILON);
    vectors.load(1, wide_vector_of(a, s.unit.index, WIDE_U), a.dim, col, FB_FLOW_EPSILON);
    walk_rows<T, Lanes, 2, 0>(s.x, a.phi, s.first, s.end, vectors, FB_FLOW_EPSILON, none, 0.0F,
                              [&](int row, bool leads, const float(&dots)[2], float(&)[1]) {
                                  const float c = (dots[1] + a.extra_eps) * ratio;
                                  const float share = a.allocation ? wide_sigmoid<T>(c) : 1.0F;
                                  if (leads)
                                      r[row] = share / (dots[0] + a.extra_eps);
                              });
}

/* ---- backward -------------------------------------------------------------------------------- */

template <typename T, int Lanes>
__device__ void prepare_keys(const wide_arguments &a, const slice_rows<T> &s)
{
    const int col = (int)threadIdx.x % Lanes * 8;
    const int64_t place = s.unit.index * a.kv_len;
    const float scale = wide_scalars_of(a, s.unit.index)[0];
    const float peak = wide_scalars_of(a, s.unit.index)[1];
    lane_vectors<2> vectors;
    lane_sums<0> none;
    vectors.load(0, wide_vector_of(a, s.unit.index, WIDE_SQ), a.dim, col, FB_FLOW_EPSILON);
    vectors.load(1, wide_vector_of(a, s.unit.index, WIDE_W), a.dim, col, FB_FLOW_EPSILON);
    walk_rows<T, Lanes, 2, 0>(s.x, a.phi, s.first, s.end, vectors, FB_FLOW_EPSILON, none, 0.0F,
                              [&](int row, bool leads, const float(&dots)[2], float(&)[1]) {
                                  const float o = dots[1] + a.extra_eps;
                                  const float clamped = wide_clamp(o, a.clamp);
                                  if (!leads)
                                      return;
                                  a.beta[place + row] = 1.0F / (dots[0] + a.extra_eps);
                                  a.o[place + row] = o;
                                  a.p[place + row] = a.competition == FB_FLOW_OVER_TOKENS
                                                         ? scale * expf(clamped - peak)
                                                     : a.competition == FB_FLOW_OVER_HEADS ? clamped
                                                                                           : 1.0F;
                              });
}

/* grid (slices, heads, 2 sides): du from queries */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    prepare_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[kThreads * 8];
    const int side = (int)blockIdx.z, col = (int)threadIdx.x % Lanes * 8;
    const slice_rows<T> s = slice_of<T>(a, side);
    if (side == KEYS) {
        prepare_keys<T, Lanes>(a, s);
        return;
    }
    const float ratio = (float)((double)s.unit.q_valid / (double)max(s.unit.kv_valid, 1));
    const int64_t place = s.unit.index * a.q_len;
    lane_vectors<2> vectors;
    lane_sums<1> sums = {};
    vectors.load(0, wide_vector_of(a, s.unit.index, WIDE_SK), a.dim, col, FB_FLOW_EPSILON);
    vectors.load(1, wide_vector_of(a, s.unit.index, WIDE_U), a.dim, col, FB_FLOW_EPSILON);
    walk_rows<T, Lanes, 2, 1>(s.x, a.phi, s.first, s.end, vectors, FB_FLOW_EPSILON, sums,
                              FB_FLOW_EPSILON,
                              [&](int row, bool leads, const float(&dots)[2], float(&weights)[1]) {
                                  const float c = (dots[1] + a.extra_eps) * ratio;
                                  const float alpha = 1.0F / (dots[0] + a.extra_eps);
                                  const float share = a.allocation ? wide_sigmoid<T>(c) : 1.0F;
                                  const float rest = a.allocation ? wide_sigmoid<T>(-c) : 0.0F;
                                  weights[0] = ratio * rest * a.y[place + row];
                                  if (!leads)
                                      return;
                                  a.alpha[place + row] = alpha;
                                  a.r[place + row] = share * alpha;
                                  a.dc[place + row] = weights[0];
                              });
    join_sums<Lanes>(a, sums, 0, shared, s.part);
}

/* grid (slices, heads): dw and dsq */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sources_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[kThreads * 8];
    const slice_rows<T> s = slice_of<T>(a, KEYS);
    const int64_t place = s.unit.index * a.kv_len;
    lane_vectors<1> du;
    lane_sums<2> sums = {};
    du.load(0, wide_gradient_of(a, s.unit.index, WIDE_DU), a.dim, (int)threadIdx.x % Lanes * 8,
            0.0F);
    walk_rows<T, Lanes, 1, 2>(s.x, a.phi, s.first, s.end, du, 0.0F, sums, FB_FLOW_EPSILON,
                              [&](int row, bool leads, const float(&dots)[1], float(&weights)[2]) {
                                  const float beta = a.beta[place + row];
                                  weights[0] = a.o[place + row];
                                  weights[1] = -beta * beta * dots[0];
                                  if (leads)
                                      a.db[place + row] = weights[1];
                              });
    join_sums<Lanes>(a, sums, 0, shared, s.part);
    join_sums<Lanes>(a, sums, 1, shared, second_part(a, s.part));
}

/* grid (slices, heads): dsk */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sinks_kernel(const __grid_constant__ wide_arguments a)
{
    __shared__ float shared[kThreads * 8];
    const slice_rows<T> s = slice_of<T>(a, QUERIES);
    const int64_t place = s.unit.index * a.q_len;
    lane_vectors<1> dw;
    lane_sums<1> sums = {};
    dw.load(0, wide_gradient_of(a, s.unit.index, WIDE_DW), a.dim, (int)threadIdx.x % Lanes * 8,
            0.0F);
    walk_rows<T, Lanes, 1, 1>(s.x, a.phi, s.first, s.end, dw, 0.0F, sums, FB_FLOW_EPSILON,
                              [&](int row, bool leads, const float(&dots)[1], float(&weights)[1]) {
                                  const float alpha = a.alpha[place + row];
                                  weights[0] = -alpha * fmaf(alpha, dots[0], a.y[place + row]);
                                  if (leads)
                                      a.da[place + row] = weights[0];
                              });
    join_sums<Lanes>(a, sums, 0, shared, s.part);
}

/* ---- launching ------------------------------------------------------------------------------- */

template <typename T, int Lanes>
enum fb_status launch(enum wide_pass pass, const wide_arguments &a, cudaStream_t stream,
                      struct fb_error *error)
{
    const auto kernel = pass == WIDE_SUMS      ? sums_kernel<T, Lanes>
                        : pass == WIDE_FLOWS   ? flows_kernel<T, Lanes>
                        : pass == WIDE_SCORES  ? scores_kernel<T, Lanes>
                        : pass == WIDE_PREPARE ? prepare_kernel<T, Lanes>
                        : pass == WIDE_SOURCES ? sources_kernel<T, Lanes>
                                               : sinks_kernel<T, Lanes>;
    const unsigned sides = pass == WIDE_SOURCES || pass == WIDE_SINKS ? 1 : 2;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * a.heads), sides);
    kernel<<<grid, kThreads, 0, stream>>>(a);
    return fb_cuda_launched("flow's rows", error);
}

template <typename T>
enum fb_status choose(enum wide_pass pass, const wide_arguments &a, cudaStream_t stream,
                      struct fb_error *error)
{
    return a.dim <= 64    ? launch<T, 8>(pass, a, stream, error)
           : a.dim <= 128 ? launch<T, 16>(pass, a, stream, error)
                          : launch<T, 32>(pass, a, stream, error);
}

} // namespace

enum fb_status flow_wide_walk(enum fb_dtype dtype, enum wide_pass pass, const wide_arguments &a,
                              cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16  ? choose<__nv_bfloat16>(pass, a, stream, error)
           : dtype == FB_F16 ? choose<__half>(pass, a, stream, error)
                             : choose<float>(pass, a, stream, error);
}
