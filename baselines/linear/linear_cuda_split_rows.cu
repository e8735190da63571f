/*
 * Linear attention with a mask in f32 on Hopper: as linear_cuda_masked.cu, its products by
 * warpgroups (cuda_split.cuh). Z comes turned through registers; X and Y come by
 * asynchronous copies; the state lies turned in shared memory, its f32 an operand as it is.
 */
#include "linear_cuda_split.cuh"

namespace
{

/* Two blocks share a multiprocessor where X has one panel. */
constexpr size_t kSharedMost = 227 * 1024;

/* Z turned, what products leave out of it, of Y and of the panel of the state in use; the states
 * of every panel of X; X and Y, of two turns where there is room. */
struct split_shared {
    char *z, *z_low, *y_low, *state_low, *states, *x, *y;
    float *key_sums;                   /* [x_panels][64] of Y; gradients of features: [64] of Z */
    float *columns, *inverse, *weight; /* [64] each: half of Z's sums; 1 / y; -w / y */
};

size_t shared_bytes(int x_panels, int stages)
{
    return (size_t)(4 + x_panels + 2 * stages) * kSplitBytes +
           (size_t)(x_panels + 3) * kPanel * sizeof(float);
}

#if FB_HAVE_WGMMA

__device__ split_shared carve(char *at, int x_panels, int stages)
{
    split_shared s;
    s.z = at;
    s.z_low = s.z + kSplitBytes;
    s.y_low = s.z_low + kSplitBytes;
    s.state_low = s.y_low + kSplitBytes;
    s.states = s.state_low + kSplitBytes;
    s.x = s.states + x_panels * kSplitBytes;
    s.y = s.x + stages * kSplitBytes;
    s.key_sums = reinterpret_cast<float *>(s.y + stages * kSplitBytes);
    s.columns = s.key_sums + x_panels * kPanel;
    s.inverse = s.columns + kPanel;
    s.weight = s.inverse + kPanel;
    return s;
}

/* The states before the slice (behind it, for dv and dk), turned: rows are columns of Z. */
template <linear_pass Pass>
__device__ void open_states(const linear_arguments &a, const split_shared &s, const float *from,
                            int x_panels, int z)
{
    for (int i = 0; i < x_panels; i++) {
        const float *panel = from + linear_state_panel<Pass>(a, i, z);
        char *to = s.states + i * kSplitBytes;
        if constexpr (linear_gives_features<Pass>()) {
            const int quad = (int)threadIdx.x % kQuads;
            for (int k = 0; k < kQuadsEach; k++)
                quad_of(to, split_row(k), quad) =
                    *reinterpret_cast<const float4 *>(panel + split_row(k) * kPanel + 4 * quad);
        } else {
            const int col = turned_column::col(), row = turned_column::row(0);
            for (int k = 0; k < kTurnedEach; k += 4) {
                const float *at = panel + (row + k) * kPanel + col;
                quad_of(to, col, (row + k) / 4) =
                    make_float4(at[0], at[kPanel], at[2 * kPanel], at[3 * kPanel]);
            }
        }
    }
    if (Pass == LINEAR_OUT)
        for (int i = threadIdx.x; i < x_panels * kPanel; i += kPanelThreads)
            s.key_sums[i] = from[linear_key_sum(a, 0) + i];
    if (linear_gives_features<Pass>() && threadIdx.x < kPanel)
        s.key_sums[threadIdx.x] = from[linear_key_sum(a, z) + threadIdx.x];
}

/* The step's numbers of queries, where they stand beside Y or Z. */
template <linear_pass Pass>
__device__ void load_numbers(const linear_arguments &a, const split_shared &s, int64_t place,
                             int first, int valid_queries)
{
    if (linear_rows_are_queries<Pass>() || threadIdx.x >= kPanel)
        return;
    const int row = first + (int)threadIdx.x;
    const bool exists = row < valid_queries;
    const float inverse = exists ? linear_inverse(a.denominators[place + row]) : 0.0F;
    s.inverse[threadIdx.x] = inverse;
    if (Pass == LINEAR_DK)
        s.weight[threadIdx.x] = exists ? -a.weights[place + row] * inverse : 0.0F;
}

/* X and Y as products take them. */
template <linear_pass Pass>
__device__ void finish_sides(const linear_arguments &a, const split_shared &s, char *xs, char *ys,
                             const panel_rows<float> &x, const panel_rows<float> &y, int first,
                             int part)
{
    if constexpr (!linear_gives_features<Pass>()) {
        map_split(a.map, xs, nullptr, x, first, part);
        map_split(a.map, ys, s.y_low, y, first, part);
    } else {
        finish_split(ys, s.y_low, [&](int i, float4 &q) {
            if constexpr (Pass == LINEAR_DK) {
                const float by = s.inverse[split_row(i)];
                q = make_float4(by * q.x, by * q.y, by * q.z, by * q.w);
            }
            return Pass == LINEAR_DK;
        });
    }
}

/* Z turned; returns what the thread's column and rows add to the sum beside the state. */
template <linear_pass Pass>
__device__ float finish_z(const linear_arguments &a, const split_shared &s,
                          const panel_rows<float> &z, int first, int part)
{
    turned_column column;
    column.load(z, first, part);
    float sum = 0.0F;
    const bool exists = part * kPanel + turned_column::col() < z.dim;
    if constexpr (linear_gives_features<Pass>())
        with_map(a.map, [&](auto m) {
            if (m.maps)
#pragma unroll
                for (int i = 0; i < kTurnedEach; i++)
                    column.x[i] =
                        (exists && first + turned_column::row(i) < z.valid ? 1.0F : 0.0F) *
                        m.phi(column.x[i]);
        });
#pragma unroll
    for (int i = 0; i < kTurnedEach; i++) {
        const int row = turned_column::row(i);
        float &value = column.x[i];
        if (Pass == LINEAR_DV)
            value *= s.inverse[row];
        if (linear_gives_features<Pass>())
            sum = Pass == LINEAR_DK ? fmaf(s.weight[row], value, sum) : sum + value;
    }
    column.store(s.z, s.z_low);
    return sum;
}

/* The part of X Y^T that the mask lets through, with what joins it. */
template <linear_pass Pass>
__device__ void mask(const split_shared &s, strip_result &c, int strip, const float (&weight)[2])
{
    each_pair(c, strip, [&](int row, int col, float &x0, float &x1) {
        if constexpr (Pass == LINEAR_DQ) {
            x0 -= weight[row / 8 % 2];
            x1 -= weight[row / 8 % 2];
        }
        if constexpr (Pass == LINEAR_DK) {
            x0 += s.weight[col];
            x1 += s.weight[col + 1];
        }
        constexpr bool before = linear_rows_are_queries<Pass>();
        x0 = (before ? col <= row : col >= row) ? x0 : 0.0F;
        x1 = (before ? col + 1 <= row : col + 1 >= row) ? x1 : 0.0F;
    });
}

/* Forward: the rows' products with the sum of the keys before, over the operand's columns. */
__device__ inline void add_dots(const split_operand_of<4> &x, int first, const float *key_sums,
                                float (&dots)[2])
{
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            dots[i % 2] =
                fmaf(x.at(step, i), key_sums[8 * (first + step) + i / 2 * 4 + threadIdx.x % 4],
                     dots[i % 2]);
}

/* scores += X Y^T, c += X state */
__device__ inline void multiply_rows(const split_shared &s, const char *xs, const char *ys,
                                     const char *state, const float *key_sums, strip_result &scores,
                                     strip_result &c, float (&dots)[2])
{
#pragma unroll
    for (int first = 0; first < 8; first += 4) {
        split_operand_of<4> x;
        x.load(xs, first);
        if (key_sums != nullptr)
            add_dots(x, first, key_sums, dots);
        x.hold();
        wgmma_hold(scores);
        wgmma_hold(c);
        wgmma_begin();
        begin_split_steps(scores, x, split_tile(ys), split_tile(s.y_low), first);
        begin_split_steps(c, x, split_tile(state), split_tile(s.state_low), first);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(scores);
        wgmma_hold(c);
    }
}

/* The same for what is left of differences: the tensor cores cut digits off where an addition
 * rounds, so their sums are short. */
__device__ inline void multiply_differences(const split_shared &s, const char *xs, const char *ys,
                                            const char *state, strip_result &scores,
                                            strip_result &c)
{
#pragma unroll
    for (int first = 0; first < 8; first += 2) {
        split_operand_of<2> x;
        strip_result part;
        x.load(xs, first);
        x.hold();
        clear(part);
        wgmma_hold(part);
        wgmma_hold(c);
        wgmma_begin();
        begin_split_steps(part, x, split_tile(ys), split_tile(s.y_low), first);
        begin_split_steps(c, x, split_tile(state), split_tile(s.state_low), first);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(part);
        wgmma_hold(c);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores[n][i] += part[n][i];
    }
}

/* What the rows of a step are, and where they go. */
struct split_rows {
    int64_t b, h;
    int first, count, valid, z;
    int64_t place; /* of the head in denominators and weights */
};

/* The step's rows of the result from c; dots: forward, the denominators. */
template <linear_pass Pass>
__device__ void write_rows(const linear_arguments &a, const split_shared &s, const split_rows &r,
                           strip_result &c, const float (&weight)[2], const float (&dots)[2])
{
    const int strip = (int)threadIdx.x / 32 * 16;
    const panel_rows<float> to(linear_result<Pass>(a), r.b, r.h, r.count);
    const panel_rows<float> input(Pass == LINEAR_DK ? a.k : a.q, r.b, r.h, r.count);
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = r.first + strip + (int)threadIdx.x % 32 / 4 + 8 * half;
        const bool exists = row < r.valid;
        scale[half] = exists ? 1.0F : 0.0F;
        if constexpr (Pass == LINEAR_OUT) {
            const float y = dots[half] + a.epsilon;
            scale[half] = exists ? linear_inverse(y) : 0.0F;
            if (a.denominators != nullptr && r.z == 0 && threadIdx.x % 4 == 0 && row < r.count)
                a.denominators[r.place + row] = exists ? y : 0.0F;
        }
        if constexpr (Pass == LINEAR_DQ) {
            /* the first query weighs one key, by 1 whatever it is: see linear_cuda_masked.cu */
            const bool alone = row == 0 && a.epsilon == 0.0F;
            scale[half] = exists && !alone ? linear_inverse(a.denominators[r.place + row]) : 0.0F;
        }
    }
    const int t = (int)threadIdx.x % 4, left = to.dim - r.z * kPanel;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = r.first + strip + (int)threadIdx.x % 32 / 4 + 8 * half;
        if (row >= r.count)
            continue;
        const float by = Pass == LINEAR_DQ ? -weight[half] : 1.0F;
        float2 slope[8];
#pragma unroll
        for (int n = 0; n < 8; n++)
            slope[n] = make_float2(1.0F, 1.0F);
        if constexpr (linear_gives_features<Pass>())
            with_map(a.map, [&](auto m) {
                if constexpr (decltype(m)::maps) {
#pragma unroll
                    for (int n = 0; n < 8; n++) /* loads that wait together */
                        if (8 * n < left)
                            slope[n] = *reinterpret_cast<const float2 *>(
                                input.at(row, r.z * kPanel + 8 * n + 2 * t));
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        slope[n] = make_float2(m.slope(slope[n].x), m.slope(slope[n].y));
                }
            });
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const int col = 8 * n + 2 * t;
            float x0 = c[n][2 * half], x1 = c[n][2 * half + 1];
            if constexpr (linear_gives_features<Pass>()) {
                x0 = fmaf(by, s.key_sums[col], x0) * slope[n].x;
                x1 = fmaf(by, s.key_sums[col + 1], x1) * slope[n].y;
            }
            x0 = scale[half] == 0.0F ? 0.0F : scale[half] * x0;
            x1 = scale[half] == 0.0F ? 0.0F : scale[half] * x1;
            if (8 * n < left)
                *reinterpret_cast<float2 *>(to.at(row, r.z * kPanel + col)) = make_float2(x0, x1);
        }
    }
}

