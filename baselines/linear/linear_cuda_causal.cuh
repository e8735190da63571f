/*
 * Linear attention with a mask in bf16 or f16 (T) with heads of 64 columns, on Hopper: a squad of
 * one warpgroup, three of them in a block, goes through the panels of 64 tokens of its slice of a
 * head, with the state of what comes before (dk, dv: after) as sums of the tensor cores in
 * registers.
 *
 * Where few slices make a head, their squads are a cluster of blocks: each sums up its own slice
 * first, leaves its state in its shared memory, and adds up those of the slices before. Where more
 * do, other kernels have left the running sums in memory (linear_cuda_sums.cu). A squad knows
 * barriers of its own. Squads and not small blocks, because clusters of two blocks find room on all
 * multiprocessors and larger ones do not.
 *
 *   pass    state            rows         result
 *   out     k^T v            q            (tril(q k^T) v + q S) / y
 *   dq      k^T v            q, g         h - w / y z, h = tril(g v^T) k + g S^T, w = q h
 *   dk, dv  q^T g            k, v         triu(v g^T - w / y) q + v R^T + r, triu(k q^T) g + k R
 *
 * q and k stand for their features, g for dout / y. The sums of features z (dk: r, weighted by - w
 * / y) are carried beside the state. w = dout out comes from h: what dq subtracts from h is then of
 * the same roundings, and `out` is not read.
 *
 * f16 has not the range of sums over a million tokens. As operands of products states and what is
 * added to their products are smaller by a power of two that follows the number of tokens, and g of
 * dk and dv, whose y grows as they do, is larger by another one; of dq it is dout, and h is divided
 * afterwards. What results are made of is put right in f32.
 */
#ifndef FB_LINEAR_CUDA_CAUSAL_CUH
#define FB_LINEAR_CUDA_CAUSAL_CUH

#include "cuda_exchange.cuh"
#include "linear_cuda_causal_tiles.cuh"

namespace
{

/* Tiles of a stage: features and values that the state sums up, those of the other side. */
enum { SUMMED, SUMMED_VALUES, OTHER, OTHER_VALUES };

template <linear_pass Pass> constexpr int kCausalTiles = Pass == LINEAR_OUT ? 3 : 4;
constexpr int kSquads = 3; /* of a block, of kPanelThreads each */
constexpr int kCausalThreads = kSquads * kPanelThreads;

/* Behind two stages of tiles and the state as an operand. Numbers of tokens are of two panels in
 * turn: those of the next are written while the last warps use these. */
template <typename T> struct causal_numbers {
    float y[2][kPanel], w[2][kPanel];    /* of queries, as they are brought */
    alignas(8) float inverse[2][kPanel]; /* of y */
    alignas(8) float weight[2][kPanel];  /* - w / y */
    alignas(4) T shares[2][2][kPanel];   /* the same as two numbers: high, low */
    alignas(8) float vector[kPanel];     /* z or r before the panel */
    alignas(4) T parts[2][kPanel];       /* the same as two numbers: high, low */
};

/* Of a squad; tiles that tensor cores read start at multiples of 1024. */
template <linear_pass Pass> constexpr int causal_squad_bytes()
{
    return ((2 * kCausalTiles<Pass> + 1) * panel_bf16::bytes + (int)sizeof(causal_numbers<__half>) +
            1023) /
           1024 * 1024;
}

/* joined: the slices of a head are a cluster; else their running sums lie in memory. */
struct causal_launch {
    linear_arguments a;
    bool joined;
};

inline cluster_launch causal_launch_of(const linear_arguments &a, int squad_bytes,
                                       cudaStream_t stream)
{
    return {.name = "causal linear attention",
            .blocks = (a.slices + kSquads - 1) / kSquads,
            .threads = kCausalThreads,
            .heads = (int64_t)a.batch * a.heads,
            .shared_bytes = (size_t)kSquads * (size_t)squad_bytes,
            .most_shared = true,
            .stream = stream};
}

/* Whether the slices of a head can be a cluster. */
inline bool causal_joins(void (*kernel)(causal_launch), const linear_arguments &a, int squad_bytes)
{
    return a.slices <= kCausalSlicesMost &&
           fb_cuda_at_once(causal_launch_of(a, squad_bytes, nullptr), (const void *)kernel) > 0;
}

inline enum fb_status launch_causal(void (*kernel)(causal_launch), const causal_launch &arguments,
                                    int squad_bytes, cudaStream_t stream, struct fb_error *error)
{
    const cluster_launch x = causal_launch_of(arguments.a, squad_bytes, stream);
    if (arguments.joined)
        return fb_cuda_launch_clusters(x, kernel, arguments, error);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, x.shared_bytes, x.name, error);
    if (status != FB_OK)
        return status;
    kernel<<<dim3((unsigned)x.blocks, (unsigned)x.heads), kCausalThreads, x.shared_bytes, stream>>>(
        arguments);
    return fb_cuda_launched(x.name, error);
}

