/* See flow_cuda_wide_plan.h. */
#include "flow_cuda_wide_plan.h"

#include "kernel_support.h"

#include <math.h>

/* Blocks of 512 threads that an H100 runs at once, and slices at most. Constants, so that results
 * are the same bits on every device. */
enum {
    BLOCKS_AT_ONCE = 132,
    SLICES_MOST = 128,
    ROW_SLICES_MOST = 64,
    SLICE_PANELS_MOST = 1024, /* after which sums are put away */
    BLOCK_OVERHEAD = 3,       /* of a product's block, in panels */
    ROWS = 32,                /* of a piece of a pass over rows */
    ROWS_OVERHEAD = 2,        /* of its block, in pieces */
    PANEL = 64
};

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A pass whose blocks take pieces of a head's tokens: so many blocks for each slice, of which so
 * many run together, and what a block costs beside its pieces, in pieces. */
struct pass {
    int64_t blocks, at_once, overhead;
};

static int64_t waves(const struct pass *pass, int64_t slices, int64_t size)
{
    return divide_up(pass->blocks * slices, pass->at_once) * (size + pass->overhead);
}

/* Cuts `pieces` into slices of a multiple of `step` so that the waves of the passes take least. */
static void cut(int64_t pieces, int64_t step, int64_t most, const struct pass *passes, int count,
                int *slices, int *each)
{
    int64_t best = INT64_MAX;
    for (int64_t wanted = 1; wanted <= most && wanted <= pieces; wanted++) {
        const int64_t size = divide_up(divide_up(pieces, wanted), step) * step;
        if (size > SLICE_PANELS_MOST && wanted < most && wanted < pieces)
            continue;
        const int64_t made = divide_up(pieces, size);
        int64_t cost = 0;
        for (int i = 0; i < count; i++)
            cost += waves(&passes[i], made, size);
        if (best == INT64_MAX || cost < best - best / 32) { /* fewer slices leave fewer parts */
            best = cost;
            *slices = (int)made;
            *each = (int)size;
        }
    }
}

/* A block has as many groups of 128 threads as panels of values, up to four; in 16 bits up to two,
 * of which twice as many run at once. */
static int64_t blocks_at_once(int64_t panels)
{
    return BLOCKS_AT_ONCE * (panels > 2 ? 1 : panels > 1 ? 2 : 4);
}

/* Slices of a product whose matrices fit into what Flow-Attention may take beside its tensors: 1 %
 * of them and 24 D M bytes per head. */
static int64_t slices_within(const struct fb_problem *p, const struct fb_flow_wide_plan *plan)
{
    const double heads = (double)(p->batch * p->heads);
    const double tokens = (double)(p->q_len + p->kv_len);
    const double tensors = heads * tokens * (double)(p->qk_dim + p->v_dim);
    const double budget = 0.01 * tensors * (double)fb_dtype_bytes(p->dtype) +
                          24.0 * heads * (double)(p->qk_dim * p->v_dim);
    const double others =
        heads * 4.0 *
        ((double)plan->totals_count + tokens + (double)plan->slices * (2.0 * plan->cols + 2.0));
    const double matrix = heads * 4.0 * (double)plan->cols * (double)plan->value_cols;
    return (int64_t)floor(fmax(budget - others, 0.0) / matrix);
}

/* More slices than are within bounds only to keep two blocks on each multiprocessor, which are as
 * fast as four; not where other kernels serve all but rows that do not start on 16 bytes. */
static int64_t most_slices(const struct fb_problem *p, const struct fb_flow_cuda_plan *base,
                           const struct fb_flow_wide_plan *plan, const struct pass *products,
                           int64_t panels)
{
    const int64_t at_once =
        products->at_once < 2 * BLOCKS_AT_ONCE ? products->at_once : 2 * BLOCKS_AT_ONCE;
    const int64_t busy = base->resident ? 1 : at_once / products->blocks;
    const int64_t needed = divide_up(panels, SLICE_PANELS_MOST);
    int64_t most = slices_within(p, plan);
    most = most > busy ? most : busy;
    most = most > needed ? most : needed;
    return most < SLICES_MOST ? most : SLICES_MOST;
}

