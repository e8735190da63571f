/*
 * Performer's features on a GPU: u = x W^T D^(-1/4) panel by panel on the tensor cores, their
 * maxima and exponentials, and the way back. x is exact in every dtype's products; W is split into
 * two bf16 numbers for bf16 and takes part in three TF32 products otherwise, so that exponents are
 * those of f32.
 */
#include "performer_cuda_features.cuh"

namespace
{

constexpr size_t kSharedMost = 150 * 1024;
constexpr int kPullSlices = 4; /* of those, for the way back, whose blocks are smaller */

template <typename T> struct projection_of {
    typedef panel_f32<tile_products::tf32x3> type;
    typedef float feature;
    static constexpr int parts = 1;
};
template <> struct projection_of<__nv_bfloat16> {
    typedef panel_bf16 type;
    typedef __nv_bfloat16 feature;
    static constexpr int parts = 2;
};

/* x, a result; then the projection's panels, of one pair (feature panel, dim panel) when not
 * resident: high parts, and low ones for bf16. */
template <typename T> struct performer_shared {
    typedef typename projection_of<T>::type P;
    static constexpr int pair = projection_of<T>::parts * P::bytes;
    char *x, *result, *w;
    __device__ performer_shared(char *at, const performer_arguments &a)
        : x(at), result(at + a.dim_panels * P::bytes), w(at + (a.dim_panels + 1) * P::bytes)
    {
    }
    __device__ char *panel(const performer_arguments &a, int feature, int dim) const
    {
        return w + (a.resident ? feature * a.dim_panels + dim : 0) * pair;
    }
};

template <typename T> size_t shared_bytes(const performer_arguments &a, bool resident)
{
    typedef performer_shared<T> S;
    const size_t pairs = resident ? (size_t)(a.feature_panels * a.dim_panels) : 1;
    return (size_t)(a.dim_panels + 1) * S::P::bytes + pairs * S::pair;
}

/* High parts and low ones, or the high alone. */
template <typename T, bool Low = true>
__device__ void load_projection(const performer_arguments &a, char *to, int feature_panel,
                                int dim_panel)
{
    typedef typename projection_of<T>::type P;
    const int col = dim_panel * kPanel + (int)threadIdx.x % 8 * 8;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = feature_panel * kPanel + panel_row(i);
        float high[8], low[8];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const bool exists = row < a.features && col + e < a.dim;
            low[e] = exists ? a.scale * a.projection[(int64_t)row * a.dim + col + e] : 0.0F;
            high[e] = low[e];
        }
        P::round8(high);
#pragma unroll
        for (int e = 0; e < 8; e++)
            low[e] -= high[e];
        P::put8(to, panel_row(i), (int)threadIdx.x % 8, high);
        if constexpr (Low && projection_of<T>::parts == 2)
            P::put8(to + P::bytes, panel_row(i), (int)threadIdx.x % 8, low);
    }
}

template <typename T>
__device__ void load_resident(const performer_arguments &a, const performer_shared<T> &s)
{
    for (int f = 0; a.resident && f < a.feature_panels; f++)
        for (int d = 0; d < a.dim_panels; d++)
            load_projection<T>(a, s.panel(a, f, d), f, d);
}

/* u of the strip for a panel of features. The block is in step before, and after when panels are
 * not resident. */
template <typename T>
__device__ void project(const performer_arguments &a, const performer_shared<T> &s, strip_result &u,
                        int strip, int feature_panel)
{
    typedef typename projection_of<T>::type P;
    clear(u);
    for (int d = 0; d < a.dim_panels; d++) {
        char *w = s.panel(a, feature_panel, d);
        if (!a.resident) {
            load_projection<T>(a, w, feature_panel, d);
            __syncthreads();
        }
        P::multiply_turned(u, s.x + d * P::bytes, strip, w);
        if constexpr (projection_of<T>::parts == 2)
            P::multiply_turned(u, s.x + d * P::bytes, strip, w + P::bytes);
        if (!a.resident)
            __syncthreads();
    }
}