#if FB_HAVE_WGMMA

/* ---- a squad's slice ------------------------------------------------------------------------- */

/* The same in all lanes, as the compiler can see. */
__device__ inline int own_warp()
{
    return __shfl_sync(0xffffffffU, (int)threadIdx.x / 32, 0);
}

template <linear_pass Pass, typename T> struct causal_slice {
    static constexpr bool forwards = Pass != LINEAR_DK;
    char *stages, *state;
    causal_numbers<T> *own;
    int64_t query_head;
    int b, h, kv_h, squad, slice;
    int strip, from, panels; /* panels of the slice; 0: it does not exist */
    bool joined;             /* the slices are a cluster */
    linear_unit u;
    int sums; /* visits that sum up the slice before its rows are visited */

    /* Slices count the blocks first, so that few of them spread over all. */
    __device__ causal_slice(const linear_arguments &a, char *shared, bool cluster)
        : query_head(blockIdx.y), b((int)(blockIdx.y / (unsigned)a.heads)),
          h((int)(blockIdx.y % (unsigned)a.heads)), kv_h(h / a.group), squad(own_warp() / 4),
          slice(squad * (int)gridDim.x + (int)blockIdx.x), strip(own_warp() % 4 * 16),
          from(slice * a.slice_panels), joined(cluster), u(linear_unit_of(a, b, h, kv_h))
    {
        stages = shared + squad * causal_squad_bytes<Pass>();
        state = stages + 2 * kCausalTiles<Pass> * panel_bf16::bytes;
        own = reinterpret_cast<causal_numbers<T> *>(state + panel_bf16::bytes);
        panels = panels_of(a, slice);
        sums = joined && slice != (forwards ? a.slices - 1 : 0) ? panels : 0;
    }
    __device__ static int panels_of(const linear_arguments &a, int of)
    {
        const int end = (max(a.q_len, a.kv_len) + kPanel - 1) / kPanel;
        return max(0, min(a.slice_panels, end - of * a.slice_panels));
    }
    /* The squad's threads are in step. */
    __device__ void step() const
    {
        asm volatile("bar.sync %0, %1;" ::"r"(1 + squad), "n"(kPanelThreads) : "memory");
    }
    __device__ char *tile(int visit, int which) const
    {
        return stages + (visit % 2 * kCausalTiles<Pass> + which) * panel_bf16::bytes;
    }
    __device__ uint64_t operand(int visit, int which) const
    {
        return wgmma_tile(shared_address(tile(visit, which)));
    }
    /* The first token of a visit's panel. The last that is summed up is the first of the rows. */
    __device__ int first(int visit) const
    {
        const int i = visit < sums ? sums - 1 - visit : visit - sums;
        return (from + (forwards ? i : panels - 1 - i)) * kPanel;
    }
    /* What states, and scores that are added to their products, are multiplied by as operands: sums
     * of so many tokens come down to those of a thousand. */
    __device__ power_factors<T> range(int visit) const
    {
        return power_factors<T>(-4 - max(0, exponent_of(first(visit) + kPanel) - 9));
    }
    /* The exponent of what g is multiplied by, which y makes small. */
    __device__ int growth(int visit) const
    {
        return 4 + exponent_of(first(visit) + 8);
    }
    /* Tensors by tile. */
    __device__ causal_tensor<T> tensor(const linear_arguments &a, int which) const
    {
        const bool keys = forwards == (which < OTHER);
        const panel_tensor &t = which % 2 == 0 ? (keys ? a.k : a.q) : (keys ? a.v : a.dout);
        return causal_tensor<T>(t, b, keys ? kv_h : h, keys ? u.kv_valid : u.q_valid);
    }
    /* rows: of the rows, not of the sums */
    __device__ void start(const linear_arguments &a, int visit, bool rows)
    {
        if (visit < sums + panels) {
            const int at = first(visit);
#pragma unroll
            for (int which = 0; which < kCausalTiles<Pass>; which++)
                if (which < OTHER || rows)
                    fetch_panel(tile(visit, which), tensor(a, which), at);
            if (Pass == LINEAR_DK || (Pass == LINEAR_DQ && rows))
                fetch_numbers(a, visit, at);
        }
        commit_copies();
    }
    /* The four rows' numbers by the eight lanes that bring the rows. */
    __device__ void fetch_numbers(const linear_arguments &a, int visit, int at) const
    {
        const int thread = (int)threadIdx.x % kPanelThreads,
                  row = thread / 8 + thread % 4 * (kPanelThreads / 8);
        const bool exists = at + row < u.q_valid;
        const float *y = a.denominators + query_head * a.q_len,
                    *w = a.weights + query_head * a.q_len;
        const int from_row = exists ? at + row : 0;
        if (thread % 8 < 4)
            copy_number_async(&own->y[visit % 2][row], y + from_row, exists);
        else if (Pass == LINEAR_DK)
            copy_number_async(&own->w[visit % 2][row], w + from_row, exists);
    }
    /* What the thread has brought of a panel, as products take it. The squad is in step after. */
    template <bool Rows> __device__ void finish(const linear_arguments &a, int visit)
    {
        const int at = first(visit);
        wait_copies<0>();
        map_features<T>(a.map, tile(visit, SUMMED), (forwards ? u.kv_valid : u.q_valid) - at);
        if (Rows)
            map_features<T>(a.map, tile(visit, OTHER), (forwards ? u.q_valid : u.kv_valid) - at);
        if (Pass == LINEAR_DK || (Pass == LINEAR_DQ && Rows)) {
            __syncwarp(); /* numbers of other lanes */
            const float *y = own->y[visit % 2];
            const power_factors<T> grown(Pass == LINEAR_DK ? growth(visit) : 0);
            if constexpr (Pass == LINEAR_DK || !kNarrow<T>)
                scale_rows<T>(tile(visit, Pass == LINEAR_DK ? SUMMED_VALUES : OTHER_VALUES), y,
                              grown.into);
            const int thread = (int)threadIdx.x % kPanelThreads,
                      row = thread / 8 + thread % 4 * (kPanelThreads / 8);
            const float inverse = causal_inverse(y[row]);
            if (thread % 8 < 4)
                own->inverse[visit % 2][row] = inverse;
            else if (Pass == LINEAR_DK) {
                const float weight = -own->w[visit % 2][row] * inverse * grown.into;
                const T high = from_f32<T>(weight);
                own->weight[visit % 2][row] = weight;
                own->shares[visit % 2][0][row] = high;
                own->shares[visit % 2][1][row] = from_f32<T>(weight - to_f32(high));
            }
        }
        publish_shared();
        step();
    }
    /* z += a panel's features (dk: weighted), of the warp's rows of the state, in every lane of a
     * quad: z[0] + z[1] and z[2] + z[3]. Even columns of the operand are the high parts of weights,
     * odd ones the low. */
    __device__ void add_vector(float (&z)[4], int visit) const
    {
        const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const lane_places at(lane);
        const uint32_t features = shared_address(tile(visit, SUMMED));
        const T *share = own->shares[visit % 2][g % 2] + 2 * t;
        const uint32_t one = g % 2 == 0 ? pairs<T>::ones : 0U;
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t x[4], y[2] = {one, one};
            if constexpr (Pass == LINEAR_DK)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    y[i] = *reinterpret_cast<const uint32_t *>(share + 16 * step + 8 * i);
            load_a_turned(x, features + (uint32_t)(step * 16 * kRowBytes), at, strip / 16);
            multiply<T>(z, x, y[0], y[1]);
        }
    }
    /* The state and the vector before a panel where products find them, by the warp's rows. */
    __device__ void put_state(strip_result &sum, const float (&z)[4], int visit) const
    {
        const power_factors<T> factors = range(visit);
        causal_result<T>(sum, factors.into).put(state, strip);
        if (threadIdx.x % 4 != 0)
            return;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = strip + (int)threadIdx.x % 32 / 4 + 8 * half;
            const float x = z[2 * half] + z[2 * half + 1], small = factors.into * x;
            const T high = from_f32<T>(small);
            own->vector[row] = Pass == LINEAR_DK ? small : x;
            own->parts[0][row] = high;
            own->parts[1][row] = from_f32<T>(small - to_f32(high));
        }
    }
};

