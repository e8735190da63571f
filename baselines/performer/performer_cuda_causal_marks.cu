/* Marks of chunks become those of what lies before them, or behind. See performer_cuda_causal.cuh.
 */
#include "performer_cuda_causal.cuh"

namespace
{

constexpr int kThreads = 256;
constexpr int kAhead = 4; /* chunks whose marks are on their way */

struct mark_sums {
    float state[8], z, values;
};

template <typename T> __device__ void add_state(mark_sums &sums, const uint4 &bits, float factor)
{
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sums.state[2 * i] = fmaf(low_of<T>(pairs[i]), factor, sums.state[2 * i]);
        sums.state[2 * i + 1] = fmaf(high_of<T>(pairs[i]), factor, sums.state[2 * i + 1]);
    }
}

template <typename T> __device__ uint4 rounded_state(const mark_sums &sums, float into)
{
    return make_uint4(pack_pair<T>(into * sums.state[0], into * sums.state[1]),
                      pack_pair<T>(into * sums.state[2], into * sums.state[3]),
                      pack_pair<T>(into * sums.state[4], into * sums.state[5]),
                      pack_pair<T>(into * sums.state[6], into * sums.state[7]));
}

/* The largest of a head's maxima, in every thread; -INFINITY where no key is. */
__device__ inline float highest_of(const float *tops, int count)
{
    __shared__ float parts[kThreads / 32];
    float top = -INFINITY;
    for (int i = threadIdx.x; i < count; i += kThreads)
        top = fmaxf(top, tops[i]);
    for (int step = 1; step < 32; step *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < kThreads / 32; i++)
        top = fmaxf(top, parts[i]);
    return top;
}

/* A thread's eight numbers of a state and what stands beside them; of each the first thread of its
 * kind. */
struct mark_place {
    int feature, offset, column;
    bool has_z, has_values;
    __device__ mark_place()
    {
        const int i = (int)(blockIdx.x * kThreads + threadIdx.x);
        feature = i / 8;
        offset = (int)chunk_offset(feature, i % 8);
        column = i;
        has_z = i % 8 == 0;
        has_values = i < kFusedDim;
    }
};

struct mark_numbers {
    uint4 state;
    float z, values, top;
};

template <typename T, bool OfQueries>
__device__ mark_numbers load_mark(const fused_arguments &a, int64_t mark, const mark_place &place)
{
    const fused_mark<T> from(OfQueries ? a.query_marks : a.key_marks, mark);
    mark_numbers x = {};
    x.state = *reinterpret_cast<const uint4 *>(from.state + place.offset);
    if (place.has_z)
        x.z = from.z[place.feature];
    if constexpr (!OfQueries) {
        x.top = a.mark_tops[mark * kFusedFeaturesMost + place.feature];
        if (place.has_values)
            x.values = from.values[place.column];
    }
    return x;
}

template <typename T, bool OfQueries>
__device__ void put_mark(const fused_arguments &a, int64_t mark, const mark_place &place,
                         const mark_sums &sums, const range_factors<T, kStateBits> &factors)
{
    const fused_mark<T> to(OfQueries ? a.query_marks : a.key_marks, mark);
    *reinterpret_cast<uint4 *>(to.state + place.offset) =
        rounded_state<T>(sums, OfQueries ? kBehindFactor<T> : factors.into);
    if (kNarrow<T> && place.column == 0)
        *to.back() = OfQueries ? 1.0F / kBehindFactor<T> : factors.back;
    if (place.has_z)
        to.z[place.feature] = OfQueries ? -sums.z * (kKeySlope<T> / kKeyFactor<T>) : sums.z;
    if (!OfQueries && place.has_values)
        to.values[place.column] = sums.values;
}

/* f16: the sums of a feature of the thread's own up to each of the chunks ahead; the largest over
 * the features, which no state is larger than times the values. */
struct mark_heights {
    float sum = 0.0F, z[kAhead], top[kAhead];
    __device__ void fetch(const fused_arguments &a, int64_t mark, int k)
    {
        z[k] = *mark_sum(a, mark, (int)threadIdx.x);
        top[k] = a.mark_tops[mark * kFusedFeaturesMost + threadIdx.x];
    }
    __device__ void next(int count, float highest, float (&parts)[kAhead][kThreads / 32],
                         float (&largest)[kAhead])
    {
#pragma unroll
        for (int k = 0; k < kAhead; k++) {
            float most = sum;
            if (k < count)
                sum = fmaf(z[k], exp2f((top[k] - highest) * kLog2e), sum);
            for (int step = 1; step < 32; step *= 2)
                most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
            if (threadIdx.x % 32 == 0)
                parts[k][threadIdx.x / 32] = most;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kAhead; k++) {
            largest[k] = 1e-18F; /* of what is zero no factor is infinite */
            for (int i = 0; i < kThreads / 32; i++)
                largest[k] = fmaxf(largest[k], parts[k][i]);
        }
    }
};
static_assert(kThreads == kFusedFeaturesMost, "a thread has a feature of its own");

