/*
 * Performer's features and the way back in f32 on Hopper, by warpgroups (cuda_split.cuh): heads of
 * up to 64, up to 256 features. A block has two warpgroups, each with panels of tokens of its own,
 * that share the projection in shared memory; all scores of a panel stand in registers at once, so
 * that queries are projected once.
 */
#include "performer_cuda_features.cuh"

#include "cuda_split.cuh"

namespace
{

constexpr int kGroups = 2;
constexpr int kThreads = kGroups * kPanelThreads;
constexpr int kFeaturePanelsMost = 4;

size_t shared_bytes(performer_stage what, int feature_panels)
{
    return (size_t)(2 * feature_panels + (what == performer_stage::pull ? 0 : kGroups)) *
           kSplitBytes;
}

#if FB_HAVE_WGMMA

__device__ inline int group_of_thread()
{
    return (int)threadIdx.x / kPanelThreads;
}

__device__ inline void sync_group()
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_of_thread()), "n"(kPanelThreads) : "memory");
}

__device__ inline float projection_at(const performer_arguments &a, int feature, int col)
{
    return feature < a.features && col < a.dim
               ? a.scale * a.projection[(int64_t)feature * a.dim + col]
               : 0.0F;
}

/* The projection's panels, features as rows; turned: columns as rows, each 16 features in the order
 * in which a lane holds them, four that follow one another. */
template <bool Turned>
__device__ void load_projection(const performer_arguments &a, char *high, char *low)
{
    constexpr int each = kPanel * kQuads;
    for (int i = threadIdx.x; i < a.feature_panels * each; i += kThreads) {
        const int f = i / each, row = Turned ? i % kPanel : i % each / kQuads;
        const int quad = Turned ? i % each / kPanel : i % kQuads;
        float x[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            x[k] = Turned ? projection_at(a, f * kPanel + quad / 4 * 16 + quad % 4 + 4 * k, row)
                          : projection_at(a, f * kPanel + row, 4 * quad + k);
        const float4 y = make_float4(x[0], x[1], x[2], x[3]);
        quad_of(high + f * kSplitBytes, row, quad) = y;
        quad_of(low + f * kSplitBytes, row, quad) = low_part(y);
    }
    publish_shared();
    __syncthreads();
}

/* Half of the squared norms of the rows g and g + 8, scaled. */
__device__ inline void half_norms(const performer_arguments &a, const split_operand &x,
                                  float (&norms)[2])
{
    norms[0] = norms[1] = 0.0F;
#pragma unroll
    for (int step = 0; step < 8; step++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float e = x.at(step, i);
            norms[i % 2] = fmaf(e, e, norms[i % 2]);
        }
#pragma unroll
    for (int half = 0; half < 2; half++)
        norms[half] = 0.5F * a.scale * a.scale * sum_of_four(norms[half]);
}

/* The largest of the lane's scores of either row. */
template <int Panels>
__device__ void raise_peaks(const performer_arguments &a, strip_result (&u)[Panels],
                            float (&peak)[2])
{
#pragma unroll
    for (int f = 0; f < Panels; f++)
        each_pair(u[f], 0, [&](int row, int col, float x0, float x1) {
            const int left = a.features - f * kPanel;
            float &top = peak[row / 8];
            top = col < left ? fmaxf(top, x0) : top;
            top = col + 1 < left ? fmaxf(top, x1) : top;
        });
}

/* exp(u - base) + eps of the lane's rows to memory. */
template <int Panels>
__device__ void write_features(const performer_arguments &a, const panel_rows<float> &phi,
                               strip_result (&u)[Panels], int first, int valid,
                               const float (&base)[2])
{
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + split_warp() * 16 + (int)threadIdx.x % 32 / 4 + 8 * half;
        const int left = row < valid ? a.features : 0;
        if (row >= a.len)
            continue;
#pragma unroll
        for (int k = 0; k < 8 * Panels; k++) {
            const int col = 8 * k + 2 * t;
            const float x0 = expf(u[k / 8][k % 8][2 * half] - base[half]) + kEpsilon;
            const float x1 = expf(u[k / 8][k % 8][2 * half + 1] - base[half]) + kEpsilon;
            *reinterpret_cast<float2 *>(phi.at(row, col)) =
                make_float2(col < left ? x0 : 0.0F, col + 1 < left ? x1 : 0.0F);
        }
    }
}