/* Rows of x into their panels; half of their squared norms, scaled. The block must be in step
 * before, and is not after. */
template <typename T>
__device__ void load_x(const performer_arguments &a, const performer_shared<T> &s,
                       const panel_rows<T> &x, int first, float *half_norms)
{
    typedef typename projection_of<T>::type P;
    float norms[4] = {};
    for (int d = 0; d < a.dim_panels; d++) {
        start_panel<P>(s.x + d * P::bytes, x, first, d);
    }
    commit_copies();
    wait_copies<0>();
    for (int d = 0; d < a.dim_panels; d++) {
        see_panel<P>(s.x + d * P::bytes, [&](int i, const float(&e)[8]) {
#pragma unroll
            for (int k = 0; k < 8; k++)
                norms[i] = fmaf(e[k], e[k], norms[i]);
        });
    }
    if (half_norms == nullptr)
        return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float norm = sum_of_eight(norms[i]);
        if (threadIdx.x % 8 == 0)
            half_norms[panel_row(i)] = 0.5F * a.scale * a.scale * norm;
    }
}

/* The largest of the thread's elements in rows g and g + 8 whose feature exists. */
__device__ inline void raise_peaks(strip_result &u, int strip, int features_left, float (&peak)[2])
{
    each_pair(u, strip, [&](int row, int col, float x0, float x1) {
        float &top = peak[row / 8 % 2];
        top = col < features_left ? fmaxf(top, x0) : top;
        top = col + 1 < features_left ? fmaxf(top, x1) : top;
    });
}

