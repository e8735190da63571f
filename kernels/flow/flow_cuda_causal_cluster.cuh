/*
 * The passes of causal Flow-Attention over tiles in shared memory: bf16 and f16, head dimension 64,
 * Hopper.
 * flow_cuda_causal_cluster.cu makes a kernel of them and tells the algorithm,
 * flow_cuda_causal_exchange.cuh what the blocks of a cluster tell one another.
 *
 * A warp owns 32 tokens, whose rows of q, k and v only it writes; two warps with the same place
 * among four make a chunk of 64, before which the state M is known. Side 0 is the keys, side 1 the
 * queries.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_CLUSTER_CUH
#define FB_FLOW_CUDA_CAUSAL_CLUSTER_CUH

#include "flow_cuda_causal_exchange.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* ---- rows ------------------------------------------------------------------------------------ */

/* Where a lane finds its chunk of every fourth of the warp's rows. */
struct row_places {
    uint32_t even, odd;
    __device__ row_places(uint32_t rows, const warp_place &w)
        : even(rows + chunk_offset(w.lane / 8, w.lane % 8)), odd(even ^ 64)
    {
    }
    __device__ uint32_t of(int i) const
    {
        return (i % 2 == 0 ? even : odd) + (uint32_t)(4 * i * kRowBytes);
    }
};

constexpr int kVisits = kOwn / 4;

__device__ uint4 load_chunk(uint32_t at)
{
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(at)
                 : "memory");
    return x;
}

__device__ void store_chunk(uint32_t at, uint4 x)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x.x), "r"(x.y), "r"(x.z),
                 "r"(x.w)
                 : "memory");
}

__device__ void store_word(uint32_t at, uint32_t x)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
}

/* The warp's rows of a head on their way into a tile; rows beyond the valid ones become zero. */
__device__ void fetch_rows(uint32_t rows, const tensor_view &view, int64_t b, int64_t h,
                           const segment_place &at, const warp_place &w)
{
    const int row = w.first + w.lane / 8;
    const row_places to(rows, w);
    const head_rows<uint16_t> x = rows_of<uint16_t>(view, b, h, at.start + row);
    const uint16_t *from = x.data + w.lane % 8 * 8;
    if (at.valid == kTokens) {
#pragma unroll
        for (int i = 0; i < kVisits; i++, from += 4 * x.stride)
            copy_chunk_async(to.of(i), from, true);
    } else {
#pragma unroll 1
        for (int i = 0; i < kVisits; i++, from += 4 * x.stride) {
            /* rows beyond the end are not read: the address is that of the tensor */
            const bool there = row + 4 * i < at.valid;
            copy_chunk_async(to.of(i), there ? from : static_cast<uint16_t *>(view.data), there);
        }
    }
    commit_copies();
}

/* Eight numbers of a row become their sigmoids. */
template <typename T, bool Fast> __device__ void map_chunk(uint4 &x)
{
    float y[4], z[4];
    if constexpr (Fast) {
        map_pairs_fast(y, x.x, x.y);
        map_pairs_fast(z, x.z, x.w);
    } else {
        map_pairs<T>(y, x.x, x.y);
        map_pairs<T>(z, x.z, x.w);
    }
    x = make_uint4(pack_pair<T>(y[0], y[1]), pack_pair<T>(y[2], y[3]), pack_pair<T>(z[0], z[1]),
                   pack_pair<T>(z[2], z[3]));
}

/* phi of the warp's rows in place, zero beyond those that are left. */
template <typename T> __device__ void map_rows(uint32_t rows, int left, const warp_place &w)
{
    const row_places at(rows, w);
    if constexpr (kNarrow<T>) {
#pragma unroll
        for (int i = 0; i < kVisits; i++) {
            uint4 x = load_chunk(at.of(i));
            map_chunk<T, false>(x);
            store_chunk(at.of(i), x);
        }
    } else {
        uint4 x[kVisits];
        bool faint = false;
#pragma unroll
        for (int i = 0; i < kVisits; i++) {
            x[i] = load_chunk(at.of(i));
            largest_pair largest;
            largest.see(x[i].x, x[i].y);
            largest.see(x[i].z, x[i].w);
            faint = faint || largest.is_faint();
        }
        if (__any_sync(0xffffffffU, faint) == 0) {
#pragma unroll
            for (int i = 0; i < kVisits; i++) {
                map_chunk<T, true>(x[i]);
                store_chunk(at.of(i), x[i]);
            }
        } else {
#pragma unroll 1
            for (int i = 0; i < kVisits; i++) {
                uint4 y = load_chunk(at.of(i));
                map_chunk<T, false>(y);
                store_chunk(at.of(i), y);
            }
        }
    }
    if (left < kOwn)
#pragma unroll 1
        for (int i = 0; i < kVisits; i++)
            if (4 * i + w.lane / 8 >= left)
                store_chunk(at.of(i), make_uint4(0, 0, 0, 0));
    __syncwarp();
}

