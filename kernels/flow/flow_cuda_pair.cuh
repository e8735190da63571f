/* The passes of Flow-Attention's normal form over a block's tokens, 16 to a warp, and what the two
 * blocks of a head tell one another: bf16, heads of 64. flow_cuda_pair.cu tells the whole. */
#ifndef FB_FLOW_CUDA_PAIR_CUH
#define FB_FLOW_CUDA_PAIR_CUH

#include "flow_cuda_pair_vectors.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* Tiles that stay and others in turn, so that the memory is not idle while those are at hand. */
template <typename T> __device__ inline void sum_sides(pair_block &block, uint32_t round)
{
    const pair_arguments &a = block.a;
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        const int length = side == PAIR_K ? a.kv_len : a.q_len;
        const int from = side == PAIR_K ? 0 : a.kept[PAIR_K];
        float sum[8][2] = {};
        int stays = 0, comes = a.kept[side];
#pragma unroll 1
        for (int i = 0; i < a.tiles; i++) {
            strip_values phi;
            int tile;
            if (comes == a.tiles || (i % 2 == 0 && stays < a.kept[side])) {
                tile = stays++;
                block.take_new<T>(phi, from + tile, round);
            } else {
                tile = comes++;
                block.take_phi<T>(phi);
            }
            add_rows(sum, phi, block.exist(tile, length));
        }
        leave_columns(block.own.parts[block.warp][side], sum);
    }
    block.begin_ring();
}

/* The lane's rows' weights, 1 / flow, 0 for those that do not exist. */
template <typename T>
__device__ inline strip_dots inverse_flows(const uint32_t (&phi)[4][4], const vector_pair<T> &v,
                                           const strip_dots &one)
{
    const strip_dots flow = dot_first(phi, v);
    return {one.low * reciprocal(flow.low), one.high * reciprocal(flow.high)};
}

/* Weights of a strip's rows as b of a product with its transpose: two numbers of 16 bits in columns
 * 0 and 1, and again in the others. */
template <typename T> struct weight_pair {
    uint32_t b[2];

    __device__ explicit weight_pair(const strip_dots &x)
    {
        const int lane = threadIdx.x % 32, part = lane / 4 % 2;
        const uint32_t high = pack_pair<T>(x.low, x.high);
        const uint32_t rest = pack_pair<T>(x.low - low_of<T>(high), x.high - high_of<T>(high));
        /* the lanes of a quad have the same: one gives this, its neighbour that */
        const uint32_t give = lane % 2 == 0 ? high : rest;
        const uint32_t even = __shfl_sync(0xffffffffU, give, lane % 4 * 8 + part);
        const uint32_t odd = __shfl_sync(0xffffffffU, give, lane % 4 * 8 + 4 + part);
        b[0] = __byte_perm(even, odd, 0x5410);
        b[1] = __byte_perm(even, odd, 0x7632);
    }
};

/* The weighted sums of rows that stay, by the tensor cores, added to the parts where these are
 * more. Two tiles at a time, which do not wait for one another: of keys and queries, or, where no
 * queries stay, of both halves of the keys. */
template <typename T> __device__ inline void sum_kept_flows(pair_block &block)
{
    const pair_arguments &a = block.a;
    const bool both = a.kept[PAIR_Q] > 0;
    const int keys = a.kept[PAIR_K], visits = both ? keys : (keys + 1) / 2;
    const int side[2] = {PAIR_K, both ? PAIR_Q : PAIR_K};
    const int place[2] = {0, both ? keys : 0};  /* of the side's first tile */
    const int from[2] = {0, both ? 0 : visits}; /* the first tile */
    const int count[2] = {visits, both ? a.kept[PAIR_Q] : keys - visits};
    const vector_pair<T> vectors[2] = {
        vector_pair<T>(block.own.total[PAIR_Q]),
        vector_pair<T>(block.own.total[both ? PAIR_K : PAIR_Q]),
    };
    float sum[2][4][4] = {};
#pragma unroll 1
    for (int i = 0; i < visits; i++) {
        uint32_t strip[2], phi[2][4][4];
        strip_dots flow[2];
#pragma unroll
        for (int c = 0; c < 2; c++) { /* one that is not there counts nothing */
            strip[c] = block.strip_of(place[c] + from[c] + (i < count[c] ? i : 0));
            load_strip(phi[c], strip[c], block.at);
        }
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int length = side[c] == PAIR_K ? a.kv_len : a.q_len;
            flow[c] = inverse_flows(phi[c], vectors[c],
                                    block.exist(from[c] + i, i < count[c] ? length : 0));
        }
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const weight_pair<T> weights(flow[c]);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                uint32_t turned[4];
                load_a_turned(turned, strip[c], block.at, n);
                multiply<T>(sum[c][n], turned, weights.b[0], weights.b[1]);
            }
        }
    }
    __syncwarp();
    if (threadIdx.x % 4 != 0)
        return;
