/*
 * Flow-Attention's products with states, by panels of 64: the state of a slice of tokens, and rows
 * times a state with everything that a result's row needs beside it. Sums over tokens in f32 leave
 * the tensor cores after every panel, since those cut what they add, and the registers after some.
 */
#include "flow_cuda_wide.cuh"

namespace
{

/* ---- states ---------------------------------------------------------------------------------- */

template <typename P> __host__ __device__ constexpr int product_stages()
{
    return P::wide_sums ? 2 : 3;
}

/* Panels after which a slice's sums are put away in their place in memory: a thousand equal terms
 * in a row would take 2e-5 of their sum from it. */
constexpr int kPutAway = 32;

/* grid (panels of features times blocks of Z panels of values, slices, heads): phi of keys times p,
 * or of queries times r, against v or dout; four warps for each of the Z panels */
template <typename P, typename T, int Z, bool OfQueries>
__global__ void __launch_bounds__(Z *kPanelThreads, 4 / Z)
    product_kernel(const __grid_constant__ wide_arguments a, float *to, int64_t head_count,
                   int64_t slice_count)
{
    constexpr int threads = Z * kPanelThreads;
    constexpr int stages = product_stages<P>(), stage_bytes = (1 + Z) * P::bytes;
    extern __shared__ __align__(1024) char shared[];
    const wide_unit u = wide_unit_of(a, blockIdx.z);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const int z_blocks = (a.value_dim + Z * kPanel - 1) / (Z * kPanel);
    const int y_panel = (int)blockIdx.x / z_blocks, z_panel = (int)blockIdx.x % z_blocks * Z;
    const panel_rows<T> y(OfQueries ? a.q : a.k, u.b, OfQueries ? u.h : u.kv_h, valid);
    const panel_rows<T> z(OfQueries ? a.dout : a.v, u.b, OfQueries ? u.h : u.kv_h, valid);
    const float *weights = OfQueries ? a.r + u.index * a.q_len : a.p + u.index * a.kv_len;
    const int strip = (int)threadIdx.x / 32 % 4 * 16, own = (int)threadIdx.x / kPanelThreads;
    const int from = (int)blockIdx.y * a.slice_panels * kPanel;
    const int end = (int)min((int64_t)from + a.slice_panels * kPanel, (int64_t)valid);
    const int count = from < end ? (end - from + kPanel - 1) / kPanel : 0;
    strip_result state;
    clear(state);
    const auto start = [&](int n) {
        char *stage = shared + n % stages * stage_bytes;
        if (n < count) {
            start_panel<P, threads>(stage, y, from + n * kPanel, y_panel);
#pragma unroll
            for (int i = 0; i < Z; i++)
                start_panel<P, threads>(stage + (1 + i) * P::bytes, z, from + n * kPanel,
                                        z_panel + i);
        }
        commit_copies();
    };
    const auto put_away = [&](bool adds) {
        float *out = to + blockIdx.z * head_count + blockIdx.y * slice_count;
        asm volatile("" : "+l"(out)); /* not to be kept from time to time: registers are few */
        each_pair(state, strip, [&](int row, int col, float x0, float x1) {
            const int feature = y_panel * kPanel + row, value = (z_panel + own) * kPanel + col;
            if (feature >= a.cols || value >= a.value_cols)
                return;
            float2 *place =
                reinterpret_cast<float2 *>(out + (int64_t)feature * a.value_cols + value);
            const float2 before = adds ? *place : make_float2(0.0F, 0.0F);
            *place = make_float2(before.x + x0, before.y + x1);
        });
    };
    for (int n = 0; n < stages - 1; n++)
        start(n);
    for (int n = 0; n < count; n++) {
        char *ys = shared + n % stages * stage_bytes;
        const int first = from + n * kPanel;
        float weight[kRowsEach<threads>];
#pragma unroll
        for (int i = 0; i < kRowsEach<threads>; i++) {
            const int row = first + panel_row<threads>(i);
            weight[i] = row < valid ? weights[row] : 0.0F;
        }
        wait_copies<stages - 2>();
        finish_panel<P, threads>(
            ys, y, first, y_panel,
            [&](int i, float(&x)[8]) {
                wide_phi<T>(a.phi, x);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    x[e] *= weight[i];
            },
            [](int, const float(&)[8]) {});
        __syncthreads();
        start(n + stages - 1);
        const char *zs = ys + (1 + own) * P::bytes;
        if constexpr (P::wide_sums) {
            strip_result part;
            clear(part);
            P::multiply_outer(part, ys, strip, zs);
#pragma unroll
            for (int k = 0; k < 8; k++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    state[k][j] += part[k][j];
        } else {
            P::multiply_outer(state, ys, strip, zs);
        }
        if ((n + 1) % kPutAway == 0 && n + 1 < count) {
            put_away(n >= kPutAway);
            clear(state);
        }
    }
    put_away(count > kPutAway);
}

constexpr int kAddThreads = 256;

/* grid (elements of a state, heads): the sum over slices, in their order */
__global__ void __launch_bounds__(kAddThreads)
    add_matrices(const __grid_constant__ wide_arguments a, float *to, int64_t head_count)
{
    const int64_t count = (int64_t)a.cols * a.value_cols;
    const int64_t i = (int64_t)blockIdx.x * kAddThreads + threadIdx.x;
    if (i >= count)
        return;
    const float *from = a.matrices + blockIdx.y * a.panel_slices * count + i;
    careful_sum sum = {0.0F, 0.0F};
#pragma unroll 8
    for (int slice = 0; slice < a.panel_slices; slice++)
        sum.add(from[slice * count]);
    to[blockIdx.y * head_count + i] = sum.value;
}

template <typename P, typename T, int Z, bool OfQueries>
enum fb_status launch_product(const wide_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const size_t bytes = product_stages<P>() * (1 + Z) * (size_t)P::bytes;
    const auto kernel = product_kernel<P, T, Z, OfQueries>;
    const int64_t count = (int64_t)a.cols * a.value_cols;
    float *total = OfQueries ? a.gradients + WIDE_GRADIENTS * a.cols
                             : a.totals + FB_FLOW_CUDA_VECTORS * a.cols + FB_FLOW_CUDA_SCALARS;
    const int64_t total_count = OfQueries ? a.gradients_count : a.totals_count;
    const bool whole = a.panel_slices == 1;
    const unsigned heads = (unsigned)(a.batch * a.heads);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "flow's products", error);
    if (status != FB_OK)
        return status;
    const int blocks =
        (a.dim + kPanel - 1) / kPanel * ((a.value_dim + Z * kPanel - 1) / (Z * kPanel));
    kernel<<<dim3((unsigned)blocks, (unsigned)a.panel_slices, heads), Z * kPanelThreads, bytes,
             stream>>>(a, whole ? total : a.matrices, whole ? total_count : a.panel_slices * count,
                       count);
    if (!whole)
        add_matrices<<<dim3((unsigned)((count + kAddThreads - 1) / kAddThreads), heads),
                       kAddThreads, 0, stream>>>(a, total, total_count);
    return fb_cuda_launched("flow's products", error);
}

template <typename T>
enum fb_status choose_product(bool of_queries, const wide_arguments &a, cudaStream_t stream,
                              struct fb_error *error)
{
    typedef typename outer_panel_of<T>::type P;
    if constexpr (P::wide_sums)
        if (a.value_dim > 2 * kPanel)
            return of_queries ? launch_product<P, T, 4, true>(a, stream, error)
                              : launch_product<P, T, 4, false>(a, stream, error);
    if (a.value_dim > kPanel)
        return of_queries ? launch_product<P, T, 2, true>(a, stream, error)
                          : launch_product<P, T, 2, false>(a, stream, error);
    return of_queries ? launch_product<P, T, 1, true>(a, stream, error)
                      : launch_product<P, T, 1, false>(a, stream, error);
}

/* ---- rows times a state ---------------------------------------------------------------------- */

template <wide_result R> __host__ __device__ constexpr bool rows_are_queries()
{
    return R == WIDE_OUT || R == WIDE_DQ;
}

template <wide_result R> __host__ __device__ constexpr bool gives_features()
{
    return R == WIDE_DQ || R == WIDE_DK;
}

/* A panel of the state whose rows are columns of the result. The state has features as rows. */
template <typename P, wide_result R, int Threads>
__device__ void load_state(const wide_arguments &a, char *to, const float *state, int result_panel,
                           int x_panel)
{
    constexpr bool features = gives_features<R>();
    const int feature_panel = features ? result_panel : x_panel;
    const int value_panel = features ? x_panel : result_panel;
    const int row = (int)threadIdx.x % kPanel, feature = feature_panel * kPanel + row;
    for (int chunk = (int)threadIdx.x / kPanel; chunk < 8; chunk += Threads / kPanel) {
        const int value = value_panel * kPanel + 8 * chunk;
        const bool exists = feature < a.cols && value < a.value_cols;
        const float4 *from =
            reinterpret_cast<const float4 *>(state + (int64_t)feature * a.value_cols + value);
        const float4 low = exists ? from[0] : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        const float4 high = exists ? from[1] : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        const float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        if constexpr (features) {
            P::put8(to, row, chunk, x);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++)
                P::put1(to, 8 * chunk + e, row, x[e]);
        }
    }
}

