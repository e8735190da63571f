/*
 * Gradients of Flow-Attention, normal form, for 16 bits and heads of 64: the sums between the
 * passes of flow_cuda_gradient_strips.cuh. With g = dout, r = s alpha, M = scale G, ratio = L/S, x'
 * = x + eps, all sums over the head's tokens (flow_cpu_gradient.c tells the same):
 *
 *   totals    sk, sq, u, w, scale, G                            from the forward pass
 *   gather    h = g M^T, dr = h q, dc = ratio alpha dr s (1 - s)   reads q, g
 *             dM = sum q (r g)^T, du = sum dc q', A1 = sum alpha^2 s dr q',
 *             A2 = sum q' (alpha^2 q)^T
 *   spread    t = v dM^T, dp = t k                                 reads k, v
 *             do = p (dp - sum M dM / S) inside the clamp
 *             dw = sum do k', db = -beta^2 k du, dsq = sum db k'
 *   then      dsk = -(A1 + A2 dw)
 *   sinks     da = -alpha^2 (s dr + q dw)                          reads q, g, writes dq
 *             dq = (r h + dc u' + alpha dw + da sk' + dsq) phi'(q)
 *   sources   dv = p k dM                                          reads k, v, writes dk, dv
 *             dk = (p t + do w' + beta du + db sq' + dsk) phi'(k)
 *
 * The moments A1 and A2 stand for one more pass; the eps of A2's first factor is the vector A3 =
 * sum alpha^2 q. Dot products that decide about the clamp are taken from f32 phi. Slices leave
 * their parts in places of their own and are added in order: same bits every time.
 */
#include "flow_cuda.h"
#include "flow_cuda_gradient_strips.cuh"

namespace
{

/* ---- sums over the slices -------------------------------------------------------------------- */

/* Adds the slices' parts from `first`, `count` of them; grid (units, parts of count), block 256 */
__global__ void add_parts(const __grid_constant__ normal_gradient a, int64_t first, int64_t count)
{
    const int slices = a.round.s.slices;
    const int64_t unit = blockIdx.x, i = blockIdx.y * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const float *parts = a.parts + unit * slices * a.part_count + first + i;
    double sum = 0.0;
    for (int slice = 0; slice < slices; slice++)
        sum += (double)parts[slice * a.part_count];
    sums_of(a, unit)[first + i] = (float)sum;
}

/* The block's sum of a number per thread, by halves. */
__device__ double block_sum(double x, double *buffer)
{
    buffer[threadIdx.x] = x;
    for (int half = kTileThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            buffer[threadIdx.x] += buffer[threadIdx.x + half];
    }
    __syncthreads();
    return buffer[0];
}

/* sum M.dM / S; grid (units), block kTileThreads */
__global__ void mean_kernel(const __grid_constant__ normal_gradient a)
{
    __shared__ double buffer[kTileThreads];
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.x);
    const float *scalars = totals_of(a, head) + FB_FLOW_CUDA_VECTORS * s.cols;
    float *sums = sums_of(a, blockIdx.x);
    const float *product = scalars + FB_FLOW_CUDA_SCALARS, *dproduct = product_of(a, sums);
    double sum = 0.0;
    for (int i = threadIdx.x; i < s.cols * s.value_cols; i += kTileThreads)
        sum += (double)product[i] * (double)dproduct[i];
    sum = block_sum(sum, buffer);
    if (threadIdx.x == 0)
        sums[a.part_count] =
            head.kv_len == 0 ? 0.0F : (float)(sum * (double)scalars[0] / (double)head.kv_len);
}