#pragma unroll
    for (int c = 0; c < 2; c++) {
        const bool adds = a.tiles > a.kept[side[c]] || (c > 0 && !both);
        float *part = block.own.parts[block.warp][side[c]] + threadIdx.x % 32 / 4;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float *x = sum[c][n / 2] + n % 2 * 2;
            part[8 * n] = x[0] + x[1] + (adds ? part[8 * n] : 0.0F);
        }
    }
}

/* u = sum beta k, w = sum alpha q. The tiles that were read last come first, which the L2 cache
 * still holds. f16 has no room for weights. */
template <typename T> __device__ inline void sum_flows(pair_block &block)
{
    const pair_arguments &a = block.a;
#pragma unroll 1
    for (int side = PAIR_Q; side >= PAIR_K; side--) {
        const int length = side == PAIR_K ? a.kv_len : a.q_len;
        const int from = side == PAIR_K ? 0 : a.kept[PAIR_K];
        const int last = kNarrow<T> ? 0 : a.kept[side];
        if (a.tiles == last)
            continue;
        const vector_pair<T> vector(block.own.total[1 - side]);
        float sum[8][2] = {};
#pragma unroll 1
        for (int tile = a.tiles - 1; tile >= last; tile--) {
            strip_values phi;
            uint32_t raw[4][4];
            if (kNarrow<T> && tile < a.kept[side]) {
                load_strip(raw, block.strip_of(from + tile), block.at);
                unpack_strip<T>(phi, raw);
            } else {
                block.take_phi<T>(phi);
                pack_strip<T>(raw, phi);
            }
            add_rows(sum, phi, inverse_flows(raw, vector, block.exist(tile, length)));
        }
        leave_columns(block.own.parts[block.warp][side], sum);
    }
    if constexpr (!kNarrow<T>)
        sum_kept_flows<T>(block);
}

/* Rows of pairs times f32 numbers, as two of 16 bits: rounded once, as products in f32 would be. */
template <typename T>
__device__ inline void scale_pairs(uint32_t (&strip)[4][4], float low, float high)
{
    const uint32_t large[2] = {pack_pair<T>(low, low), pack_pair<T>(high, high)};
    const float rest[2] = {low - low_of<T>(large[0]), high - low_of<T>(large[1])};
    const uint32_t small[2] = {pack_pair<T>(rest[0], rest[0]), pack_pair<T>(rest[1], rest[1])};
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            strip[step][i] = pairs<T>::product_plus(
                strip[step][i], large[i % 2], pairs<T>::product(strip[step][i], small[i % 2]));
}

/* E of the lane's rows of a strip; their sums in z. */
template <typename T>
__device__ inline strip_dots weights_of(const pair_block &block, const uint32_t (&phi)[4][4],
                                        int tile, const vector_pair<T> &flow, float &z)
{
    const float clamp = block.a.clamp;
    const strip_dots one = block.exist(tile, block.a.kv_len), o = dot_first(phi, flow);
    const strip_dots e = {one.low * __expf(fminf(fmaxf(o.low, -clamp), clamp)),
                          one.high * __expf(fminf(fmaxf(o.high, -clamp), clamp))};
    z += e.low + e.high;
    return e;
}

