/* The passes of Flow-Attention's normal form over a block's tokens, 16 to a warp, and what the two
 * blocks of a head tell one another: bf16, heads of 64. flow_cuda_pair.cu tells the whole. */
#ifndef FB_FLOW_CUDA_PAIR_CUH
#define FB_FLOW_CUDA_PAIR_CUH

#include "flow_cuda_pair_ring.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* ---- dot products by the tensor cores -------------------------------------------------------- */

/* Two vectors, eps added, as b of a product: columns 0 and 1 hold the first as two bf16 numbers, 2
 * and 3 the second. */
template <typename T> struct vector_pair {
    uint32_t b[4][2];
    float constant[2]; /* eps times a vector's sum */
    vector_factors<T> first, second;

    __device__ vector_pair(const float *x, const float *y)
        : first(vector_range<T>(x)), second(vector_range<T>(y))
    {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const float *from = g < 2 ? x : y;
        const float into = g < 2 ? first.into : second.into;
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float2 v = *reinterpret_cast<const float2 *>(from + 16 * step + 8 * half + 2 * t);
                v = make_float2((v.x + kEps) * into, (v.y + kEps) * into);
                const uint32_t high = pack_pair<T>(v.x, v.y);
                const uint32_t low = pack_pair<T>(v.x - low_of<T>(high), v.y - high_of<T>(high));
                b[step][half] = g > 3 ? 0 : g % 2 == 0 ? high : low;
            }
        constant[0] = eps_term(x);
        constant[1] = eps_term(y);
    }
};