/* p v of the warp's rows in place, their columns in another order, which everything after keeps:
 * column 32 c + 8 t + 2 i + j stands where 32 c + 8 i + 2 t + j belongs. A lane's results of four
 * blocks are then eight neighbours of the row. */
template <typename T>
__device__ void scale_values(uint32_t rows, const split_pair *share, const warp_place &w)
{
    const row_places from(rows, w);
    uint32_t to[4]; /* of the first visit */
#pragma unroll
    for (int j = 0; j < 4; j++)
        to[j] =
            rows + chunk_offset(w.lane / 8, w.lane / 4 % 2 * 4 + j) + (uint32_t)(w.lane % 4 * 4);
#pragma unroll
    for (int i = 0; i < kVisits; i++) {
        const uint4 x = load_chunk(from.of(i));
        const uint32_t four[4] = {x.x, x.y, x.z, x.w};
        const split_pair p = share[4 * i + w.lane / 8];
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 4; j++)
            store_word((i % 2 == 0 ? to[j] : to[j] ^ 64) + (uint32_t)(4 * i * kRowBytes),
                       pairs<T>::product_plus(p.high, four[j], pairs<T>::product(p.low, four[j])));
    }
}

/* ---- sums over the triangle ------------------------------------------------------------------ */

/* The lower triangle of x y^T of the warp's tokens, zero beyond the diagonal: of its two strips the
 * blocks of eight columns. */
struct own_triangle {
    float first[2][4], second[4][4];
};

__device__ void cut_diagonal(float (&low)[4], float (&high)[4], const warp_place &w)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int row = w.g + j / 2 * 8, col = 2 * w.t + j % 2;
        low[j] = col > row ? 0.0F : low[j];
        high[j] = col + 8 > row ? 0.0F : high[j];
    }
}

/* Two blocks of columns, from the other strip's fragments as operand a: its rows are the columns.
 */
template <typename T>
__device__ void multiply_turned(float (&low)[4], float (&high)[4], const uint32_t (&a)[4],
                                const uint32_t (&other)[4])
{
    multiply<T>(low, a, other[0], other[2]);
    multiply<T>(high, a, other[1], other[3]);
}

/* Of keys times queries and of queries times keys. */
template <typename T>
__device__ void form_triangles(own_triangle (&c)[2], const uint32_t (&rows)[2], const warp_place &w)
{
#pragma unroll
    for (int side = 0; side < 2; side++)
        c[side] = own_triangle{};
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t x[2][2][4]; /* side, strip */
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_a(x[i / 2][i % 2], rows[i / 2] + i % 2 * 16 * kRowBytes, w.at, step);
#pragma unroll
        for (int side = 0; side < 2; side++) {
            multiply_turned<T>(c[side].first[0], c[side].first[1], x[side][0], x[1 - side][0]);
            multiply_turned<T>(c[side].second[0], c[side].second[1], x[side][1], x[1 - side][0]);
            multiply_turned<T>(c[side].second[2], c[side].second[3], x[side][1], x[1 - side][1]);
        }
    }
#pragma unroll
    for (int side = 0; side < 2; side++) {
        cut_diagonal(c[side].first[0], c[side].first[1], w);
        cut_diagonal(c[side].second[2], c[side].second[3], w);
    }
}

template <int Blocks>
__device__ strip_dots weigh_blocks(const float (&c)[Blocks][4], const float *weight,
                                   const warp_place &w)
{
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < Blocks; n++) {
        float2 x = {1.0F, 1.0F};
        if (weight != nullptr)
            x = *reinterpret_cast<const float2 *>(weight + 8 * n + 2 * w.t);
        sum.low = fmaf(c[n][0], x.x, fmaf(c[n][1], x.y, sum.low));
        sum.high = fmaf(c[n][2], x.x, fmaf(c[n][3], x.y, sum.high));
    }
    return sum;
}

