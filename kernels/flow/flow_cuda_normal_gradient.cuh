/* Gradients of Flow-Attention on a GPU, normal form: what slices and heads leave, and where. */
#ifndef FB_FLOW_CUDA_NORMAL_GRADIENT_CUH
#define FB_FLOW_CUDA_NORMAL_GRADIENT_CUH

#include "flow_cuda_gradient.cuh"
#include "flow_cuda_gradient_visits.cuh"

namespace
{

enum slot_vector { DU, A1, A3, DW, DSQ, DSK, SLOT_VECTORS };

static_assert((int)SLOT_VECTORS == FB_FLOW_CUDA_SLOT_VECTORS, "the plan counts the vectors");

struct normal_gradient {
    gradient_round round;
    float *parts; /* [units][slices][part_count]: vectors but DSK, dM, A2 */
    float *sums;  /* [units][part_count + 2]: the sums, the mean gradient, one unused */
    int64_t part_count;
    gradient_ranges ranges;
};

__device__ inline const float *totals_of(const normal_gradient &a, const flow_cuda_head &head)
{
    return a.round.s.totals + (head.b * a.round.s.heads + head.h) * a.round.s.totals_count;
}

__device__ inline float *sums_of(const normal_gradient &a, int64_t unit)
{
    return a.sums + unit * (a.part_count + 2);
}

/* dM and A2 follow the vectors. */
__device__ inline float *product_of(const normal_gradient &a, float *part)
{
    return part + SLOT_VECTORS * a.round.s.cols;
}

__device__ inline float *moment_of(const normal_gradient &a, float *part)
{
    return product_of(a, part) + a.round.s.cols * a.round.s.value_cols;
}

struct slice_range {
    int64_t first, valid_end, end;
};

__device__ inline slice_range range_of(const flow_cuda_shape &s, int64_t length, int64_t padded)
{
    slice_range range;
    range.first = blockIdx.x * s.slice_len;
    range.end = min(range.first + s.slice_len, padded);
    range.valid_end = max(range.first, min(range.end, length));
    return range;
}

} // namespace

#endif
