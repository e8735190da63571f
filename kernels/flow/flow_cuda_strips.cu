/*
 * Flow-Attention, normal form, forward, bf16 or f16, head dimension 64, on Hopper, for heads of up
 * to some thousand tokens: as flow_cuda_cluster.cu, with 16 tokens of either side in the registers
 * of every warp, so that a pass over them is a few products and two blocks share a multiprocessor.
 *
 *   sums     phi(k), phi(q); their column sums                                    exchange 2 d
 *   flows    alpha, beta; w = sum alpha q, u = sum beta k                         exchange 2 d
 *   product  o, E, Z, G = (E k)^T v                                               exchange d^2, d^2
 *   out      c, s, out = s alpha scale q G
 *
 * phi is rounded to 16 bits after its sums; dot products with vectors are products of the tensor
 * cores. grid (ranks, heads), cluster (ranks), block 32 Warps; shared: three tiles of 16 Warps
 * rows, small arrays. Blocks add the ranks' parts in the order of the ranks: same bits every time.
 */
#include "cuda_launch.cuh"
#include "flow_cuda.h"
#include "flow_cuda_cluster_strips.cuh"

namespace
{

struct strips_arguments {
    tensor_view q, k, v, out;
    int heads, group;
    int q_len, kv_len;
    float clamp;
    float *saved; /* [heads][saved_count] vectors, scalars and G (flow_cuda_plan.h); NULL: none */
    int64_t saved_count;
};

enum strips_exchange { SUMS, FLOWS, PRODUCT, STATE, EXCHANGES };

template <int Warps> constexpr int kStripRanks = Warps / 8 * FB_FLOW_CUDA_STRIP_RANKS;

/* The block's small arrays; after the tiles. What the other blocks write comes first. */
template <int Warps> struct strips_shared {
    union {
        float sums[kStripRanks<Warps>][2][kDim]; /* of phi(k) (0) and phi(q) (1), by rank */
        /* G, by rank: its share of what this block adds. Who sends it has this block's flows, which
         * were sent when the sums had been read. */
        float product[kDim * kDim];
    };
    float flows[kStripRanks<Warps>][2][kDim]; /* u (0), w (1), by rank */
    float z[kStripRanks<Warps>];
    unsigned long long barriers[EXCHANGES];
    float total[2][kDim]; /* over all blocks */
    float flow[2][kDim];
    float parts[Warps][2][kDim]; /* sums of columns, by warp */
    float warp_z[Warps];
};

template <int Warps> struct strips_block {
    char *q, *k, *v; /* [16 Warps][64] bf16; k becomes E phi(k), then scale G; q becomes out */
    strips_shared<Warps> *own;
    int rank, ranks; /* a power of two */
    int share;       /* of a 64 x 64 product, that this block adds */
};

template <int Warps>
constexpr size_t kStripsBytes = (size_t)3 * 16 * Warps *kRowBytes + sizeof(strips_shared<Warps>);

#if FB_HAVE_WGMMA

template <int Warps> __device__ strips_block<Warps> carve_strips(char *shared)
{
    strips_block<Warps> x;
    x.q = shared;
    x.k = x.q + 16 * Warps * kRowBytes;
    x.v = x.k + 16 * Warps * kRowBytes;
    x.own = reinterpret_cast<strips_shared<Warps> *>(x.v + 16 * Warps * kRowBytes);
    x.rank = (int)blockIdx.x;
    x.ranks = (int)gridDim.x;
    x.share = kDim * kDim >> (__ffs(x.ranks) - 1);
    return x;
}

/* Every block does so at its start, and waits for the others before it sends. */
template <int Warps> __device__ void ready_strips(const strips_block<Warps> &x)
{
    if (threadIdx.x == 0) {
        unsigned long long *barriers = x.own->barriers;
        expect(&barriers[SUMS], x.ranks * (int)sizeof x.own->sums[0]);
        expect(&barriers[FLOWS], x.ranks * (int)sizeof x.own->flows[0]);
        expect(&barriers[PRODUCT], (int)sizeof x.own->product + x.ranks * (int)sizeof(float));
        expect(&barriers[STATE], kDim * kRowBytes);
    }
    announce_barriers();
}

/* A vector of 64 plus eps as b of a product all of whose columns are its dot products, so that
 * every lane gets those of its rows. */
template <typename T> struct spread_operand {
    uint32_t b[4][2];
    __device__ spread_operand(const float *vector, float factor)
    {
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float2 x =
                    *reinterpret_cast<const float2 *>(vector + 16 * step + 8 * half + 2 * t);
                b[step][half] = pack_pair<T>((x.x + kEps) * factor, (x.y + kEps) * factor);
            }
    }
};

