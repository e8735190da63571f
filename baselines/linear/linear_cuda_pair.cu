/*
 * Linear attention without a mask, forward, bf16 or f16, heads of 64, on Hopper, for many heads:
 * two blocks to a head, a cluster, each with half of its tokens.
 *
 *   sums   N = phi(k)^T v, z = sum phi(k)        reads k, v          exchange d^2 + d
 *   out    phi(q) N / (phi(q) z + eps)           reads q, writes out
 *
 * Every number is read and written once. A warp takes strips of 16 tokens, one of every tile, which
 * the copy engine brings into a ring of its own; products are by warpgroups. Sums are f32; each
 * block adds the other's part to its own: same bits every time, on every device.
 */
#include "cuda_exchange.cuh"
#include "cuda_strips.cuh"
#include "cuda_tensor_map.cuh"
#include "linear_cuda.cuh"

namespace
{

constexpr int kWarps = 16, kThreads = 32 * kWarps;
constexpr int kTileTokens = 16 * kWarps; /* a strip of every warp */
constexpr int kTileBytes = kTileTokens * kRowBytes;
constexpr int kRing = 4, kSpare = 2; /* tiles: in the ring; for sums, then rows of `out` */
constexpr int kPairsAtOnce = 66;     /* on an H100 or H200 */
constexpr int kTilesMost = 64;       /* whose sums the tensor cores keep in f32 */

enum linear_tensor { TENSOR_K, TENSOR_V, TENSOR_Q, TENSORS };

struct linear_pair_arguments {
    CUtensorMap in[TENSORS], out;
    int heads, problems;
    int q_len, kv_len;
    int tiles; /* of a block, in every head */
    bool relu; /* relu(x) + 0.001, else elu(x) + 1 */
    float epsilon;
    float *denominators; /* [problems][q_len] y; NULL: not wanted */
    float *kept;         /* [problems][count] N and z; NULL: likewise */
    int64_t count;
};

/* The block's small arrays, after the tiles. */
struct linear_pair_shared {
    char matrix[kDim * kRowBytes]; /* N as operand */
    float4 product[8][128];        /* the other block's N */
    float parts[kWarps][kDim];     /* sums of features, by warp */
    float sums[kDim];              /* the other block's */
    alignas(8) float total[kDim];
    float largest[kWarps];
    unsigned long long exchange, read; /* the other's sums have come; this block's are read there */
    unsigned long long barriers[kWarps][kRing]; /* a slot's strip has come */
};

constexpr size_t kPairBytes = (size_t)(kRing + kSpare) * kTileBytes + sizeof(linear_pair_shared);

#if FB_HAVE_WGMMA

constexpr int kStripBytes = 16 * kRowBytes;
constexpr int kExchangeBytes = (int)(sizeof(float4) * 8 * 128 + sizeof(float) * kDim);

/* A strip of the ring, and the barrier of its slot. */
struct linear_strip {
    uint32_t address, barrier;
};

struct linear_pair {
    const linear_pair_arguments &a;
    char *spare;
    linear_pair_shared &own;
    int warp, rank;
    int first; /* the warp's first token */
    linear_strip ring;
    uint32_t taken; /* strips so far */
    lane_places at;
    struct { /* what is fetched next: keys and values in turn, then queries */
        int problem, visit, b, h;
    } feed;

    __device__ linear_pair(const linear_pair_arguments &arguments, char *shared)
        : a(arguments), spare(shared),
          own(*reinterpret_cast<linear_pair_shared *>(shared + (kRing + kSpare) * kTileBytes)),
          taken(0)
    {
        /* from one lane, so that the compiler knows it to be the same in all */
        warp = __shfl_sync(0xffffffffU, (int)threadIdx.x / 32, 0);
        rank = (int)blockIdx.x;
        first = rank * a.tiles * kTileTokens + 16 * warp;
        ring = {shared_address(shared) + (uint32_t)(kSpare * kTileBytes + warp * kStripBytes),
                shared_address(&own.barriers[0][0]) + (uint32_t)(8 * kRing * warp)};
        feed.visit = 0;
        feed_from((int)blockIdx.y);
        if (threadIdx.x % 32 == 0) {
            for (int i = 0; i < kRing; i++)
                barrier_init(ring.barrier + (uint32_t)(8 * i), 1);
            publish_shared();
        }
        __syncwarp();
#pragma unroll 1
        for (uint32_t i = 0; i < kRing; i++)
            fetch(slot_of(i));
        if (threadIdx.x == 0) {
            expect(&own.exchange, kExchangeBytes);
            barrier_init(shared_address(&own.read), 1);
        }
        announce_barriers();
        await_cluster();
    }