/* A panel of X: scores += X Y^T, c += X state, then state += Y^T Z. */
template <linear_pass Pass>
__device__ void multiply_turn(const split_shared &s, const turned_places &places, char *xs,
                              char *ys, int i, strip_result &scores, strip_result &c,
                              float (&dots)[2])
{
    char *state = s.states + i * kSplitBytes;
    float sums[2] = {};
    if constexpr (linear_gives_features<Pass>())
        multiply_differences(s, xs, ys, state, scores, c);
    else
        multiply_rows(s, xs, ys, state, Pass == LINEAR_OUT ? s.key_sums + i * kPanel : nullptr,
                      scores, c, dots);
    strip_result part;
    clear(part);
    multiply_split_halves(part, s.z, s.z_low, [&](split_operand_of<4> &y, int first) {
        y.load_turned(ys, places, first);
        if (Pass == LINEAR_OUT)
#pragma unroll
            for (int k = 0; k < 16; k++)
                sums[k % 2] += y.at(k / 4, k % 4);
    });
    sums[0] = sum_of_four(sums[0]);
    sums[1] = sum_of_four(sums[1]);
    __syncthreads(); /* the state, X and Y have been read */
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            places.in(state, n, k % 2, k / 2) += part[n][k];
    if (Pass == LINEAR_OUT && threadIdx.x % 4 == 0) {
        float *to = s.key_sums + i * kPanel + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        to[0] += sums[0];
        to[8] += sums[1];
    }
}