/* grid (slices, heads of keys): reads k once */
template <typename T>
__global__ void __launch_bounds__(kPanelThreads)
    peak_kernel(const __grid_constant__ performer_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ float tops[kPanelThreads / 32];
    const performer_shared<T> s(shared, a);
    const performer_head head(a);
    const panel_rows<T> x(a.x, head.b, head.h, head.valid);
    const int strip = (int)threadIdx.x / 32 * 16;
    float top = -INFINITY;
    load_resident(a, s);
    for (int first = head.from; first < min(head.to, head.valid); first += kPanel) {
        load_x<T>(a, s, x, first, nullptr);
        __syncthreads();
        float peak[2] = {-INFINITY, -INFINITY};
        for (int f = 0; f < a.feature_panels; f++) {
            strip_result u;
            project(a, s, u, strip, f);
            raise_peaks(u, strip, a.features - f * kPanel, peak);
        }
        const int row = first + strip + (int)threadIdx.x % 32 / 4;
        top = row < head.valid ? fmaxf(top, peak[0]) : top;
        top = row + 8 < head.valid ? fmaxf(top, peak[1]) : top;
        __syncthreads();
    }
    for (int step = 1; step < 32; step *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
    if (threadIdx.x % 32 == 0)
        tops[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x == 0)
        a.peaks[(int64_t)blockIdx.y * a.slices + blockIdx.x] =
            fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
}

/* grid (slices, heads): reads x and writes the features, Apart: and those without epsilon */
template <typename T, bool Queries, bool Apart>
__global__ void __launch_bounds__(kPanelThreads)
    feature_kernel(const __grid_constant__ performer_arguments a)
{
    typedef typename projection_of<T>::type P;
    typedef typename projection_of<T>::feature F;
    extern __shared__ __align__(1024) char shared[];
    __shared__ float half_norms[kPanel];
    const performer_shared<T> s(shared, a);
    const performer_head head(a);
    const panel_rows<T> x(a.x, head.b, head.h, head.valid);
    const panel_rows<F> phi(a.phi, head.b, head.h, a.len);
    const int strip = (int)threadIdx.x / 32 * 16;
    const auto nothing = [](int, int, float(&)[8]) {};
    float head_peak = -INFINITY;
    if (!Queries)
        for (int i = 0; i < a.slices; i++)
            head_peak = fmaxf(head_peak, a.peaks[(int64_t)blockIdx.y * a.slices + i]);
    load_resident(a, s);
    for (int first = head.from; first < head.to; first += kPanel) {
        load_x<T>(a, s, x, first, half_norms);
        __syncthreads();
        float peak[2] = {head_peak, head_peak};
        if (Queries) {
            for (int f = 0; f < a.feature_panels; f++) {
                strip_result u;
                project(a, s, u, strip, f);
                raise_peaks(u, strip, a.features - f * kPanel, peak);
            }
            peak[0] = largest_of_four(peak[0]);
            peak[1] = largest_of_four(peak[1]);
        }
        for (int f = 0; f < a.feature_panels; f++) {
            strip_result u;
            project(a, s, u, strip, f);
            each_pair(u, strip, [&](int row, int col, float &x0, float &x1) {
                const bool exists = first + row < head.valid;
                const float base = half_norms[row] + peak[row / 8 % 2];
                const int left = exists ? a.features - f * kPanel : 0;
                const float added = Apart ? 0.0F : kEpsilon;
                x0 = col < left ? P::power(x0 - base) + added : 0.0F;
                x1 = col + 1 < left ? P::power(x1 - base) + added : 0.0F;
            });
            if constexpr (Apart) {
                put_strip<P>(s.result, strip, u);
                const panel_rows<F> exps(a.exps, head.b, head.h, a.len);
                write_strip<P, F>(s.result, strip, exps, first, a.len, f, nothing);
                each_pair(u, strip, [&](int row, int col, float &x0, float &x1) {
                    const int left = first + row < head.valid ? a.features - f * kPanel : 0;
                    x0 += col < left ? kEpsilon : 0.0F;
                    x1 += col + 1 < left ? kEpsilon : 0.0F;
                });
            }
            put_strip<P>(s.result, strip, u);
            write_strip<P, F>(s.result, strip, phi, first, a.len, f, nothing);
        }
        __syncthreads();
    }
}

/* A thread's chunks of a panel of exponentials and of features' gradients, whose rows are whole. */
template <typename F> struct pull_chunks {
    packet<F> slope[4], exps[4];
    __device__ void load(const panel_rows<F> &dphi, const panel_rows<F> &from, int first, int part)
    {
        const int col = part * kPanel + (int)threadIdx.x % 8 * 8;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + panel_row(i);
            slope[i] = exps[i] = {};
            if (row < dphi.valid) {
                slope[i] = *reinterpret_cast<const packet<F> *>(dphi.at(row, col));
                exps[i] = *reinterpret_cast<const packet<F> *>(from.at(row, col));
            }
        }
    }
};

/* The number that dphi = g + c lacks in each of the thread's rows, by sum phi dphi = 0: weights sum
 * to one whatever the query is. Of all features, phi = e + eps. */
template <typename F>
__device__ void find_centres(const performer_arguments &a, const panel_rows<F> &dphi,
                             const panel_rows<F> &exps, int first, float (&c)[4])
{
    float slopes[4] = {}, weights[4] = {};
    for (int f = 0; f < a.feature_panels; f++) {
        pull_chunks<F> now;
        now.load(dphi, exps, first, f);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int k = 0; k < 8; k++) {
                const float e = to_f32(now.exps[i].x[k]);
                slopes[i] = fmaf(e + kEpsilon, to_f32(now.slope[i].x[k]), slopes[i]);
                weights[i] += e;
            }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[i] = -sum_of_eight(slopes[i]) / (sum_of_eight(weights[i]) + kEpsilon * (float)a.features);
}

/* grid (slices, heads, panels of dx): with du = dphi e, dx = D^(-1/4) du W - D^(-1/2) (sum of du)
 * x; reads e (or phi = e + eps), dphi and x once per panel of dx, centred: e and dphi once more,
 * from the L2 cache */