/* (x + eps) . (vector + eps) of the rows g and g + 8 with both vectors, in all lanes. */
template <typename T>
__device__ inline void dot_pairs(strip_dots (&dots)[2], const uint32_t (&x)[4][4],
                                 const vector_pair<T> &v)
{
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, x[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, x[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    const float low = c[0] + d[0] + c[1] + d[1], high = c[2] + d[2] + c[3] + d[3];
    const int quad = (int)threadIdx.x % 32 & ~3;
#pragma unroll
    for (int i = 0; i < 2; i++)
        dots[i] = {
            __shfl_sync(0xffffffffU, low, quad + i) * (i == 0 ? v.first.back : v.second.back) +
                v.constant[i],
            __shfl_sync(0xffffffffU, high, quad + i) * (i == 0 ? v.first.back : v.second.back) +
                v.constant[i]};
}

/* Likewise with the first one only. */
template <typename T>
__device__ inline strip_dots dot_first(const uint32_t (&x)[4][4], const vector_pair<T> &v)
{
    float c[4] = {}, d[4] = {};
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, x[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, x[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    const int quad = (int)threadIdx.x % 32 & ~3;
    return {
        __shfl_sync(0xffffffffU, c[0] + d[0] + c[1] + d[1], quad) * v.first.back + v.constant[0],
        __shfl_sync(0xffffffffU, c[2] + d[2] + c[3] + d[3], quad) * v.first.back + v.constant[0]};
}

/* ---- sums of columns ------------------------------------------------------------------------- */

/* The block's parts to the other one, and both together; kDim of either kind. */
__device__ inline void exchange_columns(pair_block &block, pair_exchange name, float *remote,
                                        float *total, uint32_t round)
{
    pair_shared &own = block.own;
    __syncthreads();
    if (threadIdx.x < 2 * kDim) {
        float sum = 0.0F;
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            sum += own.parts[i][threadIdx.x / kDim][threadIdx.x % kDim];
        send(remote_address(shared_address(remote + threadIdx.x), 1 - block.rank),
             remote_address(shared_address(&own.exchanges[name]), 1 - block.rank), sum);
        await_round(&own.exchanges[name], round);
        total[threadIdx.x] = sum + remote[threadIdx.x];
        if (threadIdx.x == 0)
            expect_again(&own.exchanges[name], 2 * kDim * (int)sizeof(float));
    }
    __syncthreads();
}

/* ---- passes ---------------------------------------------------------------------------------- */

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
}

/* u = sum beta k, w = sum alpha q. The tiles that were read last come first, which the L2 cache
 * still holds. */
template <typename T> __device__ inline void sum_flows(pair_block &block)
{
    const pair_arguments &a = block.a;
#pragma unroll 1
    for (int side = PAIR_Q; side >= PAIR_K; side--) {
        const int length = side == PAIR_K ? a.kv_len : a.q_len;
        const int from = side == PAIR_K ? 0 : a.kept[PAIR_K];
        const vector_pair<T> vector(block.own.total[1 - side], block.own.total[1 - side]);
        float sum[8][2] = {};
#pragma unroll 1
        for (int tile = a.tiles - 1; tile >= 0; tile--) {
            strip_values phi;
            uint32_t raw[4][4];
            if (tile < a.kept[side]) {
                load_strip(raw, block.strip_of(from + tile), block.at);
                unpack_strip<T>(phi, raw);
            } else {
                block.take_phi<T>(phi);
                pack_strip<T>(raw, phi);
            }
            const strip_dots one = block.exist(tile, length);
            strip_dots weight = dot_first(raw, vector);
            weight.low = one.low * reciprocal(weight.low);
            weight.high = one.high * reciprocal(weight.high);
            add_rows(sum, phi, weight);
        }
        leave_columns(block.own.parts[block.warp][side], sum);
    }
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

/* E k into the place of the keys; their sums of E in z. */
template <typename T>
__device__ inline void weigh_keys(pair_block &block, uint32_t strip, bool kept, int tile,
                                  const vector_pair<T> &flow, float &z)
{
    const float clamp = block.a.clamp;
    uint32_t raw[4][4];
    strip_values phi;
    load_strip(raw, strip, block.at);
    if (!kept) {
        map_loaded<T>(phi, raw);
        pack_strip<T>(raw, phi);
    }
    const strip_dots one = block.exist(tile, block.a.kv_len);
    const strip_dots o = dot_first(raw, flow);
    const float low = one.low * __expf(fminf(fmaxf(o.low, -clamp), clamp));
    const float high = one.high * __expf(fminf(fmaxf(o.high, -clamp), clamp));
    z += low + high;
    if (kept) {
        scale_pairs<T>(raw, low, high);
    } else {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                phi[n][i] *= i < 2 ? low : high;
        pack_strip<T>(raw, phi);
    }
    __syncwarp();
    store_strip(strip, raw, block.at);
}

/* Z and G of the block's tokens: G in the places of the first keys, by warpgroup. */
template <typename T> __device__ inline void sum_product(pair_block &block)
{
    const pair_arguments &a = block.a;
    pair_shared &own = block.own;
    const vector_pair<T> flow(own.flow[1], own.flow[1]);
    const uint32_t group = (uint32_t)(block.warp % 4 * 16 * kRowBytes); /* before the warp's rows */
    float z = 0.0F, sum[8][4] = {};
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        const bool kept = tile < a.kept[PAIR_K];
        const ring_strip keys = kept ? ring_strip{block.strip_of(tile), 0} : block.take();
        weigh_keys(block, keys.address, kept, tile, flow, z);
        const ring_strip values = block.take();
        add_group_product<T>(sum, keys.address - group, values.address - group);
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
    saved[threadIdx.x] = own.total[side][threadIdx.x % kDim];
    saved[2 * kDim + threadIdx.x] = own.flow[side][threadIdx.x % kDim];
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
template <typename T> __device__ inline void write_sinks(pair_block &block, int problem)
{
    const pair_arguments &a = block.a;
    pair_shared &own = block.own;
    const float ratio = (float)((double)a.q_len / (double)a.kv_len);
    const range_factors<T, kStateBits> range((float)a.kv_len);
    const vector_pair<T> vectors(own.total[0], own.flow[0]);
    const uint64_t matrix = wgmma_tile(shared_address(own.matrix));
    const int h = problem % a.heads, b = problem / a.heads;
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
        strip_dots dots[2];
        dot_pairs(dots, operand, vectors);
        multiply_rows<T>(
            operand, matrix,
            {sigmoid_of<T>(dots[1].low * ratio) * reciprocal(dots[0].low) * range.back,
             sigmoid_of<T>(dots[1].high * ratio) * reciprocal(dots[0].high) * range.back});
        const uint32_t strip = block.strip_of(tile % 2);
        await_put_rows<1>();
        __syncwarp();
        store_strip(strip, operand, block.at);
        publish_shared();
        __syncwarp();
        if (is_elected())
            put_rows(&a.out, block.first + tile * kSlotTokens, h, b, strip);
        __syncwarp();
    }
    await_put_rows<0>();
}

#endif

} // namespace

#endif
