/*
 * The passes of Flow-Attention over tiles in shared memory, and what the blocks of a cluster
 * exchange between them: bf16 or f16, head dimension 64, Hopper. flow_cuda_cluster.cu makes kernels
 * of them.
 */
#ifndef FB_FLOW_CUDA_CLUSTER_CUH
#define FB_FLOW_CUDA_CLUSTER_CUH

#include "cuda_exchange.cuh"
#include "flow_cuda_shape.cuh"
#include "flow_cuda_strip.cuh"

namespace
{

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRanksMax = 16;

struct cluster_arguments {
    tensor_view q, k, v, out;
    int heads, group;
    int q_len, kv_len;
    int tokens; /* per block; a multiple of 128 */
    float clamp;
    float *saved; /* [heads][saved_count] vectors, scalars and G (flow_cuda_plan.h); NULL: none */
    int64_t saved_count;
};

enum exchange_name { SUMS, FLOWS, PRODUCT, STATE, EXCHANGES };

/* The block's small arrays; after the tiles. What the other blocks write comes first. */
struct cluster_shared {
    union {
        float sums[kRanksMax][2][kDim]; /* of phi(k) (0) and phi(q) (1), by rank */
        /* G, by rank: its share of what this block adds. Who sends it has this block's flows, which
         * were sent when the sums had been read. */
        float product[kDim * kDim];
    };
    float flows[kRanksMax][2][kDim]; /* u (0), w (1), by rank */
    float z[kRanksMax];
    unsigned long long barriers[EXCHANGES];
    float total[2][kDim]; /* over all blocks */
    float flow[2][kDim];
    float warp_part[kWarps][2][kDim];
    float warp_z[kWarps];
};

struct block_tiles {
    char *q, *k, *v; /* [tokens][64] */
    cluster_shared *own;
    float *alpha;  /* [tokens] */
    float *weight; /* [tokens] E, in place of the warps' parts */
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* What brings operands into their range: scale G, and reciprocals of sums over the keys (alpha) or
 * queries (beta), which are about a sixteenth of their number. */
template <typename T> struct cluster_factors {
    range_factors<T, kStateBits> state;
    range_factors<T, 2> alpha, beta;

    __device__ explicit cluster_factors(const cluster_arguments &a)
        : state((float)a.kv_len), alpha(1.0F / (float)a.kv_len), beta(1.0F / (float)a.q_len)
    {
    }
};

__device__ float *saved_of(const cluster_arguments &a)
{
    return a.saved == nullptr ? nullptr : a.saved + blockIdx.y * a.saved_count;
}

__device__ block_tiles carve(char *shared, int tokens)
{
    block_tiles x;
    x.q = shared;
    x.k = x.q + tokens * kRowBytes;
    x.v = x.k + tokens * kRowBytes;
    x.own = reinterpret_cast<cluster_shared *>(x.v + tokens * kRowBytes);
    x.alpha = reinterpret_cast<float *>(x.own + 1);
    x.weight = &x.own->warp_part[0][0][0];
    return x;
}

__device__ void fetch_tile(char *tile, const tensor_view &view, int64_t b, int64_t h, int first,
                           int length, int tokens)
{
    constexpr int step = 4 * kWarps; /* rows; a multiple of 8, so that a chunk keeps its place */
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, b, h, first);
    const int own = threadIdx.x / 8, chunk = threadIdx.x % 8;
    uint32_t to = shared_address(tile) + chunk_offset(own, chunk);
    const __nv_bfloat16 *from = x.data + own * x.stride + 8 * chunk;
    const int64_t stride = step * x.stride;
    const int valid = length - first;
#pragma unroll 4
    for (int row = own; row < tokens; row += step) {
        /* rows beyond the end are not read: the address is that of the tensor */
        copy_chunk_async(to, row < valid ? from : static_cast<__nv_bfloat16 *>(view.data),
                         row < valid);
        to += step * kRowBytes;
        from += stride;
    }
}

/* phi in place, rows beyond `valid` zero; column sums of the warp's rows into warp_part[.][side].
 */
template <typename T>
__device__ void map_rows(char *tile, int first, int rows, int valid, cluster_shared *own, int side)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chunk = lane % 8;
    float sum[8] = {};
    char *at = tile + chunk_offset(first + lane / 8, chunk);
#pragma unroll 4
    for (int row = first + lane / 8; row < first + rows; row += 4) {
        uint4 x = *reinterpret_cast<uint4 *>(at);
        uint32_t *pairs = reinterpret_cast<uint32_t *>(&x);
        if (row < valid) {
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                float y[4];
                map_pairs<T>(y, pairs[i], pairs[i + 1]);
                pairs[i] = pack_pair<T>(y[0], y[1]);
                pairs[i + 1] = pack_pair<T>(y[2], y[3]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[2 * i + j] += y[j];
            }
        }
        *reinterpret_cast<uint4 *>(at) = row < valid ? x : make_uint4(0, 0, 0, 0);
        /* four rows on, the chunk's place is the other one of its two */
        at = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(at) ^ 64) + 4 * kRowBytes);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum[i] += __shfl_xor_sync(0xffffffffU, sum[i], 8);
        sum[i] += __shfl_xor_sync(0xffffffffU, sum[i], 16);
        if (lane < 8)
            own->warp_part[warp][side][8 * chunk + i] = sum[i];
    }
}

