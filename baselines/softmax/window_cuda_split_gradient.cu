/*
 * Gradients of softmax over a band of keys in f32, heads of 64, on Hopper: see
 * window_cuda_split.cuh. As window_cuda_gradient.cu, one kernel goes over the keys of a block of
 * queries for dq, another over the queries of a block of keys for dk and dv. A block's own rows x
 * and y (q and dout, or k and v) stay in shared memory as they are, left operands are read from
 * there; of the rows u and v that pass by (k and v, or q and dout) products need the low parts, and
 * turned ones:
 *
 *   s = x u^T, dp = y v^T;   dq += ds turned(k),   or   dv += p turned(dout), dk += ds turned(q)
 */
#include "window_cuda_split.cuh"

namespace
{

constexpr int kOwnBytes = 2 * kGroupsOfBlock * kSplitBytes;
/* u and v that are used and that are brought, what is left out of them, u turned and, for keys, v
 */
constexpr int kPassing = 4, kLows = 2, kTurned = 2;

constexpr size_t gradient_bytes(bool keys)
{
    return kOwnBytes + (kPassing + kLows + kTurned * (keys ? 2 : 1)) * (size_t)kSplitBytes + 1024;
}

struct split_task {
    window_head head;
    int64_t h_first;    /* the first query head that passes by, or the block's own */
    window_range range; /* of the rows that pass by */
    int first, length;  /* of the warpgroup's rows; rows of the head */
    int each, count;    /* panels of a head, and of all that pass by */
};

struct passing_scalars {
    float lse[2][kPanel], share[2][kPanel];
};

#if FB_HAVE_WGMMA

template <bool Keys> __device__ split_task task_of(const gradient_arguments &a)
{
    split_task task;
    const int first =
        Keys ? (int)blockIdx.x * kRowsOfBlock : (int)(gridDim.x - 1 - blockIdx.x) * kRowsOfBlock;
    const int64_t b = blockIdx.y / a.kv_heads, kv_h = blockIdx.y % a.kv_heads;
    task.head = window_head_of(a.w, Keys ? b * a.w.heads + kv_h * a.w.group : blockIdx.y);
    task.h_first = task.head.h;
    task.length = Keys ? task.head.kv_len : task.head.q_len;
    const int rows = max(0, min(kRowsOfBlock, task.length - first));
    task.range = Keys ? queries_of(a.w, task.head.q_len, first, rows)
                      : window_range_of(a.w, task.head.kv_len, first, rows);
    task.each = rows > 0 && task.range.to > task.range.from
                    ? (task.range.to - task.range.from + kPanel - 1) / kPanel
                    : 0;
    task.count = task.each * (Keys ? a.w.group : 1);
    task.first = first + group_of_block() * kPanel;
    return task;
}

/* The tensors of a side: k and v, or q and dout. */
template <bool Keys>
__device__ const panel_tensor &tensor_of(const gradient_arguments &a, int which)
{
    return Keys ? (which == 0 ? a.k : a.v) : (which == 0 ? a.q : a.dout);
}

template <bool Keys>
__device__ panel_rows<float> own_rows(const gradient_arguments &a, const split_task &task,
                                      int which)
{
    return panel_rows<float>(tensor_of<Keys>(a, which), task.head.b,
                             Keys ? task.head.kv_h : task.head.h, task.length);
}

/* Panel n of those that pass by: the first warpgroup brings u, the second v. */
template <bool Keys>
__device__ void bring(const gradient_arguments &a, const split_task &task, char *passing,
                      passing_scalars &scalars, int n)
{
    const int which = group_of_block(), at = task.range.from + n % task.each * kPanel;
    const int64_t h = task.h_first + n / task.each;
    start_split(passing + (2 * (n % 2) + which) * kSplitBytes,
                panel_rows<float>(tensor_of<!Keys>(a, which), task.head.b,
                                  Keys ? h : task.head.kv_h, task.range.to),
                at, 0);
    if (Keys && threadIdx.x < kPanel) {
        const int row = at + (int)threadIdx.x;
        const int64_t place = (task.head.b * a.w.heads + h) * a.w.q_len + row;
        scalars.lse[n % 2][threadIdx.x] = row < task.range.to ? a.lse[place] : INFINITY;
        scalars.share[n % 2][threadIdx.x] = row < task.range.to ? a.shares[place] : 0.0F;
    }
    commit_copies();
}

/* Low parts and turned panels of u and v, once all of both is there. */
template <bool Keys> __device__ void prepare(char *u, char *v, char *lows, char *turned)
{
    const bool first = group_of_block() == 0;
    turned_column column;
    if (Keys || first) {
        column.take(first ? u : v);
        char *to = turned + (first ? 0 : kTurned * kSplitBytes);
        column.store(to, to + kSplitBytes);
    }
    if (Keys) {
        split_panel(first ? u : v, lows + (first ? 0 : kSplitBytes));
    } else if (!first) {
        split_panel(u, lows);
        split_panel(v, lows + kSplitBytes);
    }
    publish_shared();
}

/* c = a b^T, a being the warpgroup's own panel */
__device__ inline void product_of_own(strip_result &c, const char *a, const char *b,
                                      const char *b_low)
{
    fresh_product(c, b, b_low, [&](split_operand_of<4> &half, int step) { half.load(a, step); });
}

__device__ inline void add_result(strip_result &sum, const strip_result &part)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[n][i] += part[n][i];
}