template <typename T>
__global__ void __launch_bounds__(kPanelThreads)
    pull_kernel(const __grid_constant__ performer_arguments a)
{
    typedef typename projection_of<T>::type P;
    typedef typename projection_of<T>::feature F;
    extern __shared__ __align__(1024) char shared[];
    __shared__ float sums[kPanel];
    const performer_head head(a);
    const int d = (int)blockIdx.z;
    const panel_rows<F> exps(a.exps, head.b, head.h, head.valid);
    const panel_rows<F> dphi(a.dphi, head.b, head.h, head.valid);
    const panel_rows<T> x(a.x, head.b, head.h, a.len), dx(a.dx, head.b, head.h, a.len);
    const int strip = (int)threadIdx.x / 32 * 16;
    char *du = shared, *w = shared + P::bytes; /* the projection's part: high halves will do */
    for (int f = 0; a.resident && f < a.feature_panels; f++)
        load_projection<T, false>(a, w + f * P::bytes, f, d);
    pull_chunks<F> next;
    next.load(dphi, exps, head.from, 0);
    for (int first = head.from; first < head.to; first += kPanel) {
        strip_result c;
        float sum[4] = {}, centre[4] = {};
        if (a.centred)
            find_centres(a, dphi, exps, first, centre);
        clear(c);
        for (int f = 0; f < a.feature_panels; f++) {
            const pull_chunks<F> now = next;
            const bool last = f + 1 == a.feature_panels;
            next.load(dphi, exps, last ? first + kPanel : first, last ? 0 : f + 1);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float e[8];
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    e[k] = (to_f32(now.slope[i].x[k]) + centre[i]) *
                           (to_f32(now.exps[i].x[k]) - a.beside);
                    sum[i] += e[k];
                }
                P::put8(du, panel_row(i), (int)threadIdx.x % 8, e);
            }
            char *panel = w + (a.resident ? f * P::bytes : 0);
            if (!a.resident)
                load_projection<T, false>(a, panel, f, d);
            __syncthreads();
            P::multiply_straight(c, du, strip, panel);
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float total = sum_of_eight(sum[i]);
            if (threadIdx.x % 8 == 0)
                sums[panel_row(i)] = a.scale * a.scale * total;
        }
        __syncthreads();
        put_strip<P>(du, strip, c);
        write_strip<P, T>(du, strip, dx, first, a.len, d, [&](int row, int col, float(&e)[8]) {
            const float along = sums[row - first];
#pragma unroll
            for (int k = 0; k < 8; k++)
                if (col + k < x.dim)
                    e[k] = row < head.valid ? e[k] - along * to_f32(*x.at(row, col + k)) : 0.0F;
        });
        __syncthreads();
    }
}

void cut_slices(performer_arguments &a, int slices)
{
    const int panels = (a.len + kPanel - 1) / kPanel;
    a.slices = slices < panels ? slices : panels;
    a.slice_panels = (panels + a.slices - 1) / a.slices;
}

performer_arguments arguments_of(const struct fb_performer_cuda_plan &plan,
                                 const struct fb_performer_cuda_side &side, const float *projection)
{
    performer_arguments a = {};
    a.x = panel_tensor_of(side.x);
    a.heads = (int)side.x.shape[1];
    a.len = (int)side.x.shape[2];
    a.lengths = side.lengths;
    a.projection = projection;
    a.dim = a.x.dim;
    a.features = (int)plan.features;
    a.dim_panels = (a.dim + kPanel - 1) / kPanel;
    a.feature_panels = (int)(plan.columns / kPanel);
    cut_slices(a, (int)plan.slices);
    a.scale = (float)pow((double)a.dim, -0.25);
    const struct fb_tensor phi = fb_tensor_dense(side.phi, plan.dtype, FB_BHND, side.x.shape[0],
                                                 a.heads, a.len, plan.columns);
    struct fb_tensor exps = phi, dphi = phi;
    exps.data = side.exps;
    dphi.data = side.dphi;
    a.phi = panel_tensor_of(phi);
    a.exps = panel_tensor_of(exps);
    a.dphi = panel_tensor_of(dphi);
    return a;
}