/* The lane's part of the triangle's rows, its columns weighted (NULL: 1). */
__device__ void weigh_triangle(strip_dots (&sums)[2], const own_triangle &c, const float *weight,
                               const warp_place &w)
{
    sums[0] = weigh_blocks(c.first, weight, w);
    sums[1] = weigh_blocks(c.second, weight, w);
}

/* Of four numbers in each lane of a quad, the sum over the quad of the number of the lane. */
__device__ float sum_own(const strip_dots (&x)[2], const warp_place &w)
{
    const bool second = (w.t & 2) != 0, odd = (w.t & 1) != 0;
    float low = second ? x[1].low : x[0].low, high = second ? x[1].high : x[0].high;
    low += __shfl_xor_sync(0xffffffffU, second ? x[0].low : x[1].low, 2);
    high += __shfl_xor_sync(0xffffffffU, second ? x[0].high : x[1].high, 2);
    return (odd ? high : low) + __shfl_xor_sync(0xffffffffU, odd ? low : high, 1);
}

/* A lane's two numbers of a product that has two halves as columns, or one in both. */
template <bool Halves> __device__ float of_columns(float even, float odd)
{
    return Halves ? even + odd : even;
}

/* Of row 8 t + g of the warp: the quad's parts of its sum over the triangle, and (row + eps) times
 * the vector that stands as operand b, its halves, or what is left of it, in turn; undo: takes back
 * what that has with it (f16). */
template <typename T, bool Halves>
__device__ float add_dots(const strip_dots (&parts)[2], uint32_t rows, const causal_shared *own,
                          int side, float undo, const warp_place &w)
{
    constexpr uint32_t one = pairs<T>::ones;
    const uint32_t ones[4] = {one, one, one, one};
    const uint4 *before = own->before[w.order][side];
    if (Halves && w.g % 2 != 0)
        before = own->spent[w.order].rest[side];
    const uint4 x = before[2 * w.t], y = before[2 * w.t + 1];
    const uint32_t b[4][2] = {{x.x, x.y}, {x.z, x.w}, {y.x, y.y}, {y.z, y.w}};
    float dots[2][4] = {}, sum[4] = {};
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int strip = 0; strip < 2; strip++) {
            uint32_t a[4];
            load_a(a, rows + strip * 16 * kRowBytes, w.at, step);
            multiply<T>(dots[strip], a, b[step][0], b[step][1]);
        }
        multiply<T>(sum, ones, b[step][0], b[step][1]);
    }
    const bool second = (w.t & 2) != 0, odd = (w.t & 1) != 0;
    const float low = second ? of_columns<Halves>(dots[1][0], dots[1][1])
                             : of_columns<Halves>(dots[0][0], dots[0][1]),
                high = second ? of_columns<Halves>(dots[1][2], dots[1][3])
                              : of_columns<Halves>(dots[0][2], dots[0][3]),
                all = of_columns<Halves>(sum[0], sum[1]);
    if constexpr (kNarrow<T>)
        return fmaf(undo, fmaf(kEps, all, odd ? high : low), sum_own(parts, w));
    else
        return sum_own(parts, w) + fmaf(kEps, all, odd ? high : low);
}

/* The sum over the columns of row 8 t + g of the warp. */
template <typename T> __device__ float sum_columns(uint32_t rows, const warp_place &w)
{
    constexpr uint32_t one = pairs<T>::ones;
    float sum[2][4] = {};
#pragma unroll 1
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int strip = 0; strip < 2; strip++) {
            uint32_t a[4];
            load_a(a, rows + strip * 16 * kRowBytes, w.at, step);
            multiply<T>(sum[strip], a, one, one);
        }
    const bool second = (w.t & 2) != 0, odd = (w.t & 1) != 0;
    return second ? (odd ? sum[1][2] : sum[1][0]) : (odd ? sum[0][2] : sum[0][0]);
}

/* What eps adds to a flow of row 8 t + g of each lane among the warp's tokens: eps times the sums
 * of the other side's rows up to that one, weighted. A call, for it is rarely taken. */