/* grid (an eighth of a state, heads of keys): reads every mark and writes it. Of queries from the
 * last chunk on, the sums over heads that share keys to the marks of the first of them. */
template <typename T, bool OfQueries>
__global__ void __launch_bounds__(kThreads) mark_kernel(const __grid_constant__ fused_arguments a)
{
    const int64_t unit = blockIdx.y, b = unit / a.kv_heads, members = OfQueries ? a.group : 1;
    const int64_t first = unit * members * a.chunks;
    const int len = OfQueries ? a.q_len : a.kv_len;
    const int valid = a.lengths == nullptr ? len : a.lengths[OfQueries ? b : a.batch + b];
    const int full = causal_chunks(valid);
    const int keys = a.lengths == nullptr ? a.kv_len : a.lengths[a.batch + b];
    const mark_place place;
    float highest = 0.0F;
    if constexpr (!OfQueries) {
        highest = highest_of(a.mark_tops + first * kFusedFeaturesMost, full * kFusedFeaturesMost);
        if (blockIdx.x == 0 && threadIdx.x == 0)
            a.tops[unit] = full > 0 ? highest * kLog2e : 0.0F;
    }
    constexpr bool heights = kNarrow<T> && !OfQueries;
    __shared__ float parts[heights ? 2 : 1][kAhead][kThreads / 32];
    mark_heights height;
    mark_sums sums = {};
    const auto chunk_at = [&](int step) { return OfQueries ? a.chunks - 1 - step : step; };
    mark_numbers next[kAhead];
    const auto fetch = [&](int from) {
#pragma unroll
        for (int k = 0; k < kAhead; k++)
            if (from + k < a.chunks && chunk_at(from + k) < full)
                next[k] = load_mark<T, OfQueries>(a, first + chunk_at(from + k), place);
    };
    fetch(0);
    for (int from = 0; from < a.chunks; from += kAhead) {
        mark_numbers ahead[kAhead];
#pragma unroll
        for (int k = 0; k < kAhead; k++)
            ahead[k] = next[k];
        float largest[kAhead] = {};
        if constexpr (heights) {
            const int count = min(kAhead, full - from);
#pragma unroll
            for (int k = 0; k < kAhead; k++)
                if (k < count)
                    height.fetch(a, first + from + k, k);
            height.next(count, highest, parts[from / kAhead % 2], largest);
        }
        fetch(from + kAhead); /* before these chunks' places are written */
#pragma unroll
        for (int k = 0; k < kAhead; k++) {
            const int chunk = chunk_at(from + k);
            if (from + k >= a.chunks)
                break;
            put_mark<T, OfQueries>(a, first + chunk, place, sums,
                                   range_factors<T, kStateBits>(largest[k]));
            if (chunk >= full)
                continue;
            const float back = query_range<T>(min(chunk * kChunk + 1, keys)).back / kMarkFactor<T>;
            for (int64_t member = 0; member < members; member++) {
                if (member > 0)
                    ahead[k] = load_mark<T, OfQueries>(a, first + member * a.chunks + chunk, place);
                const float factor = OfQueries ? back : exp2f((ahead[k].top - highest) * kLog2e);
                add_state<T>(sums, ahead[k].state, factor);
                sums.z = fmaf(ahead[k].z, OfQueries ? 1.0F : factor, sums.z);
                sums.values += ahead[k].values;
            }
        }
    }
}

} // namespace

enum fb_status causal_cuda_marks(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                 cudaStream_t stream, struct fb_error *error)
{
    const dim3 grid(kFusedFeaturesMost * 8 / kThreads, (unsigned)(a.batch * a.kv_heads));
    const auto kernel =
        dtype == FB_F16
            ? (of_queries ? mark_kernel<__half, true> : mark_kernel<__half, false>)
            : (of_queries ? mark_kernel<__nv_bfloat16, true> : mark_kernel<__nv_bfloat16, false>);
    kernel<<<grid, kThreads, 0, stream>>>(a);
    return fb_cuda_launched("Performer's marks", error);
}