/* ---- what comes before a slice --------------------------------------------------------------- */

__device__ inline void arrive_cluster()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ inline float4 load_remote(uint32_t address)
{
    float4 x;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "r"(address)
                 : "memory");
    return x;
}

/* From the sums of this slice to those of the slices before it (after it), through shared memory
 * that the visits have left, each thread's numbers in a place of its own. It belongs to the others
 * until they have arrived a second time. */
template <linear_pass Pass, typename T>
__device__ void join_states(const linear_arguments &a, const causal_slice<Pass, T> &x,
                            strip_result &sum, float (&z)[4])
{
    constexpr int quads = 9;
    const int thread = (int)threadIdx.x % kPanelThreads, blocks = (int)gridDim.x;
    const auto place = [&](int sums) {
        return shared_address(x.tile(sums + 1, 0)) + (uint32_t)(thread * (int)sizeof(float4));
    };
    constexpr uint32_t apart = kPanelThreads * (uint32_t)sizeof(float4);
    float4 *mine = reinterpret_cast<float4 *>(x.tile(x.sums + 1, 0)) + thread;
    x.step();
#pragma unroll
    for (int n = 0; n < 8; n++)
        mine[n * kPanelThreads] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    mine[8 * kPanelThreads] = make_float4(z[0], z[1], z[2], z[3]);
    arrive_cluster();
    clear(sum);
    z[0] = z[1] = z[2] = z[3] = 0.0F;
    await_cluster();
    const int others = x.panels == 0 ? 0 : x.forwards ? x.slice : a.slices - 1 - x.slice;
#pragma unroll 1
    for (int i = 0; i < others; i++) {
        const int other = x.forwards ? i : a.slices - 1 - i;
        const int apart_bytes = (other / blocks - x.squad) * causal_squad_bytes<Pass>();
        const uint32_t from =
            remote_address(place(x.panels_of(a, other)) + (uint32_t)apart_bytes, other % blocks);
        float4 part[quads];
#pragma unroll
        for (int n = 0; n < quads; n++)
            part[n] = load_remote(from + (uint32_t)n * apart);
#pragma unroll
        for (int n = 0; n < quads; n++) {
            float(&to)[4] = n < 8 ? sum[n % 8] : z;
            to[0] += part[n].x, to[1] += part[n].y, to[2] += part[n].z, to[3] += part[n].w;
        }
    }
    arrive_cluster();
}

