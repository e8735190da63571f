/* Linear attention in f32 by warpgroups on Hopper: see cuda_split.cuh. */
#ifndef FB_LINEAR_CUDA_SPLIT_CUH
#define FB_LINEAR_CUDA_SPLIT_CUH

#include "cuda_split.cuh"
#include "linear_cuda.cuh"

/* linear_cuda_split_rows.cu: a pass with a mask, where it serves. */
bool linear_cuda_split_serves(enum linear_pass pass, const linear_arguments &a);
enum fb_status linear_cuda_split(enum linear_pass pass, const linear_arguments &a,
                                 cudaStream_t stream, struct fb_error *error);

/* linear_cuda_split_sums.cu: the states of every slice, where it serves; for running sums without
 * the last, or of queries the first, which nobody asks for. */
bool linear_cuda_split_sums(const linear_arguments &a, bool of_queries);
enum fb_status linear_cuda_split_sum(const linear_arguments &a, bool of_queries, bool running,
                                     cudaStream_t stream, struct fb_error *error);

/* The maps: phi of a number, and its slope. */
struct split_elu {
    static constexpr bool maps = true;
    __device__ static float phi(float x)
    {
        return fmaxf(x, 0.0F) + expf(smaller_of(x, 0.0F));
    }
    __device__ static float slope(float x)
    {
        return expf(fminf(x, 0.0F));
    }
};
struct split_relu {
    static constexpr bool maps = true;
    __device__ static float phi(float x)
    {
        return larger_of(x, 0.0F) + 1e-3F;
    }
    __device__ static float slope(float x)
    {
        return x > 0.0F ? 1.0F : 0.0F;
    }
};
struct split_identity {
    static constexpr bool maps = false;
    __device__ static float phi(float x)
    {
        return x;
    }
    __device__ static float slope(float)
    {
        return 1.0F;
    }
};

/* use(map), chosen once for many numbers. */
template <typename Use> __device__ void with_map(enum fb_linear_cuda_map map, Use use)
{
    if (map == FB_LINEAR_CUDA_ELU)
        use(split_elu());
    else if (map == FB_LINEAR_CUDA_RELU)
        use(split_relu());
    else
        use(split_identity());
}

/* phi of the thread's quads of a panel, zero where nothing exists by a factor: a condition would
 * make a branch of each; what products leave out of them goes to `low`. */
__device__ inline void map_split(enum fb_linear_cuda_map map, char *panel, char *low,
                                 const panel_rows<float> &from, int first, int part)
{
    const bool column = part * kPanel + (int)threadIdx.x % kQuads * 4 < from.dim;
    with_map(map, [&](auto m) {
        if (!m.maps && low == nullptr)
            return;
        finish_split(panel, low, [&](int i, float4 &x) {
            const float by = column && first + split_row(i) < from.valid ? 1.0F : 0.0F;
            if (m.maps)
                x = make_float4(by * m.phi(x.x), by * m.phi(x.y), by * m.phi(x.z), by * m.phi(x.w));
            return m.maps;
        });
    });
}

#endif
