/*
 * Gradients of Flow-Attention, causal form, on a GPU: arguments, places in memory, and the steps
 * that several kernels of flow_cuda_causal_gradient.cu share. That file tells the algorithm.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_GRADIENT_CUH
#define FB_FLOW_CUDA_CAUSAL_GRADIENT_CUH

#include "flow_cuda_gradient.cuh"

/* Per chunk: what the sums over the tokens before it have (the first four), or after it. */
enum chunk_vector { CK, CQ, U, W, DU, BS, DW, AS, CHUNK_VECTORS };
static_assert((int)CHUNK_VECTORS == FB_FLOW_CUDA_GRADIENT_VECTORS, "the plan counts the vectors");

/* Per token: a, b, sigmoid(c), E (negative where the clamp acts), its running sum Z, and gradients:
 * dr, dp, those of c and o divided by n, of a and b; 1 / n times the slope of the sigmoid. */
enum token_scalar { A, B, S, E, Z, DR, DP, DC, DB, DO, DA, TOKEN_SCALARS };
constexpr int kKeptScalars = DO; /* the last two take the places of what they are computed from */
static_assert(kKeptScalars == FB_FLOW_CUDA_GRADIENT_SCALARS, "the plan counts the scalars");

struct causal_gradient {
    gradient_round round;
    int rows; /* tokens of a chunk */
    int64_t chunks, segments;
    int segment;        /* chunks of a segment */
    float *vectors;     /* [units][CHUNK_VECTORS][chunks][cols] */
    float *running;     /* [units][2][chunks]: E before the chunk, p dp / Z after it */
    float *scalars;     /* [units][kKeptScalars][chunks * rows] */
    float *matrices;    /* [units][2][segments][cols * value_cols]: M before, R after the segment */
    tensor_view turned; /* p t: dk, or a buffer in f32 when dk has other heads' gradients */
    tensor_view parked; /* r h: dq, or a buffer in f32 with a head for as many of queries */
    int parked_group;
};

/* flow_cuda_causal_strips.cu: bf16 and f16, heads of 64; everything of `a` is in place. */
enum fb_status flow_cuda_causal_strips(const causal_gradient &a, enum fb_dtype dtype, int64_t units,
                                       cudaStream_t stream, struct fb_error *error);

namespace
{

/* What a block works on: its head and chunk. */
struct chunk_place {
    flow_cuda_head head;
    int64_t unit, chunk, at;
    int rows; /* valid ones */
};

__device__ inline chunk_place place_of(const causal_gradient &a, int64_t unit, int64_t chunk)
{
    chunk_place place;
    place.head = round_head(a.round, unit);
    place.unit = unit;
    place.chunk = chunk;
    place.at = chunk * a.rows;
    place.rows = (int)max((int64_t)0, min((int64_t)a.rows, place.head.q_len - place.at));
    return place;
}

__device__ inline float *vector_of(const causal_gradient &a, const chunk_place &p,
                                   chunk_vector name)
{
    return a.vectors + ((p.unit * CHUNK_VECTORS + name) * a.chunks + p.chunk) * a.round.s.cols;
}

__device__ inline float *scalar_of(const causal_gradient &a, const chunk_place &p,
                                   token_scalar name)
{
    const int place = name == DO ? DP : name == DA ? DR : name;
    return a.scalars + (p.unit * kKeptScalars + place) * a.chunks * a.rows + p.at;
}

__device__ inline float &running_of(const causal_gradient &a, const chunk_place &p, int which)
{
    return a.running[(p.unit * 2 + which) * a.chunks + p.chunk];
}

__device__ inline float *matrix_of(const causal_gradient &a, int64_t unit, int which,
                                   int64_t segment)
{
    return a.matrices +
           ((unit * 2 + which) * a.segments + segment) * a.round.s.cols * a.round.s.value_cols;
}

/* The block's shared memory. */
constexpr int kArrays = 16;
struct gradient_shared {
    float *q, *k, *x;      /* [rows][ld] */
    float *g, *v;          /* [rows][value_ld] */
    float *scores;         /* [rows][scores_ld] */
    float *vectors;        /* [CHUNK_VECTORS][cols] */
    float *buffer;         /* [kTileThreads] */
    float *array[kArrays]; /* [rows] each */
    int ld, value_ld, scores_ld;
};

__host__ __device__ inline size_t shared_floats(const flow_cuda_shape &s, int rows)
{
    return (size_t)rows * (3 * (size_t)(s.cols + 4) + 2 * (size_t)(s.value_cols + 4) +
                           (size_t)(rows + 4) + kArrays) +
           CHUNK_VECTORS * (size_t)s.cols + kTileThreads;
}

__device__ inline gradient_shared carve(float *at, const flow_cuda_shape &s, int rows)
{
    gradient_shared x;
    x.ld = s.cols + 4;
    x.value_ld = s.value_cols + 4;
    x.scores_ld = rows + 4;
    x.q = at;
    x.k = x.q + rows * x.ld;
    x.x = x.k + rows * x.ld;
    x.g = x.x + rows * x.ld;
    x.v = x.g + rows * x.value_ld;
    x.scores = x.v + rows * x.value_ld;
    x.vectors = x.scores + rows * x.scores_ld;
    x.buffer = x.vectors + CHUNK_VECTORS * s.cols;
    for (int i = 0; i < kArrays; i++)
        x.array[i] = x.buffer + kTileThreads + i * rows;
    return x;
}

template <typename T>
__device__ void load_sides(const causal_gradient &a, const gradient_shared &x, const chunk_place &p)
{
    const flow_cuda_shape &s = a.round.s;
    const flow_map phi = {s.phi};
    load_rows(x.q, x.ld, a.rows, s.cols, rows_of<T>(s.q, p.head.b, p.head.h, p.at), p.rows, s.dim,
              phi);
    load_rows(x.k, x.ld, a.rows, s.cols, rows_of<T>(s.k, p.head.b, p.head.kv_h, p.at), p.rows,
              s.dim, phi);
}

template <typename T>
__device__ void load_values(const causal_gradient &a, const gradient_shared &x,
                            const chunk_place &p)
{
    const flow_cuda_shape &s = a.round.s;
    load_rows(x.g, x.value_ld, a.rows, s.value_cols,
              rows_of<T>(a.round.dout, p.head.b, p.head.h, p.at), p.rows, s.value_dim,
              keep_value{});
    load_rows(x.v, x.value_ld, a.rows, s.value_cols, rows_of<T>(s.v, p.head.b, p.head.kv_h, p.at),
              p.rows, s.value_dim, keep_value{});
}

__device__ inline void load_vector(const causal_gradient &a, const gradient_shared &x,
                                   const chunk_place &p, chunk_vector name)
{
    const float *from = vector_of(a, p, name);
    for (int i = threadIdx.x; i < a.round.s.cols; i += kTileThreads)
        x.vectors[name * a.round.s.cols + i] = from[i];
}

/* A per-token scalar into an array of the block; 0 beyond the valid rows. */
__device__ inline void load_scalar(const causal_gradient &a, const gradient_shared &x,
                                   const chunk_place &p, token_scalar name)
{
    const float *from = scalar_of(a, p, name);
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads)
        x.array[name][i] = i < p.rows ? from[i] : 0.0F;
}