/* What is added to the product of a row of dq or dk: sum of weight[i]
 * (vector[i] + eps) + constant.
 */
struct extra_terms {
    float vectors[4][kPanel];
};

/* by 64 threads, each with a place of its own */
template <wide_result R>
__device__ void load_terms(const wide_arguments &a, extra_terms &terms, int64_t head,
                           int result_panel, int place)
{
    const int col = result_panel * kPanel + place;
    const bool exists = col < a.cols;
    const float *vectors[4] = {
        wide_vector_of(a, head, R == WIDE_DQ ? WIDE_U : WIDE_W),
        wide_gradient_of(a, head, R == WIDE_DQ ? WIDE_DW : WIDE_DU),
        wide_vector_of(a, head, R == WIDE_DQ ? WIDE_SK : WIDE_SQ),
        wide_gradient_of(a, head, R == WIDE_DQ ? WIDE_DSQ : WIDE_DSK),
    };
#pragma unroll
    for (int i = 0; i < 4; i++)
        terms.vectors[i][place] =
            exists ? vectors[i][col] + (i % 2 == 0 ? FB_FLOW_EPSILON : 0.0F) : 0.0F;
}

/* The scalars of a result's row. */
struct row_scalars {
    bool exists;
    float factor, weight[3];
};

template <wide_result R>
__device__ row_scalars scalars_of(const wide_arguments &a, const wide_unit &u, int row, int valid,
                                  float scale)
{
    row_scalars s = {row < valid, 0.0F, {0.0F, 0.0F, 0.0F}};
    if (!s.exists)
        return s;
    const int64_t i = u.index * (rows_are_queries<R>() ? a.q_len : a.kv_len) + row;
    s.factor = rows_are_queries<R>() ? a.r[i] * scale : a.p[i];
    if (gives_features<R>()) {
        s.weight[0] = R == WIDE_DQ ? a.dc[i] : a.o[i];
        s.weight[1] = R == WIDE_DQ ? a.alpha[i] : a.beta[i];
        s.weight[2] = R == WIDE_DQ ? a.da[i] : a.db[i];
    }
    return s;
}

