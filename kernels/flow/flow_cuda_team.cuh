/* The passes of Flow-Attention's normal form over a block's stretch of tokens, 16 tokens to a warp,
 * phi in f32 in registers: bf16 or f16, heads of 64. flow_cuda_team.cu tells the whole. */
#ifndef FB_FLOW_CUDA_TEAM_CUH
#define FB_FLOW_CUDA_TEAM_CUH

#include "flow_cuda_team_exchange.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* (x + eps) . (vector + eps) of every row, in all lanes; `constant` is eps_term of the vector. */
__device__ strip_dots dot_plus(const strip_values &x, const float *plus, float constant)
{
    const int t = threadIdx.x % 4;
    strip_dots even = {}, odd = {};
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 v = *reinterpret_cast<const float2 *>(plus + 8 * n + 2 * t);
        even.low = fmaf(x[n][0], v.x, even.low);
        odd.low = fmaf(x[n][1], v.y, odd.low);
        even.high = fmaf(x[n][2], v.x, even.high);
        odd.high = fmaf(x[n][3], v.y, odd.high);
    }
    const strip_dots sum = over_quad({even.low + odd.low, even.high + odd.high});
    return {sum.low + constant, sum.high + constant};
}

/* Sums of phi(q) over the tiles that come before the product, then of all tiles into the part. */
template <typename T> __device__ void sum_queries(team_block &block, int from, int to, float *parts)
{
    float sum[8][2] = {};
#pragma unroll 1
    for (int tile = from; tile < to; tile++) {
        strip_values phi;
        block.take_phi<T>(phi);
        add_rows(sum, phi, block.exist(tile, block.a.q_len));
    }
    const float all = join_columns(block.own, sum);
    if (threadIdx.x >= kDim)
        return;
    if (from == 0)
        block.own.early[threadIdx.x] = all;
    else
        parts[block.rank * kPartCount + kDim + threadIdx.x] = block.own.early[threadIdx.x] + all;
}

template <typename T> __device__ void sum_keys(team_block &block, float *parts)
{
    float sum[8][2] = {};
#pragma unroll 1
    for (int tile = 0; tile < block.a.tiles; tile++) {
        strip_values phi;
        block.take_new_keys<T>(phi, tile);
        add_rows(sum, phi, block.exist(tile, block.a.kv_len));
    }
    const float all = join_columns(block.own, sum);
    if (threadIdx.x < kDim)
        parts[block.rank * kPartCount + threadIdx.x] = all;
}

/* u = sum beta k, then w = sum alpha q */
template <typename T> __device__ void sum_flows(team_block &block, float *parts)
{
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        const int length = side == 0 ? block.a.kv_len : block.a.q_len;
        const float constant = eps_term(block.own.total.plain[1 - side]);
        float sum[8][2] = {};
#pragma unroll 1
        for (int tile = 0; tile < block.a.tiles; tile++) {
            strip_values phi;
            if (side == 0 && tile < block.a.kept)
                block.take_kept<T>(phi, tile);
            else
                block.take_phi<T>(phi);
            const strip_dots one = block.exist(tile, length);
            strip_dots weight = dot_plus(phi, block.own.total.plus[1 - side], constant);
            weight.low = one.low * reciprocal(weight.low);
            weight.high = one.high * reciprocal(weight.high);
            add_rows(sum, phi, weight);
        }
        const float all = join_columns(block.own, sum);
        if (threadIdx.x < kDim)
            parts[block.rank * kPartCount + side * kDim + threadIdx.x] = all;
    }
}

/* G += k^T (E v) over the warpgroup's strips of a tile: a warp computes 16 of the rows. */
template <typename T>
__device__ void multiply_tile(float (&sum)[8][4], const char *keys, const char *values,
                              const float *weight, const lane_places &at)
{
    const int warp = threadIdx.x / 32, t = threadIdx.x % 4, base = warp / 4 * 64;
    const uint32_t k = shared_address(keys) + base * kRowBytes;
    const uint64_t v = wgmma_tile(shared_address(values) + base * kRowBytes);
    uint32_t a[4][4];
#pragma unroll
    for (int strip = 0; strip < 4; strip++) {
        load_a_turned(a[strip], k + strip * 16 * kRowBytes, at, warp % 4);
        const float *w = weight + base + 16 * strip + 2 * t;
        const float2 low = *reinterpret_cast<const float2 *>(w);
        const float2 high = *reinterpret_cast<const float2 *>(w + 8);
        a[strip][0] = scale_two<T>(a[strip][0], low);
        a[strip][1] = scale_two<T>(a[strip][1], low);
        a[strip][2] = scale_two<T>(a[strip][2], high);
        a[strip][3] = scale_two<T>(a[strip][3], high);
    }
    wgmma_begin();
#pragma unroll
    for (int strip = 0; strip < 4; strip++)
        wgmma_add<T>(sum, a[strip], v + 128 * strip);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(sum);
}