/* (x + eps) . (vector + eps) of the rows g and g + 8, in all lanes. */
template <typename T>
__device__ strip_dots dot_packed(const uint32_t (&x)[4][4], const float *vector)
{
    const float constant = eps_term(vector);
    const vector_factors<T> range = vector_range<T>(vector);
    const spread_operand<T> v(vector, range.into);
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, x[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, x[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    return {(c[0] + d[0]) * range.back + constant, (c[2] + d[2]) * range.back + constant};
}

/* phi of the warp's rows, zero beyond the valid ones, and its sums of columns. */
template <typename T>
__device__ void map_packed(uint32_t (&x)[4][4], const char *rows, bool low_valid, bool high_valid,
                           float *part, const lane_places &at)
{
    strip_values phi;
    map_strip<T>(phi, shared_address(rows), at);
    float sums[8][2];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            phi[n][i] = low_valid ? phi[n][i] : 0.0F;
            phi[n][i + 2] = high_valid ? phi[n][i + 2] : 0.0F;
            sums[n][i] = phi[n][i] + phi[n][i + 2];
        }
    pack_strip<T>(x, phi);
    leave_columns(part, sums);
}

/* The sum of the warp's rows, each times its weight. */
template <typename T>
__device__ void weigh_packed(const uint32_t (&x)[4][4], strip_dots weight, float *part)
{
    float sums[8][2];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const uint32_t low = x[n / 2][n % 2 * 2], high = x[n / 2][n % 2 * 2 + 1];
        sums[n][0] = fmaf(weight.low, low_of<T>(low), weight.high * low_of<T>(high));
        sums[n][1] = fmaf(weight.low, high_of<T>(low), weight.high * high_of<T>(high));
    }
    leave_columns(part, sums);
}

/* The rows of x, each times its weight, into their places. */
template <typename T>
__device__ void put_weighted(char *rows, const uint32_t (&x)[4][4], strip_dots weight,
                             const lane_places &at)
{
    uint32_t y[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const float w = i % 2 == 0 ? weight.low : weight.high;
        y[i / 4][i % 4] = scale_two<T>(x[i / 4][i % 4], make_float2(w, w));
    }
    put_packed(rows, y, at);
}

/* E of the warp's keys, times phi in place of the keys; their sum. */
template <typename T, int Warps>
__device__ void compete_strip(const strips_block<Warps> &x, const uint32_t (&keys)[4][4],
                              float clamp, bool low_valid, bool high_valid, const lane_places &at)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const strip_dots o = dot_packed<T>(keys, x.own->flow[1]);
    strip_dots e;
    e.low = low_valid ? __expf(fminf(fmaxf(o.low, -clamp), clamp)) : 0.0F;
    e.high = high_valid ? __expf(fminf(fmaxf(o.high, -clamp), clamp)) : 0.0F;
    put_weighted<T>(x.k + 16 * warp * kRowBytes, keys, e, at);
    float sum = e.low + e.high;
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (lane == 0)
        x.own->warp_z[warp] = sum;
}

/* The block's part of Z to every block. */
template <int Warps> __device__ void send_normaliser(const strips_block<Warps> &x)
{
    const int other = (int)threadIdx.x;
    if (other >= x.ranks)
        return;
    float z = 0.0F;
#pragma unroll
    for (int i = 0; i < Warps; i++)
        z += x.own->warp_z[i];
    send(remote_address(shared_address(&x.own->z[x.rank]), other),
         remote_address(shared_address(&x.own->barriers[PRODUCT]), other), z);
}

/* What the gradient wants to know, by the block of rank 0. */
template <int Warps>
__device__ void save_vectors(const strips_block<Warps> &x, float *saved, float scale)
{
    if (threadIdx.x >= 2 * kDim)
        return;
    const int side = threadIdx.x / kDim, col = threadIdx.x % kDim;
    saved[threadIdx.x] = x.own->total[side][col];
    saved[2 * kDim + threadIdx.x] = x.own->flow[side][col];
    if (threadIdx.x < 2)
        saved[FB_FLOW_CUDA_VECTORS * kDim + threadIdx.x] = threadIdx.x == 0 ? scale : 0.0F;
}

/* The block's share of G, scaled, to every block as a tile (in place of its keys). Times `factor`.
 */