/* y[i] of the four lanes that share a row, turned: afterwards y[j] is what lane j had at the place
 * of this lane's number. */
__device__ inline void turn_four(float (&y)[4])
{
    const bool odd = threadIdx.x & 1U, high = threadIdx.x & 2U;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const float got = __shfl_xor_sync(0xffffffffU, odd ? y[i] : y[i + 1], 1);
        y[i] = odd ? got : y[i];
        y[i + 1] = odd ? y[i + 1] : got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float got = __shfl_xor_sync(0xffffffffU, high ? y[i] : y[i + 2], 2);
        y[i] = high ? got : y[i];
        y[i + 2] = high ? y[i + 2] : got;
    }
}

/* Eight neighbours of the row g + 8 half of a strip: the columns 32 part + 8 t on. By whole warps.
 */
__device__ inline void neighbours(const strip_result &c, int half, int part, float (&x)[8])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float y[4];
#pragma unroll
        for (int n = 0; n < 4; n++)
            y[n] = c[4 * part + n][2 * half + i];
        turn_four(y);
#pragma unroll
        for (int j = 0; j < 4; j++)
            x[2 * j + i] = y[j];
    }
}

/* Eight columns of a row's product to what they are in the result; dv also adds to z. */
template <wide_result R, typename T>
__device__ void finish_chunk(const wide_arguments &a, const row_scalars &s,
                             const panel_rows<T> &input, const panel_rows<T> &old, int row, int col,
                             int place, const extra_terms &terms, float (&x)[8], float &z)
{
    float in[8];
    if constexpr (R != WIDE_OUT)
        fetch_chunk(input, row, col, in);
#pragma unroll
    for (int e = 0; e < 8; e++) {
        x[e] *= s.factor;
        if constexpr (gives_features<R>()) {
            x[e] += terms.vectors[3][place + e];
#pragma unroll
            for (int k = 0; k < 3; k++)
                x[e] = fmaf(s.weight[k], terms.vectors[k][place + e], x[e]);
            x[e] *= wide_slope<T>(a.phi, in[e]);
        }
        if constexpr (R == WIDE_DV)
            z = fmaf(x[e], in[e], z);
    }
    if constexpr (!rows_are_queries<R>())
        if (a.round > 0) {
            fetch_chunk(old, row, col, in);
#pragma unroll
            for (int e = 0; e < 8; e++)
                x[e] += in[e];
        }
}

