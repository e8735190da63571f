/*
 * Linear attention with a mask: a block goes through the panels of one slice of tokens, with the
 * state of what comes before (dv, dk: after) in shared memory. See linear_cuda.cuh.
 */
#include "linear_cuda.cuh"

namespace
{

/* X, Y and Z, each once in use and once under way; the state as an operand; then the state of every
 * panel of X, each thread's elements in its own column. */
struct masked_shared {
    char *x, *y, *z, *state; /* x, y, z: of two panels, the one in use chosen by use() */
    float *states;           /* [x_panels][32][kPanelThreads] */
    float *key_sums;         /* [x_panels][kPanel] of Y; gradients of features: [kPanel] of Z */
};

template <typename P> size_t shared_bytes(int x_panels)
{
    return 7 * (size_t)P::bytes + (size_t)x_panels * (kPanelCount + kPanel) * sizeof(float);
}

template <typename P> __device__ masked_shared carve(char *at, int x_panels)
{
    masked_shared s;
    s.x = at;
    s.y = s.x + 2 * P::bytes;
    s.z = s.y + 2 * P::bytes;
    s.state = s.z + 2 * P::bytes;
    s.states = reinterpret_cast<float *>(s.state + P::bytes);
    s.key_sums = s.states + x_panels * kPanelCount;
    return s;
}

/* The numbers of a panel's rows that stand beside X and Y, and the parts of column sums. */
struct masked_rows {
    float x[kPanel], y[kPanel]; /* what joins X Y^T as their product */
    float dots[kPanel];         /* forward: the denominators from the state */
    float columns[kPanelThreads / 32][kPanel];
};

__device__ inline float *own_state(const masked_shared &s, int panel)
{
    return s.states + panel * kPanelCount + threadIdx.x;
}

template <linear_pass Pass>
__device__ void open_states(const linear_arguments &a, const masked_shared &s, const float *from,
                            int x_panels, int z, int strip)
{
    constexpr bool turned = linear_gives_features<Pass>();
    for (int i = 0; i < x_panels; i++) {
        const float *panel = from + linear_state_panel<Pass>(a, i, z);
        float *own = own_state(s, i);
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 8
        for (int k = 0; k < 32; k++) {
            const int row = strip + g + k / 2 % 2 * 8, col = k / 4 * 8 + 2 * t + k % 2;
            own[k * kPanelThreads] = turned ? panel[col * kPanel + row] : panel[row * kPanel + col];
        }
    }
    if (Pass == LINEAR_OUT)
        for (int i = threadIdx.x; i < x_panels * kPanel; i += kPanelThreads)
            s.key_sums[i] = from[linear_key_sum(a, 0) + i];
    if (turned && threadIdx.x < kPanel)
        s.key_sums[threadIdx.x] = from[linear_key_sum(a, z) + threadIdx.x];
}

template <typename P> __device__ void state_to_operand(const masked_shared &s, int panel, int strip)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *own = own_state(s, panel);
#pragma unroll
    for (int k = 0; k < 32; k += 2)
        P::put2(s.state, strip + g + k / 2 % 2 * 8, k / 4 * 8 + 2 * t, own[k * kPanelThreads],
                own[(k + 1) * kPanelThreads]);
}

template <typename P>
__device__ void advance_state(const masked_shared &s, int panel, int strip, const char *y,
                              const char *z)
{
    strip_result part;
    clear(part);
    P::multiply_outer(part, y, strip, z);
    float *own = own_state(s, panel);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            own[(4 * n + k) * kPanelThreads] += part[n][k];
}

__device__ inline void keep_columns(masked_rows &rows, const float (&sum)[8])
{
#pragma unroll
    for (int e = 0; e < 8; e++) {
        float x = sum[e];
        x += __shfl_xor_sync(0xffffffffU, x, 8);
        x += __shfl_xor_sync(0xffffffffU, x, 16);
        if (threadIdx.x % 32 < 8)
            rows.columns[threadIdx.x / 32][threadIdx.x % 8 * 8 + e] = x;
    }
}