/* dsk = -(A1 + (A2 + eps 1 A3^T) dw); grid (units), block kTileThreads */
__global__ void source_sum_kernel(const __grid_constant__ normal_gradient a)
{
    const int cols = a.round.s.cols;
    float *sums = sums_of(a, blockIdx.x);
    const float *moment = moment_of(a, sums), *dw = sums + DW * cols;
    for (int i = threadIdx.x; i < cols; i += kTileThreads) {
        double sum = (double)sums[A1 * cols + i];
        for (int j = 0; j < cols; j++)
            sum += ((double)moment[i * cols + j] +
                    (double)FB_FLOW_EPSILON * (double)sums[A3 * cols + j]) *
                   (double)dw[j];
        sums[DSK * cols + i] = (float)-sum;
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

template <typename T, bool Whole>
enum fb_status launch_all(const normal_gradient &a, int64_t units, cudaStream_t stream,
                          struct fb_error *error)
{
    const flow_cuda_shape &s = a.round.s;
    const dim3 grid((unsigned)s.slices, (unsigned)units);
    const int64_t vectors = (int64_t)SLOT_VECTORS * s.cols;
    const auto parts = [](int64_t count) { return (unsigned)((count + 255) / 256); };
    gather_strips<T, Whole><<<grid, kTileThreads, kStripBytes, stream>>>(a);
    enum fb_status status = fb_cuda_launched("flow's gradient, gather", error);
    if (status != FB_OK)
        return status;
    add_parts<<<dim3((unsigned)units, parts(3 * s.cols)), 256, 0, stream>>>(a, 0, 3 * s.cols);
    const int64_t matrices = a.part_count - vectors;
    add_parts<<<dim3((unsigned)units, parts(matrices)), 256, 0, stream>>>(a, vectors, matrices);
    mean_kernel<<<(unsigned)units, kTileThreads, 0, stream>>>(a);
    spread_strips<T, Whole><<<grid, kTileThreads, kStripBytes, stream>>>(a);
    status = fb_cuda_launched("flow's gradient, spread", error);
    if (status != FB_OK)
        return status;
    add_parts<<<dim3((unsigned)units, parts(2 * s.cols)), 256, 0, stream>>>(a, DW * s.cols,
                                                                            2 * s.cols);
    source_sum_kernel<<<(unsigned)units, kTileThreads, 0, stream>>>(a);
    sinks_strips<T, Whole><<<grid, kTileThreads, kStripBytes, stream>>>(a);
    status = fb_cuda_launched("flow's gradient, sinks", error);
    if (status != FB_OK)
        return status;
    sources_strips<T, Whole><<<grid, kTileThreads, kStripBytes, stream>>>(a);
    return fb_cuda_launched("flow's gradient, sources", error);
}

template <typename T, bool Whole> enum fb_status allow_all(struct fb_error *error)
{
    const void *const kernels[] = {
        (const void *)gather_strips<T, Whole>, (const void *)spread_strips<T, Whole>,
        (const void *)sinks_strips<T, Whole>, (const void *)sources_strips<T, Whole>};
    enum fb_status status = FB_OK;
    for (int i = 0; i < 4 && status == FB_OK; i++)
        status = fb_cuda_allow_shared(kernels[i], kStripBytes, "flow's gradient", error);
    return status;
}

template <typename T, bool Whole>
enum fb_status run_all(const normal_gradient &a, int64_t units, cudaStream_t stream,
                       struct fb_error *error)
{
    const enum fb_status status = allow_all<T, Whole>(error);
    return status != FB_OK ? status : launch_all<T, Whole>(a, units, stream, error);
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_gradient(const struct fb_problem *p,
                                                const struct fb_call *call,
                                                const struct fb_flow_cuda_plan *plan, bool whole,
                                                struct fb_error *error)
{
    normal_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    flow_cuda_shape &s = a.round.s;
    s.totals = (float *)call->saved;
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    const int64_t units = p->batch * p->kv_heads;
    a.part_count = plan->gradient_part_count;
    a.parts = (float *)call->scratch;
    a.sums = a.parts + units * s.slices * a.part_count;
    a.ranges = gradient_ranges_of((double)p->q_len, (double)p->kv_len);
    const cudaStream_t stream = (cudaStream_t)call->stream;
    if (p->dtype == FB_F16)
        return whole ? run_all<__half, true>(a, units, stream, error)
                     : run_all<__half, false>(a, units, stream, error);
    return whole ? run_all<__nv_bfloat16, true>(a, units, stream, error)
                 : run_all<__nv_bfloat16, false>(a, units, stream, error);
}