template <typename T> const void *kernel_of(performer_stage what, bool apart)
{
    switch (what) {
    case performer_stage::peaks:
        return (const void *)peak_kernel<T>;
    case performer_stage::queries:
        return apart ? (const void *)feature_kernel<T, true, true>
                     : (const void *)feature_kernel<T, true, false>;
    case performer_stage::keys:
        return apart ? (const void *)feature_kernel<T, false, true>
                     : (const void *)feature_kernel<T, false, false>;
    default:
        return (const void *)pull_kernel<T>;
    }
}

template <typename T>
enum fb_status run(performer_stage what, performer_arguments &a, int64_t heads, cudaStream_t stream,
                   struct fb_error *error)
{
    typedef performer_shared<T> S;
    const bool pulls = what == performer_stage::pull;
    if (pulls)
        cut_slices(a, kPullSlices * a.slices);
    const auto bytes_of = [&](bool resident) {
        return pulls ? S::P::bytes * (resident ? (size_t)a.feature_panels + 1 : 2)
                     : shared_bytes<T>(a, resident);
    };
    a.resident = bytes_of(true) <= kSharedMost;
    const size_t bytes = bytes_of(a.resident);
    const void *kernel = kernel_of<T>(what, a.exps.view.data != nullptr);
    const dim3 grid((unsigned)a.slices, (unsigned)heads, pulls ? (unsigned)a.dim_panels : 1);
    void *arguments[] = {&a};
    const enum fb_status status =
        fb_cuda_allow_shared(kernel, bytes, "Performer's features", error);
    return status != FB_OK ? status
                           : fb_cuda_status(cudaLaunchKernel(kernel, grid, dim3(kPanelThreads),
                                                             arguments, bytes, stream),
                                            "Performer's features", error);
}

enum fb_status run_any(performer_stage what, const struct fb_performer_cuda_side &side,
                       performer_arguments &a, void *stream, struct fb_error *error)
{
    const int64_t heads = side.x.shape[0] * side.x.shape[1];
    cudaStream_t on = (cudaStream_t)stream;
    switch (side.x.dtype) {
    case FB_BF16:
        return run<__nv_bfloat16>(what, a, heads, on, error);
    case FB_F16:
        return run<__half>(what, a, heads, on, error);
    default:
        return performer_split_serves(what, a) ? performer_split(what, a, heads, on, error)
                                               : run<float>(what, a, heads, on, error);
    }
}

} // namespace

extern "C" enum fb_status fb_performer_cuda_peaks(const struct fb_performer_cuda_plan *plan,
                                                  const struct fb_performer_cuda_side *keys,
                                                  const float *projection, float *peaks,
                                                  void *stream, struct fb_error *error)
{
    performer_arguments a = arguments_of(*plan, *keys, projection);
    a.peaks = peaks;
    return run_any(performer_stage::peaks, *keys, a, stream, error);
}

extern "C" enum fb_status fb_performer_cuda_features(const struct fb_performer_cuda_plan *plan,
                                                     const struct fb_performer_cuda_side *side,
                                                     const float *projection, const float *peaks,
                                                     void *stream, struct fb_error *error)
{
    performer_arguments a = arguments_of(*plan, *side, projection);
    a.peaks = const_cast<float *>(peaks);
    return run_any(peaks == nullptr ? performer_stage::queries : performer_stage::keys, *side, a,
                   stream, error);
}

extern "C" enum fb_status fb_performer_cuda_pull(const struct fb_performer_cuda_plan *plan,
                                                 const struct fb_performer_cuda_side *side,
                                                 bool of_queries, const float *projection,
                                                 void *stream, struct fb_error *error)
{
    performer_arguments a = arguments_of(*plan, *side, projection);
    a.dx = panel_tensor_of(side->dx);
    a.centred = of_queries && plan->apart != 0.0F;
    if (plan->apart == 0.0F) {
        a.exps = a.phi;
        a.beside = kEpsilon;
    }
    return run_any(performer_stage::pull, *side, a, stream, error);
}