/* s and dp become p and ds. lse(half, col) and share(half, col) are the query's; sees(own, other):
 * whether the block's row and the one that passes by see each other. */
template <typename Lse, typename Share, typename Sees>
__device__ void weigh(strip_result &s, strip_result &dp, float scale, Lse lse, Share share,
                      Sees sees)
{
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < 8; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * m + 2 * t + i % 2;
            const float p = sees(g + i / 2 * 8, col)
                                ? window_power(fmaf(s[m][i], scale, -lse(i / 2, col)))
                                : 0.0F;
            s[m][i] = p;
            dp[m][i] = p * (dp[m][i] - share(i / 2, col));
        }
}

/* Whether every row of the strip and every one of the panel from `at` on see each other. */
template <bool Keys>
__device__ bool sees_all(const gradient_arguments &a, const split_task &task, int row, int at)
{
    const int64_t behind = Keys ? a.w.ahead : a.w.back, before = Keys ? a.w.back : a.w.ahead;
    return at + kPanel <= task.range.to && at + kPanel - 1 <= row + before &&
           at >= row + 15 - behind;
}

/* Whether any row of the warpgroup and any of the panel from `at` on see each other. */
template <bool Keys>
__device__ bool meets(const gradient_arguments &a, const split_task &task, int at)
{
    const int64_t behind = Keys ? a.w.ahead : a.w.back, before = Keys ? a.w.back : a.w.ahead;
    return at <= task.first + kPanel - 1 + before && at + kPanel - 1 >= task.first - behind;
}

template <bool Keys>
__device__ void write_own(const gradient_arguments &a, const split_task &task,
                          const panel_tensor &to, int strip, const strip_result &c, float factor)
{
    const int all = Keys ? a.w.kv_len : a.w.q_len;
    const float factors[2] = {factor, factor};
    write_strip_rows(
        rows_of<float>(to.view, task.head.b, Keys ? task.head.kv_h : task.head.h, task.first), c,
        factors, strip, task.length - task.first, min(kPanel, all - task.first));
}

#endif

