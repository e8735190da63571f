/*
 * Flow-Attention, causal form, forward and decoding, on any GPU from sm_80: one block per head and
 * 64 columns of values walks over the tokens once, in chunks, carrying everything that came before:
 *
 *   ck, cq, u, w   [d]     sums of phi(k), phi(q), beta k, alpha q
 *   z              scalar  sum of E
 *   M              [d][64] sum of k (p v)^T
 *
 * Per chunk A = q k^T is formed once; its lower triangle serves the sinks, its upper the sources:
 *   a = sum_{j<=i} (A_ij + eps k1_j) + (q_i+eps).(ck+eps)   k1: the sum of the components of
 * phi(k_j) b = sum_{i<=j} (A_ij + eps q1_i) + (k_j+eps).(cq+eps)   alpha = n/a, beta = n/b c =
 * sum_{j<=i} beta_j (A_ij + eps k1_j) + (q_i+eps).(u+eps)     divided by n; likewise o E =
 * exp(clamp o), Z its running sum, p = n E / Z, r = sigmoid(c) / a out = r (tril(A) (p v) + q M)
 *
 * 4 N d numbers moved at any length. Sums that grow with the length are kept with their rounding
 * errors. Decoding is the same with the state in memory and a chunk of one token.
 */
#include "flow_cuda.h"
#include "flow_cuda_shape.cuh"