/* The running sums that lie in memory. */
template <linear_pass Pass, typename T>
__device__ void read_states(const linear_arguments &a, const causal_slice<Pass, T> &x,
                            strip_result &sum, float (&z)[4])
{
    const int64_t unit = x.forwards ? (int64_t)x.b * a.kv_heads + x.kv_h : x.query_head;
    const float *from = (x.forwards ? a.sums : a.back) + (unit * a.slices + x.slice) * a.count;
    each_pair(sum, x.strip, [&](int row, int col, float &x0, float &x1) {
        const float2 pair = *reinterpret_cast<const float2 *>(from + row * kPanel + col);
        x0 = pair.x;
        x1 = pair.y;
    });
    if (threadIdx.x % 4 == 0)
#pragma unroll
        for (int half = 0; half < 2; half++)
            z[2 * half] = from[kPanelCount + x.strip + (int)threadIdx.x % 32 / 4 + 8 * half];
}

/* Sums that dk and dv take of g are as large as it is. */
template <linear_pass Pass, typename T> struct causal_growth {
    int exponent = 0;
    __device__ void move(strip_result &sum, float (&z)[4], int to)
    {
        if constexpr (Pass == LINEAR_DK && kNarrow<T>) {
            if (to == exponent)
                return;
            const float factor = two_to(to - exponent);
            exponent = to;
#pragma unroll
            for (int i = 0; i < 32; i++)
                sum[i / 4][i % 4] *= factor;
#pragma unroll
            for (int i = 0; i < 4; i++)
                z[i] *= factor;
        }
    }
};

/* Goes through the slice: visit(x, visit) for each panel of rows, whose tiles are ready; it starts
 * the next by x.start when it wishes and ends with the block in step. */
template <linear_pass Pass, typename T, typename Visit>
__device__ void walk_slice(const linear_arguments &a, char *shared, bool cluster, Visit visit_rows)
{
    causal_slice<Pass, T> x(a, shared, cluster);
    causal_growth<Pass, T> grown;
    strip_result sum;
    float z[4] = {};
    clear(sum);
    x.start(a, 0, x.sums == 0);
#pragma unroll 1
    for (int visit = 0; visit < x.sums; visit++) {
        x.template finish<false>(a, visit);
        x.start(a, visit + 1, visit + 1 == x.sums);
        grown.move(sum, z, x.growth(visit));
        wgmma_hold(sum);
        wgmma_begin();
        add_outer<T>(sum, x.operand(visit, SUMMED), x.operand(visit, SUMMED_VALUES));
        wgmma_commit();
        x.add_vector(z, visit);
        wgmma_wait<0>();
        wgmma_hold(sum);
    }
    grown.move(sum, z, 0);
    if (cluster)
        join_states(a, x, sum, z);
    else if (x.panels == 0)
        return;
    else
        read_states(a, x, sum, z);
    if (cluster && x.panels == 0)
        await_cluster();
#pragma unroll 1
    for (int visit = x.sums; visit < x.sums + x.panels; visit++) {
        grown.move(sum, z, x.growth(visit));
        x.put_state(sum, z, visit);
        x.template finish<true>(a, visit);
        if (cluster && visit == x.sums)
            await_cluster();
        x.start(a, visit + 1, true);
        visit_rows(x, visit, sum, z);
    }
}

#endif

} // namespace

#endif