    __device__ void feed_from(int problem)
    {
        feed.problem = problem;
        feed.b = problem / a.heads;
        feed.h = problem % a.heads;
    }

    __device__ linear_strip slot_of(uint32_t strip) const
    {
        const uint32_t slot = strip % kRing;
        return {ring.address + slot * kTileBytes, ring.barrier + 8 * slot};
    }

    /* The next strip into the slot of one that has been visited. By the warp. */
    __device__ void fetch(const linear_strip &free)
    {
        if (feed.problem >= a.problems)
            return;
        const bool queries = feed.visit >= 2 * a.tiles;
        const int tile = queries ? feed.visit - 2 * a.tiles : feed.visit / 2;
        const int tensor = queries ? TENSOR_Q : feed.visit % 2 == 0 ? TENSOR_K : TENSOR_V;
        if (is_elected())
            copy_rows(free.address, &a.in[tensor], first + tile * kTileTokens, feed.h, feed.b,
                      free.barrier, pass_cache());
        __syncwarp();
        if (++feed.visit == 3 * a.tiles) {
            feed.visit = 0;
            feed_from(feed.problem + (int)gridDim.y);
        }
    }

    /* The next strip of the ring, once it is there. */
    __device__ linear_strip take()
    {
        const linear_strip next = slot_of(taken);
        barrier_wait(next.barrier, taken / kRing % 2);
        taken++;
        __syncwarp();
        return next;
    }

    /* The thread's part of a warpgroup's N, of eight columns. */
    __device__ float4 &product_of(int group, int n) const
    {
        return reinterpret_cast<float4 *>(spare)[group * 1024 + n * 128 + (int)threadIdx.x % 128];
    }
};

/* phi of what load_strip read. */
template <typename T>
__device__ void map_features(strip_values &phi, const uint32_t (&raw)[4][4], bool relu)
{
    unpack_strip<T>(phi, raw);
    if (relu) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                phi[n][i] = larger_of(phi[n][i], 0.0F) + 1e-3F;
    } else {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                phi[n][i] = fmaxf(phi[n][i], 0.0F) + __expf(smaller_of(phi[n][i], 0.0F));
    }
}

/* N of the block's tokens in its spare tiles, by warpgroup; z by warp. */
template <typename T> __device__ void sum_keys(linear_pair &x)
{
    const linear_pair_arguments &a = x.a;
    const uint32_t group = (uint32_t)(x.warp % 4 * kStripBytes); /* before the warp's rows */
    float sum[8][4] = {}, features[8][2] = {};
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        const linear_strip keys = x.take();
        uint32_t raw[4][4];
        strip_values phi;
        load_strip(raw, keys.address, x.at);
        map_features<T>(phi, raw, a.relu);
        const int row = x.first + tile * kTileTokens + (int)threadIdx.x % 32 / 4;
        const strip_dots one = {row < a.kv_len ? 1.0F : 0.0F, row + 8 < a.kv_len ? 1.0F : 0.0F};
        pack_strip<T>(raw, phi);
        unpack_strip<T>(phi, raw); /* rounded as in N: where keys agree, errors cancel */
        add_rows(features, phi, one);
        if (one.high == 0.0F) /* what lies beyond the last token is not zero */
#pragma unroll
            for (int step = 0; step < 4; step++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    raw[step][i] = i % 2 == 1 || one.low == 0.0F ? 0 : raw[step][i];
        __syncwarp();
        store_strip(keys.address, raw, x.at);
        const linear_strip values = x.take();
        add_group_product<T>(sum, {keys.address - group}, {values.address - group});
        x.fetch(keys);
        x.fetch(values);
    }
    leave_columns(x.own.parts[x.warp], features);
#pragma unroll
    for (int n = 0; n < 8; n++)
        x.product_of((int)threadIdx.x / 128, n) =
            make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    __syncthreads();
}