/* The warps' parts added in order and sent to every block; what all blocks have sent added in the
 * order of the ranks. */
__device__ void join_parts(cluster_shared *own, int rank, int ranks, exchange_name name,
                           float (*parts)[2][kDim], float (*total)[kDim])
{
    __syncthreads();
    const int side = threadIdx.x / kDim % 2, col = threadIdx.x % kDim;
    if (threadIdx.x < 2 * kDim) {
        float sum = 0.0F;
#pragma unroll
        for (int warp = 0; warp < kWarps; warp++)
            sum += own->warp_part[warp][side][col];
        const uint32_t to = shared_address(&parts[rank][side][col]);
        const uint32_t barrier = shared_address(&own->barriers[name]);
        for (int other = 0; other < ranks; other++)
            send(remote_address(to, other), remote_address(barrier, other), sum);
        await(&own->barriers[name]);
        sum = 0.0F;
        for (int other = 0; other < ranks; other++)
            sum += parts[other][side][col];
        total[side][col] = sum;
    }
    __syncthreads();
}

/* ---- flows ----------------------------------------------------------------------------------- */

/* The reciprocals of the dot products with the other side's sum (alpha or beta) and the sum of the
 * rows so weighted, over the warp's rows; into warp_part[.][side]. range: of the reciprocals. */
template <typename T>
__device__ void flow_rows(char *tile, int first, int rows, int valid, cluster_shared *own, int side,
                          const range_factors<T, 2> &range, float *alpha)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    const float constant = eps_term(own->total[1 - side]);
    const vector_factors<T> into = vector_range<T>(own->total[1 - side]);
    const vector_operand<T> v(own->total[1 - side], kEps, into.into);
    float sum[8][4] = {};
    uint32_t strip = shared_address(tile) + first * kRowBytes;
#pragma unroll 2
    for (int row = first; row < first + rows; row += 16, strip += 16 * kRowBytes) {
        uint32_t a[4][4], weights[4];
        load_strip(a, strip, at);
        strip_dots d = dot_strip(a, v);
        d.low = row + g < valid ? reciprocal(d.low * into.back + constant) : 0.0F;
        d.high = row + g + 8 < valid ? reciprocal(d.high * into.back + constant) : 0.0F;
        if (side == 1 && t == 0) {
            alpha[row + g] = d.low;
            alpha[row + g + 8] = d.high;
        }
        weight_operand<T>(weights, d.low * range.into, d.high * range.into);
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, strip, at, block);
            multiply<T>(sum[2 * block], weights, b[0], b[1]);
            multiply<T>(sum[2 * block + 1], weights, b[2], b[3]);
        }
    }
    if (g == 0)
#pragma unroll
        for (int n = 0; n < 8; n++)
            *reinterpret_cast<float2 *>(&own->warp_part[warp][side][8 * n + 2 * t]) =
                make_float2(sum[n][0] * range.back, sum[n][1] * range.back);
}

/* ---- product --------------------------------------------------------------------------------- */