template <typename T, int Warps>
__device__ void share_product(const strips_block<Warps> &x, float kv_len, float factor,
                              float *saved)
{
    const uint32_t tile = shared_address(x.k);
    const uint32_t barrier = shared_address(&x.own->barriers[STATE]);
    await(&x.own->barriers[PRODUCT]);
    float z = 0.0F;
    for (int other = 0; other < x.ranks; other++)
        z += x.own->z[other];
    const float scale = kv_len / z, weight = scale * factor;
    for (int i = 4 * (int)threadIdx.x; i < x.share; i += 4 * 32 * Warps) {
        float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
        for (int other = 0; other < x.ranks; other++) {
            const float4 y =
                *reinterpret_cast<const float4 *>(x.own->product + other * x.share + i);
            sum.x += y.x;
            sum.y += y.y;
            sum.z += y.z;
            sum.w += y.w;
        }
        const int row = (x.rank * x.share + i) / kDim, col = i % kDim;
        const uint32_t to = tile + chunk_offset(row, col / 8) + (uint32_t)(col % 8 * 2);
        const uint32_t low = pack_pair<T>(sum.x * weight, sum.y * weight);
        const uint32_t high = pack_pair<T>(sum.z * weight, sum.w * weight);
        for (int other = 0; other < x.ranks; other++)
            send_pair(remote_address(to, other), remote_address(barrier, other), low, high);
        if (saved != nullptr)
            *reinterpret_cast<float4 *>(saved + FB_FLOW_CUDA_VECTORS * kDim + FB_FLOW_CUDA_SCALARS +
                                        row * kDim + col) = sum;
    }
    if (saved != nullptr && x.rank == 0)
        save_vectors(x, saved, scale);
    await(&x.own->barriers[STATE]);
}

/* The warp's rows of out, through those of q. */
template <typename T, int Warps>
__device__ void write_out(const strips_block<Warps> &x, const head_rows<__nv_bfloat16> &out,
                          const uint32_t (&queries)[4][4], strip_dots weight, int valid,
                          const lane_places &at)
{
    const int row = (int)threadIdx.x / 32 * 16;
    strip_values y = {};
    multiply_matrix<false, T>(y, queries, x.k, at);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? weight.low : weight.high;
    put_strip<T>(x.q + row * kRowBytes, y, at);
    __syncwarp();
    write_strip(out, x.q, row, valid);
}

/* phi of both sides and its sums over all blocks, keys first; v is on its way. */
template <typename T, int Warps>
__device__ void map_sides(const strips_block<Warps> &x, const strips_arguments &a, int64_t b,
                          int64_t h, uint32_t (&keys)[4][4], uint32_t (&queries)[4][4],
                          const lane_places &at)
{
    constexpr int rows = 16 * Warps;
    const int64_t kv_h = h / a.group;
    const int first = x.rank * rows, warp = threadIdx.x / 32, row = 16 * warp;
    const int valid_q = a.q_len - first, valid_k = a.kv_len - first; /* may be negative */
    const int low = row + threadIdx.x % 32 / 4, high = low + 8;
    fetch_rows<Warps>(x.k, a.k, b, kv_h, first, rows, valid_k);
    fetch_rows<Warps>(x.q, a.q, b, h, first, rows, valid_q);
    commit_copies();
    /* the gradient's blocks may take the places that become free */
    asm volatile("griddepcontrol.launch_dependents;");
    wait_copies<0>();
    __syncthreads();
    /* not before: what is waited for would come later */
    fetch_rows<Warps>(x.v, a.v, b, kv_h, first, rows, valid_k);
    commit_copies();
    map_packed<T>(keys, x.k + row * kRowBytes, low < valid_k, high < valid_k, x.own->parts[warp][0],
                  at);
    map_packed<T>(queries, x.q + row * kRowBytes, low < valid_q, high < valid_q,
                  x.own->parts[warp][1], at);
    __syncthreads();
    /* every block's barriers stand before anything is sent */
    await_cluster();
    send_columns<2 * kDim, Warps>(x, x.own->sums[0][0], SUMS);
    add_columns<2 * kDim>(x, x.own->sums[0][0], SUMS, x.own->total[0]);
    __syncthreads();
}

/* alpha; u and w over all blocks. Rows that are not valid are zero. */
template <typename T, int Warps>
__device__ strip_dots flow_sides(const strips_block<Warps> &x, const uint32_t (&keys)[4][4],
                                 const uint32_t (&queries)[4][4])
{
    const int warp = threadIdx.x / 32;
    strip_dots alpha = dot_packed<T>(queries, x.own->total[0]);
    strip_dots beta = dot_packed<T>(keys, x.own->total[1]);
    alpha.low = reciprocal(alpha.low);
    alpha.high = reciprocal(alpha.high);
    beta.low = reciprocal(beta.low);
    beta.high = reciprocal(beta.high);
    weigh_packed<T>(keys, beta, x.own->parts[warp][0]);
    weigh_packed<T>(queries, alpha, x.own->parts[warp][1]);
    __syncthreads();
    send_columns<2 * kDim, Warps>(x, x.own->flows[0][0], FLOWS);
    add_columns<2 * kDim>(x, x.own->flows[0][0], FLOWS, x.own->flow[0]);
    __syncthreads();
    return alpha;
}