/* What brings a state of this size, by the largest of all threads' numbers, into range. The block
 * is in step after. */
template <typename T>
__device__ range_factors<T, 14> state_range(linear_pair &x, const float (&sum)[2][4])
{
    if constexpr (!kNarrow<T>) {
        return range_factors<T, 14>(0.0F);
    } else {
        float most = 1e-18F; /* of what is zero no factor is infinite */
#pragma unroll
        for (int i = 0; i < 8; i++)
            most = fmaxf(most, fabsf(sum[i / 4][i % 4]));
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
        if (threadIdx.x % 32 == 0)
            x.own.largest[x.warp] = most;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            most = fmaxf(most, x.own.largest[i]);
        return range_factors<T, 14>(most);
    }
}

/* Both blocks' N as operand and z: each warpgroup adds and sends 16 columns of N. What the other
 * block has been sent for the head before must be read; last: no head comes after. */
template <typename T>
__device__ range_factors<T, 14> exchange_state(linear_pair &x, float *kept, int heads_before,
                                               bool last)
{
    linear_pair_shared &own = x.own;
    const int other = 1 - x.rank, group = (int)threadIdx.x / 128, place = (int)threadIdx.x % 128;
    const int first = 2 * group;
    const uint32_t barrier = remote_address(shared_address(&own.exchange), other);
    const uint32_t to = remote_address(shared_address(&own.product[first][place]), other);
    const uint32_t round = (uint32_t)heads_before % 2;
    float sum[2][4] = {}, features = 0.0F;
    if (heads_before > 0)
        await_round(&own.read, 1 - round);
    if (threadIdx.x < kDim) {
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            features += own.parts[i][threadIdx.x];
        send(remote_address(shared_address(&own.sums[threadIdx.x]), other), barrier, features);
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < kWarps / 4; i++) {
            const float4 y = x.product_of(i, first + n);
            sum[n][0] += y.x;
            sum[n][1] += y.y;
            sum[n][2] += y.z;
            sum[n][3] += y.w;
        }
        send_quad(to + (uint32_t)(n * 128 * 16), barrier, sum[n][0], sum[n][1], sum[n][2],
                  sum[n][3]);
    }
    await_round(&own.exchange, round);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const float4 y = own.product[first + n][place];
        sum[n][0] += y.x;
        sum[n][1] += y.y;
        sum[n][2] += y.z;
        sum[n][3] += y.w;
    }
    if (threadIdx.x < kDim) {
        own.total[threadIdx.x] = features + own.sums[threadIdx.x];
        if (kept != nullptr && x.rank == 0)
            kept[kDim * kDim + threadIdx.x] = own.total[threadIdx.x];
    }
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = 16 * (x.warp % 4) + g;
    if (kept != nullptr && x.rank == 0)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(kept + (row + 8 * half) * kDim + 8 * (first + n) +
                                            2 * t) =
                    make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
    const range_factors<T, 14> range = state_range<T>(x, sum);
    char *rows = own.matrix + x.warp % 4 * kStripBytes;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        char *at = rows + (x.at.result ^ (uint32_t)((first + n) << 4));
        *reinterpret_cast<uint32_t *>(at) =
            pack_pair<T>(range.into * sum[n][0], range.into * sum[n][1]);
        *reinterpret_cast<uint32_t *>(at + 8 * kRowBytes) =
            pack_pair<T>(range.into * sum[n][2], range.into * sum[n][3]);
    }
    if (threadIdx.x == 0)
        expect_again(&own.exchange, kExchangeBytes);
    publish_shared();
    __syncthreads();
    if (!last && threadIdx.x == 0)
        send_arrival(remote_address(shared_address(&own.read), other));
    return range;
}