/* E of the warp's rows, and their sum into warp_z. */
template <typename T>
__device__ void compete_rows(const block_tiles &x, int first, int rows, int valid, float clamp)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    const float constant = eps_term(x.own->flow[1]);
    const vector_factors<T> range = vector_range<T>(x.own->flow[1]);
    const vector_operand<T> v(x.own->flow[1], kEps, range.into);
    float sum = 0.0F;
    uint32_t strip = shared_address(x.k) + first * kRowBytes;
    for (int row = first; row < first + rows; row += 16, strip += 16 * kRowBytes) {
        uint32_t a[4][4];
        load_strip(a, strip, at);
        const strip_dots d = dot_strip(a, v);
        const float low = __expf(fminf(fmaxf(d.low * range.back + constant, -clamp), clamp));
        const float high = __expf(fminf(fmaxf(d.high * range.back + constant, -clamp), clamp));
        if (t == 0) {
            x.weight[row + g] = row + g < valid ? low : 0.0F;
            x.weight[row + g + 8] = row + g + 8 < valid ? high : 0.0F;
            sum += x.weight[row + g] + x.weight[row + g + 8];
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (lane == 0)
        x.own->warp_z[warp] = sum;
}

template <typename T> __device__ uint32_t scale_pair(uint32_t pair, float2 weight)
{
    return pack_pair<T>(low_of<T>(pair) * weight.x, high_of<T>(pair) * weight.y);
}

/* G over the block's rows: a warp computes 16 of its rows and 256 / kWarps of its columns. */
template <typename T>
__device__ void multiply_block(const block_tiles &x, int tokens, float (&sum)[32 / kWarps][4])
{
    const int warp = threadIdx.x / 32, t = threadIdx.x % 4;
    const lane_places at;
    uint32_t keys = shared_address(x.k), values = shared_address(x.v);
#pragma unroll 2
    for (int row = 0; row < tokens; row += 16, keys += 16 * kRowBytes, values += 16 * kRowBytes) {
        uint32_t a[4], b[16 / kWarps][4];
        load_a_turned(a, keys, at, warp % 4);
#pragma unroll
        for (int i = 0; i < 16 / kWarps; i++)
            load_b(b[i], values, at, warp / 4 * (16 / kWarps) + i);
        const float2 low = *reinterpret_cast<const float2 *>(x.weight + row + 2 * t);
        const float2 high = *reinterpret_cast<const float2 *>(x.weight + row + 8 + 2 * t);
        a[0] = scale_pair<T>(a[0], low);
        a[1] = scale_pair<T>(a[1], low);
        a[2] = scale_pair<T>(a[2], high);
        a[3] = scale_pair<T>(a[3], high);
#pragma unroll
        for (int n = 0; n < 32 / kWarps; n++)
            multiply<T>(sum[n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
}

/* Every block does so at its start, and waits for the others before it sends. */
__device__ void ready_exchanges(cluster_shared *own, int ranks)
{
    if (threadIdx.x == 0) {
        expect(&own->barriers[SUMS], ranks * (int)sizeof own->sums[0]);
        expect(&own->barriers[FLOWS], ranks * (int)sizeof own->flows[0]);
        expect(&own->barriers[PRODUCT], (int)(sizeof own->product + ranks * sizeof(float)));
        expect(&own->barriers[STATE], kDim * kRowBytes);
    }
    announce_barriers();
}

/* The block's part of Z to every block. */
__device__ void send_normaliser(cluster_shared *own, int rank, int ranks)
{
    if ((int)threadIdx.x >= ranks)
        return;
    float z = 0.0F;
    for (int i = 0; i < kWarps; i++)
        z += own->warp_z[i];
    send(remote_address(shared_address(&own->z[rank]), (int)threadIdx.x),
         remote_address(shared_address(&own->barriers[PRODUCT]), (int)threadIdx.x), z);
}

/* The warp's part of G to the blocks that add it up: each an equal share of the elements. */
__device__ void send_product(cluster_shared *own, int rank, int ranks,
                             const float (&sum)[32 / kWarps][4])
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int share = kDim * kDim / ranks;
    const uint32_t barrier = shared_address(&own->barriers[PRODUCT]);
    const uint32_t slot = shared_address(own->product + rank * share);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = warp % 4 * 16 + g + 8 * half, first = row * kDim / share;
        const uint32_t remote = remote_address(slot, first);
        const uint32_t remote_barrier = remote_address(barrier, first);
#pragma unroll
        for (int n = 0; n < 32 / kWarps; n++) {
            /* a row belongs to one block, since no share is less than four rows */
            const int i = row * kDim + warp / 4 * (256 / kWarps) + 8 * n + 2 * t - first * share;
            send_pair(remote + 4 * (uint32_t)i, remote_barrier, __float_as_uint(sum[n][2 * half]),
                      __float_as_uint(sum[n][2 * half + 1]));
        }
    }
}

/* The block's share of G, scaled, to every block as a tile (in place of its keys). Times `factor`.
 */
template <typename T>
__device__ void share_product(const block_tiles &x, int rank, int ranks, float kv_len, float factor,
                              float *saved)
{
    cluster_shared *own = x.own;
    const int share = kDim * kDim / ranks;
    const uint32_t tile = shared_address(x.k), barrier = shared_address(&own->barriers[STATE]);
    await(&own->barriers[PRODUCT]);
    float z = 0.0F;
    for (int other = 0; other < ranks; other++)
        z += own->z[other];
    const float scale = kv_len / z, weight = scale * factor;
    if (saved != nullptr && rank == 0 && threadIdx.x < 2 * kDim) {
        const int side = threadIdx.x / kDim, col = threadIdx.x % kDim;
        saved[threadIdx.x] = own->total[side][col];
        saved[2 * kDim + threadIdx.x] = own->flow[side][col];
        if (threadIdx.x < 2)
            saved[FB_FLOW_CUDA_VECTORS * kDim + threadIdx.x] = threadIdx.x == 0 ? scale : 0.0F;
    }
    for (int i = 4 * (int)threadIdx.x; i < share; i += 4 * kThreads) {
        float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
        for (int other = 0; other < ranks; other++) {
            const float4 y = *reinterpret_cast<const float4 *>(own->product + other * share + i);
            sum.x += y.x;
            sum.y += y.y;
            sum.z += y.z;
            sum.w += y.w;
        }
        const int row = (rank * share + i) / kDim, col = i % kDim;
        if (saved != nullptr)
            *reinterpret_cast<float4 *>(saved + FB_FLOW_CUDA_VECTORS * kDim + FB_FLOW_CUDA_SCALARS +
                                        row * kDim + col) = sum;
        const uint32_t to = tile + chunk_offset(row, col / 8) + (uint32_t)(col % 8 * 2);
        const uint32_t low = pack_pair<T>(sum.x * weight, sum.y * weight);
        const uint32_t high = pack_pair<T>(sum.z * weight, sum.w * weight);
        for (int other = 0; other < ranks; other++)
            send_pair(remote_address(to, other), remote_address(barrier, other), low, high);
    }
    await(&own->barriers[STATE]);
}

/* ---- out ------------------------------------------------------------------------------------- */

template <typename T>
__device__ void write_rows(const block_tiles &x, const cluster_arguments &arguments,
                           int64_t b_index, int64_t h, int first_token, int first, int rows,
                           int valid, float ratio, float back)
{
    const int lane = threadIdx.x % 32, g = lane / 4;
    const lane_places at;
    const uint32_t product = shared_address(x.k);
    uint32_t strip = shared_address(x.q) + first * kRowBytes;
    const float constant = eps_term(x.own->flow[0]);
    const head_rows<__nv_bfloat16> out =
        rows_of<__nv_bfloat16>(arguments.out, b_index, h, first_token);
    const vector_factors<T> range = vector_range<T>(x.own->flow[0]);
    const vector_operand<T> v(x.own->flow[0], kEps, range.into);
    uint32_t m[4][4][4];
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int block = 0; block < 4; block++)
            load_b(m[step][block], product + step * 16 * kRowBytes, at, block);
#pragma unroll 1
    for (int row = first; row < first + rows; row += 16, strip += 16 * kRowBytes) {
        uint32_t a[4][4];
        float y[8][4] = {};
        load_strip(a, strip, at);
        const strip_dots d = dot_strip(a, v);
        float low =
            sigmoid_of<T>((d.low * range.back + constant) * ratio) * x.alpha[row + g] * back;
        float high =
            sigmoid_of<T>((d.high * range.back + constant) * ratio) * x.alpha[row + g + 8] * back;
        low = __shfl_sync(0xffffffffU, low, lane & ~3);
        high = __shfl_sync(0xffffffffU, high, lane & ~3);
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int block = 0; block < 4; block++) {
                const uint32_t(&b)[4] = m[step][block];
                multiply<T>(y[2 * block], a[step], b[0], b[1]);
                multiply<T>(y[2 * block + 1], a[step], b[2], b[3]);
            }
        /* through the rows of q, which nobody else reads, so that whole rows are written */
        __syncwarp();
#pragma unroll
        for (int n = 0; n < 8; n++) {
            char *to = x.q + row * kRowBytes + (at.result ^ (uint32_t)(n << 4));
            *reinterpret_cast<uint32_t *>(to) = pack_pair<T>(y[n][0] * low, y[n][1] * low);
            *reinterpret_cast<uint32_t *>(to + 8 * kRowBytes) =
                pack_pair<T>(y[n][2] * high, y[n][3] * high);
        }
        __syncwarp();
#pragma unroll 1
        for (int i = lane / 8; i < 16; i += 4)
            if (row + i < valid)
                *reinterpret_cast<uint4 *>(out.data + (row + i) * out.stride + 8 * (lane % 8)) =
                    *reinterpret_cast<const uint4 *>(x.q + chunk_offset(row + i, lane % 8));
    }
}

#endif

} // namespace

#endif