__device__ inline void add_columns(const masked_rows &rows, float *to)
{
    if (threadIdx.x >= kPanel)
        return;
    float sum = 0.0F;
    for (int k = 0; k < kPanelThreads / 32; k++)
        sum += rows.columns[k][threadIdx.x];
    to[threadIdx.x] += sum;
}

/* The rows' numbers: dq and dk subtract w; every pass but forward divides by y somewhere. */
template <linear_pass Pass>
__device__ void load_rows(const linear_arguments &a, masked_rows &rows, int64_t query_head,
                          int first, int valid_queries, float (&inverse)[4])
{
    const int64_t place = query_head * a.q_len;
    if constexpr (Pass == LINEAR_DV || Pass == LINEAR_DK)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int row = first + panel_row(k);
            inverse[k] = row < valid_queries ? linear_inverse(a.denominators[place + row]) : 0.0F;
        }
    if (!linear_gives_features<Pass>() || threadIdx.x >= kPanel)
        return;
    const int row = first + (int)threadIdx.x;
    const float w = row < valid_queries ? a.weights[place + row] : 0.0F;
    const float inverse_y =
        row < valid_queries ? linear_inverse(a.denominators[place + row]) : 0.0F;
    rows.x[threadIdx.x] = Pass == LINEAR_DQ ? -w : 1.0F;
    rows.y[threadIdx.x] = Pass == LINEAR_DQ ? 1.0F : -w * inverse_y;
}

template <typename P, typename TX, linear_pass Pass>
__device__ void finish_x(const linear_arguments &a, const masked_shared &s, masked_rows &rows,
                         char *panel, const panel_rows<TX> &x, int first, int i)
{
    if constexpr (Pass == LINEAR_OUT)
        linear_finish<P>(a, panel, x, first, i, [&](int n, const float(&e)[8]) {
            const float *key_sum = s.key_sums + i * kPanel + threadIdx.x % 8 * 8;
            float dot = 0.0F;
#pragma unroll
            for (int k = 0; k < 8; k++)
                dot = fmaf(e[k], key_sum[k], dot);
            dot = sum_of_eight(dot);
            if (threadIdx.x % 8 == 0)
                rows.dots[panel_row(n)] = i == 0 ? dot : rows.dots[panel_row(n)] + dot;
        });
    if constexpr (Pass == LINEAR_DV)
        linear_finish<P>(a, panel, x, first, i, [](int, const float(&)[8]) {});
}

__device__ inline void scale_chunk(float (&x)[8], float factor)
{
#pragma unroll
    for (int e = 0; e < 8; e++)
        x[e] *= factor;
}

template <typename P, typename TX, linear_pass Pass>
__device__ void finish_y(const linear_arguments &a, masked_rows &rows, char *panel,
                         const panel_rows<TX> &y, int first, int i, const float (&inverse)[4])
{
    const auto nothing = [](int, const float(&)[8]) {};
    if constexpr (Pass == LINEAR_OUT) {
        float sum[8] = {};
        linear_finish<P>(a, panel, y, first, i, [&](int, const float(&e)[8]) {
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum[k] += e[k];
        });
        keep_columns(rows, sum);
    }
    if constexpr (Pass == LINEAR_DV)
        linear_finish<P>(a, panel, y, first, i, nothing);
    if constexpr (Pass == LINEAR_DK)
        finish_panel<P>(
            panel, y, first, i, [&](int n, float(&e)[8]) { scale_chunk(e, inverse[n]); }, nothing);
}