/* z as b of a product: its high halves in column 0, the low ones in column 1. */
template <typename T> struct feature_sums {
    uint32_t b[4][2];
    range_factors<T, 14> range;

    __device__ explicit feature_sums(const float *z) : range(largest_of_all(z))
    {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 y = *reinterpret_cast<const float2 *>(z + 8 * i + 2 * t);
            const float low = y.x * range.into, high = y.y * range.into;
            const uint32_t large = pack_pair<T>(low, high);
            const uint32_t small = pack_pair<T>(low - low_of<T>(large), high - high_of<T>(large));
            b[i / 2][i % 2] = g == 0 ? large : g == 1 ? small : 0U;
        }
    }

    static __device__ float largest_of_all(const float *z)
    {
        const int lane = threadIdx.x % 32;
        float most = fmaxf(fmaxf(fabsf(z[lane]), fabsf(z[lane + 32])), 1e-18F);
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
        return most;
    }

    /* The products of a strip's rows with z, in all lanes. */
    __device__ strip_dots dot(const uint32_t (&x)[4][4]) const
    {
        float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
        for (int step = 0; step < 4; step += 2) {
            multiply<T>(c, x[step], b[step][0], b[step][1]);
            multiply<T>(d, x[step + 1], b[step + 1][0], b[step + 1][1]);
        }
        const int quad = (int)threadIdx.x % 32 & ~3;
        return {__shfl_sync(0xffffffffU, c[0] + d[0] + c[1] + d[1], quad) * range.back,
                __shfl_sync(0xffffffffU, c[2] + d[2] + c[3] + d[3], quad) * range.back};
    }
};

/* Rows of `out` go to memory from the two spare tiles in turn. */
template <typename T>
__device__ void write_rows(linear_pair &x, int problem, const range_factors<T, 14> &range)
{
    const linear_pair_arguments &a = x.a;
    const feature_sums<T> z(x.own.total);
    const uint64_t matrix = wgmma_tile(shared_address(x.own.matrix));
    const int h = problem % a.heads, b = problem / a.heads, lane = (int)threadIdx.x % 32;
    const uint32_t spare = shared_address(x.spare) + (uint32_t)(x.warp * kStripBytes);
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        const linear_strip queries = x.take();
        uint32_t operand[4][4];
        strip_values phi;
        load_strip(operand, queries.address, x.at);
        __syncwarp();
        x.fetch(queries);
        map_features<T>(phi, operand, a.relu);
        pack_strip<T>(operand, phi);
        strip_dots y = z.dot(operand);
        y.low += a.epsilon;
        y.high += a.epsilon;
        const int row = x.first + tile * kTileTokens + lane / 4;
        if (a.denominators != nullptr && lane % 4 == 0) {
            float *to = a.denominators + (int64_t)problem * a.q_len + row;
            if (row < a.q_len)
                to[0] = y.low;
            if (row + 8 < a.q_len)
                to[8] = y.high;
        }
        __syncwarp();
        multiply_rows<T>(operand, matrix,
                         {linear_inverse(y.low) * range.back, linear_inverse(y.high) * range.back});
        const uint32_t strip = spare + (uint32_t)(tile % kSpare * kTileBytes);
        await_put_rows<kSpare - 1>();
        __syncwarp();
        store_strip(strip, operand, x.at);
        publish_shared();
        __syncwarp();
        if (is_elected())
            put_rows(&a.out, x.first + tile * kTileTokens, h, b, strip);
        __syncwarp();
    }
    await_put_rows<0>();
    __syncthreads(); /* the next sums go where rows lay */
}

