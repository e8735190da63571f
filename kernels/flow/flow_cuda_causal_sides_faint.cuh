/*
 * What eps adds within a chunk, for causal Flow-Attention's gradient in clusters. To the flows
 * between tokens with common features it adds some 1e-6 of them, and is left out. A faint flow is
 * one of tokens whose features vanish, where eps is what counts; a chunk that has one takes these
 * steps, by the warps of its strips. They are calls, so that what is common is fetched without
 * gaps.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_SIDES_FAINT_CUH
#define FB_FLOW_CUDA_CAUSAL_SIDES_FAINT_CUH

#include "flow_cuda_causal_sides_products.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* Faint is also less than this for each token up to it, where sums over the tokens behind have what
 * eps adds to each. */
constexpr float kFaintMean = 0.16F;

/* Marks the strip, whose flows are those of its tokens so far; whether one of them is faint. */
__device__ inline bool mark_faint(const sides_block &x, strip_dots n, strip_dots flow)
{
    const auto is_faint = [](float count, float sum) {
        return count > 0.0F && !(sum >= larger_of(kFaint, kFaintMean * count));
    };
    const bool faint =
        __any_sync(0xffffffffU, is_faint(n.low, flow.low) || is_faint(n.high, flow.high)) != 0;
    if (x.s.lane == 0)
        x.own->faint[x.index / 32] = faint ? 1 : 0;
    return faint;
}

/* Sums over the columns of 16 rows, which are the lane's: in all lanes. */
template <typename T> __device__ strip_dots sum_row_columns(const char *rows, const lane_places &at)
{
    constexpr uint32_t one = pairs<T>::ones;
    float sum[4] = {};
#pragma unroll 1
    for (int step = 0; step < 4; step++) {
        uint32_t a[4];
        load_a(a, shared_address(rows), at, step);
        multiply<T>(sum, a, one, one);
    }
    return {sum[0], sum[2]};
}

/* eps times the sums of the other side's rows, weighted (NULL: 1), over the tokens up to the
 * lane's. */
template <typename T>
__device__ __noinline__ strip_dots lift_before(const char *other, const float *weight,
                                               strip_place s)
{
    strip_dots sum = {};
#pragma unroll 1
    for (int strip = 0; strip <= s.warp; strip++) {
        strip_dots of = sum_row_columns<T>(other + 16 * strip * kRowBytes, s.at);
        if (weight != nullptr)
            of = product(of, {weight[16 * strip + s.g], weight[16 * strip + s.g + 8]});
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            const float low = __shfl_up_sync(0xffffffffU, of.low, step),
                        high = __shfl_up_sync(0xffffffffU, of.high, step);
            of.low += s.lane >= step ? low : 0.0F;
            of.high += s.lane >= step ? high : 0.0F;
        }
        const float low = __shfl_sync(0xffffffffU, of.low, 28),
                    all = low + __shfl_sync(0xffffffffU, of.high, 28);
        sum = plus(sum, strip < s.warp ? strip_dots{all, all} : strip_dots{of.low, low + of.high});
    }
    return scaled(sum, kEps);
}

/* Sums of an array of the chunk over the tokens from the lane's on. */
__device__ inline strip_dots sum_from(const float *array, const strip_place &s)
{
    strip_dots sum = s.of(array);
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
        const float low = __shfl_down_sync(0xffffffffU, sum.low, step),
                    high = __shfl_down_sync(0xffffffffU, sum.high, step);
        sum.low += s.lane + step < 32 ? low : 0.0F;
        sum.high += s.lane + step < 32 ? high : 0.0F;
    }
    const float of_high = __shfl_sync(0xffffffffU, sum.high, 0);
    float beyond = 0.0F;
#pragma unroll 1
    for (int i = s.row + 16; i < kChunk; i++)
        beyond += array[i];
    return {sum.low + of_high + beyond, sum.high + beyond};
}

/* What eps adds to sums over the tokens from the lane's on, of their weights times the products of
 * the lane's rows with theirs. */
template <typename T>
__device__ __noinline__ strip_dots lift_after(char *own, const float *weight, strip_place s)
{
    const strip_dots sums = sum_row_columns<T>(s.own(own), s.at);
    return scaled(product(sums, sum_from(weight, s)), kEps);
}

/* What eps adds to each number of the lane's rows of an output: of weights x y + z of the tokens
 * from its own on. */
__device__ __noinline__ strip_dots lift_output(strip_dots x, const float *y, const float *z,
                                               strip_place s)
{
    return scaled(plus(product(x, sum_from(y, s)), sum_from(z, s)), kEps);
}

#endif

} // namespace

#endif