template <typename P, typename TZ, linear_pass Pass>
__device__ void finish_z(const linear_arguments &a, masked_rows &rows, char *panel,
                         const panel_rows<TZ> &z, int first, int i, const float (&inverse)[4])
{
    if constexpr (linear_gives_features<Pass>()) {
        float sum[8] = {};
        linear_finish<P>(a, panel, z, first, i, [&](int n, const float(&e)[8]) {
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum[k] = fmaf(rows.y[panel_row(n)], e[k], sum[k]);
        });
        keep_columns(rows, sum);
    }
    if constexpr (Pass == LINEAR_DV)
        finish_panel<P>(
            panel, z, first, i, [&](int n, float(&e)[8]) { scale_chunk(e, inverse[n]); },
            [](int, const float(&)[8]) {});
}

/* c += a b^T for what is left of differences: in f32 the sums of eight products are added to c
 * outside of the tensor cores, which cut digits off where an addition rounds. */
template <tile_products Products, int Ld>
__device__ void add_differences(panel_f32<Products, Ld>, strip_result &c, const char *a, int strip,
                                const char *b)
{
    typedef panel_f32<Products, Ld> P;
#pragma unroll 2
    for (int k = 0; k < kPanel; k += 8) {
        strip_result part;
        clear(part);
        warp_product<Products>(part, operand{P::place(a, 0, k), Ld, 1}, strip,
                               operand{P::place(b, 0, k), 1, Ld}, 0, 8);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                c[n][i] += part[n][i];
    }
}

__device__ inline void add_differences(panel_bf16, strip_result &c, const char *a, int strip,
                                       const char *b)
{
    panel_bf16::multiply_turned(c, a, strip, b);
}

/* The part of X Y^T that the mask lets through, with what joins it. */
template <linear_pass Pass>
__device__ void mask(const masked_rows &rows, strip_result &c, int strip)
{
    each_pair(c, strip, [&](int row, int col, float &x0, float &x1) {
        if constexpr (linear_gives_features<Pass>()) {
            x0 = fmaf(rows.x[row], rows.y[col], x0);
            x1 = fmaf(rows.x[row], rows.y[col + 1], x1);
        }
        const bool before = linear_rows_are_queries<Pass>();
        x0 = (before ? col <= row : col >= row) ? x0 : 0.0F;
        x1 = (before ? col + 1 <= row : col + 1 >= row) ? x1 : 0.0F;
    });
}

/* The sums of the rows g and g + 8 of the strip. */
__device__ inline void sum_strip(strip_result &c, float (&sum)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] = 0.0F;
#pragma unroll
        for (int n = 0; n < 8; n++)
            sum[half] += c[n][2 * half] + c[n][2 * half + 1];
        sum[half] = sum_of_four(sum[half]);
    }
}

/* grid (slices, heads of the rows, panels of the result): reads X, Y and Z once per panel of the
 * result (X and Y: all their panels) and writes the result */
