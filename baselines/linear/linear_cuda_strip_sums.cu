/*
 * States of strips: every warp sums fk_j v_j^T over strips of its own, in registers; a block's
 * eight warps are then added in order. Strips come through a ring of shared memory that only their
 * warp uses, turned into fragments on the way out. See linear_cuda_strip.cuh.
 */
#include "linear_cuda_strip.cuh"

namespace
{

constexpr int kStages = 4; /* strips of a warp under way, the one in use included */
constexpr int kStripBytes = kStripRows * kRowBytes;
constexpr int kStageBytes = 2 * kStripBytes + 2 * kStripRows * (int)sizeof(float);
constexpr int kRingBytes = kStripWarps * kStages * kStageBytes;
constexpr int kStateBytes = kStripWarps * (kPanelCount + kPanel) * (int)sizeof(float);
constexpr int kSharedBytes = kRingBytes > kStateBytes ? kRingBytes : kStateBytes;

/* A strip of x on its way by its warp. */
template <typename T> __device__ void start_rows(char *to, const panel_rows<T> &x, int first)
{
    const int lane = threadIdx.x % 32, chunk = lane % 8, col = 8 * chunk;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane / 8 + 4 * i, token = first + row;
        if (x.whole) {
            const bool exists = token < x.valid && col < x.dim;
            copy_chunk_async(shared_address(to) + chunk_offset(row, chunk),
                             exists ? x.at(token, col) : x.data, exists);
        } else {
            *reinterpret_cast<uint4 *>(to + chunk_offset(row, chunk)) = load_eight(x, token, col);
        }
    }
}

/* Numbers of the strip's queries, by its warp: y behind each other, then w; 0 where none exists. */
__device__ inline void start_numbers(char *to, const float *y, const float *w, int first, int valid)
{
    const int lane = threadIdx.x % 32, token = first + lane % 16;
    const bool exists = token < valid;
    const float *from = (lane < 16 ? y : w) + (exists ? token : 0);
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to) + 4 * lane),
        "l"(from), "r"(exists ? 4 : 0));
}

/* The tokens of a lane's pairs of a turned fragment: 2 t, 2 t + 1 (pairs 0, 1), and 8 more (2, 3).
 */
__device__ inline int token_of(int pair)
{
    return 2 * ((int)threadIdx.x % 4) + pair / 2 * 8;
}

/* phi of 16 features of a strip, times the factors of their tokens; zero where none exists. */
template <typename T, bool OfQueries>
__device__ void finish_features(const linear_arguments &a, uint32_t (&x)[4], int block,
                                const float (&factors)[4], int tokens)
{
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float low = low_of<T>(x[k]), high = high_of<T>(x[k]);
        if (a.map == FB_LINEAR_CUDA_ELU) {
            low = strip_phi(FB_LINEAR_CUDA_ELU, low);
            high = strip_phi(FB_LINEAR_CUDA_ELU, high);
        } else if (a.map == FB_LINEAR_CUDA_RELU) {
            low = strip_phi(FB_LINEAR_CUDA_RELU, low);
            high = strip_phi(FB_LINEAR_CUDA_RELU, high);
        }
        if constexpr (OfQueries) {
            low *= factors[k / 2 * 2];
            high *= factors[k / 2 * 2 + 1];
        }
        if (tokens < kStripRows || a.features < kPanel) {
            const bool exists = 16 * block + g + k % 2 * 8 < a.features;
            low = exists && token_of(k) < tokens ? low : 0.0F;
            high = exists && token_of(k) + 1 < tokens ? high : 0.0F;
        }
        x[k] = pack_pair<T>(low, high);
    }
}

/* b of the product that sums features: ones; of queries -w, high halves in column 0, low in 1. */
template <typename T, bool OfQueries>
__device__ range_factors<T, 14> weights_of(const float *w, uint32_t (&b)[2])
{
    if constexpr (OfQueries) {
        const int g = threadIdx.x % 32 / 4;
        float largest = 0.0F;
        if constexpr (kNarrow<T>) {
#pragma unroll
            for (int k = 0; k < 4; k++)
                largest = fmaxf(largest, fabsf(w[token_of(k) + k % 2]));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
        }
        const range_factors<T, 14> factors(largest);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float x = -w[token_of(2 * k)] * factors.into,
                        y = -w[token_of(2 * k) + 1] * factors.into;
            const uint32_t high = pack_pair<T>(x, y);
            const uint32_t low = pack_pair<T>(x - low_of<T>(high), y - high_of<T>(high));
            b[k] = g == 0 ? high : g == 1 ? low : 0U;
        }
        return factors;
    } else {
        b[0] = b[1] = pairs<T>::ones;
        return range_factors<T, 14>(1.0F);
    }
}

/* sums += x b, of which b is multiplied by a factor. */
template <typename T, bool OfQueries>
__device__ void add_features(float (&sums)[4], const uint32_t (&x)[4], const uint32_t (&b)[2],
                             const range_factors<T, 14> &factors)
{
    if constexpr (OfQueries && kNarrow<T>) {
        float part[4] = {};
        multiply<T>(part, x, b[0], b[1]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[i] = fmaf(factors.back, part[i], sums[i]);
    } else {
        multiply<T>(sums, x, b[0], b[1]);
    }
}

/* Features over y are not far from the inverse of a head's sum of all features: fk_f fq_f / y is at
 * most 1, and so is fq_f z_f / y. */
template <typename T>
__device__ range_factors<T, 2> factors_of_queries(const linear_arguments &a, int64_t kv_unit)
{
    float sum = 0.0F;
    if constexpr (kNarrow<T>) {
        const float *z = a.sum_total + kv_unit * a.count + kPanelCount + threadIdx.x % 32;
        sum = sum_of_lanes<32>(z[0] + z[32]);
    }
    return range_factors<T, 2>(1.0F / sum);
}

/* The warp's sums to its place: the state, then the sums of features. */
template <bool OfQueries>
__device__ void put_sums(float *to, float (&c)[4][8][4], float (&sums)[4][4])
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < 4; m++) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(to + (16 * m + 8 * half + g) * kPanel + 8 * n + 2 * t) =
                    make_float2(c[m][n][2 * half], c[m][n][2 * half + 1]);
        if (t == 0)