/* q k^T, all of it. Masks and the gradients of keys are sensitive to it: three TF32 products. */
__device__ inline void form_scores(const causal_gradient &a, const gradient_shared &x)
{
    block_product<tile_products::tf32x3>(
        a.rows, a.rows, a.round.s.cols, operand{x.q, x.ld, 1}, operand{x.k, 1, x.ld},
        [&](int row, int col, float y) { x.scores[row * x.scores_ld + col] = y; });
}

enum triangle { BY_QUERY_BEFORE, BY_QUERY_AFTER, BY_KEY_BEFORE, BY_KEY_AFTER };

/* out[i] += sum over the tokens u before i (after i), itself included, of weight_u (NULL: 1) times
 * (A + eps lift): A with i as query or as key, lift of u, or of i. Four threads per token. */
__device__ inline void add_triangle(const causal_gradient &a, const gradient_shared &x,
                                    triangle which, const float *weight, const float *lift,
                                    bool lift_of_other, float *out)
{
    const bool query = which == BY_QUERY_BEFORE || which == BY_QUERY_AFTER;
    const bool before = which == BY_QUERY_BEFORE || which == BY_KEY_BEFORE;
    for (int thread = threadIdx.x; thread < 4 * a.rows; thread += kTileThreads) {
        const int i = thread / 4;
        const int first = before ? 0 : i, end = before ? i + 1 : a.rows;
        float sum = 0.0F;
        for (int u = first + thread % 4; u < end; u += 4) {
            const float score = x.scores[query ? i * x.scores_ld + u : u * x.scores_ld + i];
            sum = fmaf(weight == nullptr ? 1.0F : weight[u],
                       fmaf(FB_FLOW_EPSILON, lift[lift_of_other ? u : i], score), sum);
        }
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (thread % 4 == 0)
            out[i] += sum;
    }
}

/* The chunk's part of a vector: sum of weight (tile + eps). */
__device__ inline void leave_part(const causal_gradient &a, const gradient_shared &x,
                                  const chunk_place &p, const float *tile, const float *weight,
                                  float eps, chunk_vector name)
{
    const int cols = a.round.s.cols;
    join_columns(column_part(tile, x.ld, a.rows, cols, weight, eps), cols, x.buffer,
                 vector_of(a, p, name));
}

} // namespace

#endif
