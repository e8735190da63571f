/* Totals of Performer's sums over slices, in order. See performer_cuda_fused.cuh. */
#include "performer_cuda_fused.cuh"

namespace
{

constexpr int kTotalThreads = 256;

/* The largest of the block's numbers, in every thread; a kernel's first, or its second. */
template <int Which> __device__ float largest_of_block(float x)
{
    __shared__ float parts[kTotalThreads / 32];
    for (int step = 1; step < 32; step *= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, step));
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < kTotalThreads / 32; i++)
        x = fmaxf(x, parts[i]);
    return x;
}

/* The largest of a head's maxima, in every thread. */
__device__ inline float highest_of(const float *sums, int slots, int features)
{
    float top = -INFINITY;
    for (int s = 0; s < slots; s++)
        for (int f = threadIdx.x; f < features; f += kTotalThreads)
            top = fmaxf(top, sums[s * fused_count(features) + features * (kFusedDim + 1) + f]);
    return largest_of_block<0>(top);
}

/* The largest sum of a head's features, in every thread: no state over it is larger than the
 * values.
 */
__device__ inline float largest_sum(const float *sums, int slots, int features, float highest,
                                    float least)
{
    float z = 0.0F;
    for (int s = 0; s < slots && (int)threadIdx.x < features; s++) {
        const float *slot = sums + s * fused_count(features) + threadIdx.x;
        const float top = slot[features * (kFusedDim + 1)];
        const float factor = top == -INFINITY ? 0.0F : exp2f((top - highest) * kLog2e);
        z = fmaf(slot[features * kFusedDim], factor, z);
    }
    return largest_of_block<1>(z) + least;
}

/* The smallest sum of a head's features of keys, likewise. */
__device__ inline float smallest_sum(const float *z, int features)
{
    return -largest_of_block<1>(-z[(int)threadIdx.x < features ? threadIdx.x : 0]);
}

/* What a head's state is multiplied by. Of queries: features over y are at most the inverse of the
 * sums of keys' features. */
template <typename T, bool OfQueries>
__device__ range_factors<T, OfQueries ? 8 : kStateBits>
state_factors(const fused_arguments &a, int64_t unit, const float *sums, int slots, float highest,
              int valid)
{
    float largest = 1.0F;
    if constexpr (kNarrow<T> && OfQueries)
        largest = (float)a.q_len * (float)a.group /
                  smallest_sum(fused_total<T>(a.totals, unit, a.features).z, a.features);
    else if constexpr (kNarrow<T>)
        largest = largest_sum(sums, slots, a.features, highest, kFeatureEpsilon * (float)valid);
    return range_factors < T, OfQueries ? 8 : kStateBits > (largest);
}

/* A thread has one column of every fourth of a block's features. */
constexpr int kTotalEach = 4, kTotalStep = kTotalThreads / kFusedDim,
              kTotalFeatures = kTotalEach * kTotalStep;

/* grid (features / 16, heads of keys): slots lie behind each other */
template <typename T, bool OfQueries>
__global__ void __launch_bounds__(kTotalThreads)
    total_kernel(const __grid_constant__ fused_arguments a, int slots)
{
    const int64_t unit = blockIdx.y, count = fused_count(a.features);
    const float *sums = a.sums + unit * slots * count;
    const int own = (int)blockIdx.x * kTotalFeatures + (int)threadIdx.x / kFusedDim,
              col = (int)threadIdx.x % kFusedDim;
    const float highest = OfQueries ? 0.0F : highest_of(sums, slots, a.features);
    const int valid = a.lengths == nullptr ? a.kv_len : a.lengths[a.batch + unit / a.kv_heads];
    float state[kTotalEach] = {}, z[kTotalEach] = {}, values = 0.0F;
#pragma unroll 2
    for (int s = 0; s < slots; s++) {
        const float *slot = sums + s * count;
#pragma unroll
        for (int k = 0; k < kTotalEach; k++) {
            const int feature = own + k * kTotalStep;
            float factor = 1.0F;
            if constexpr (!OfQueries) {
                const float top = slot[a.features * (kFusedDim + 1) + feature];
                factor = top == -INFINITY ? 0.0F : exp2f((top - highest) * kLog2e);
            }
            state[k] = fmaf(slot[feature * kFusedDim + col], factor, state[k]);
            z[k] = fmaf(slot[a.features * kFusedDim + feature], factor, z[k]);
        }
        if constexpr (!OfQueries)
            values += slot[a.features * (kFusedDim + 2) + col];
    }
    const auto factors = state_factors<T, OfQueries>(a, unit, sums, slots, highest, valid);
    const fused_total<T> total(OfQueries ? a.back : a.totals, unit, a.features);
#pragma unroll
    for (int k = 0; k < kTotalEach; k++) {
        const int feature = own + k * kTotalStep, place = feature * kFusedDim + col;
        total.state[place] = from_f32<T>(factors.into * fmaf(kFeatureEpsilon, values, state[k]));
        if (!OfQueries)
            total.own_state[place] = from_f32<T>(factors.into * state[k]);
        if (col != 0)
            continue;
        total.z[feature] = OfQueries ? -z[k] : fmaf(kFeatureEpsilon, (float)valid, z[k]);
        if (!OfQueries)
            total.own_z[feature] = z[k];
    }
    if (kNarrow<T> && blockIdx.x == 0 && threadIdx.x == 0)
        *total.back() = factors.back;
    if (kNarrow<T> && !OfQueries && blockIdx.x == 0 && (int)threadIdx.x < kFusedDim)
        total.values(a.features)[threadIdx.x] = values;
    if (!OfQueries && blockIdx.x == 0 && threadIdx.x == 0)
        *total.top = highest * kLog2e;
}

template <typename T, bool OfQueries> void launch(const fused_arguments &a, cudaStream_t stream)
{
    const dim3 grid((unsigned)(a.features / kTotalFeatures), (unsigned)(a.batch * a.kv_heads));
    total_kernel<T, OfQueries><<<grid, kTotalThreads, 0, stream>>>(
        a, OfQueries ? a.query_slices * a.group : a.key_slices);
}

} // namespace

enum fb_status fused_cuda_totals(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                 cudaStream_t stream, struct fb_error *error)
{
    if (dtype == FB_F16)
        of_queries ? launch<__half, true>(a, stream) : launch<__half, false>(a, stream);
    else
        of_queries ? launch<__nv_bfloat16, true>(a, stream)
                   : launch<__nv_bfloat16, false>(a, stream);
    return fb_cuda_launched("Performer's sums", error);
}