namespace
{

constexpr int kSplit = FB_FLOW_CUDA_SPLIT;
constexpr int kValueLd = kSplit + 8;
enum vector_name { CK, CQ, U, W, VECTORS };
static_assert((int)VECTORS == FB_FLOW_CUDA_VECTORS, "the plan counts the vectors");

struct causal_arguments {
    flow_cuda_shape s;
    int chunk;
    bool silent;  /* out is not written: it holds one row, and more tokens are taken in */
    float *state; /* [heads][splits][state_count]; NULL: starts empty, ends forgotten */
    int64_t state_count;
};

/* The block's shared memory. */
struct causal_shared {
    float *q, *k;  /* [chunk][ld] */
    float *scores; /* [chunk][chunk + 4] A */
    float *values; /* [chunk][kValueLd] v, then p v */
    float *state;  /* [cols][kValueLd] M, then as much of its rounding errors */
    float *state_error;
    float *vectors; /* [VECTORS][cols], then as much of their rounding errors */
    float *vectors_error;
    float *buffer; /* [kTileThreads] */
    double *z;
    float *a, *b, *c, *o, *k1, *q1, *alpha, *beta, *p, *r; /* [chunk] each */
    int ld, scores_ld;
};

constexpr int kTokenArrays = 10;

__host__ __device__ inline size_t shared_floats(int cols, int chunk)
{
    const size_t ld = (size_t)cols + 4;
    return 2 * (size_t)chunk * ld + (size_t)chunk * (size_t)(chunk + 4) + (size_t)chunk * kValueLd +
           2 * (size_t)cols * kValueLd + 2 * (size_t)VECTORS * cols + kTileThreads + 4 +
           (size_t)kTokenArrays * chunk;
}

__device__ causal_shared carve(float *at, int cols, int chunk)
{
    causal_shared x;
    x.ld = cols + 4;
    x.scores_ld = chunk + 4;
    x.z = reinterpret_cast<double *>(at);
    x.q = at + 4;
    x.k = x.q + chunk * x.ld;
    /* the product that forms the scores of 16 tokens takes 32 rows of k: what lies behind these,
     * whatever it is, nobody may write meanwhile */
    x.values = x.k + chunk * x.ld;
    x.state = x.values + chunk * kValueLd;
    x.state_error = x.state + cols * kValueLd;
    x.vectors = x.state_error + cols * kValueLd;
    x.vectors_error = x.vectors + VECTORS * cols;
    x.scores = x.vectors_error + VECTORS * cols;
    x.buffer = x.scores + chunk * x.scores_ld;
    float *token = x.buffer + kTileThreads;
    float **const arrays[kTokenArrays] = {&x.a,  &x.b,     &x.c,    &x.o, &x.k1,
                                          &x.q1, &x.alpha, &x.beta, &x.p, &x.r};
    for (int i = 0; i < kTokenArrays; i++)
        *arrays[i] = token + i * chunk;
    return x;
}

__device__ inline void add_carefully(float &value, float &error, float x)
{
    careful_sum sum = {value, error};
    sum.add(x);
    value = sum.value;
    error = sum.error;
}

/* vector += sum over the rows of weight (NULL: 1) times the tile */
__device__ void carry_columns(const causal_shared &x, const float *tile, int chunk, int cols,
                              const float *weight, vector_name name)
{
    x.buffer[threadIdx.x] = column_part(tile, x.ld, chunk, cols, weight, 0.0F);
    __syncthreads();
    if ((int)threadIdx.x < cols) {
        float sum = 0.0F;
        for (int g = 0; g < kTileThreads / cols; g++)
            sum += x.buffer[g * cols + threadIdx.x];
        const int i = name * cols + threadIdx.x;
        add_carefully(x.vectors[i], x.vectors_error[i], sum);
    }
    __syncthreads();
}

/* to[i] = base[i] + sum over the triangle of weight (NULL: 1) times (A + eps other): rows by the
 * first half of the block, columns by the second; two threads each. */
__device__ void add_triangle(const causal_shared &x, int chunk, bool rows, const float *weight,
                             const float *other, float *to)
{
    const int thread = threadIdx.x % (kTileThreads / 2);
    for (int i = thread / 2; i < chunk; i += kTileThreads / 4) {
        float sum = 0.0F;
        for (int j = thread % 2; j <= i; j += 2) {
            const float score =
                rows ? x.scores[i * x.scores_ld + j] : x.scores[j * x.scores_ld + i];
            sum = fmaf(weight == nullptr ? 1.0F : weight[j], fmaf(FB_FLOW_EPSILON, other[j], score),
                       sum);
        }
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        if (thread % 2 == 0)
            to[i] += sum;
    }
}

__device__ void normalise(const flow_cuda_shape &s, const causal_shared &x, int chunk, int rows,
                          float first_n)
{
    const bool sinks = threadIdx.x < kTileThreads / 2;
    add_triangle(x, chunk, sinks, nullptr, sinks ? x.k1 : x.q1, sinks ? x.a : x.b);
    __syncthreads();
    if ((int)threadIdx.x < chunk) {
        const int i = threadIdx.x;
        x.a[i] += s.extra_eps;
        x.b[i] += s.extra_eps;
        x.alpha[i] = i < rows ? (first_n + i) / x.a[i] : 0.0F;
        x.beta[i] = i < rows ? (first_n + i) / x.b[i] : 0.0F;
    }
    __syncthreads();
    add_triangle(x, chunk, sinks, sinks ? x.beta : x.alpha, sinks ? x.k1 : x.q1, sinks ? x.c : x.o);
    __syncthreads();
}

/* p and the running normaliser, r; the first warp sums over the tokens in order. */
__device__ void compete(const flow_cuda_shape &s, const causal_shared &x, int chunk, int rows,
                        float first_n)
{
    if ((int)threadIdx.x < chunk) {
        const int i = threadIdx.x;
        const float n = first_n + i;
        const float o = (x.o[i] + s.extra_eps) / n;
        const float share = s.allocation ? sigmoid((x.c[i] + s.extra_eps) / n) : 1.0F;
        x.o[i] = i < rows ? expf(fminf(fmaxf(o, -s.clamp), s.clamp)) : 0.0F;
        x.r[i] = i < rows ? share / x.a[i] : 0.0F;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        double carried = *x.z;
        for (int base = 0; base < chunk; base += 32) {
            const int i = base + threadIdx.x;
            double sum = i < chunk ? (double)x.o[i] : 0.0;
            for (int step = 1; step < 32; step *= 2) {
                const double left = __shfl_up_sync(0xffffffffU, sum, step);
                sum += (int)threadIdx.x >= step ? left : 0.0;
            }
            sum += carried;
            if (i < chunk)
                x.p[i] = !s.compete ? (i < rows ? 1.0F : 0.0F)
                         : i < rows ? (float)((first_n + i) * (double)x.o[i] / sum)
                                    : 0.0F;
            carried = __shfl_sync(0xffffffffU, sum, 31);
        }
        __syncwarp(); /* all lanes have read it */
        if (threadIdx.x == 0)
            *x.z = carried;
    }
    __syncthreads();
}

template <typename T>
__device__ void write_out(const flow_cuda_shape &s, const causal_shared &x, int chunk, int width,
                          int rows, int split_first, const head_rows<T> &out)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int strips = chunk / 16, parts = strips * (width / kColumnsPerWarp);
    constexpr tile_products P = products_of<T>();
    for (int part = warp; part < parts; part += kTileWarps) {
        const int row = part % strips * 16, col = part / strips * kColumnsPerWarp;
        float y[4][4] = {};
        warp_product<P>(y, operand{x.scores, x.scores_ld, 1}, row, operand{x.values, kValueLd, 1},
                        col, chunk);
        warp_product<P>(y, operand{x.q, x.ld, 1}, row, operand{x.state, kValueLd, 1}, col, s.cols);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int to_row = row + g + i / 2 * 8;
                const int to_col = split_first + col + n * 8 + 2 * t + i % 2;
                if (to_row < rows && to_col < s.value_dim)
                    out.data[to_row * out.stride + to_col] = from_f32<T>(x.r[to_row] * y[n][i]);
            }
    }
}

