/*
 * The passes of Flow-Attention's gradient over strips of 16 tokens, one to a warp, and what the
 * blocks of a cluster exchange between them: bf16 or f16, head dimension 64, Hopper.
 * flow_cuda_cluster_gradient.cu makes a kernel of them.
 */
#ifndef FB_FLOW_CUDA_CLUSTER_GRADIENT_CUH
#define FB_FLOW_CUDA_CLUSTER_GRADIENT_CUH

#include "cuda_tensor_map.cuh"
#include "flow_cuda_cluster_strips.cuh"
#include "flow_cuda_gradient_visits.cuh"
#include "flow_cuda_plan.h"
#include "flow_cuda_strip_values.cuh"

namespace
{

/* The tensors, in the order of the block's tiles, and the results. */
enum gradient_tensor { TILE_Q, TILE_K, TILE_V, TILE_G, GRADIENT_TILES };
enum gradient_result { RESULT_DQ, RESULT_DK, RESULT_DV, GRADIENT_RESULTS };

struct cluster_gradient_arguments {
    CUtensorMap in[GRADIENT_TILES], out[GRADIENT_RESULTS]; /* where rows start on 16 bytes */
    tensor_view q, k, v, dout, dq, dk, dv;                 /* where they do not */
    int heads;
    int q_len, kv_len;
    float clamp;
    const float *saved; /* by the forward pass: [heads][saved_count], see flow_cuda_plan.h */
    int64_t saved_count;
    gradient_ranges ranges;
};

enum gradient_exchange { PRODUCT, STATE, FLOWS, SINKS, GRADIENT_EXCHANGES };

/* The first four as the forward pass saves them, plus eps. */
enum gradient_vector { SK, SQ, U, W, DU, DW, DSQ, DSK, GRADIENT_VECTORS };

/* The block's tokens. */
struct head_place {
    int64_t b, h;
    int first, valid_q, valid_k; /* of either side, may be negative */
    const float *state;          /* the head's G */
    float scale;
};

/* Blocks of 8 warps are two to a multiprocessor, of 16 one: what they have room for. */
template <int Warps> constexpr int kGradientRanks = Warps / 8 * FB_FLOW_CUDA_STRIP_RANKS;

/* The block's small arrays; after the tiles. What the other blocks write comes first. */
template <int Warps> struct gradient_shared {
    union {
        /* dM, by rank: its share of what this block adds. */
        float product[kDim * kDim];
        /* What is sent when every block has added its share. */
        struct {
            float flows[kGradientRanks<Warps>][2][kDim]; /* dw, dsq, by rank */
            float sinks[kGradientRanks<Warps>][kDim];    /* dsk */
        } later;
    };
    float du[kGradientRanks<Warps>][kDim];
    float mean[kGradientRanks<Warps> * Warps]; /* parts of sum M dM / S, by rank and warp */
    unsigned long long barriers[GRADIENT_EXCHANGES];
    unsigned long long arrivals[2]; /* q and dout are there; k and v */
    float vectors[GRADIENT_VECTORS][kDim];
    float parts[Warps][2][kDim]; /* sums of columns, by warp */
};

template <int Warps> struct gradient_block {
    char *q, *k, *v, *g; /* [16 Warps][64]; q becomes phi, g r g, then what dq is made of */
    char *slope;         /* M [64][64], then phi'(q) */
    char *matrix;        /* dM [64][64] */
    gradient_shared<Warps> *own;
    int rank, ranks; /* a power of two */
    int share;       /* of a 64 x 64 product, that this block adds */
};

template <int Warps> constexpr int kGradientTile = 16 * Warps *kRowBytes;

template <int Warps>
constexpr size_t kGradientBytes = (size_t)5 * kGradientTile<Warps> + kDim *kRowBytes +
                                  sizeof(gradient_shared<Warps>);

#if FB_HAVE_WGMMA

template <int Warps> __device__ gradient_block<Warps> carve_gradient(char *shared)
{
    gradient_block<Warps> x;
    x.q = shared;
    x.k = x.q + kGradientTile<Warps>;
    x.v = x.k + kGradientTile<Warps>;
    x.g = x.v + kGradientTile<Warps>;
    x.slope = x.g + kGradientTile<Warps>;
    x.matrix = x.slope + kGradientTile<Warps>;
    x.own = reinterpret_cast<gradient_shared<Warps> *>(x.matrix + kDim * kRowBytes);
    x.rank = (int)blockIdx.x;
    x.ranks = (int)gridDim.x;
    x.share = kDim * kDim >> (__ffs(x.ranks) - 1);
    return x;
}

/* Every block does so at its start, and waits for the others before it sends. */
template <int Warps> __device__ void ready_gradient(const gradient_block<Warps> &x)
{
    if (threadIdx.x == 0) {
        constexpr int vector = kDim * (int)sizeof(float);
        unsigned long long *barriers = x.own->barriers;
        expect(&barriers[PRODUCT], (int)sizeof x.own->product + x.ranks * vector);
        expect(&barriers[STATE], kDim * kRowBytes + x.ranks * Warps * (int)sizeof(float));
        expect(&barriers[FLOWS], x.ranks * 2 * vector);
        expect(&barriers[SINKS], x.ranks * vector);
        barrier_init(shared_address(&x.own->arrivals[0]), 1);
        barrier_init(shared_address(&x.own->arrivals[1]), 1);
    }
    announce_barriers();
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Two tensors' rows of a head on their way into their tiles, by the copy engine; those beyond the
 * last become zero. By one thread. */
template <int Warps>
__device__ void copy_tiles(const gradient_block<Warps> &x, const cluster_gradient_arguments &a,
                           const head_place &head, gradient_tensor first, gradient_tensor second,
                           int arrival)
{
    constexpr int bytes = kGradientTile<Warps>;
    const uint32_t tiles = shared_address(x.q);
    const uint32_t barrier = shared_address(&x.own->arrivals[arrival]);
    announce_bytes(barrier, 2 * bytes);
    copy_box(tiles + (uint32_t)(first * bytes), &a.in[first], head.first, (int)head.h, (int)head.b,
             barrier, pass_cache());
    copy_box(tiles + (uint32_t)(second * bytes), &a.in[second], head.first, (int)head.h,
             (int)head.b, barrier, pass_cache());
}

/* Rows that start anywhere, into a tile. */
template <int Warps>
__device__ void read_tile(char *tile, const tensor_view &view, const head_place &head, int valid)
{
    constexpr int rows = 16 * Warps, step = 4 * Warps;
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, head.b, head.h, head.first);
    const int own = threadIdx.x / 8, chunk = threadIdx.x % 8;
#pragma unroll 1
    for (int row = own; row < rows; row += step)
        *reinterpret_cast<uint4 *>(tile + chunk_offset(row, chunk)) =
            row < valid ? read_entries(x.data + row * x.stride + 8 * chunk)
                        : make_uint4(0, 0, 0, 0);
}

/* The warp's rows of a tile to memory. */
template <bool Whole>
__device__ void write_side(const cluster_gradient_arguments &a, gradient_result which,
                           const tensor_view &view, const head_place &head, const char *tile,
                           int valid)
{
    const int row = (int)threadIdx.x / 32 * 16;
    if constexpr (Whole) {
        publish_shared();
        __syncwarp();
        if (is_elected())
            put_rows(&a.out[which], head.first + row, (int)head.h, (int)head.b,
                     shared_address(tile + row * kRowBytes));
        __syncwarp();
    } else {
        leave_strip<false>(rows_of<__nv_bfloat16>(view, head.b, head.h, head.first), tile, row,
                           valid);
    }
}

/* ---- sums over a warp's tokens --------------------------------------------------------------- */

/* What brings a weight of each row of the strip into the range of operands. */
template <typename T> __device__ range_factors<T, 9> weight_range(const strip_dots &weight)
{
    if constexpr (kNarrow<T>) {
        float most = fmaxf(fabsf(weight.low), fabsf(weight.high));
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
        return range_factors<T, 9>(most);
    }
    return range_factors<T, 9>(0.0F);
}

template <typename T> __device__ strip_dots into_range(strip_dots x, const range_factors<T, 9> &to)
{
    return {x.low * to.into, x.high * to.into};
}

/* The first two rows of a are weights of the strip's rows, low and high of the rows g and g + 8. */
template <typename T>
__device__ void weight_operands(uint32_t (&a)[4], strip_dots first, strip_dots second)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    const uint32_t both[2] = {pack_pair<T>(first.low, first.high),
                              pack_pair<T>(second.low, second.high)};
    uint32_t even[2], odd[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        even[i] = __shfl_sync(0xffffffffU, both[i], 8 * t);
        odd[i] = __shfl_sync(0xffffffffU, both[i], 8 * t + 4);
    }
    const uint32_t x = lane < 4 ? even[0] : even[1], y = lane < 4 ? odd[0] : odd[1];
    a[0] = lane < 8 ? __byte_perm(x, y, 0x5410) : 0;
    a[2] = lane < 8 ? __byte_perm(x, y, 0x7632) : 0;
    a[1] = a[3] = 0;
}

