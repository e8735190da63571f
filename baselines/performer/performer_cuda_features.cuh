/* What the kernels of Performer's features on a GPU are told: performer_cuda_features.cu. */
#ifndef FB_PERFORMER_CUDA_FEATURES_CUH
#define FB_PERFORMER_CUDA_FEATURES_CUH

#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
#include "performer_cuda.h"

#include <math.h>

struct performer_arguments {
    panel_tensor x, phi, exps, dphi, dx;
    int heads, len;
    const int32_t *lengths;
    const float *projection; /* [features][dim] */
    int dim, features;
    int dim_panels, feature_panels;
    int slices, slice_panels;
    float scale; /* D^(-1/4) */
    float *peaks;
    bool resident; /* the whole projection fits in shared memory */
    bool centred;  /* pull: dphi lacks what sum phi dphi = 0 tells */
    float beside;  /* pull: what stands beside the exponentials in exps */
};

enum class performer_stage { peaks, queries, keys, pull };

/* performer_cuda_split.cu: a stage in f32 by warpgroups on Hopper, where it serves. */
bool performer_split_serves(performer_stage what, const performer_arguments &a);
enum fb_status performer_split(performer_stage what, const performer_arguments &a, int64_t heads,
                               cudaStream_t stream, struct fb_error *error);

namespace
{

constexpr float kEpsilon = 1e-4F;

/* A block's part of a head. */
struct performer_head {
    int64_t b, h;
    int valid, from, to;
    __device__ performer_head(const performer_arguments &a)
        : b(blockIdx.y / a.heads), h(blockIdx.y % a.heads),
          valid(a.lengths == nullptr ? a.len : a.lengths[b]),
          from((int)blockIdx.x * a.slice_panels * kPanel),
          to(min(from + a.slice_panels * kPanel, a.len))
    {
    }
};

/* The largest over the four lanes that share a row of a result. */
__device__ inline float largest_of_four(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 2));
}

} // namespace

#endif