#pragma unroll
            for (int half = 0; half < 2; half++)
                to[kPanelCount + 16 * m + 8 * half + g] =
                    OfQueries ? sums[m][2 * half] + sums[m][2 * half + 1] : sums[m][2 * half];
    }
}

/* grid (slices, heads of Y): reads k and v (queries: q and dout) once */
template <typename T, bool OfQueries>
__global__ void __launch_bounds__(kStripThreads, 1)
    sum_kernel(const __grid_constant__ linear_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    const int heads = OfQueries ? a.heads : a.kv_heads;
    const int64_t unit = blockIdx.y, b = unit / heads, h = unit % heads;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const panel_rows<T> y(OfQueries ? a.q : a.k, b, h, valid);
    const panel_rows<T> z(OfQueries ? a.dout : a.v, b, h, valid);
    const float *denominators = a.denominators + (OfQueries ? unit * a.q_len : 0);
    const float *weights = a.weights + (OfQueries ? unit * a.q_len : 0);
    const int warp = (int)threadIdx.x / 32;
    const int from = (int)blockIdx.x * a.slice_panels * kPanel + warp * kStripRows;
    const int to = min((int)(blockIdx.x + 1) * a.slice_panels * kPanel, valid);
    constexpr int stride = kStripWarps * kStripRows;
    const int count = from < to ? (to - from + stride - 1) / stride : 0;
    char *ring = shared + warp * kStages * kStageBytes;
    const lane_places at;
    float c[4][8][4] = {}, sums[4][4] = {};
    range_factors<T, 2> range(1.0F);
    if constexpr (OfQueries)
        range = factors_of_queries<T>(a, b * a.kv_heads + h / a.group);
    const auto start = [&](int n) {
        char *stage = ring + n % kStages * kStageBytes;
        if (n < count) {
            const int first = from + n * stride;
            start_rows(stage, y, first);
            start_rows(stage + kStripBytes, z, first);
            if (OfQueries)
                start_numbers(stage + 2 * kStripBytes, denominators, weights, first, valid);
        }
        commit_copies();
    };
    for (int n = 0; n < kStages - 1; n++)
        start(n);
    for (int n = 0; n < count; n++) {
        char *stage = ring + n % kStages * kStageBytes;
        const float *numbers = reinterpret_cast<const float *>(stage + 2 * kStripBytes);
        wait_copies<kStages - 2>();
        __syncwarp();
        start(n + kStages - 1);
        const int tokens = valid - (from + n * stride); /* more than the strip's: all exist */
        float factors[4] = {};
        uint32_t ones[2], x[4][4];
        const range_factors<T, 14> shares = weights_of<T, OfQueries>(numbers + kStripRows, ones);
        if constexpr (OfQueries)
#pragma unroll
            for (int k = 0; k < 4; k++)
                factors[k] = linear_inverse(numbers[token_of(k) + k % 2]) * range.into;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            load_a_turned(x[m], shared_address(stage), at, m);
            finish_features<T, OfQueries>(a, x[m], m, factors, tokens);
            add_features<T, OfQueries>(sums[m], x[m], ones, shares);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t v[4];
            load_b(v, shared_address(stage + kStripBytes), at, k);
#pragma unroll
            for (int m = 0; m < 4; m++) {
                multiply<T>(c[m][2 * k], x[m], v[0], v[1]);
                multiply<T>(c[m][2 * k + 1], x[m], v[2], v[3]);
            }
        }
        __syncwarp();
    }
    wait_copies<0>();
    __syncthreads();
    float *parts = reinterpret_cast<float *>(shared);
    put_sums<OfQueries>(parts + warp * (kPanelCount + kPanel), c, sums);
    __syncthreads();
    float *out = (OfQueries ? a.back : a.sums) + (unit * a.slices + blockIdx.x) * a.count;
    for (int i = threadIdx.x; i < kPanelCount + kPanel; i += kStripThreads) {
        float sum = 0.0F;
#pragma unroll
        for (int k = 0; k < kStripWarps; k++)
            sum += parts[k * (kPanelCount + kPanel) + i];
        out[i] = OfQueries ? sum * range.back : sum;
    }
}

} // namespace

enum fb_status linear_cuda_strip_sum(enum fb_dtype dtype, const linear_arguments &a,
                                     bool of_queries, cudaStream_t stream, struct fb_error *error)
{
    const auto kernel =
        dtype == FB_BF16
            ? (of_queries ? sum_kernel<__nv_bfloat16, true> : sum_kernel<__nv_bfloat16, false>)
            : (of_queries ? sum_kernel<__half, true> : sum_kernel<__half, false>);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, kSharedBytes, "sums of linear attention", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * (of_queries ? a.heads : a.kv_heads)));
    kernel<<<grid, kStripThreads, kSharedBytes, stream>>>(a);
    return fb_cuda_launched("sums of linear attention", error);
}