/* Sums over the strip at the address of its rows, each times the first weights of a, as many as
 * there are parts. back: of the part of the lane's group. */
template <typename T, int Parts>
__device__ void weigh_rows(float (*parts)[kDim], const uint32_t (&weights)[4], uint32_t strip,
                           float back, const lane_places &at)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int block = 0; block < 4; block++) {
        uint32_t b[4];
        load_b(b, strip, at, block);
        float low[4] = {}, high[4] = {};
        multiply<T>(low, weights, b[0], b[1]);
        multiply<T>(high, weights, b[2], b[3]);
        if (g < Parts) {
            float *to = parts[g] + 16 * block + 2 * t;
            *reinterpret_cast<float2 *>(to) = make_float2(low[0] * back, low[1] * back);
            *reinterpret_cast<float2 *>(to + 8) = make_float2(high[0] * back, high[1] * back);
        }
    }
}

/* ---- gather: the queries' side, dM ----------------------------------------------------------- */

/* alpha and the gradient of 1 / alpha, without and in the end with what dw adds. */
struct sink_gradients {
    strip_dots alpha, da;
};

/* phi of the warp's queries and r g into their tiles, phi' into a third, du of its rows, and of dq
 * what is known by now. */
template <typename T, int Warps>
__device__ sink_gradients gather_sinks(const gradient_block<Warps> &x, float ratio,
                                       const gradient_factors<T> &factors, int valid,
                                       uint32_t (&known)[4][4], const lane_places &at)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int row = 16 * warp;
    char *queries = x.q + row * kRowBytes, *gradients = x.g + row * kRowBytes;
    const float *sk = x.own->vectors[SK], *u = x.own->vectors[U];
    strip_values phi, h = {};
    const sink_strip s =
        visit_sink_strip<T>(phi, known, h, shared_address(queries), shared_address(gradients), sk,
                            u, group_product<T>{x.slope}, ratio, factors.state.back,
                            row + g < valid, row + g + 8 < valid, at);
    const float r[2] = {s.share.low * s.alpha.low, s.share.high * s.alpha.high};
    const sink_gradients y = {s.alpha,
                              {-s.alpha.low * r[0] * s.dr.low, -s.alpha.high * r[1] * s.dr.high}};
    uint32_t weighted[4][4];
    load_strip(weighted, shared_address(gradients), at);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        uint32_t &pair = weighted[i / 4][i % 4];
        const float weight = r[i % 2] * factors.share.into;
        pair = scale_two<T>(pair, make_float2(weight, weight));
    }
    __syncwarp(); /* every lane has read the strips */
    put_packed(queries, known, at);
    put_packed(gradients, weighted, at);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 to_u = *reinterpret_cast<const float2 *>(u + 8 * n + 2 * t);
        const float2 to_sk = *reinterpret_cast<const float2 *>(sk + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float sum = r[i / 2] * factors.state.back * h[n][i];
            sum = fmaf(i < 2 ? s.dc.low : s.dc.high, i % 2 == 0 ? to_u.x : to_u.y, sum);
            sum = fmaf(i < 2 ? y.da.low : y.da.high, i % 2 == 0 ? to_sk.x : to_sk.y, sum);
            phi[n][i] = slope_from(phi[n][i]);
            h[n][i] = sum * phi[n][i];
        }
    }
    pack_strip<T>(known, h);
    __syncwarp();
    uint32_t weights[4];
    const range_factors<T, 9> range = weight_range<T>(s.dc);
    const strip_dots dc = into_range<T>(s.dc, range);
    weight_operand<T>(weights, dc.low, dc.high);
    weigh_rows<T, 1>(x.own->parts[warp], weights, shared_address(queries), range.back, at);
    publish_shared();
    __syncthreads(); /* nobody needs M any more */
    put_strip<T>(x.slope + row * kRowBytes, phi, at);
    return y;
}