#endif

/* grid (slices, heads of the rows, panels of the result): reads X, Y and Z once per panel of the
 * result (X and Y: all their panels) and writes the result */
template <linear_pass Pass>
__global__ void __launch_bounds__(kPanelThreads, 2)
    split_kernel(const __grid_constant__ linear_arguments a, int stages)
{
#if FB_HAVE_WGMMA
    constexpr bool queries = linear_rows_are_queries<Pass>();
    extern __shared__ __align__(1024) char shared[];
    const int x_panels = linear_x_panels<Pass>(a), z = (int)blockIdx.z;
    const split_shared s = carve(shared, x_panels, stages);
    const turned_places places;
    const int heads = queries ? a.heads : a.kv_heads;
    const int64_t b = blockIdx.y / heads, h = blockIdx.y % heads;
    const int64_t kv_h = queries ? h / a.group : h, other = queries ? kv_h : h;
    const linear_unit u = linear_unit_of(a, b, h, kv_h);
    const int others = queries ? u.kv_valid : u.q_valid;
    split_rows rows = {b,
                       h,
                       0,
                       queries ? a.q_len : a.kv_len,
                       queries ? u.q_valid : u.kv_valid,
                       z,
                       (b * a.heads + h) * a.q_len};
    const panel_rows<float> x(linear_x<Pass>(a), b, h, rows.valid);
    const panel_rows<float> y(linear_y<Pass>(a), b, other, others);
    const panel_rows<float> values(linear_z<Pass>(a), b, other, others);
    const int strip = (int)threadIdx.x / 32 * 16;
    const int from = (int)blockIdx.x * a.slice_panels, end = (max(a.q_len, a.kv_len) + 63) / kPanel;
    const int panels = min(a.slice_panels, end - from);
    if (panels <= 0)
        return;
    const auto first_of = [&](int step) {
        return (from + (queries ? step : panels - 1 - step)) * kPanel;
    };
    const auto start = [&](int turn) {
        const int step = turn / x_panels, place = turn % stages * kSplitBytes;
        if (step < panels) {
            start_split(s.x + place, x, first_of(step), turn % x_panels);
            start_split(s.y + place, y, first_of(step), turn % x_panels);
        }
        commit_copies();
    };
    start(0);
    open_states<Pass>(a, s,
                      (queries ? a.sums : a.back) +
                          ((b * a.kv_heads + kv_h) * a.slices + blockIdx.x) * a.count,
                      x_panels, z);
    load_numbers<Pass>(a, s, rows.place, first_of(0), u.q_valid);
    __syncthreads();
    for (int step = 0; step < panels; step++) {
        rows.first = first_of(step);
        strip_result c, scores;
        clear(c);
        clear(scores);
        float dots[2] = {}, weight[2] = {}, sum = 0.0F;
        if (Pass == LINEAR_DQ)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = rows.first + strip + (int)threadIdx.x % 32 / 4 + 8 * half;
                weight[half] = row < rows.valid ? a.weights[rows.place + row] : 0.0F;
            }
        for (int i = 0; i < x_panels; i++) {
            const int turn = step * x_panels + i, place = turn % stages * kSplitBytes;
            wait_copies<0>();
            finish_sides<Pass>(a, s, s.x + place, s.y + place, x, y, rows.first, i);
            finish_split(s.states + i * kSplitBytes, s.state_low,
                         [](int, float4 &) { return false; });
            if (i == 0) {
                sum = finish_z<Pass>(a, s, values, rows.first, z);
                if (linear_gives_features<Pass>() && threadIdx.x >= kPanel)
                    s.columns[threadIdx.x - kPanel] = sum;
            }
            publish_shared();
            __syncthreads();
            if (stages > 1)
                start(turn + 1);
            if (i == 0) {
                if (step + 1 < panels)
                    expect_panel(values, first_of(step + 1), z);
                if (linear_gives_features<Pass>() && threadIdx.x < kPanel)
                    sum += s.columns[threadIdx.x];
            }
            multiply_turn<Pass>(s, places, s.x + place, s.y + place, i, scores, c, dots);
            if (stages == 1)
                start(turn + 1);
        }
        mask<Pass>(s, scores, strip, weight);
        if (Pass == LINEAR_OUT)
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int n = 0; n < 8; n++)
                    dots[half] += scores[n][2 * half] + scores[n][2 * half + 1];
                dots[half] = sum_of_four(dots[half]);
            }
        multiply_split_halves(c, s.z, s.z_low, [&](split_operand_of<4> &masked, int half) {
            masked.take(scores, half);
        });
        write_rows<Pass>(a, s, rows, c, weight, dots);
        __syncthreads(); /* Z, sums and numbers have been read */
        if (linear_gives_features<Pass>() && threadIdx.x < kPanel)
            s.key_sums[threadIdx.x] += sum;
        if (!queries && step + 1 < panels) {
            load_numbers<Pass>(a, s, rows.place, first_of(step + 1), u.q_valid);
            __syncthreads();
        }
    }