/* The strip's product to rows of the result before `end`; dv also gives z. */
template <wide_result R, typename T>
__device__ void finish_rows(const wide_arguments &a, const wide_unit &u, const strip_result &c,
                            const panel_rows<T> &to, int first, int valid, int end, int panel,
                            float scale, const extra_terms &terms)
{
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    const int64_t h = rows_are_queries<R>() ? u.h : u.kv_h;
    const panel_rows<T> input(R == WIDE_DV ? a.v : R == WIDE_DQ ? a.q : a.k, u.b, h, valid);
    const panel_rows<T> old(R == WIDE_DV ? a.dv : a.dk, u.b, u.kv_h, valid);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + g + 8 * half;
        const row_scalars s = scalars_of<R>(a, u, row, valid, scale);
        float z = 0.0F;
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const int place = 32 * part + 8 * t, col = panel * kPanel + place;
            float x[8];
            neighbours(c, half, part, x);
            if (s.exists)
                finish_chunk<R, T>(a, s, input, old, row, col, place, terms, x, z);
            else
#pragma unroll
                for (int e = 0; e < 8; e++)
                    x[e] = 0.0F;
            if (row < end)
                store_chunk(to, row, col, x);
        }
        if constexpr (R == WIDE_DV) {
            z = sum_of_four(z);
            if (t == 0 && s.exists && panel * kPanel < a.value_dim)
                a.z[((int64_t)panel * a.batch * a.heads + u.index) * a.kv_len + row] = z;
        }
    }
}

template <wide_result R> __device__ const panel_tensor &rows_of_result(const wide_arguments &a)
{
    return R == WIDE_OUT ? a.q : R == WIDE_DV ? a.k : R == WIDE_DQ ? a.dout : a.v;
}