/* The block's share of dM, times `factor`, to every block as a tile, and its part of sum M dM / S.
 * `state`: G of the head; weight: scale / S. */
template <typename T, int Warps>
__device__ void share_gradients(const gradient_block<Warps> &x, const float *state, float weight,
                                float factor)
{
    constexpr int step = 4 * 32 * Warps;
    const int lane = threadIdx.x % 32, share = x.share;
    const uint32_t tile = shared_address(x.matrix);
    const uint32_t barrier = shared_address(&x.own->barriers[STATE]);
    float4 own_state[kDim * kDim / step];
#pragma unroll
    for (int j = 0; j < kDim * kDim / step; j++) {
        const int i = 4 * (int)threadIdx.x + j * step;
        if (i < share)
            own_state[j] = *reinterpret_cast<const float4 *>(state + x.rank * share + i);
    }
    await(&x.own->barriers[PRODUCT]);
    float mean = 0.0F;
#pragma unroll
    for (int j = 0; j < kDim * kDim / step; j++) {
        const int i = 4 * (int)threadIdx.x + j * step;
        if (i >= share)
            break;
        float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll 2
        for (int other = 0; other < x.ranks; other++) {
            const float4 y = *reinterpret_cast<const float4 *>(x.own->product + other * share + i);
            sum.x += y.x;
            sum.y += y.y;
            sum.z += y.z;
            sum.w += y.w;
        }
        mean += sum.x * own_state[j].x + sum.y * own_state[j].y + sum.z * own_state[j].z +
                sum.w * own_state[j].w;
        const int row = (x.rank * share + i) / kDim, col = i % kDim;
        const uint32_t to = tile + chunk_offset(row, col / 8) + (uint32_t)(col % 8 * 2);
        const uint32_t low = pack_bounded<T>(sum.x * factor, sum.y * factor);
        const uint32_t high = pack_bounded<T>(sum.z * factor, sum.w * factor);
#pragma unroll 2
        for (int other = 0; other < x.ranks; other++)
            send_pair(remote_address(to, other), remote_address(barrier, other), low, high);
    }
#pragma unroll
    for (int half = 16; half > 0; half /= 2)
        mean += __shfl_xor_sync(0xffffffffU, mean, half);
    if (lane < x.ranks) {
        const uint32_t to = shared_address(&x.own->mean[x.rank * Warps + (int)threadIdx.x / 32]);
        send(remote_address(to, lane), remote_address(barrier, lane), weight * mean);
    }
}