/* The warpgroups' sums of G, joined by way of `buffer` (8 KB), as the block's part. */
__device__ void leave_product(float (&sum)[8][4], float *buffer, float *part)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int round = 0; round < 2; round++) {
        if (warp >= 4)
#pragma unroll
            for (int i = 0; i < 16; i++)
                buffer[128 * i + threadIdx.x - 128] = sum[4 * round + i / 4][i % 4];
        __syncthreads();
        if (warp < 4)
#pragma unroll
            for (int i = 0; i < 16; i++)
                sum[4 * round + i / 4][i % 4] += buffer[128 * i + threadIdx.x];
        __syncthreads();
    }
    if (warp < 4)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < 8; n++)
                *reinterpret_cast<float2 *>(part + (warp * 16 + g + 8 * half) * kDim + 8 * n +
                                            2 * t) =
                    make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
}

/* Z and G of the block's tokens as its part. */
template <typename T> __device__ void sum_product(team_block &block, float *part)
{
    const team_arguments &a = block.a;
    team_shared &own = block.own;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const float constant = eps_term(own.flow.plain[1]);
    float sum[8][4] = {};
    float z = 0.0F;
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        const bool kept = tile < a.kept;
        const int keys = kept ? tile : block.take();
        const uint32_t strip = shared_address(block.strip_of(keys));
        strip_values phi;
        uint32_t raw[4][4];
        load_strip(raw, strip, block.at);
        if (kept) {
            unpack_strip<T>(phi, raw);
        } else {
            map_loaded<T>(phi, raw);
            pack_strip<T>(raw, phi);
            __syncwarp();
            store_strip(strip, raw, block.at);
        }
        const strip_dots one = block.exist(tile, a.kv_len);
        const strip_dots o = dot_plus(phi, own.flow.plus[1], constant);
        const float low = one.low * __expf(fminf(fmaxf(o.low, -a.clamp), a.clamp));
        const float high = one.high * __expf(fminf(fmaxf(o.high, -a.clamp), a.clamp));
        z += low + high;
        if (t == 0) {
            own.weight[16 * warp + g] = low;
            own.weight[16 * warp + g + 8] = high;
        }
        const int values = block.take();
        publish_shared(); /* the values, to the tensor cores */
        sync_warpgroup();
        multiply_tile<T>(sum, block.ring + keys * kSlotBytes, block.ring + values * kSlotBytes,
                         own.weight, block.at);
        sync_warpgroup();
#pragma unroll 1
        for (int i = kept ? 1 : 0; i < 2; i++)
            block.fetch();
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
        z += __shfl_xor_sync(0xffffffffU, z, step);
    if (lane == 0)
        own.z[warp] = z;
    leave_product(sum, reinterpret_cast<float *>(own.matrix), part);
    if (threadIdx.x == 0) {
        z = 0.0F;
        for (int i = 0; i < kWarps; i++)
            z += own.z[i];
        part[kDim * kDim] = z;
    }
}

template <typename T> __device__ void write_sinks(team_block &block, int problem)
{
    const team_arguments &a = block.a;
    team_shared &own = block.own;
    const int lane = threadIdx.x % 32;
    const int64_t b = problem / a.heads, h = problem % a.heads;
    const float ratio = (float)((double)a.q_len / (double)a.kv_len);
    const range_factors<T, kStateBits> range((float)a.kv_len);
    const float total_term = eps_term(own.total.plain[0]), flow_term = eps_term(own.flow.plain[0]);
    const uint64_t matrix = wgmma_tile(shared_address(own.matrix));
#pragma unroll 1
    for (int tile = 0; tile < a.tiles; tile++) {
        char *strip = block.strip_of(block.take());
        uint32_t operand[4][4];
        load_strip(operand, shared_address(strip), block.at);
        strip_dots weight;
        {
            strip_values phi;
            map_loaded<T>(phi, operand);
            pack_strip<T>(operand, phi);
            const strip_dots alpha = dot_plus(phi, own.total.plus[0], total_term);
            const strip_dots c = dot_plus(phi, own.flow.plus[0], flow_term);
            weight.low = sigmoid_of<T>(c.low * ratio) * reciprocal(alpha.low) * range.back;
            weight.high = sigmoid_of<T>(c.high * ratio) * reciprocal(alpha.high) * range.back;
        }
        multiply_rows<T>(operand, matrix, weight);
        __syncwarp();
        store_strip(shared_address(strip), operand, block.at); /* so that whole rows are written */
        __syncwarp();
        const int row = block.first + tile * kSlotTokens + (int)threadIdx.x / 32 * 16 + lane / 8;
        const head_rows<__nv_bfloat16> out = rows_of<__nv_bfloat16>(a.out, b, h, row);
#pragma unroll
        for (int i = 0; i < 16; i += 4)
            if (row + i < a.q_len)
                __stcs(
                    reinterpret_cast<uint4 *>(out.data + i * out.stride + 8 * (lane % 8)),
                    *reinterpret_cast<const uint4 *>(strip + chunk_offset(lane / 8 + i, lane % 8)));
        __syncwarp();
        block.fetch();
    }
}

#endif

} // namespace

#endif
