/*
 * Performer in bf16 or f16 (T) with heads of 64, 256 features and a mask, on Hopper: as in
 * performer_cuda_fused.cuh features are formed by warpgroups wherever they are needed. Tokens come
 * in chunks of 192, a warpgroup having 64 of them. With E = sum of e_j v_j^T over the keys before a
 * query's chunk, T = sum of fq_i dout_i^T / y_i over the queries behind a key's, both without and
 * with epsilon's part, and the chunk's own tokens one by one:
 *
 *   sums    of every chunk, at its own maxima (performer_cuda_fused_sums.cu): its mark
 *   marks   become, in their places, the sums of what lies before or behind, at the head's maximum
 *   rows    fq or fk of a tile stays in registers, features of the other side lie in shared memory:
 *             out  fq E + tril(fq fk^T) v, over y
 *             dv   fk T + triu(fk fq^T / y) dout
 *   slopes  of features, panel by panel, the chunk's part of them by A = dout v^T - w:
 *             dq   du = e (dout E^T - w zE + tril(A) e_k + c) / y, dq = du s
 *             dk   du = e (v T^T - zT + triu(A^T) fq / y), dk = du s
 *
 * f16: E and T have factors of their own, which are undone before the chunk's part is added. The
 * features of a query are brought to a known sum, features over y are multiplied by the number of
 * keys that the chunk's first query sees.
 */
#ifndef FB_PERFORMER_CUDA_CAUSAL_CUH
#define FB_PERFORMER_CUDA_CAUSAL_CUH

#include "performer_cuda_fused.cuh"

constexpr int kCausalPanels = kFusedFeaturesMost / kPanel;
constexpr int kChunkGroups = kChunk / kPanel;
constexpr int kChunkThreads = kChunkGroups * kGroupThreads;

/* performer_cuda_causal_marks.cu */
enum fb_status causal_cuda_marks(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                 cudaStream_t stream, struct fb_error *error);
/* performer_cuda_causal_rows.cu: out, or dv */
enum fb_status causal_cuda_rows(enum fb_dtype dtype, const fused_arguments &a, bool back,
                                cudaStream_t stream, struct fb_error *error);
/* performer_cuda_causal_slopes.cu: dq, or dk */
enum fb_status causal_cuda_slopes(enum fb_dtype dtype, const fused_arguments &a, bool back,
                                  cudaStream_t stream, struct fb_error *error);

__host__ __device__ inline int causal_chunks(int len)
{
    return (len + kChunk - 1) / kChunk;
}

/* Blocks go through the chunks of all heads of queries, back: of keys. */
template <bool Back>
enum fb_status launch_chunks(const char *name, void (*kernel)(fused_arguments, int64_t, int),
                             size_t shared_bytes, const fused_arguments &a, cudaStream_t stream,
                             struct fb_error *error)
{
    const int chunks = causal_chunks(Back ? a.kv_len : a.q_len);
    const int64_t count = (int64_t)a.batch * (Back ? a.kv_heads : a.heads) * chunks;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, shared_bytes, name, error);
    if (status != FB_OK)
        return status;
    const unsigned blocks = count < kFusedBlocks ? (unsigned)count : kFusedBlocks;
    kernel<<<blocks, kChunkThreads, shared_bytes, stream>>>(a, count, chunks);
    return fb_cuda_launched(name, error);
}

/* Barriers of a block: of the mark, of the tiles that each warpgroup makes. */
enum chunk_barrier {
    MARK_FULL,
    MARK_FREE,
    TILE_FULL,
    TILE_FREE = TILE_FULL + kChunkGroups,
    BARRIER_COUNT = TILE_FREE + kChunkGroups
};
constexpr size_t kBarrierBytes = BARRIER_COUNT * sizeof(uint64_t);

#if FB_HAVE_WGMMA

/* ---- rows as left operands from registers ---------------------------------------------------- */

/* Two numbers of a row that need not start on 16 bytes. */
template <typename T> __device__ uint32_t load_pair(const panel_rows<T> &from, int row, int col)
{
    if (row >= from.valid)
        return 0;
    const unsigned short *at = reinterpret_cast<const unsigned short *>(from.at(row, col));
    const uint32_t low = at[0], high = at[1];
    return low | high << 16;
}

/* The warpgroup's 64 rows from `first`, 64 columns: 16 loads on their way together. */
template <typename T>
__device__ void load_operand(uint32_t (&x)[4][4], const panel_rows<T> &from, int first)
{
    const int row = first + strip_of_thread() + (int)threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if (!from.whole) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            x[i / 4][i % 4] =
                load_pair(from, row + i % 2 * 8, 16 * (i / 4) + i % 4 / 2 * 8 + 2 * t);
        return;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool exists = row + 8 * half < from.valid;
        const T *at = from.at(exists ? row + 8 * half : 0, 2 * t);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t pair = 0;
            if (exists)
                pair = *reinterpret_cast<const uint32_t *>(at + 8 * i);
            x[i / 2][half + i % 2 * 2] = pair;
        }
    }
}