#else
    (void)a;
    (void)stages;
#endif
}

template <linear_pass Pass>
enum fb_status launch(const linear_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const int x_panels = linear_x_panels<Pass>(a);
    const int stages = x_panels > 1 && shared_bytes(x_panels, 2) <= kSharedMost ? 2 : 1;
    const size_t bytes = shared_bytes(x_panels, stages);
    const auto kernel = split_kernel<Pass>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "causal linear attention", error);
    if (status != FB_OK)
        return status;
    const int heads = linear_rows_are_queries<Pass>() ? a.heads : a.kv_heads;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * heads),
                    (unsigned)linear_z_panels<Pass>(a));
    kernel<<<grid, kPanelThreads, bytes, stream>>>(a, stages);
    return fb_cuda_launched("causal linear attention", error);
}

} // namespace

bool linear_cuda_split_serves(enum linear_pass pass, const linear_arguments &a)
{
    const bool gives_features = pass == LINEAR_DQ || pass == LINEAR_DK;
    const bool queries = pass == LINEAR_OUT || pass == LINEAR_DQ;
    const int x_panels = gives_features ? a.value_panels : a.feature_panels;
    const bool whole = a.q.whole && a.k.whole && a.v.whole &&
                       (pass == LINEAR_OUT ? a.out.whole : a.dout.whole) &&
                       (pass != LINEAR_DQ || a.dq.whole) && (pass != LINEAR_DK || a.dk.whole) &&
                       (pass != LINEAR_DV || a.dv.whole);
    return whole && (queries || a.group == 1) && shared_bytes(x_panels, 1) <= kSharedMost &&
           fb_cuda_is_hopper();
}

enum fb_status linear_cuda_split(enum linear_pass pass, const linear_arguments &a,
                                 cudaStream_t stream, struct fb_error *error)
{
    switch (pass) {
    case LINEAR_OUT:
        return launch<LINEAR_OUT>(a, stream, error);
    case LINEAR_DV:
        return launch<LINEAR_DV>(a, stream, error);
    case LINEAR_DQ:
        return launch<LINEAR_DQ>(a, stream, error);
    default:
        return launch<LINEAR_DK>(a, stream, error);
    }
}