/* grid (blocks of queries, heads) or, Keys, (blocks of keys, heads of keys) */
template <bool Keys>
__global__ void __launch_bounds__(kBlockThreads, 1)
    gradient_kernel(const __grid_constant__ gradient_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ passing_scalars scalars;
    char *own = align_panels(dynamic) + group_of_block() * 2 * kSplitBytes;
    char *passing = align_panels(dynamic) + kOwnBytes;
    char *lows = passing + kPassing * kSplitBytes, *turned = lows + kLows * kSplitBytes;
    const split_task task = task_of<Keys>(a);
    const int strip = split_warp() * 16, g = (int)threadIdx.x % 32 / 4;
    float lse[2], share[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = task.first + strip + g + 8 * half;
        const int64_t place = (int64_t)blockIdx.y * a.w.q_len + row;
        lse[half] = !Keys && row < task.length ? a.lse[place] : INFINITY;
        share[half] = !Keys && row < task.length ? a.shares[place] : 0.0F;
    }
    strip_result first_sum, second_sum; /* dq; or dk and dv */
    clear(first_sum);
    clear(second_sum);
    if (task.count > 0) {
        for (int which = 0; which < 2; which++)
            start_split(own + which * kSplitBytes, own_rows<Keys>(a, task, which), task.first, 0);
        bring<Keys>(a, task, passing, scalars, 0);
    }
    for (int n = 0; n < task.count; n++) {
        const int at = task.range.from + n % task.each * kPanel;
        char *u = passing + n % 2 * 2 * kSplitBytes, *v = u + kSplitBytes;
        await_own_copies();
        __syncthreads(); /* the panels are there; what was prepared before has been used */
        prepare<Keys>(u, v, lows, turned);
        __syncthreads();
        if (n + 1 < task.count)
            bring<Keys>(a, task, passing, scalars, n + 1);
        if (!meets<Keys>(a, task, at))
            continue;
        strip_result s, dp, part;
        product_of_own(s, own, u, lows);
        product_of_own(dp, own + kSplitBytes, v, lows + kSplitBytes);
        const int row = task.first + strip;
        const auto lse_of = [&](int half, int col) {
            return Keys ? scalars.lse[n % 2][col] : lse[half];
        };
        const auto share_of = [&](int half, int col) {
            return Keys ? scalars.share[n % 2][col] : share[half];
        };
        if (sees_all<Keys>(a, task, row, at))
            weigh(s, dp, a.w.scale, lse_of, share_of, [](int, int) { return true; });
        else
            weigh(s, dp, a.w.scale, lse_of, share_of, [&](int own_row, int col) {
                const int x = row + own_row, y = at + col;
                return y < task.range.to &&
                       (Keys ? window_sees(a.w, y, x) : window_sees(a.w, x, y));
            });
        if (Keys) {
            char *turned_v = turned + kTurned * kSplitBytes;
            product_of_result(part, s, turned_v, turned_v + kSplitBytes);
            add_result(second_sum, part);
        }
        product_of_result(part, dp, turned, turned + kSplitBytes);
        add_result(first_sum, part);
    }
    write_own<Keys>(a, task, Keys ? a.dk : a.dq, strip, first_sum, a.slope);
    if (Keys)
        write_own<Keys>(a, task, a.dv, strip, second_sum, 1.0F);
#endif
}

template <bool Keys>
enum fb_status launch(const gradient_arguments &a, int rows, int64_t heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const char *name = "gradients of f32 softmax by warpgroups";
    const enum fb_status status = fb_cuda_allow_shared((const void *)gradient_kernel<Keys>,
                                                       gradient_bytes(Keys), name, error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((rows + kRowsOfBlock - 1) / kRowsOfBlock), (unsigned)heads);
    gradient_kernel<Keys><<<grid, kBlockThreads, gradient_bytes(Keys), stream>>>(a);
    return fb_cuda_launched(name, error);
}

} // namespace

enum fb_status window_cuda_split_gradient(const struct fb_problem *p, const gradient_arguments &a,
                                          cudaStream_t stream, struct fb_error *error)
{
    const enum fb_status status = launch<false>(a, a.w.q_len, p->batch * p->heads, stream, error);
    return status == FB_OK ? launch<true>(a, a.w.kv_len, p->batch * p->kv_heads, stream, error)
                           : status;
}