template <typename P, typename F, typename T, linear_pass Pass>
__global__ void __launch_bounds__(kPanelThreads, P::wide_sums ? 2 : 3)
    masked_kernel(const __grid_constant__ linear_arguments a)
{
    typedef typename linear_types<Pass, F, T>::x TX;
    typedef typename linear_types<Pass, F, T>::z TZ;
    constexpr bool queries = linear_rows_are_queries<Pass>();
    extern __shared__ __align__(1024) char shared[];
    __shared__ masked_rows rows;
    const int x_panels = linear_x_panels<Pass>(a), z = (int)blockIdx.z;
    const masked_shared s = carve<P>(shared, x_panels);
    const int heads = queries ? a.heads : a.kv_heads;
    const int64_t b = blockIdx.y / heads, h = blockIdx.y % heads;
    const int64_t kv_h = queries ? h / a.group : h;
    const linear_unit u = linear_unit_of(a, b, h, kv_h);
    const int count = queries ? a.q_len : a.kv_len, valid = queries ? u.q_valid : u.kv_valid;
    const int others = queries ? u.kv_valid : u.q_valid, rounds = queries ? 1 : a.group;
    const panel_rows<TX> x(linear_x<Pass>(a), b, h, valid);
    const int strip = (int)threadIdx.x / 32 * 16;
    const int from = (int)blockIdx.x * a.slice_panels, end = (max(a.q_len, a.kv_len) + 63) / kPanel;
    const int panels = min(a.slice_panels, end - from);
    if (panels <= 0)
        return;
    const int64_t slot = queries ? b * a.kv_heads + kv_h : b * a.heads + h * a.group;
    open_states<Pass>(a, s, (queries ? a.sums : a.back) + (slot * a.slices + blockIdx.x) * a.count,
                      x_panels, z, strip);
    __syncthreads();
    const auto first_of = [&](int step) {
        return (from + (queries ? step : panels - 1 - step)) * kPanel;
    };
    /* turns: for every step, every head of the other side, every panel of X */
    const int turns = rounds * x_panels;
    const auto start = [&](int turn) {
        const int step = turn / turns, round = turn / x_panels % rounds, i = turn % x_panels;
        if (step < panels) {
            const int64_t other = queries ? kv_h : h * a.group + round;
            const panel_rows<TX> y(linear_y<Pass>(a), b, other, others);
            const panel_rows<TZ> values(linear_z<Pass>(a), b, other, others);
            const int half = turn % 2 * P::bytes, half_z = turn / x_panels % 2 * P::bytes;
            start_panel<P>(s.x + half, x, first_of(step), i);
            start_panel<P>(s.y + half, y, first_of(step), i);
            if (i == 0)
                start_panel<P>(s.z + half_z, values, first_of(step), z);
        }
        commit_copies();
    };
    start(0);
    for (int step = 0; step < panels; step++) {
        const int first = first_of(step);
        char *xs = s.x;
        strip_result c;
        clear(c);
        for (int round = 0; round < rounds; round++) {
            const int64_t other = queries ? kv_h : h * a.group + round;
            const int64_t query_head = b * a.heads + (queries ? h : other);
            const panel_rows<TX> y(linear_y<Pass>(a), b, other, others);
            const panel_rows<TZ> values(linear_z<Pass>(a), b, other, others);
            char *zs = s.z + (step * rounds + round) % 2 * P::bytes;
            float inverse[4] = {};
            strip_result scores;
            clear(scores);
            load_rows<Pass>(a, rows, query_head, first, u.q_valid, inverse);
            if constexpr (linear_gives_features<Pass>()) {
                __syncthreads();
                if (round == 0)
                    each_pair(c, strip, [&](int row, int col, float &x0, float &x1) {
                        x0 = rows.x[row] * s.key_sums[col];
                        x1 = rows.x[row] * s.key_sums[col + 1];
                    });
            }
            for (int i = 0; i < x_panels; i++) {
                const int turn = step * turns + round * x_panels + i;
                char *ys = s.y + turn % 2 * P::bytes;
                xs = s.x + turn % 2 * P::bytes;
                wait_copies<0>();
                if (i == 0)
                    finish_z<P, TZ, Pass>(a, rows, zs, values, first, z, inverse);
                finish_x<P, TX, Pass>(a, s, rows, xs, x, first, i);
                finish_y<P, TX, Pass>(a, rows, ys, y, first, i, inverse);
                if (round == 0)
                    state_to_operand<P>(s, i, strip);
                __syncthreads();
                start(turn + 1);
                if (Pass == LINEAR_OUT)
                    add_columns(rows, s.key_sums + i * kPanel);
                if (linear_gives_features<Pass>() && i == 0)
                    add_columns(rows, s.key_sums);
                if constexpr (linear_gives_features<Pass>())
                    add_differences(P(), scores, xs, strip, ys);
                else
                    P::multiply_turned(scores, xs, strip, ys);
                if (round == 0)
                    P::multiply_straight(c, xs, strip, s.state);
                advance_state<P>(s, i, strip, ys, zs);
                __syncthreads();
            }
            mask<Pass>(rows, scores, strip);
            put_strip<P>(xs, strip, scores);
            P::multiply_straight(c, xs, strip, zs);
            if constexpr (Pass == LINEAR_OUT) {
                float sum[2];
                sum_strip(scores, sum);
                if (threadIdx.x % 4 == 0)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        rows.dots[strip + threadIdx.x % 32 / 4 + 8 * half] += sum[half];
                __syncwarp();
            }
            if (round + 1 < rounds)
                __syncthreads();
        }
        const int64_t place = (b * a.heads + h) * a.q_len + first;
        each_pair(c, strip, [&](int row, int, float &x0, float &x1) {
            const bool exists = first + row < valid;
            float scale = 1.0F;
            if constexpr (Pass == LINEAR_OUT)
                scale = linear_inverse(rows.dots[row] + a.epsilon);
            if constexpr (Pass == LINEAR_DQ) {
                /* the first query weighs one key, by 1 whatever it is: rounding is all that the
                 * difference would leave, times what may be a small denominator's inverse */
                const bool alone = first + row == 0 && a.epsilon == 0.0F;
                scale = exists && !alone ? linear_inverse(a.denominators[place + row]) : 0.0F;
            }
            x0 = exists ? scale * x0 : 0.0F;
            x1 = exists ? scale * x1 : 0.0F;
        });
        if constexpr (Pass == LINEAR_OUT)
            if (a.denominators != nullptr && z == 0 && threadIdx.x % 32 < 16) {
                const int row = strip + (int)threadIdx.x % 32;
                if (first + row < count)
                    a.denominators[place + row] =
                        first + row < valid ? rows.dots[row] + a.epsilon : 0.0F;
            }
        linear_write<P, Pass, TZ>(a, xs, strip, c, b, h, first, z);
        __syncthreads();
    }
}