#endif

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    pair_kernel(const __grid_constant__ linear_pair_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    linear_pair x(a, shared);
    int before = 0;
#pragma unroll 1
    for (int problem = (int)blockIdx.y; problem < a.problems; problem += (int)gridDim.y, before++) {
        sum_keys<T>(x);
        const range_factors<T, 14> range =
            exchange_state<T>(x, a.kept == nullptr ? nullptr : a.kept + problem * a.count, before,
                              problem + (int)gridDim.y >= a.problems);
        write_rows<T>(x, problem, range);
    }
#else
    (void)a;
#endif
}

constexpr char kName[] = "linear attention's pairs";

cluster_launch launch_of(int64_t heads, cudaStream_t stream)
{
    return {
        .name = kName,
        .blocks = 2,
        .threads = kThreads,
        .heads = heads < kPairsAtOnce ? heads : kPairsAtOnce,
        .shared_bytes = kPairBytes,
        .most_shared = true,
        .stream = stream,
    };
}

int tiles_of(const linear_arguments &a)
{
    const int longest = a.q_len > a.kv_len ? a.q_len : a.kv_len;
    return (longest + 2 * kTileTokens - 1) / (2 * kTileTokens);
}

auto kernel_of(enum fb_dtype dtype)
{
    return dtype == FB_F16 ? pair_kernel<__half> : pair_kernel<__nv_bfloat16>;
}

} // namespace

/* Whether tensor maps take the tensor, whose rows consist of whole chunks. */
static bool is_mapped(const struct fb_tensor &t)
{
    bool mapped = true;
    for (int d = 0; d < 3; d++)
        mapped = mapped && (t.shape[d] == 1 || (t.stride[d] > 0 && t.stride[d] < (int64_t)1 << 38));
    return mapped;
}

/* Where heads fill three quarters of the rounds that they take, or half of a single one. */
bool linear_cuda_pair_serves(const struct fb_problem *p, const struct fb_call *call,
                             const linear_arguments &a)
{
    const int64_t heads = p->batch * p->heads, rounds = (heads + kPairsAtOnce - 1) / kPairsAtOnce;
    const bool fills =
        rounds == 1 ? 2 * heads >= kPairsAtOnce : 4 * heads >= 3 * rounds * kPairsAtOnce;
    const bool of_64 = a.features == kDim && p->v_dim == kDim;
    const bool whole = a.q.whole && a.k.whole && a.v.whole && a.out.whole && is_mapped(call->q) &&
                       is_mapped(call->k) && is_mapped(call->v) && is_mapped(call->out);
    return fb_cuda_is_hopper() && of_64 && whole && fills && a.group == 1 && a.lengths == nullptr &&
           a.map != FB_LINEAR_CUDA_IDENTITY && tiles_of(a) <= kTilesMost &&
           fb_cuda_at_once(launch_of(heads, nullptr), (const void *)kernel_of(p->dtype)) > 0;
}

enum fb_status linear_cuda_pair(const struct fb_problem *p, const struct fb_call *call,
                                const linear_arguments &a, float *kept, cudaStream_t stream,
                                struct fb_error *error)
{
    linear_pair_arguments x = {};
    const struct {
        const struct fb_tensor *tensor;
        CUtensorMap *map;
    } maps[] = {{&call->k, &x.in[TENSOR_K]},
                {&call->v, &x.in[TENSOR_V]},
                {&call->q, &x.in[TENSOR_Q]},
                {&call->out, &x.out}};
    for (const auto &map : maps) {
        const enum fb_status status = fb_cuda_map_rows(*map.tensor, map.map, kName, error);
        if (status != FB_OK)
            return status;
    }
    x.heads = a.heads;
    x.problems = (int)(p->batch * p->heads);
    x.q_len = a.q_len;
    x.kv_len = a.kv_len;
    x.tiles = tiles_of(a);
    x.relu = a.map == FB_LINEAR_CUDA_RELU;
    x.epsilon = a.epsilon;
    x.denominators = a.denominators;
    x.kept = kept;
    x.count = a.count;
    return fb_cuda_launch_clusters(launch_of(x.problems, stream), kernel_of(p->dtype), x, error);
}