/* The largest of the block's, by one thread. */
__device__ inline void write_peak(const performer_arguments &a, float top)
{
    __shared__ float tops[kThreads / 32];
    for (int step = 1; step < 32; step *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
    if (threadIdx.x % 32 == 0)
        tops[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < kThreads / 32; i++)
        top = fmaxf(top, tops[i]);
    a.peaks[(int64_t)blockIdx.y * a.slices + blockIdx.x] = top;
}

#endif

/* grid (slices, heads): reads x and writes the features, or the largest score of a slice of keys */
template <performer_stage What, int Panels>
__global__ void __launch_bounds__(kThreads, 1)
    split_feature_kernel(const __grid_constant__ performer_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    char *low = shared + Panels * kSplitBytes, *xs = low + Panels * kSplitBytes;
    xs += group_of_thread() * kSplitBytes;
    const performer_head head(a);
    const panel_rows<float> x(a.x, head.b, head.h, head.valid);
    const panel_rows<float> phi(a.phi, head.b, head.h, a.len);
    const int end = What == performer_stage::peaks ? min(head.to, head.valid) : head.to;
    float head_peak = -INFINITY;
    if (What == performer_stage::keys)
        for (int i = 0; i < a.slices; i++)
            head_peak = fmaxf(head_peak, a.peaks[(int64_t)blockIdx.y * a.slices + i]);
    const auto start = [&](int first) {
        if (first < end)
            start_split(xs, x, first, 0);
        commit_copies();
    };
    const int from = head.from + group_of_thread() * kPanel;
    start(from);
    load_projection<false>(a, shared, low);
    /* both groups step equally often: see the performance log on races across named barriers */
    for (int step = head.from; step < end; step += kGroups * kPanel) {
        const int first = step + from - head.from;
        split_operand rows;
        float norms[2], peak[2] = {head_peak, head_peak};
        strip_result u[Panels];
        wait_copies<0>();
        sync_group();
        rows.load(xs);
        sync_group();
        start(first + kGroups * kPanel);
        if (first >= end)
            continue;
        half_norms(a, rows, norms);
        rows.hold();
#pragma unroll
        for (int f = 0; f < Panels; f++) {
            clear(u[f]);
            wgmma_hold(u[f]);
        }
        wgmma_begin();
#pragma unroll
        for (int f = 0; f < Panels; f++)
            begin_split_steps(u[f], rows, split_tile(shared + f * kSplitBytes),
                              split_tile(low + f * kSplitBytes));
        wgmma_commit();
        wgmma_wait<0>();
#pragma unroll
        for (int f = 0; f < Panels; f++)
            wgmma_hold(u[f]);
        if (What != performer_stage::keys)
            raise_peaks<Panels>(a, u, peak);
        if constexpr (What == performer_stage::peaks) {
            const int row = first + split_warp() * 16 + (int)threadIdx.x % 32 / 4;
            head_peak = row < head.valid ? fmaxf(head_peak, peak[0]) : head_peak;
            head_peak = row + 8 < head.valid ? fmaxf(head_peak, peak[1]) : head_peak;
            continue;
        }
        if (What == performer_stage::queries) {
            peak[0] = largest_of_four(peak[0]);
            peak[1] = largest_of_four(peak[1]);
        }
        const float base[2] = {norms[0] + peak[0], norms[1] + peak[1]};
        write_features<Panels>(a, phi, u, first, head.valid, base);
    }
    if (What == performer_stage::peaks)
        write_peak(a, head_peak);
#else
    (void)a;
#endif
}

#if FB_HAVE_WGMMA

/* The lane's numbers of a panel of features and of their gradients: of the rows g and g + 8 four
 * columns of each 16. */
struct pull_rows {
    float4 slope[2][4], phi[2][4];
    __device__ void load(const panel_rows<float> &dphi, const panel_rows<float> &features,
                         int first, int part)
    {
        const int lane = (int)threadIdx.x % 32, col = part * kPanel + lane % 4 * 4;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int row = first + split_warp() * 16 + lane / 4 + 8 * half;
                const bool exists = row < dphi.valid;
                const float4 zero = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
                slope[half][j] =
                    exists ? *reinterpret_cast<const float4 *>(dphi.at(row, col + 16 * j)) : zero;
                phi[half][j] =
                    exists ? *reinterpret_cast<const float4 *>(features.at(row, col + 16 * j))
                           : zero;
            }
    }
    /* du as left operand, in the order of the turned projection, and its sums */
    __device__ void put(split_operand &du, float (&sums)[2]) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float4 s = slope[half][j], p = phi[half][j];
                const float e[4] = {s.x * (p.x - kEpsilon), s.y * (p.y - kEpsilon),
                                    s.z * (p.z - kEpsilon), s.w * (p.w - kEpsilon)};
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    sums[half] += e[k];
                    du.put(2 * j + k / 2, k % 2 * 2 + half, e[k]);
                }
            }
    }
};