/* E k into the places of keys that stay. */
template <typename T, int Count>
__device__ inline void weigh_kept(const pair_block &block, int tile, const vector_pair<T> &flow,
                                  float &z)
{
    uint32_t phi[Count][4][4];
    strip_dots e[Count];
#pragma unroll
    for (int i = 0; i < Count; i++)
        load_strip(phi[i], block.strip_of(tile + i), block.at);
#pragma unroll
    for (int i = 0; i < Count; i++)
        e[i] = weights_of(block, phi[i], tile + i, flow, z);
#pragma unroll
    for (int i = 0; i < Count; i++)
        scale_pairs<T>(phi[i], e[i].low, e[i].high);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Count; i++)
        store_strip(block.strip_of(tile + i), phi[i], block.at);
}

/* E k into the place of keys that have come. */
template <typename T>
__device__ inline void weigh_new(const pair_block &block, uint32_t strip, int tile,
                                 const vector_pair<T> &flow, float &z)
{
    uint32_t raw[4][4];
    strip_values phi;
    load_strip(raw, strip, block.at);
    map_loaded<T>(phi, raw);
    pack_strip<T>(raw, phi);
    const strip_dots e = weights_of(block, raw, tile, flow, z);
    __syncwarp();
    pack_weighted<T>(raw, phi, e);
    store_strip(strip, raw, block.at);
}

/* Z and G of the block's tokens: G in the places of the first keys, by warpgroup. */
template <typename T> __device__ inline void sum_product(pair_block &block)
{
    const pair_arguments &a = block.a;
    pair_shared &own = block.own;
    const vector_pair<T> flow(own.flow[1]);
    const uint32_t group = (uint32_t)(block.warp % 4 * 16 * kRowBytes); /* before the warp's rows */
    float z = 0.0F, sum[8][4] = {};
    int tile = 0;
#pragma unroll 1
    for (; tile + 1 < a.kept[PAIR_K]; tile += 2) {
        weigh_kept<T, 2>(block, tile, flow, z);
        const ring_strip values[2] = {block.take(), block.take()};
        add_group_product<T>(sum, {block.strip_of(tile) - group, block.strip_of(tile + 1) - group},
                             {values[0].address - group, values[1].address - group});
        block.fetch(values[0]);
        block.fetch(values[1]);
    }
#pragma unroll 1
    for (; tile < a.tiles; tile++) {
        const bool kept = tile < a.kept[PAIR_K];
        const ring_strip keys = kept ? ring_strip{block.strip_of(tile), 0} : block.take();
        if (kept)
            weigh_kept<T, 1>(block, tile, flow, z);
        else
            weigh_new<T>(block, keys.address, tile, flow, z);
        const ring_strip values = block.take();
        add_group_product<T>(sum, {keys.address - group}, {values.address - group});
        if (!kept)
            block.fetch(keys);
        block.fetch(values);
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
        z += __shfl_xor_sync(0xffffffffU, z, step);
    if (threadIdx.x % 32 == 0)
        own.z[block.warp] = z;
    /* no keys are wanted any more */
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 8; n++)
        block.product_of(threadIdx.x / 128, n) =
            make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    __syncthreads();
}

/* What the gradient wants to know; half of G is each block's to save. sum: a warpgroup's columns.
 */
__device__ inline void save_head(const pair_block &block, const float (&sum)[2][4], float scale,
                                 float *saved)
{
    const pair_shared &own = block.own;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, side = (int)threadIdx.x / kDim;
    float *to = saved + FB_FLOW_CUDA_VECTORS * kDim + FB_FLOW_CUDA_SCALARS +
                (16 * (block.warp % 4) + g + 8 * block.rank) * kDim + 16 * (block.warp / 4) + 2 * t;
#pragma unroll
    for (int n = 0; n < 2; n++)
        *reinterpret_cast<float2 *>(to + 8 * n) =
            block.rank == 0 ? make_float2(sum[n][0], sum[n][1]) : make_float2(sum[n][2], sum[n][3]);
    if (block.rank != 0 || threadIdx.x >= 2 * kDim)
        return;
    saved[threadIdx.x] = own.total[side].values[threadIdx.x % kDim];
    saved[2 * kDim + threadIdx.x] = own.flow[side].values[threadIdx.x % kDim];
    if (threadIdx.x < 2)
        saved[FB_FLOW_CUDA_VECTORS * kDim + threadIdx.x] = threadIdx.x == 0 ? scale : 0.0F;
}