template <typename P, typename F, typename T, linear_pass Pass>
enum fb_status launch(const linear_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const size_t bytes = shared_bytes<P>(linear_x_panels<Pass>(a));
    const auto kernel = masked_kernel<P, F, T, Pass>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "causal linear attention", error);
    if (status != FB_OK)
        return status;
    const int heads = linear_rows_are_queries<Pass>() ? a.heads : a.kv_heads;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * heads),
                    (unsigned)linear_z_panels<Pass>(a));
    kernel<<<grid, kPanelThreads, bytes, stream>>>(a);
    return fb_cuda_launched("causal linear attention", error);
}

template <typename F, typename T, typename P = typename panel_of<T>::type>
enum fb_status choose(enum linear_pass pass, const linear_arguments &a, cudaStream_t stream,
                      struct fb_error *error)
{
    switch (pass) {
    case LINEAR_OUT:
        return launch<P, F, T, LINEAR_OUT>(a, stream, error);
    case LINEAR_DV:
        return launch<P, F, T, LINEAR_DV>(a, stream, error);
    case LINEAR_DQ:
        return launch<P, F, T, LINEAR_DQ>(a, stream, error);
    default:
        return launch<P, F, T, LINEAR_DK>(a, stream, error);
    }
}

} // namespace

enum fb_status linear_cuda_masked(enum fb_dtype features, enum fb_dtype dtype,
                                  enum linear_pass pass, const linear_arguments &a,
                                  cudaStream_t stream, struct fb_error *error)
{
    if (dtype == FB_BF16 && linear_is_narrow(a))
        return choose<__nv_bfloat16, __nv_bfloat16, panel_of<__half>::type>(pass, a, stream, error);
    if (dtype == FB_BF16)
        return choose<__nv_bfloat16, __nv_bfloat16>(pass, a, stream, error);
    if (dtype == FB_F32)
        return choose<float, float>(pass, a, stream, error);
    if (features == FB_F16)
        return choose<__half, __half>(pass, a, stream, error);
    return choose<float, __half>(pass, a, stream, error);
}