template <typename T> __device__ __noinline__ float lift_up_to(uint32_t rows, float weight)
{
    const warp_place w;
    float sum = sum_columns<T>(rows, w) * weight;
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
        const float before = __shfl_up_sync(0xffffffffU, sum, step);
        sum += w.lane >= step ? before : 0.0F;
    }
    const float eight = __shfl_sync(0xffffffffU, sum, 28 + w.t);
#pragma unroll
    for (int step = 1; step < 4; step++) {
        const float before = __shfl_up_sync(0xffffffffU, eight, step);
        sum += w.t >= step ? before : 0.0F;
    }
    return kEps * sum;
}

/* The sum of the warp's rows, weighted by b of its two strips, into the parts; b is 2^Exponent of
 * the weights, or has their halves as columns in turn. */
template <typename T, int Exponent, bool Halves>
__device__ void sum_rows(float *part, uint32_t rows, const uint32_t (&b)[2][2], const warp_place &w)
{
    float sum[4][4] = {};
#pragma unroll
    for (int strip = 0; strip < 2; strip++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t a[4];
            load_a_turned(a, rows + strip * 16 * kRowBytes, w.at, block);
            multiply<T>(sum[block], a, b[strip][0], b[strip][1]);
        }
    if (w.t == 0)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            constexpr float undo = power<-Exponent>();
            const float low = of_columns<Halves>(sum[block][0], sum[block][1]),
                        high = of_columns<Halves>(sum[block][2], sum[block][3]);
            part[16 * block + w.g] = Exponent == 0 ? low : undo * low;
            part[16 * block + w.g + 8] = Exponent == 0 ? high : undo * high;
        }
}

/* Of the warp's rows: all of equal weight. */
template <typename T> __device__ void sum_plain(float *part, uint32_t rows, const warp_place &w)
{
    constexpr uint32_t one = pairs<T>::ones;
    const uint32_t ones[2][2] = {{one, one}, {one, one}};
    sum_rows<T, 0, false>(part, rows, ones, w);
}

/* What is saved of flows needs their halves: rounded once they are off by the same part in all
 * columns. */
template <typename T, bool Halves>
__device__ void sum_flows(float *part, uint32_t rows, const float *flow, const warp_place &w)
{
    uint32_t b[2][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 x = *reinterpret_cast<const float2 *>(flow + 8 * i + 2 * w.t);
        constexpr float scale = kNarrow<T> ? power<kFlowExponent>() : 1.0F;
        x = make_float2(scale * x.x, scale * x.y);
        uint32_t pair = pack_bounded<T>(x.x, x.y);
        if constexpr (Halves) {
            const uint32_t rest = pack_bounded<T>(x.x - low_of<T>(pair), x.y - high_of<T>(pair));
            pair = w.g % 2 == 0 ? pair : rest;
        }
        b[i / 2][i % 2] = pair;
    }
    sum_rows<T, kNarrow<T> ? kFlowExponent : 0, Halves>(part, rows, b, w);
}

/* E, of a row of the keys. */
__device__ float weight_of(float conserved, float clamp)
{
    return __expf(fminf(fmaxf(conserved, -clamp), clamp));
}

/* ---- products -------------------------------------------------------------------------------- */

/* By the four warps of a half; keys and values have been published. */
template <typename T>
__device__ void multiply_chunks(chunk_products &sum, uint32_t keys, uint32_t values,
                                const warp_place &w)
{
    const uint64_t a = wgmma_tile(keys), b = wgmma_tile(values + (uint32_t)(w.half * 64));
    constexpr int step = 16 * kRowBytes / 16; /* of 16 rows, in units of the description */
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk++)
        wgmma_hold(sum[chunk]);
    wgmma_begin();
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk++)
#pragma unroll
        for (int i = 4 * chunk; i < 4 * chunk + 4; i++)
            wgmma_add_turned<T>(sum[chunk], a + (uint64_t)(i * step), b + (uint64_t)(i * step));
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk++)
        wgmma_hold(sum[chunk]);
}