/* ---- spread: the sources' side --------------------------------------------------------------- */

/* sum M dM / S, in all lanes. */
template <int Warps> __device__ float add_means(const gradient_block<Warps> &x)
{
    float mean = 0.0F;
    for (int i = (int)threadIdx.x % 32; i < x.ranks * Warps; i += 32)
        mean += x.own->mean[i];
#pragma unroll
    for (int half = 16; half > 0; half /= 2)
        mean += __shfl_xor_sync(0xffffffffU, mean, half);
    return mean;
}

/* dw and dsq of the warp's rows; dk but for dsk, in place of the keys. keys: phi as operand a. */
template <typename T, int Warps>
__device__ void spread_sources(const gradient_block<Warps> &x, source_strip &s, strip_values &phi,
                               uint32_t (&keys)[4][4], float back, float clamp, int valid,
                               const lane_places &at)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int row = 16 * warp;
    const float *sq = x.own->vectors[SQ], *w = x.own->vectors[W], *du = x.own->vectors[DU];
    char *rows = x.k + row * kRowBytes;
    strip_values y = {};
    await(&x.own->barriers[STATE]);
    publish_shared(); /* dM, to the tensor cores */
    close_source_strip<T>(s, phi, keys, y, shared_address(x.v) + row * kRowBytes, sq, du,
                          group_product<T>{x.matrix}, back, add_means(x), clamp, row + g < valid,
                          row + g + 8 < valid, at);
    put_packed(rows, keys, at);
    __syncwarp();
    uint32_t weights[4];
    const range_factors<T, 9> first = weight_range<T>(s.dflow), second = weight_range<T>(s.db);
    weight_operands<T>(weights, into_range<T>(s.dflow, first), into_range<T>(s.db, second));
    weigh_rows<T, 2>(x.own->parts[warp], weights, shared_address(rows),
                     g == 0 ? first.back : second.back, at);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 to_w = *reinterpret_cast<const float2 *>(w + 8 * n + 2 * t);
        const float2 to_du = *reinterpret_cast<const float2 *>(du + 8 * n + 2 * t);
        const float2 to_sq = *reinterpret_cast<const float2 *>(sq + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float sum = (i < 2 ? s.p.low : s.p.high) * back * y[n][i];
            sum = fmaf(i < 2 ? s.dflow.low : s.dflow.high, i % 2 == 0 ? to_w.x : to_w.y, sum);
            sum = fmaf(i < 2 ? s.beta.low : s.beta.high, i % 2 == 0 ? to_du.x : to_du.y, sum);
            sum = fmaf(i < 2 ? s.db.low : s.db.high, i % 2 == 0 ? to_sq.x : to_sq.y, sum);
            phi[n][i] = slope_from(phi[n][i]);
            y[n][i] = sum * phi[n][i];
        }
    }
    __syncwarp(); /* every lane has read phi */
    put_strip<T>(rows, y, at);
}