template <wide_result R> __device__ const panel_tensor &result_of(const wide_arguments &a)
{
    return R == WIDE_OUT ? a.out : R == WIDE_DV ? a.dv : R == WIDE_DQ ? a.dq : a.dk;
}

/* How a block is made up: so many panels of rows times so many of the result,
 * four warps for each; the states of the result's panels stay in shared memory.
 */
template <typename P, int Rows, int Panels> struct result_form {
    static constexpr int threads = Rows * Panels * kPanelThreads;
    static constexpr int stages = P::wide_sums ? 2 : 3;
    static constexpr int stage_bytes = Rows * P::bytes;
    static constexpr int blocks = threads >= 512 ? 1 : 512 / threads;
    static size_t bytes(int x_panels)
    {
        return (size_t)stages * stage_bytes + (size_t)Panels * (size_t)x_panels * P::bytes;
    }
};

/* grid (blocks of the result's panels, slices, heads of the result) */
template <typename P, typename T, wide_result R, int Rows, int Panels>
__global__ void __launch_bounds__(result_form<P, Rows, Panels>::threads,
                                  result_form<P, Rows, Panels>::blocks)
    result_kernel(const __grid_constant__ wide_arguments a)
{
    typedef result_form<P, Rows, Panels> form;
    constexpr int threads = form::threads, stages = form::stages;
    constexpr bool queries = rows_are_queries<R>(), features = gives_features<R>();
    extern __shared__ __align__(1024) char shared[];
    __shared__ extra_terms terms[Panels];
    char *states = shared + stages * form::stage_bytes;
    const wide_unit u = queries ? wide_unit_of(a, blockIdx.z) : wide_round_of(a, blockIdx.z);
    const int64_t h = queries ? u.h : u.kv_h;
    const int strip = (int)threadIdx.x / 32 % 4 * 16;
    const int part = (int)threadIdx.x / kPanelThreads, own_row = part % Rows * kPanel;
    const int panel0 = (int)blockIdx.x * Panels, own = part / Rows;
    const int x_panels = ((features ? a.value_dim : a.dim) + kPanel - 1) / kPanel;
    const int count = queries ? a.q_len : a.kv_len, valid = queries ? u.q_valid : u.kv_valid;
    const float *scalars = wide_scalars_of(a, u.index);
    const float *state = R == WIDE_OUT || R == WIDE_DQ
                             ? scalars + FB_FLOW_CUDA_SCALARS
                             : wide_gradient_of(a, u.index, WIDE_GRADIENTS);
    const float scale = scalars[0];
    const panel_rows<T> x(rows_of_result<R>(a), u.b, h, valid);
    const panel_rows<T> to(result_of<R>(a), u.b, h, count);
    const int from = (int)blockIdx.y * a.result_panels * kPanel;
    const int end = (int)min((int64_t)from + a.result_panels * kPanel, (int64_t)count);
    if (from >= end)
        return;
    const int tiles = (end - from + Rows * kPanel - 1) / (Rows * kPanel);
    const auto start = [&](int step) {
        if (step < tiles * x_panels)
#pragma unroll
            for (int r = 0; r < Rows; r++)
                start_panel<P, threads>(shared + step % stages * form::stage_bytes + r * P::bytes,
                                        x, from + (step / x_panels * Rows + r) * kPanel,
                                        step % x_panels);
        commit_copies();
    };
    for (int step = 0; step < stages - 1; step++)
        start(step);
    for (int i = 0; i < Panels * x_panels; i++)
        load_state<P, R, threads>(a, states + i * P::bytes, state, panel0 + i / x_panels,
                                  i % x_panels);
    if (features && (int)threadIdx.x < Panels * kPanel)
        load_terms<R>(a, terms[threadIdx.x / kPanel], u.index, panel0 + (int)threadIdx.x / kPanel,
                      (int)threadIdx.x % kPanel);
    __syncthreads();
    for (int n = 0; n < tiles; n++) {
        const int first = from + n * Rows * kPanel;
        strip_result c;
        clear(c);
        for (int i = 0; i < x_panels; i++) {
            const int step = n * x_panels + i;
            char *xs = shared + step % stages * form::stage_bytes;
            wait_copies<stages - 2>();
            if constexpr (!features) {
#pragma unroll
                for (int r = 0; r < Rows; r++)
                    finish_panel<P, threads>(
                        xs + r * P::bytes, x, first + r * kPanel, i,
                        [&](int, float(&y)[8]) { wide_phi<T>(a.phi, y); },
                        [](int, const float(&)[8]) {});
            }
            __syncthreads();
            start(step + stages - 1);
            P::multiply_turned(c, xs + own_row / kPanel * P::bytes, strip,
                               states + (own * x_panels + i) * P::bytes);
        }
        finish_rows<R, T>(a, u, c, to, first + own_row + strip, valid, end, panel0 + own, scale,
                          terms[own]);
    }
}