/* The chunk's rows into the tiles, A, and the parts of a, b, c and o that come from before. */
template <typename T>
__device__ void visit(const flow_cuda_shape &s, const causal_shared &x, const flow_cuda_head &head,
                      int64_t at, int chunk, int rows, int split_first, int width)
{
    const head_rows<T> q = rows_of<T>(s.q, head.b, head.h, at);
    const head_rows<T> k = rows_of<T>(s.k, head.b, head.kv_h, at);
    const head_rows<T> v = rows_of<T>(s.v, head.b, head.kv_h, at);
    const flow_map phi = {s.phi};
    load_tile(x.q, x.ld, chunk, s.cols, head_rows<const T>{q.data, q.stride}, rows, s.dim, phi);
    load_tile(x.k, x.ld, chunk, s.cols, head_rows<const T>{k.data, k.stride}, rows, s.dim, phi);
    load_tile(x.values, kValueLd, chunk, width, head_rows<const T>{v.data + split_first, v.stride},
              rows, s.value_dim - split_first, [](float value) { return value; });
    __syncthreads();
    block_product<products_of<T>()>(chunk, round_up(chunk, kColumnsPerWarp), s.cols,
                                    operand{x.q, x.ld, 1}, operand{x.k, 1, x.ld},
                                    [&](int row, int col, float a) {
                                        if (col < chunk)
                                            x.scores[row * x.scores_ld + col] = a;
                                    });
    const float eps = FB_FLOW_EPSILON;
    dot_rows(x.q, x.ld, chunk, s.dim, x.vectors + CK * s.cols, eps, x.a);
    dot_rows(x.k, x.ld, chunk, s.dim, x.vectors + CQ * s.cols, eps, x.b);
    dot_rows(x.q, x.ld, chunk, s.dim, x.vectors + U * s.cols, eps, x.c);
    dot_rows(x.k, x.ld, chunk, s.dim, x.vectors + W * s.cols, eps, x.o);
    sum_rows(x.q, x.ld, chunk, s.dim, x.q1);
    sum_rows(x.k, x.ld, chunk, s.dim, x.k1);
    __syncthreads();
}

template <typename T>
__device__ void advance(const flow_cuda_shape &s, const causal_shared &x, int chunk, int width)
{
    block_product<products_of<T>()>(s.cols, width, chunk, operand{x.k, 1, x.ld},
                                    operand{x.values, kValueLd, 1}, [&](int row, int col, float y) {
                                        const int i = row * kValueLd + col;
                                        add_carefully(x.state[i], x.state_error[i], y);
                                    });
    carry_columns(x, x.k, chunk, s.cols, nullptr, CK);
    carry_columns(x, x.q, chunk, s.cols, nullptr, CQ);
    carry_columns(x, x.k, chunk, s.cols, x.beta, U);
    carry_columns(x, x.q, chunk, s.cols, x.alpha, W);
}

/* The state in memory: the vectors and their errors, z (a double), the tokens so far, M, its
 * errors. */
__device__ void exchange_state(const causal_shared &x, int cols, float *state, int64_t *tokens,
                               bool store)
{
    const int vectors = 2 * VECTORS * cols, entries = cols * kSplit;
    float *product = state + vectors + FB_FLOW_CUDA_SCALARS;
    for (int i = threadIdx.x; i < vectors; i += kTileThreads)
        if (store)
            state[i] = x.vectors[i];
        else
            x.vectors[i] = state[i];
    for (int i = threadIdx.x; i < 2 * entries; i += kTileThreads) {
        float &own = x.state[(i / entries * cols + i % entries / kSplit) * kValueLd + i % kSplit];
        if (store)
            product[i] = own;
        else
            own = product[i];
    }
    if (threadIdx.x == 0) {
        double *z = reinterpret_cast<double *>(state + vectors);
        int64_t *count = reinterpret_cast<int64_t *>(state + vectors + 2);
        if (store) {
            *z = *x.z;
            *count = *tokens;
        } else {
            *x.z = *z;
        }
    }
    if (!store)
        *tokens = *reinterpret_cast<const int64_t *>(state + vectors + 2);
    __syncthreads();
}