/* The warpgroup's rows to the L2 cache. */
template <typename T> __device__ void prefetch_rows(const panel_rows<T> &from, int first)
{
    const int row = first + (int)threadIdx.x % kPanel;
    if (row < from.valid)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from.at(row, 0)));
}

/* What is subtracted from exponents for the norms of the thread's two rows. */
template <typename T>
__device__ void bases_of_operand(const fused_arguments &a, const uint32_t (&x)[4][4],
                                 float (&base)[2])
{
    float squares[2] = {};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const float low = low_of<T>(x[i / 4][i % 4]), high = high_of<T>(x[i / 4][i % 4]);
        squares[i % 2] = fmaf(low, low, fmaf(high, high, squares[i % 2]));
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
        base[half] = base_of_squares(a, sum_of_four(squares[half]));
}

/* The strip of a left operand as rows of a tile; another warp's rows lie elsewhere. */
__device__ inline void put_strip_of(char *tile, const uint32_t (&x)[4][4])
{
    const lane_places at;
    const uint32_t strip = shared_address(tile) + (uint32_t)(strip_of_thread() * kRowBytes);
#pragma unroll
    for (int step = 0; step < 4; step++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         strip + (at.straight ^ (uint32_t)(step << 5))),
                     "r"(x[step][0]), "r"(x[step][1]), "r"(x[step][2]), "r"(x[step][3])
                     : "memory");
}

/* And back. */
__device__ inline void load_strip_of(uint32_t (&x)[4][4], const char *tile)
{
    const lane_places at;
#pragma unroll
    for (int step = 0; step < 4; step++)
        load_a(x[step], shared_address(tile) + (uint32_t)(strip_of_thread() * kRowBytes), at, step);
}

/* c[64][64] = a[64][16] b[64][16]^T, a in registers, added to c unless `fresh`. */
template <typename T>
__device__ void multiply_of_rows(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b, bool fresh)
{
    if constexpr (kNarrow<T>)
        asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %37, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
                     "%31}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                     : FB_WGMMA_C4(0), FB_WGMMA_C4(4)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)fresh));
    else
        wgmma_turned(c, a, b, fresh);
}

/* c = x b^T for 64 columns of depth, x from registers; not begun, not committed. */
template <typename T>
__device__ void product_of_rows(float (&c)[8][4], const uint32_t (&x)[4][4], uint64_t b, bool fresh)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        multiply_of_rows<T>(c, x[step], b + 2 * step, fresh && step == 0);
}

/* u of rows for a panel of features, whose high halves are given. */
template <typename T>
__device__ void project_rows(float (&u)[8][4], uint32_t (&x)[4][4], uint64_t high)
{
    wgmma_hold(u);
    hold_operand(x);
    wgmma_begin();
    product_of_rows<T>(u, x, high, true);
    product_of_rows<T>(u, x, high + kCausalPanels * kTileUnits, false);
    finish_product(u);
    hold_operand(x);
}

/* ---- barriers and copies --------------------------------------------------------------------- */

/* Bytes of global memory into shared memory; the barrier's round ends with them. One thread. */
__device__ inline void copy_bytes_async(char *to, const char *from, int bytes, uint32_t barrier)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_address(to)),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

/* ---- chunks -----------------------------------------------------------------------------------
 */

/* A block's shared memory, which ends with its barriers: these lie `Barriers` bytes behind its
 * start, the mark before them. */
template <typename T, int Barriers> struct chunk_block {
    char *shared;
    uint64_t tiles; /* of its first tile */
    __device__ explicit chunk_block(char *dynamic)
        : shared(dynamic + (1024 - shared_address(dynamic) % 1024) % 1024),
          tiles(wgmma_tile(shared_address(shared)))
    {
    }
    __device__ uint32_t barrier(int name) const
    {
        return shared_address(shared + Barriers) + (uint32_t)(name * sizeof(uint64_t));
    }
    __device__ uint64_t tile(int at) const
    {
        return tiles + (uint64_t)(at / 16);
    }
    __device__ char *mark() const
    {
        return shared + Barriers - kMarkBytes<T>;
    }
    /* What undoes the factor of the mark's state; f16. */
    __device__ float mark_back() const
    {
        return kNarrow<T> ? reinterpret_cast<const float *>(mark() + kMarkStateBytes)[kMarkNumbers]
                          : 1.0F;
    }
};