template <typename P, typename T, wide_result R, int Rows, int Panels>
enum fb_status launch_result(const wide_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    typedef result_form<P, Rows, Panels> form;
    const int x_panels = ((gives_features<R>() ? a.value_dim : a.dim) + kPanel - 1) / kPanel;
    const int panels = ((gives_features<R>() ? a.dim : a.value_dim) + kPanel - 1) / kPanel;
    const size_t bytes = form::bytes(x_panels);
    const auto kernel = result_kernel<P, T, R, Rows, Panels>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "flow's rows times a state", error);
    if (status != FB_OK)
        return status;
    const int heads = rows_are_queries<R>() ? a.heads : a.kv_heads;
    kernel<<<dim3((unsigned)((panels + Panels - 1) / Panels), (unsigned)a.result_slices,
                  (unsigned)(a.batch * heads)),
             form::threads, bytes, stream>>>(a);
    return fb_cuda_launched("flow's rows times a state", error);
}

/* The state of 256 x 256 numbers fits in 16 bits, half of it in 32. */
template <typename T, wide_result R>
enum fb_status launch_form(const wide_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    const int columns = gives_features<R>() ? a.dim : a.value_dim;
    if constexpr (P::wide_sums) {
        return columns <= kPanel ? launch_result<P, T, R, 2, 1>(a, stream, error)
                                 : launch_result<P, T, R, 2, 2>(a, stream, error);
    } else {
        return columns <= kPanel ? launch_result<P, T, R, 2, 1>(a, stream, error)
                                 : launch_result<P, T, R, 1, 2>(a, stream, error);
    }
}

template <typename T>
enum fb_status choose_result(enum wide_result result, const wide_arguments &a, cudaStream_t stream,
                             struct fb_error *error)
{
    switch (result) {
    case WIDE_OUT:
        return launch_form<T, WIDE_OUT>(a, stream, error);
    case WIDE_DV:
        return launch_form<T, WIDE_DV>(a, stream, error);
    case WIDE_DQ:
        return launch_form<T, WIDE_DQ>(a, stream, error);
    default:
        return launch_form<T, WIDE_DK>(a, stream, error);
    }
}

} // namespace

enum fb_status flow_wide_product(enum fb_dtype dtype, bool of_queries, const wide_arguments &a,
                                 cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16  ? choose_product<__nv_bfloat16>(of_queries, a, stream, error)
           : dtype == FB_F16 ? choose_product<__half>(of_queries, a, stream, error)
                             : choose_product<float>(of_queries, a, stream, error);
}

enum fb_status flow_wide_result(enum fb_dtype dtype, enum wide_result result,
                                const wide_arguments &a, cudaStream_t stream,
                                struct fb_error *error)
{
    return dtype == FB_BF16  ? choose_result<__nv_bfloat16>(result, a, stream, error)
           : dtype == FB_F16 ? choose_result<__half>(result, a, stream, error)
                             : choose_result<float>(result, a, stream, error);
}