/* grid (heads, splits) */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    causal_kernel(const __grid_constant__ causal_arguments arguments)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = arguments.s;
    const int chunk = arguments.chunk;
    const causal_shared x = carve(shared, s.cols, chunk);
    const int split_first = blockIdx.y * kSplit;
    const int width = min(kSplit, s.value_cols - split_first);
    const flow_cuda_head head = head_of(s, blockIdx.x);
    float *state = arguments.state == nullptr
                       ? nullptr
                       : arguments.state +
                             (blockIdx.x * (int64_t)gridDim.y + blockIdx.y) * arguments.state_count;
    int64_t before = 0;
    for (int i = threadIdx.x; i < 2 * s.cols * kValueLd + 2 * VECTORS * s.cols; i += kTileThreads)
        x.state[i] = 0.0F;
    if (threadIdx.x == 0)
        *x.z = 0.0;
    __syncthreads();
    if (state != nullptr)
        exchange_state(x, s.cols, state, &before, false);
    for (int64_t at = 0; at < head.q_len; at += chunk) {
        const int rows = (int)min((int64_t)chunk, head.q_len - at);
        const float first_n = (float)(before + at + 1);
        visit<T>(s, x, head, at, chunk, rows, split_first, width);
        normalise(s, x, chunk, rows, first_n);
        compete(s, x, chunk, rows, first_n);
        for (int i = threadIdx.x; i < chunk * chunk; i += kTileThreads)
            if (i % chunk > i / chunk)
                x.scores[i / chunk * x.scores_ld + i % chunk] = 0.0F;
        for (int i = threadIdx.x; i < chunk * width; i += kTileThreads)
            x.values[i / width * kValueLd + i % width] *= x.p[i / width];
        __syncthreads();
        if (!arguments.silent)
            write_out<T>(s, x, chunk, width, rows, split_first,
                         rows_of<T>(s.out, head.b, head.h, at));
        __syncthreads();
        advance<T>(s, x, chunk, width);
    }
    if (state != nullptr) {
        before += head.q_len;
        exchange_state(x, s.cols, state, &before, true);
    }
    const head_rows<T> out = rows_of<T>(s.out, head.b, head.h, head.q_len);
    const int64_t padding = (s.q_len - head.q_len) * width;
    for (int64_t i = threadIdx.x; i < padding; i += kTileThreads)
        if (split_first + (int)(i % width) < s.value_dim)
            out.data[i / width * out.stride + split_first + i % width] = from_f32<T>(0.0F);
}

template <typename T>
enum fb_status launch(const causal_arguments &arguments, const struct fb_flow_cuda_plan &plan,
                      cudaStream_t stream, struct fb_error *error)
{
    const size_t bytes = sizeof(float) * shared_floats(arguments.s.cols, arguments.chunk);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)causal_kernel<T>, bytes, "causal flow", error);
    if (status != FB_OK)
        return status;
    causal_kernel<T>
        <<<dim3((unsigned)plan.heads, (unsigned)plan.splits), kTileThreads, bytes, stream>>>(
            arguments);
    return fb_cuda_launched("causal flow", error);
}

enum fb_status launch_dtype(enum fb_dtype dtype, const causal_arguments &arguments,
                            const struct fb_flow_cuda_plan &plan, cudaStream_t stream,
                            struct fb_error *error)
{
    switch (dtype) {
    case FB_BF16:
        return launch<__nv_bfloat16>(arguments, plan, stream, error);
    case FB_F16:
        return launch<__half>(arguments, plan, stream, error);
    default:
        return launch<float>(arguments, plan, stream, error);
    }
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal(const struct fb_problem *p,
                                              const struct fb_call *call, struct fb_error *error)
{
    struct fb_flow_cuda_plan plan;
    fb_flow_cuda_plan_of(p, &plan);
    causal_arguments arguments = {};
    arguments.s = flow_cuda_shape_of(p, call, plan);
    arguments.chunk = plan.chunk;
    cudaStream_t stream = (cudaStream_t)call->stream;
    const enum fb_status status = flow_cuda_take_lengths(p, call, plan, arguments.s, error);
    if (status != FB_OK)
        return status;
    return launch_dtype(p->dtype, arguments, plan, stream, error);
}

extern "C" enum fb_status fb_flow_cuda_continue(const struct fb_problem *p,
                                                const struct fb_call *call, struct fb_error *error)
{
    struct fb_flow_cuda_plan plan;
    fb_flow_cuda_plan_of(p, &plan);
    causal_arguments arguments = {};
    arguments.s = flow_cuda_shape_of(p, call, plan);
    arguments.silent = call->q.shape[2] > 1;
    arguments.chunk = arguments.silent ? plan.chunk : 16;
    arguments.state = (float *)call->decode_state;
    arguments.state_count = plan.state_count;
    return launch_dtype(p->dtype, arguments, plan, (cudaStream_t)call->stream, error);
}
