/*
 * Softmax over a band of keys in f32, heads of 64, on Hopper: see window_cuda_split.cuh. Queries
 * stay in registers as left operands; of a tile of 64 keys and values one warpgroup brings the
 * keys, the other the values, turned, while both multiply the tile before. Weights go from results
 * to left operands in registers.
 */
#include "window_cuda_split.cuh"

namespace
{

/* Keys, what products leave out of them, values turned, and what is left out of those. */
constexpr int kStageBytes = 4 * kSplitBytes;
constexpr size_t kForwardBytes = 2 * (size_t)kStageBytes + 1024;

/* What few keys weigh that come first, sinks, would swallow those that come after, a tile at a
 * time: after so many tiles the sums are put away, and begin anew. */
constexpr int kStretch = 32;
constexpr int kFarSums = 34; /* of a thread: its outputs, and sums of weights of two rows */
constexpr size_t kFarBytes = kBlockThreads * (kFarSums * sizeof(careful_sum) + 2 * sizeof(float));

#if FB_HAVE_WGMMA

/* The block's source of tiles: the first warpgroup has the keys, the second the values. */
struct tile_source {
    panel_rows<float> rows;
    turned_column column;
    __device__ tile_source(const window_arguments &a, const query_block &place)
        : rows(panel_tensor{group_of_block() == 0 ? a.k : a.v, kPanel, true}, place.head.b,
               place.head.kv_h, place.range.to)
    {
    }
    __device__ void begin(char *stage, int at)
    {
        if (group_of_block() == 0)
            start_split(stage, rows, at, 0);
        else
            column.load(rows, at, 0);
        commit_copies();
    }
    __device__ void finish(char *stage)
    {
        if (group_of_block() == 0) {
            await_own_copies();
            split_panel(stage, stage + kSplitBytes);
        } else {
            column.store(stage + 2 * kSplitBytes, stage + 3 * kSplitBytes);
        }
        publish_shared();
    }
};

/* What the tile's scores make of its values; row: the strip's first, at: the tile's. */
__device__ void add_values(const window_arguments &a, strip_result &s, const char *stage, int row,
                           int at, int to, strip_result &out, row_state &rows)
{
    float factor[2];
    if (at + kPanel > to || at + kPanel - 1 > row + a.ahead || at < row + 15 - a.back)
        mask_scores(s, a, row, at, to);
    weigh_scores<float>(s, factor, rows, a.scale);
    strip_result part;
    product_of_result(part, s, stage + 2 * kSplitBytes, stage + 3 * kSplitBytes);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[n][i] = fmaf(out[n][i], factor[i / 2], part[n][i]);
}

/* Sums that have been put away, of the thread alone, with the peaks that they are relative to. */
struct far_sums {
    careful_sum *sums; /* [kFarSums][kBlockThreads] */
    float *peaks;      /* [2][kBlockThreads] */

    __device__ explicit far_sums(char *at)
        : sums(reinterpret_cast<careful_sum *>(at) + threadIdx.x),
          peaks(reinterpret_cast<float *>(at + kFarSums * kBlockThreads * sizeof(careful_sum)) +
                threadIdx.x)
    {
    }
    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < kFarSums; i++)
            sums[i * kBlockThreads] = {0.0F, 0.0F};
        peaks[0] = peaks[kBlockThreads] = -INFINITY;
    }
    /* x, which begins anew */
    __device__ void put(int i, float factor, float &x)
    {
        careful_sum sum = sums[i * kBlockThreads];
        sum.scale(factor);
        sum.add(x);
        sums[i * kBlockThreads] = sum;
        x = 0.0F;
    }
    __device__ void put_away(strip_result &out, row_state &rows)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float &before = peaks[half * kBlockThreads];
            const float now = rows.peak[half], base = now == -INFINITY ? 0.0F : now;
            const float factor = window_power(before - base);
            before = now;
            put(32 + half, factor, rows.sum[half]);
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    put(4 * n + 2 * half + i, factor, out[n][2 * half + i]);
        }
    }
    __device__ void bring_back(strip_result &out, row_state &rows) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++)
            rows.sum[half] = sums[(32 + half) * kBlockThreads].value;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[n][i] = sums[(4 * n + i) * kBlockThreads].value;
    }
};