/* A chunk of a head; back: of keys. */
template <typename T, bool Back> struct chunk_work {
    fused_unit unit;
    int chunk, first; /* the warpgroup's first token */
    __device__ chunk_work(const fused_arguments &a, int64_t number, int chunks)
        : unit(a, number / chunks, !Back), chunk((int)(number % chunks)),
          first(chunk * kChunk + group_of_thread() * kPanel)
    {
    }
    __device__ panel_rows<T> own(const fused_arguments &a) const
    {
        return panel_rows<T>(Back ? a.k : a.q, unit.b, unit.h, Back ? unit.kv_valid : unit.q_valid);
    }
    __device__ int64_t other_head(const fused_arguments &a, int member) const
    {
        return Back ? unit.h * a.group + member : unit.kv_h;
    }
    __device__ panel_rows<T> other(const fused_arguments &a, int member) const
    {
        return panel_rows<T>(Back ? a.q : a.k, unit.b, other_head(a, member),
                             Back ? unit.q_valid : unit.kv_valid);
    }
    __device__ panel_rows<T> values(const fused_arguments &a, int member) const
    {
        return panel_rows<T>(Back ? a.dout : a.v, unit.b, other_head(a, member),
                             Back ? unit.q_valid : unit.kv_valid);
    }
    __device__ panel_rows<T> own_values(const fused_arguments &a) const
    {
        return panel_rows<T>(Back ? a.v : a.dout, unit.b, unit.h,
                             Back ? unit.kv_valid : unit.q_valid);
    }
    __device__ int64_t key_unit(const fused_arguments &a) const
    {
        return unit.b * a.kv_heads + unit.kv_h;
    }
    __device__ const char *mark(const fused_arguments &a) const
    {
        const int64_t unit_of_marks = key_unit(a) * (Back ? a.group : 1);
        return (Back ? a.query_marks : a.key_marks) +
               (unit_of_marks * a.chunks + chunk) * kMarkBytes<T>;
    }
    __device__ query_range<T> range() const
    {
        return range_of<T>(unit, chunk * kChunk + 1);
    }
};

template <bool Back, typename Block> __device__ void start_barriers(const Block &place)
{
    if (threadIdx.x != 0)
        return;
    barrier_init(place.barrier(MARK_FULL), 1);
    barrier_init(place.barrier(MARK_FREE), kChunkThreads);
    for (int group = 0; group < kChunkGroups; group++) {
        barrier_init(place.barrier(TILE_FULL + group), kGroupThreads);
        barrier_init(place.barrier(TILE_FREE + group),
                     (Back ? group + 1 : kChunkGroups - group) * kGroupThreads);
    }
}

/* The next chunk's mark, by one thread of the warpgroup that has least to do. */
template <typename T, bool Back, typename Block>
__device__ void start_mark(const fused_arguments &a, const Block &place, int64_t number, int chunks)
{
    const chunk_work<T, Back> work(a, number, chunks);
    copy_bytes_async(place.mark(), work.mark(a), kMarkBytes<T>, place.barrier(MARK_FULL));
}

/* What a chunk's warpgroup reads first, to the L2 cache; its own values as well or not. */
template <typename T, bool Back, bool OwnValues>
__device__ void prefetch_chunk(const fused_arguments &a, int64_t number, int chunks)
{
    const chunk_work<T, Back> work(a, number, chunks);
    if (threadIdx.x % kGroupThreads < kPanel) {
        prefetch_rows(work.own(a), work.first);
        if constexpr (OwnValues)
            prefetch_rows(work.own_values(a), work.first);
    } else {
        prefetch_rows(work.other(a, 0), work.first);
        prefetch_rows(work.values(a, 0), work.first);
    }
}

/* Numbers of a row of keys: what is subtracted from exponents, infinite where no key is, less
 * `bits`, and what is added to powers. */
template <typename T>
__device__ void key_numbers(const uint32_t (&x)[4][4], const fused_arguments &a, float top,
                            float bits, int first, int valid, float (&base)[2], float (&share)[2])
{
    bases_of_operand<T>(a, x, base);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
        base[half] = row < valid ? base[half] + top - bits : INFINITY;
        share[half] = row < valid ? kFeatureEpsilon : 0.0F;
    }
}

/* Likewise; share: epsilon over the denominator. */
template <typename T>
__device__ void query_numbers(const fused_arguments &a, int64_t head, const query_range<T> &range,
                              int first, int valid, float (&base)[2], float (&share)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
        base[half] = row < valid ? a.query_base[head * a.q_len + row] - range.bits : INFINITY;
        share[half] = row < valid ? a.query_share[head * a.q_len + row] * range.into : 0.0F;
    }
}

/* ---- results --------------------------------------------------------------------------------- */

/* A row's part of a thread: eight pairs of columns, eight apart. */
template <typename T>
__device__ void store_row(const panel_rows<T> &to, int row, const uint32_t (&pairs)[8])
{
    T *at = to.at(row, 2 * (threadIdx.x % 4));
    if (to.whole) {
#pragma unroll
        for (int n = 0; n < 8; n++)
            *reinterpret_cast<uint32_t *>(at + 8 * n) = pairs[n];
        return;
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
        reinterpret_cast<unsigned short *>(at)[8 * n] = (unsigned short)pairs[n];
        reinterpret_cast<unsigned short *>(at)[8 * n + 1] = (unsigned short)(pairs[n] >> 16);
    }
}

/* A result times a factor of each row to the rows that exist of `count`, of which those before
 * `valid` count. */
template <typename T>
__device__ void write_result(const panel_rows<T> &to, int first, int count, int valid,
                             const float (&c)[8][4], const float (&factors)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
        uint32_t pairs[8];
        if (row >= count)
            continue;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const uint32_t pair =
                pack_pair<T>(c[n][2 * half] * factors[half], c[n][2 * half + 1] * factors[half]);
            pairs[n] = row < valid ? pair : 0;
        }
        store_row(to, row, pairs);
    }
}

#endif
#endif
