/*
 * What a causal forward call leaves for the gradient in clusters, of each head: the sums of k, q,
 * beta k and alpha q before each chunk of 64 tokens, the sum of E before it, and M before each of
 * the gradient's segments. The sums are over features that have been rounded to 16 bits, weighted
 * with more: what a flow before the chunk is off by averages out over tokens and features (2e-5 in
 * bf16 after some hundred tokens). What single tokens are off by would not, so the gradient
 * computes the rest of their flows from features of its own. Forward calls that go another way than
 * clusters have it all computed by a kernel of its own (flow_cuda_causal_sides_walk.cu).
 */
#ifndef FB_FLOW_CUDA_CAUSAL_SAVED_CUH
#define FB_FLOW_CUDA_CAUSAL_SAVED_CUH

#include "cuda_tile.cuh"
#include "flow_cuda_plan.h"

namespace
{

constexpr int kSavedChunk = FB_FLOW_CUDA_SIDES_TOKENS;
constexpr int kSavedDim = 64, kSavedVectors = FB_FLOW_CUDA_SAVED_VECTORS * kSavedDim;
constexpr int kSavedEights = kSavedDim * kSavedDim / 8; /* of M: eight columns of a row */
static_assert(FB_FLOW_CUDA_SAVED_STATE == kSavedEights * 5, "four words and a factor");

/* Eight numbers of M, in 16 bits each, and what these are multiples of: off by 1.5e-5 of the
 * largest of them, where M is rounded to 2^-9 or 2^-12 of each as an operand. What is not a number
 * stays none. */
struct saved_eight {
    uint4 bits;
    float factor;

    static __device__ saved_eight of(const float (&x)[8])
    {
        constexpr float most = 32767.0F, least = 1e-30F;
        uint32_t largest =
            0; /* of magnitudes, whose bits are in their order, infinity and NaN last */
#pragma unroll
        for (int i = 0; i < 8; i++)
            largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffU);
        const float bound = __uint_as_float(largest);
        const float inverse = bound >= least ? most / bound : 0.0F;
        const auto two = [&](float low, float high) {
            return __byte_perm((uint32_t)__float2int_rn(low * inverse),
                               (uint32_t)__float2int_rn(high * inverse), 0x5410);
        };
        return {make_uint4(two(x[0], x[1]), two(x[2], x[3]), two(x[4], x[5]), two(x[6], x[7])),
                bound * (1.0F / most)};
    }
    __device__ float at(int i) const
    {
        const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
        const int pair = (int)words[i / 2];
        return factor * (float)(i % 2 == 0 ? (int)(int16_t)pair : pair >> 16);
    }
};

struct causal_saved {
    float *heads; /* [heads][words]; NULL: nothing is to be saved */
    int64_t words;
    int64_t chunks;   /* of a head */
    int segment_bits; /* of the gradient's segments, of 2^segment_bits tokens */

    __device__ float *head() const
    {
        return heads + blockIdx.y * words;
    }
    /* Sums before the chunk: k, q, beta k, alpha q. */
    __device__ float *vectors(int64_t chunk) const
    {
        return head() + chunk * kSavedVectors;
    }
    __device__ float *exponentials(int64_t chunk) const
    {
        return head() + chunks * kSavedVectors + chunk;
    }
    /* Before a segment from the second on. */
    __device__ float *state(int64_t segment) const
    {
        return head() + chunks * kSavedVectors + (chunks + 3) / 4 * 4 +
               (segment - 1) * FB_FLOW_CUDA_SAVED_STATE;
    }
    __device__ void put_eight(int64_t segment, int row, int eight, const saved_eight &x) const
    {
        float *const to = state(segment);
        reinterpret_cast<uint4 *>(to)[row * (kSavedDim / 8) + eight] = x.bits;
        to[4 * kSavedEights + row * (kSavedDim / 8) + eight] = x.factor;
    }
    __device__ saved_eight eight(int64_t segment, int row, int eight) const
    {
        const float *const from = state(segment);
        return {reinterpret_cast<const uint4 *>(from)[row * (kSavedDim / 8) + eight],
                from[4 * kSavedEights + row * (kSavedDim / 8) + eight]};
    }
};

/* Host. Kernels take a head with blockIdx.y. */
inline causal_saved causal_saved_of(const struct fb_problem &p, const struct fb_call &call,
                                    const struct fb_flow_cuda_plan &plan)
{
    causal_saved saved = {};
    if (call.saved == nullptr || plan.sides_ranks == 0)
        return saved;
    saved.heads = (float *)call.saved;
    saved.words = plan.sides_saved;
    saved.chunks = (p.q_len + kSavedChunk - 1) / kSavedChunk;
    while (((int64_t)1 << saved.segment_bits) < (int64_t)plan.sides_ranks * kSavedChunk)
        saved.segment_bits++;
    return saved;
}

} // namespace

#endif