/* Numbers of 16 rows as operand a, or half of them: block of eight columns, rows g and g + 8. */
template <typename T, int Blocks> struct packed_strip {
    uint32_t x[Blocks][2];
    /* scale: of f16, twice */
    __device__ void pack(const float (&c)[Blocks][4], uint32_t scale)
    {
#pragma unroll
        for (int n = 0; n < Blocks; n++) {
            x[n][0] = pack_pair<T>(c[n][0], c[n][1]);
            x[n][1] = pack_pair<T>(c[n][2], c[n][3]);
            if constexpr (kNarrow<T>) {
                x[n][0] = pairs<T>::product(x[n][0], scale);
                x[n][1] = pairs<T>::product(x[n][1], scale);
            }
        }
    }
    /* y += columns 16 step and on times the fragments of two blocks of columns. */
    __device__ void multiply_into(float (&low)[4], float (&high)[4], int step,
                                  const uint32_t (&b)[4]) const
    {
        const uint32_t a[4] = {x[2 * step][0], x[2 * step][1], x[2 * step + 1][0],
                               x[2 * step + 1][1]};
        multiply<T>(low, a, b[0], b[1]);
        multiply<T>(high, a, b[2], b[3]);
    }
};

/* q k^T of the warp's queries: with its own keys, and with those of the chunk's other half before
 * them. */
template <typename T> struct kept_scores {
    packed_strip<T, 2> first;
    packed_strip<T, 4> second, before[2];
};

template <typename T>
__device__ void form_before(kept_scores<T> &kept, uint32_t queries, uint32_t keys, uint32_t scale,
                            const warp_place &w)
{
    float c[2][4][4] = {};
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[2][4], b[2][4];
#pragma unroll
        for (int strip = 0; strip < 2; strip++) {
            load_a(a[strip], queries + strip * 16 * kRowBytes, w.at, step);
            load_b_turned(b[strip], keys + strip * 16 * kRowBytes, w.at, step);
        }
#pragma unroll
        for (int strip = 0; strip < 2; strip++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply<T>(c[strip][n], a[strip], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
    kept.before[0].pack(c[0], scale);
    kept.before[1].pack(c[1], scale);
}

/* ---- out ------------------------------------------------------------------------------------- */

/* Two strips of the warp's queries times its chunk's state, and its scores times p v. */
template <typename T>
__device__ void form_rows(float (&y)[2][8][4], const kept_scores<T> &kept, uint32_t queries,
                          uint32_t state, uint32_t values, const warp_place &w)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[2][4];
        load_a(a[0], queries, w.at, step);
        load_a(a[1], queries + 16 * kRowBytes, w.at, step);
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, state + step * 16 * kRowBytes, w.at, block);
#pragma unroll
            for (int strip = 0; strip < 2; strip++) {
                multiply<T>(y[strip][2 * block], a[strip], b[0], b[1]);
                multiply<T>(y[strip][2 * block + 1], a[strip], b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, values + step * 16 * kRowBytes, w.at, block);
            if (step == 0)
                kept.first.multiply_into(y[0][2 * block], y[0][2 * block + 1], 0, b);
            kept.second.multiply_into(y[1][2 * block], y[1][2 * block + 1], step, b);
        }
    if (w.half == 0)
        return;
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, values - (2 - step) * 16 * kRowBytes, w.at, block);
#pragma unroll
            for (int strip = 0; strip < 2; strip++)
                kept.before[strip].multiply_into(y[strip][2 * block], y[strip][2 * block + 1], step,
                                                 b);
        }
}

/* The warp's rows; the columns of y stand as scale_values has left those of v. */
template <typename T>
__device__ void write_rows(const float (&y)[2][8][4], const float *weight, const head_rows<T> &out,
                           int left, const warp_place &w)
{
    T *to = out.data + w.g * out.stride + 8 * w.t;
#pragma unroll
    for (int i = 0; i < 4; i++, to += 8 * out.stride) {
        const int row = 8 * i + w.g, first = i % 2 * 2;
        const float r = weight[row];
        if (row < left)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                uint32_t four[4];
#pragma unroll
                for (int n = 0; n < 4; n++)
                    four[n] = pack_pair<T>(y[i / 2][4 * c + n][first] * r,
                                           y[i / 2][4 * c + n][first + 1] * r);
                *reinterpret_cast<uint4 *>(to + 32 * c) =
                    make_uint4(four[0], four[1], four[2], four[3]);
            }
    }
}

#endif

} // namespace

#endif