#endif

/* grid (blocks of queries, heads); Long: sums are put away */
template <bool Long>
__global__ void __launch_bounds__(kBlockThreads, 1)
    split_kernel(const __grid_constant__ window_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    char *shared = align_panels(dynamic);
    const query_block place = query_block_of(a, kRowsOfBlock, kPanel);
    const int first = place.first + group_of_block() * kPanel; /* of the warpgroup's queries */
    const int strip = split_warp() * 16, row = first + strip;
    tile_source source(a, place);
    split_operand q;
    {
        char *panel = shared + kStageBytes + group_of_block() * kSplitBytes;
        start_split(panel,
                    panel_rows<float>(panel_tensor{a.q, kPanel, true}, place.head.b, place.head.h,
                                      place.head.q_len),
                    first, 0);
        source.begin(shared, place.range.from);
        await_own_copies();
        source.finish(shared);
        __syncthreads();
        q.load(panel);
    }
    strip_result out;
    clear(out);
    row_state rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    if (Long)
        far_sums(shared + 2 * kStageBytes).clear();
    for (int n = 0; n < place.count; n++) {
        const int at = place.range.from + n * kPanel;
        char *stage = shared + n % 2 * kStageBytes, *next = shared + (n + 1) % 2 * kStageBytes;
        __syncthreads(); /* the tile is there, and the place of the next is free */
        source.begin(next, at + kPanel);
        strip_result s;
        clear(s);
        q.hold();
        wgmma_hold(s);
        wgmma_begin();
        begin_split_steps(s, q, split_tile(stage), split_tile(stage + kSplitBytes));
        wgmma_commit();
        source.finish(next);
        wgmma_wait<0>();
        wgmma_hold(s);
        /* of the other warpgroup's queries only some may see the tile */
        if (at <= first + kPanel - 1 + a.ahead && at + kPanel - 1 >= first - a.back)
            add_values(a, s, stage, row, at, place.range.to, out, rows);
        if (Long && (n + 1) % kStretch == 0)
            far_sums(shared + 2 * kStageBytes).put_away(out, rows);
    }
    if (Long) {
        far_sums far(shared + 2 * kStageBytes);
        far.put_away(out, rows);
        far.bring_back(out, rows);
    }
    const int written = min(kPanel, a.q_len - first), valid = place.head.q_len - first;
    float *lse = a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + first;
    float inverse[2];
    end_rows<float>(inverse, rows, strip, valid, written, lse);
    write_strip_rows(rows_of<float>(a.out, place.head.b, place.head.h, first), out, inverse, strip,
                     valid, written);
#endif
}

} // namespace

bool window_cuda_is_split(const struct fb_problem *p,
                          std::initializer_list<const tensor_view *> tensors)
{
    bool split = p->dtype == FB_F32 && p->qk_dim == kPanel && p->v_dim == kPanel &&
                 p->q_len >= kPanel && fb_cuda_is_hopper();
    for (const tensor_view *tensor : tensors)
        split = split && window_cuda_has_chunks(*tensor, 4);
    return split;
}

enum fb_status window_cuda_split(const window_arguments &a, unsigned heads, cudaStream_t stream,
                                 struct fb_error *error)
{
    const char *name = "f32 softmax by warpgroups";
    const bool is_long = window_cuda_most_keys(a, kRowsOfBlock) > kStretch * kPanel;
    const size_t bytes = kForwardBytes + (is_long ? kFarBytes : 0);
    const auto kernel = is_long ? split_kernel<true> : split_kernel<false>;
    const enum fb_status status = fb_cuda_allow_shared((const void *)kernel, bytes, name, error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((a.q_len + kRowsOfBlock - 1) / kRowsOfBlock), heads);
    kernel<<<grid, kBlockThreads, bytes, stream>>>(a);
    return fb_cuda_launched(name, error);
}