/* dv into the rows of v; p: times what undoes the range of dM. */
template <typename T, int Warps>
__device__ void multiply_keys(const gradient_block<Warps> &x, const uint32_t (&keys)[4][4],
                              strip_dots p, const lane_places &at)
{
    const int row = (int)threadIdx.x / 32 * 16;
    strip_values y;
    multiply_group<false, T>(y, keys, wgmma_tile(shared_address(x.matrix)));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? p.low : p.high;
    put_strip<T>(x.v + row * kRowBytes, y, at);
    __syncwarp();
}

/* ---- the ends of dq and dk ------------------------------------------------------------------- */

/* da; dsk of the warp's rows. */
template <typename T, int Warps>
__device__ void end_sinks(const gradient_block<Warps> &x, sink_gradients &y, const lane_places &at)
{
    const int warp = threadIdx.x / 32;
    const uint32_t rows = shared_address(x.q) + 16 * warp * kRowBytes;
    const float *dw = x.own->vectors[DW];
    uint32_t queries[4][4];
    load_strip(queries, rows, at);
    const vector_factors<T> all = signed_range<T>(dw);
    const strip_dots d = dot_two<T>(queries, dw, 0.0F, all, dw, 0.0F, all).first;
    y.da.low = fmaf(-y.alpha.low * y.alpha.low, d.low, y.da.low);
    y.da.high = fmaf(-y.alpha.high * y.alpha.high, d.high, y.da.high);
    uint32_t weights[4];
    const range_factors<T, 9> range = weight_range<T>(y.da);
    const strip_dots da = into_range<T>(y.da, range);
    weight_operand<T>(weights, da.low, da.high);
    weigh_rows<T, 1>(x.own->parts[warp], weights, rows, range.back, at);
}

/* dq into the rows of g; first: da without what dw adds, which the rows hold. */
template <typename T, int Warps>
__device__ void complete_sinks(const gradient_block<Warps> &x, const sink_gradients &y,
                               strip_dots first, const lane_places &at)
{
    const int row = (int)threadIdx.x / 32 * 16, t = threadIdx.x % 4;
    const float *sk = x.own->vectors[SK], *dw = x.own->vectors[DW], *dsq = x.own->vectors[DSQ];
    const float da[2] = {y.da.low - first.low, y.da.high - first.high};
    strip_values known, slope;
    take_strip<T>(known, x.g + row * kRowBytes, at);
    take_strip<T>(slope, x.slope + row * kRowBytes, at);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * t + i % 2;
            float sum = fmaf(i < 2 ? y.alpha.low : y.alpha.high, dw[col], dsq[col]);
            sum = fmaf(da[i / 2], sk[col], sum);
            known[n][i] = fmaf(sum, slope[n][i], known[n][i]);
        }
    put_strip<T>(x.g + row * kRowBytes, known, at);
    __syncwarp();
}

/* dk into the rows of k. */
template <typename T, int Warps>
__device__ void complete_sources(const gradient_block<Warps> &x, const uint32_t (&slope)[4][4],
                                 const lane_places &at)
{
    const int row = (int)threadIdx.x / 32 * 16, t = threadIdx.x % 4;
    const float *dsk = x.own->vectors[DSK];
    strip_values y;
    take_strip<T>(y, x.k + row * kRowBytes, at);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 d = *reinterpret_cast<const float2 *>(dsk + 8 * n + 2 * t);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair = slope[n / 2][n % 2 * 2 + half];
            y[n][2 * half] = fmaf(low_of<T>(pair), d.x, y[n][2 * half]);
            y[n][2 * half + 1] = fmaf(high_of<T>(pair), d.y, y[n][2 * half + 1]);
        }
    }
    put_strip<T>(x.k + row * kRowBytes, y, at);
    __syncwarp();
}

#endif

} // namespace

#endif
