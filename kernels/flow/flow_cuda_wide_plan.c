/* See flow_cuda_wide_plan.h. */
#include "flow_cuda_wide_plan.h"

#include "kernel_support.h"

/* Blocks of products that an H100 runs at once, and the panels after which a slice's sums in f32
 * are put away. Constants, so that results are the same bits on every device. */
enum { BLOCKS_AT_ONCE = 264, PANEL_SLICES_MOST = 128, SLICE_PANELS_MOST = 1024, PANEL = 64 };

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t within(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static void cut(int64_t panels, int64_t wanted, int64_t panels_most, int *slices, int *each)
{
    const int64_t count = within(wanted, 1, panels);
    *each = (int)within(divide_up(panels, count), 1, panels_most);
    *slices = (int)divide_up(panels, *each);
}

void fb_flow_wide_plan_of(const struct fb_problem *p, const struct fb_flow_cuda_plan *base,
                          struct fb_flow_wide_plan *plan)
{
    const int64_t panels = divide_up(p->q_len > p->kv_len ? p->q_len : p->kv_len, PANEL);
    const int64_t features = divide_up(p->qk_dim, PANEL), values = divide_up(p->v_dim, PANEL);
    const int64_t blocks = base->heads * features * divide_up(values, 2);
    const int64_t results = base->heads * (features < values ? features : values);
    *plan = (struct fb_flow_wide_plan){
        .cols = base->cols,
        .value_cols = base->value_cols,
        .totals_count = base->totals_count,
        .gradients_count = 4 * (int64_t)base->cols + (int64_t)base->cols * base->value_cols,
        .slices = base->slices,
        .slice_len = (int)base->slice_len,
    };
    cut(panels, within(BLOCKS_AT_ONCE / blocks, 1, PANEL_SLICES_MOST), SLICE_PANELS_MOST,
        &plan->panel_slices, &plan->slice_panels);
    cut(panels, divide_up((int64_t)2 * BLOCKS_AT_ONCE, results), panels, &plan->result_slices,
        &plan->result_panels);
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