void fb_flow_wide_plan_of(const struct fb_problem *p, const struct fb_flow_cuda_plan *base,
                          struct fb_flow_wide_plan *plan)
{
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const int64_t panels = divide_up(longest, PANEL);
    const int64_t features = divide_up(p->qk_dim, PANEL), values = divide_up(p->v_dim, PANEL);
    const int64_t narrow = features < values ? features : values;
    const struct pass rows[] = {{2 * base->heads, 2 * BLOCKS_AT_ONCE, ROWS_OVERHEAD},
                                {base->heads, 2 * BLOCKS_AT_ONCE, ROWS_OVERHEAD}};
    const struct pass products = {base->heads * features * divide_up(values, 4),
                                  blocks_at_once(values), BLOCK_OVERHEAD};
    const struct pass results = {base->heads * divide_up(narrow, 2), blocks_at_once(narrow),
                                 BLOCK_OVERHEAD};
    *plan = (struct fb_flow_wide_plan){
        .cols = base->cols,
        .value_cols = base->value_cols,
        .totals_count = base->totals_count,
        .gradients_count = 4 * (int64_t)base->cols + (int64_t)base->cols * base->value_cols,
    };
    cut(divide_up(longest, ROWS), 1, ROW_SLICES_MOST, rows, 2, &plan->slices, &plan->slice_len);
    plan->slice_len *= ROWS;
    const int64_t most = most_slices(p, base, plan, &products, panels);
    cut(panels, 1, most, &products, 1, &plan->panel_slices, &plan->slice_panels);
    cut(panels, 2, SLICES_MOST, &results, 1, &plan->result_slices, &plan->result_panels);
}

static void take_gradients(struct fb_scratch_cursor *at, const struct fb_problem *p,
                           const struct fb_flow_wide_plan *plan, struct fb_flow_wide_buffers *x)
{
    const int64_t heads = p->batch * p->heads;
    const int64_t queries = heads * p->q_len, keys = heads * p->kv_len;
    x->gradients = fb_scratch_take_f32(at, heads * plan->gradients_count);
    x->alpha = fb_scratch_take_f32(at, queries);
    x->y = fb_scratch_take_f32(at, queries);
    x->dc = fb_scratch_take_f32(at, queries);
    x->da = fb_scratch_take_f32(at, queries);
    x->beta = fb_scratch_take_f32(at, keys);
    x->o = fb_scratch_take_f32(at, keys);
    x->db = fb_scratch_take_f32(at, keys);
    x->z = fb_scratch_take_f32(at, keys * divide_up(p->v_dim, PANEL));
}

void fb_flow_wide_buffers_of(const struct fb_problem *p, const struct fb_flow_wide_plan *plan,
                             bool backward, void *scratch, struct fb_flow_wide_buffers *x)
{
    const int64_t heads = p->batch * p->heads;
    const int64_t state = (int64_t)plan->cols * plan->value_cols;
    struct fb_scratch_cursor at = fb_scratch_at(scratch);
    *x = (struct fb_flow_wide_buffers){0};
    if (p->q_lengths != NULL || p->kv_lengths != NULL)
        x->lengths = fb_scratch_take(&at, 2 * p->batch, sizeof(int32_t));
    x->parts = fb_scratch_take_f32(&at, heads * plan->slices * 2 * plan->cols);
    x->peaks = fb_scratch_take_f32(&at, heads * plan->slices * 2);
    if (plan->panel_slices > 1)
        x->matrices = fb_scratch_take_f32(&at, heads * plan->panel_slices * state);
    x->r = fb_scratch_take_f32(&at, heads * p->q_len);
    x->p = fb_scratch_take_f32(&at, heads * p->kv_len);
    if (backward)
        take_gradients(&at, p, plan, x);
    else
        x->totals = fb_scratch_take_f32(&at, heads * plan->totals_count);
    x->bytes = at.used_bytes;
}