/* dx = c - sums x of the lane's rows, zero beyond the valid ones. */
__device__ inline void write_pulled(const panel_rows<float> &x, const panel_rows<float> &dx,
                                    const strip_result &c, int first, int count, int valid,
                                    const float (&sums)[2])
{
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + split_warp() * 16 + (int)threadIdx.x % 32 / 4 + 8 * half;
        const bool exists = row < valid; /* padding may hold anything */
        if (row >= count)
            continue;
        float2 at[8]; /* loads that wait together */
#pragma unroll
        for (int n = 0; n < 8; n++)
            at[n] = 8 * n < x.dim ? *reinterpret_cast<const float2 *>(x.at(row, 8 * n + 2 * t))
                                  : make_float2(0.0F, 0.0F);
#pragma unroll
        for (int n = 0; n < 8; n++)
            if (8 * n < x.dim)
                *reinterpret_cast<float2 *>(dx.at(row, 8 * n + 2 * t)) =
                    make_float2(exists ? c[n][2 * half] - sums[half] * at[n].x : 0.0F,
                                exists ? c[n][2 * half + 1] - sums[half] * at[n].y : 0.0F);
    }
}

#endif

/* grid (slices, heads): with e = phi - eps and du = dphi e, dx = D^(-1/4) du W - D^(-1/2) (sum of
 * du) x; reads phi, dphi and x */
__global__ void __launch_bounds__(kThreads, 1)
    split_pull_kernel(const __grid_constant__ performer_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    char *low = shared + a.feature_panels * kSplitBytes;
    const performer_head head(a);
    const panel_rows<float> phi(a.phi, head.b, head.h, head.valid);
    const panel_rows<float> dphi(a.dphi, head.b, head.h, head.valid);
    const panel_rows<float> x(a.x, head.b, head.h, a.len), dx(a.dx, head.b, head.h, a.len);
    const int from = head.from + group_of_thread() * kPanel;
    pull_rows next;
    next.load(dphi, phi, from, 0);
    load_projection<true>(a, shared, low);
    for (int first = from; first < head.to; first += kGroups * kPanel) {
        strip_result c;
        clear(c);
        float sums[2] = {};
        for (int f = 0; f < a.feature_panels; f++) {
            split_operand du;
            next.put(du, sums);
            const bool last = f + 1 == a.feature_panels;
            next.load(dphi, phi, last ? first + kGroups * kPanel : first, last ? 0 : f + 1);
            multiply_split(c, du, shared + f * kSplitBytes, low + f * kSplitBytes);
        }
        sums[0] = a.scale * a.scale * sum_of_four(sums[0]);
        sums[1] = a.scale * a.scale * sum_of_four(sums[1]);
        write_pulled(x, dx, c, first, a.len, head.valid, sums);
    }
#else
    (void)a;
#endif
}

template <performer_stage What> const void *feature_kernel_of(int panels)
{
    switch (panels) {
    case 1:
        return (const void *)split_feature_kernel<What, 1>;
    case 2:
        return (const void *)split_feature_kernel<What, 2>;
    case 3:
        return (const void *)split_feature_kernel<What, 3>;
    default:
        return (const void *)split_feature_kernel<What, kFeaturePanelsMost>;
    }
}

const void *kernel_of(performer_stage what, int panels)
{
    switch (what) {
    case performer_stage::peaks:
        return feature_kernel_of<performer_stage::peaks>(panels);
    case performer_stage::queries:
        return feature_kernel_of<performer_stage::queries>(panels);
    case performer_stage::keys:
        return feature_kernel_of<performer_stage::keys>(panels);
    default:
        return (const void *)split_pull_kernel;
    }
}

} // namespace

/* Padded batches take the general kernels: the way back here ends with the tokens that there are,
 * and leaves padding unwritten. */
bool performer_split_serves(performer_stage what, const performer_arguments &a)
{
    return a.dim_panels == 1 && a.feature_panels <= kFeaturePanelsMost && a.x.whole &&
           a.lengths == nullptr && (what != performer_stage::pull || a.dx.whole) &&
           fb_cuda_is_hopper();
}

enum fb_status performer_split(performer_stage what, const performer_arguments &a, int64_t heads,
                               cudaStream_t stream, struct fb_error *error)
{
    const size_t bytes = shared_bytes(what, a.feature_panels);
    const void *kernel = kernel_of(what, a.feature_panels);
    const enum fb_status status =
        fb_cuda_allow_shared(kernel, bytes, "Performer's features", error);
    if (status != FB_OK)
        return status;
    performer_arguments copy = a;
    void *arguments[] = {&copy};
    return fb_cuda_status(cudaLaunchKernel(kernel, dim3((unsigned)a.slices, (unsigned)heads),
                                           dim3(kThreads), arguments, bytes, stream),
                          "Performer's features", error);
}