/* Both blocks' G, scaled, as a tile: each warpgroup adds and sends 16 of its columns. */
template <typename T>
__device__ inline void exchange_product(pair_block &block, float *saved, uint32_t round)
{
    pair_shared &own = block.own;
    const int other = 1 - block.rank, first = (int)threadIdx.x / 128 * 2;
    const int place = (int)threadIdx.x % 128;
    unsigned long long *barrier = &own.exchanges[PRODUCT];
    const uint32_t to = remote_address(shared_address(&own.product[first][place]), other);
    const uint32_t remote_barrier = remote_address(shared_address(barrier), other);
    float z = 0.0F, sum[2][4] = {};
#pragma unroll
    for (int i = 0; i < kWarps; i++)
        z += own.z[i];
    if (threadIdx.x == 0)
        send(remote_address(shared_address(&own.remote_z), other), remote_barrier, z);
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int group = 0; group < kWarps / 4; group++) {
            const float4 y = block.product_of(group, first + n);
            sum[n][0] += y.x;
            sum[n][1] += y.y;
            sum[n][2] += y.z;
            sum[n][3] += y.w;
        }
        send_quad(to + (uint32_t)(n * 128 * 16), remote_barrier, sum[n][0], sum[n][1], sum[n][2],
                  sum[n][3]);
    }
    await_round(barrier, round);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const float4 y = own.product[first + n][place];
        sum[n][0] += y.x;
        sum[n][1] += y.y;
        sum[n][2] += y.z;
        sum[n][3] += y.w;
    }
    const float scale = (float)block.a.kv_len / (z + own.remote_z);
    const range_factors<T, kStateBits> range((float)block.a.kv_len);
    if (saved != nullptr)
        save_head(block, sum, scale, saved);
    char *rows = own.matrix + block.warp % 4 * 16 * kRowBytes;
    const float factor = scale * range.into;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        char *at = rows + (block.at.result ^ (uint32_t)((first + n) << 4));
        *reinterpret_cast<uint32_t *>(at) = pack_pair<T>(factor * sum[n][0], factor * sum[n][1]);
        *reinterpret_cast<uint32_t *>(at + 8 * kRowBytes) =
            pack_pair<T>(factor * sum[n][2], factor * sum[n][3]);
    }
    if (threadIdx.x == 0)
        expect_again(barrier, (int)(sizeof own.product + sizeof own.remote_z));
    publish_shared();
}

/* Rows of `out` go to memory from the places of keys that are not wanted any more, two of them at
 * least in turn. */
template <typename T> __device__ inline void write_sinks(pair_block &block, const pair_head &head)
{
    const pair_arguments &a = block.a;
    pair_shared &own = block.own;
    const float ratio = (float)((double)a.q_len / (double)a.kv_len);
    const range_factors<T, kStateBits> range((float)a.kv_len);
    const vector_pair<T> vectors(own.total[0], own.flow[0]);
    const uint64_t matrix = wgmma_tile(shared_address(own.matrix));
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        uint32_t operand[4][4];
        if (tile < a.kept[PAIR_Q]) {
            load_strip(operand, block.strip_of(a.kept[PAIR_K] + tile), block.at);
        } else {
            strip_values phi;
            block.take_phi<T>(phi);
            pack_strip<T>(operand, phi);
        }
        strip_values y;
        strip_dots dots[2];
        begin_group_product<false, T>(y, operand, matrix);
        dot_pairs(dots, operand, vectors);
        const strip_dots weight = {
            sigmoid_of<T>(dots[1].low * ratio) * reciprocal(dots[0].low) * range.back,
            sigmoid_of<T>(dots[1].high * ratio) * reciprocal(dots[0].high) * range.back};
        end_group_product(y);
        pack_weighted<T>(operand, y, weight);
        const uint32_t strip = block.strip_of(tile % 2);
        await_put_rows<1>();
        __syncwarp();
        store_strip(strip, operand, block.at);
        publish_shared();
        __syncwarp();
        if (is_elected())
            put_rows(&a.out, block.first + tile * kSlotTokens, head.h, head.b, strip);
        __syncwarp();
    }
    await_put_rows<0>();
}

#endif

} // namespace

#endif