#endif

/* Machine code for Hopper; other devices never launch it. */
template <typename T, int Warps>
__global__ void __launch_bounds__(32 * Warps, 16 / Warps)
    strips_kernel(const __grid_constant__ strips_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char forward_tiles[];
    const strips_block<Warps> x = carve_strips<Warps>(forward_tiles);
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    const int first = x.rank * 16 * Warps;
    const int valid_q = a.q_len - first, valid_k = a.kv_len - first; /* may be negative */
    const int low = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4, high = low + 8;
    const lane_places at;
    uint32_t keys[4][4], queries[4][4];
    ready_strips(x);
    map_sides<T>(x, a, b, h, keys, queries, at);
    const strip_dots alpha = flow_sides<T>(x, keys, queries);

    compete_strip<T>(x, keys, a.clamp, low < valid_k, high < valid_k, at);
    wait_copies<0>();
    publish_shared();
    __syncthreads();
    send_normaliser(x);
    if (threadIdx.x < 32 * kProductWarps<Warps>) {
        product_part<Warps> product = {};
        multiply_tiles<Warps, T>(product, x.k, x.v);
        /* who has some warps' parts writes G in place of the keys, which no warp reads any more */
        asm volatile("bar.sync 1, %0;" ::"n"(32 * kProductWarps<Warps>) : "memory");
        send_product<Warps>(x, product, PRODUCT);
    }
    const float ratio = (float)a.q_len / (float)a.kv_len;
    const strip_dots c = dot_packed<T>(queries, x.own->flow[0]);
    const range_factors<T, kStateBits> range((float)a.kv_len);
    const strip_dots weight = {sigmoid_of<T>(c.low * ratio) * alpha.low * range.back,
                               sigmoid_of<T>(c.high * ratio) * alpha.high * range.back};
    share_product<T>(x, (float)a.kv_len, range.into,
                     a.saved == nullptr ? nullptr : a.saved + blockIdx.y * a.saved_count);
    write_out<T>(x, rows_of<__nv_bfloat16>(a.out, b, h, first), queries, weight, valid_q, at);
#else
    (void)a;
#endif
}

bool is_wide(const fb_flow_cuda_plan &plan)
{
    return plan.forward_strips.tokens > FB_FLOW_CUDA_STRIP_TOKENS;
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = "flow's strips",
        .blocks = plan.forward_strips.ranks,
        .threads = 2 * plan.forward_strips.tokens,
        .heads = plan.heads,
        .shared_bytes = is_wide(plan) ? kStripsBytes<16> : kStripsBytes<8>,
        .most_shared = true, /* as the gradient that may follow */
        .stream = stream,
    };
}

auto kernel_of(const fb_problem &p, const fb_flow_cuda_plan &plan)
{
    if (p.dtype == FB_F16)
        return is_wide(plan) ? strips_kernel<__half, 16> : strips_kernel<__half, 8>;
    return is_wide(plan) ? strips_kernel<__nv_bfloat16, 16> : strips_kernel<__nv_bfloat16, 8>;
}

} // namespace

extern "C" bool fb_flow_cuda_strips_fit(const struct fb_problem *p,
                                        const struct fb_flow_cuda_plan *plan)
{
    return fb_cuda_at_once(launch_of(*plan, nullptr), (const void *)kernel_of(*p, *plan)) > 0;
}

extern "C" enum fb_status fb_flow_cuda_strips(const struct fb_problem *p,
                                              const struct fb_call *call,
                                              const struct fb_flow_cuda_plan *plan,
                                              struct fb_error *error)
{
    strips_arguments arguments = {};
    arguments.q = view_of(call->q);
    arguments.k = view_of(call->k);
    arguments.v = view_of(call->v);
    arguments.out = view_of(call->out);
    arguments.heads = (int)p->heads;
    arguments.group = (int)(p->heads / p->kv_heads);
    arguments.q_len = (int)p->q_len;
    arguments.kv_len = (int)p->kv_len;
    arguments.clamp = fb_flow_options_of(p).clamp;
    arguments.saved = (float *)call->saved;
    arguments.saved_count = plan->totals_count;
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream), kernel_of(*p, *plan), arguments,
                                   error);
}
