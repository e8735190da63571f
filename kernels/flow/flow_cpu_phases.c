/*
 * Fused Flow-Attention on the CPU, normal form: what each forward phase does to one slice of a
 * head. The order of the phases and the equations stand in flow_cpu.c and flow.h.
 */
#include "flow_normal.h"

#include "row_fetch.h"

/* ---- blocks -------------------------------------------------------------------------------- */

float *fb_flow_source_rows(const struct flow_task *t, int64_t first, int64_t rows, bool fresh)
{
    const struct flow_shape *s = &t->run->shape;
    const bool keep = first + rows <= s->kept;
    float *block = keep ? t->worker->kept + first * s->cols : t->worker->source_block;
    if (fresh || !keep) {
        const struct fb_row_block k =
            fb_rows_load(&t->run->call->k, flow_source_range(t, first, rows), t->worker->raw);
        fb_rows_map((enum fb_row_map)t->run->options.phi, k.rows, k.stride, rows, s->dim, block,
                    s->cols);
    }
    return block;
}

const float *fb_flow_sink_rows(const struct flow_task *t, int64_t first, int64_t rows, bool fresh,
                               int64_t *stride)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *out = &t->run->call->out;
    float *block =
        s->parked ? fb_tensor_row_f32(out, t->batch, t->head, first) : t->worker->sink_block;
    *stride = s->parked ? out->stride[2] : s->cols;
    if (fresh || !s->parked) {
        const struct fb_row_block q =
            fb_rows_load(&t->run->call->q, flow_sink_range(t, first, rows), t->worker->raw);
        fb_rows_map((enum fb_row_map)t->run->options.phi, q.rows, q.stride, rows, s->dim, block,
                    *stride);
    }
    return block;
}

float fb_flow_epsilon_term(const struct flow_task *t, const float *v)
{
    fb_vf sum = fb_vf_zero();
    for (int64_t j = 0; j < t->run->shape.cols; j += FB_VW) {
        sum = fb_vf_add(sum, fb_vf_load(v + j));
    }
    return FB_FLOW_EPSILON * fb_vf_sum(sum) + t->run->options.extra_eps;
}

/* incoming from its dots with v. */
static void invert_flows(const struct flow_task *t, int64_t rows, const float *v, float *incoming)
{
    const fb_vf term = fb_vf_set1(fb_flow_epsilon_term(t, v));
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf sum = fb_vf_add(fb_vf_load(incoming + i), term);
        fb_vf_store(incoming + i, fb_vf_reciprocal(sum));
    }
}

void fb_flow_incoming(const struct flow_task *t, const float *x, int64_t stride, int64_t rows,
                      const float *v, float *incoming)
{
    fb_rows_dot(x, stride, rows, t->run->shape.cols, v, incoming);
    invert_flows(t, rows, v, incoming);
}

/* ---- totals -------------------------------------------------------------------------------- */

static void add_first_vector(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                             const struct flow_head *state)
{
    for (int64_t j = 0; j < s->cols; j++) {
        state->wide[j] = (first ? 0.0 : state->wide[j]) + (double)slot->vectors[j];
    }
}

static void add_two_vectors(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                            const struct flow_head *state)
{
    for (int64_t j = 0; j < 2 * s->cols; j++) {
        state->wide[j] = (first ? 0.0 : state->wide[j]) + (double)slot->vectors[j];
    }
}

/* total + eps in float, from the index-th sum in double; the padding stays zero. */
static void finish_vector(const struct flow_task *t, int index, float *total)
{
    const struct flow_shape *s = &t->run->shape;
    const double *sum = t->state->wide + index * s->cols;
    for (int64_t j = 0; j < s->cols; j++) {
        total[j] = j < s->dim ? (float)(sum[j] + (double)FB_FLOW_EPSILON) : 0.0F;
    }
}

/* ---- phase 1: the sum of phi(k) ------------------------------------------------------------ */

static void sum_source_block(const struct flow_task *t, int64_t first, int64_t rows)
{
    const struct flow_shape *s = &t->run->shape;
    const float *k = fb_flow_source_rows(t, first, rows, true);
    fb_rows_accumulate(k, s->cols, rows, s->cols, NULL, t->slot->vectors);
}

static void sum_sources(const struct flow_task *t)
{
    fb_rows_zero(t->slot->vectors, t->run->shape.cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        sum_source_block(t, i, flow_minimum(FLOW_BLOCK, t->last - i));
    }
}

static void finish_source_sum(const struct flow_task *t)
{
    finish_vector(t, 0, t->state->totals.source_sum);
}

/* ---- phase 2: the sum of phi(q), incoming flows, conserved outgoing flow --------------------- */

/* incoming of a block of sinks, written where the outputs will look for it if it is kept. */
static float *incoming_of(const struct flow_task *t, int64_t first)
{
    return t->alpha != NULL ? t->alpha + first : t->worker->scalar[0];
}

static void sum_sink_block(const struct flow_task *t, int64_t first, int64_t rows)
{
    const int64_t cols = t->run->shape.cols;
    float *alpha = incoming_of(t, first);
    int64_t stride;
    const float *q = fb_flow_sink_rows(t, first, rows, true, &stride);
    fb_rows_accumulate(q, stride, rows, cols, NULL, t->slot->vectors);
    fb_flow_incoming(t, q, stride, rows, t->state->totals.source_sum, alpha);
    fb_rows_accumulate(q, stride, rows, cols, alpha, t->slot->vectors + cols);
}

static void sum_sinks(const struct flow_task *t)
{
    fb_rows_zero(t->slot->vectors, 2 * t->run->shape.cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        sum_sink_block(t, i, flow_minimum(FLOW_BLOCK, t->last - i));
    }
}

static void finish_sinks(const struct flow_task *t)
{
    finish_vector(t, 0, t->state->totals.sink_sum);
    finish_vector(t, 1, t->state->totals.sink_flow);
}

/* ---- both, of the next head ------------------------------------------------------------------ */

bool fb_flow_step_ahead(struct flow_ahead *ahead, int side)
{
    const struct flow_task *t = &ahead->task;
    const struct flow_shape *s = &t->run->shape;
    const bool sinks = side == FLOW_SINKS;
    const struct flow_slicing cut = fb_flow_slicing_of(sinks ? t->sinks : t->sources);
    const int64_t first = ahead->next[side], slice = first / cut.slice;
    if (first >= cut.length) {
        return false;
    }
    const int64_t end = flow_minimum((slice + 1) * cut.slice, cut.length);
    const int64_t rows = flow_minimum(FLOW_BLOCK, end - first);
    if (first == slice * cut.slice) {
        fb_rows_zero(t->slot->vectors, 2 * s->cols);
    }
    (sinks ? sum_sink_block : sum_source_block)(t, first, rows);
    ahead->next[side] = first + rows;
    if (first + rows == end) {
        (sinks ? add_two_vectors : add_first_vector)(s, t->slot, slice == 0, t->state);
    }
    if (first + rows == cut.length) {
        (sinks ? finish_sinks : finish_source_sum)(t);
    }
    return first + rows < cut.length;
}

/* ---- what a product fetches ---------------------------------------------------------------- */

/* Products of the forward pass are hurried: three blocks are more lines than they have steps. */

/* The rows first .. first+FLOW_BLOCK-1 below length, when they lie together. */
static struct fb_tile_range rows_range(const struct fb_tensor *x, int64_t batch, int64_t head,
                                       int64_t first, int64_t length)
{
    const int64_t rows = flow_minimum(FLOW_BLOCK, length - first);
    return fb_rows_range(x, (struct fb_row_range){batch, head, first, 1, rows});
}

/* The next block of values and keys, and the block of keys that the next head sums then. */
static void fetch_sources(const struct flow_task *t, int64_t first, struct fb_tile_extra *extra)
{
    const struct fb_call *call = t->run->call;
    const struct flow_shape *s = &t->run->shape;
    const int64_t next = first + FLOW_BLOCK;
    extra->fetch[0] = rows_range(&call->v, t->batch, t->kv_head, next, t->sources);
    extra->fetch[2] = next + FLOW_BLOCK <= s->kept
                          ? (struct fb_tile_range){(const char *)(t->worker->kept + next * s->cols),
                                                   FLOW_BLOCK * s->cols * (int64_t)sizeof(float)}
                          : rows_range(&call->k, t->batch, t->kv_head, next, t->sources);
    if (t->ahead != NULL) {
        const struct flow_task *a = &t->ahead->task;
        extra->fetch[1] =
            rows_range(&call->k, a->batch, a->kv_head, t->ahead->next[FLOW_SOURCES], a->sources);
    }
}

/* The next block of phi(q), or of queries, and what the next head reads and writes then. */
static void fetch_sinks(const struct flow_task *t, int64_t first, struct fb_tile_extra *extra)
{
    const struct fb_call *call = t->run->call;
    const bool parked = t->run->shape.parked;
    extra->fetch[0] =
        rows_range(parked ? &call->out : &call->q, t->batch, t->head, first + FLOW_BLOCK, t->sinks);
    if (t->ahead != NULL) {
        const struct flow_task *a = &t->ahead->task;
        const int64_t next = t->ahead->next[FLOW_SINKS];
        extra->fetch[1] = rows_range(&call->q, a->batch, a->head, next, a->sinks);
        if (parked) {
            extra->fetch[2] = rows_range(&call->out, a->batch, a->head, next, a->sinks);
        }
    }
}

/* ---- phase 3: competition and the product -------------------------------------------------- */

/* The largest of the first rows values. */
static float largest(const float *x, int64_t rows)
{
    float peak = x[0];
    for (int64_t i = 1; i < rows; i++) {
        peak = x[i] > peak ? x[i] : peak;
    }
    return peak;
}

/* o from its dots with w. */
static void complete_outgoing(const struct flow_task *t, int64_t rows, float *o)
{
    const fb_vf term = fb_vf_set1(fb_flow_epsilon_term(t, t->state->totals.sink_flow));
    for (int64_t i = 0; i < rows; i += FB_VW) {
        fb_vf_store(o + i, fb_vf_add(fb_vf_load(o + i), term));
    }
}

void fb_flow_outgoing(const struct flow_task *t, const float *k, int64_t rows, float *o)
{
    const struct flow_shape *s = &t->run->shape;
    fb_rows_dot(k, s->cols, rows, s->cols, t->state->totals.sink_flow, o);
    complete_outgoing(t, rows, o);
}

void fb_flow_source_flows(const struct flow_task *t, const float *k, int64_t rows, float *beta,
                          float *o)
{
    const int64_t cols = t->run->shape.cols;
    const struct flow_totals *totals = &t->state->totals;
    fb_rows_dot_two(k, cols, rows, cols, totals->sink_sum, beta, totals->sink_flow, o);
    invert_flows(t, rows, totals->sink_sum, beta);
    complete_outgoing(t, rows, o);
}

float fb_flow_compete(const struct flow_task *t, const float *o, int64_t first, int64_t rows,
                      float *running, float *e)
{
    const struct fb_flow_options *options = &t->run->options;
    if (options->competition == FB_FLOW_NO_COMPETITION) {
        for (int64_t i = 0; i < rows; i += FB_VW) {
            fb_vf_store(e + i, fb_vf_set1(1.0F));
        }
        return 1.0F;
    }
    if (options->competition == FB_FLOW_OVER_HEADS) {
        const float *shares = t->run->scores + (t->batch * t->run->problem->heads + t->head) *
                                                   t->run->problem->kv_len;
        for (int64_t i = 0; i < rows; i++) {
            e[i] = shares[first + i];
        }
        return 1.0F;
    }
    const fb_vf high = fb_vf_set1(options->clamp), low = fb_vf_set1(-options->clamp);
    float factor = 1.0F;
    for (int64_t i = 0; i < rows; i += FB_VW) {
        fb_vf_store(e + i, fb_vf_max(low, fb_vf_min(high, fb_vf_load(o + i))));
    }
    float peak = options->online ? *t->state->totals.peak : 0.0F;
    if (running != NULL && options->online) {
        const float block = largest(e, rows);
        if (block > *running) {
            factor = expf(*running - block);
            *running = block;
        }
        peak = *running;
    }
    for (int64_t i = 0; i < rows; i += FB_VW) {
        fb_vf_store(e + i, fb_vf_exp(fb_vf_sub(fb_vf_load(e + i), fb_vf_set1(peak))));
    }
    return factor;
}

static float sum_block(const float *x, int64_t rows)
{
    fb_vf sum = fb_vf_zero();
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf e = fb_vf_load(x + i);
        sum = fb_vf_add(sum, rows - i < FB_VW ? fb_vf_keep(e, rows - i) : e);
    }
    return fb_vf_sum(sum);
}

static void scale_matrix(float *x, int64_t count, float factor)
{
    for (int64_t j = 0; j < count; j += FB_VW) {
        fb_vf_store(x + j, fb_vf_mul(fb_vf_load(x + j), fb_vf_set1(factor)));
    }
}

/* u += sum beta_j phi(k_j) and product (+)= sum phi(k_j) (e_j v_j)^T over a block. phi(k) is
 * scratch that nobody reads again, so that e may go into it and v is read where it lies; v that
 * does not fill its vectors is copied. */
static void add_block(const struct flow_task *t, int64_t first, int64_t rows, float *k,
                      const float *beta, const float *e)
{
    const struct flow_shape *s = &t->run->shape;
    struct fb_row_block v =
        fb_rows_load(&t->run->call->v, flow_source_range(t, first, rows), t->worker->values);
    if (s->value_dim == s->value_cols) {
        fb_rows_accumulate_and_scale(k, s->cols, rows, s->cols, beta, e, t->slot->vectors);
    } else {
        fb_rows_accumulate(k, s->cols, rows, s->cols, beta, t->slot->vectors);
        fb_rows_scale(v.rows, v.stride, rows, s->value_dim, e, t->worker->scaled, s->value_cols);
        v = (struct fb_row_block){t->worker->scaled, s->value_cols};
    }
    const bool fresh = s->stretched ? (first - t->first) % FLOW_STRETCH == 0 : first == t->first;
    struct fb_tile_extra extra = {.hurried = true};
    fetch_sources(t, first, &extra);
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (s->dim, s->value_cols, rows, k, 1, s->cols, v.rows, v.stride,
     s->stretched ? t->worker->stretch : t->slot->product, s->value_cols, !fresh, &extra);
}

/* After the block that ends there: a stretch's product to the slice's, where one is over. */
static void end_stretch(const struct flow_task *t, int64_t end)
{
    const struct flow_shape *s = &t->run->shape;
    const int64_t done = end - t->first;
    if (!s->stretched || (done % FLOW_STRETCH != 0 && end < t->last)) {
        return;
    }
    float *product = t->slot->product;
    for (int64_t j = 0; j < s->dim * s->value_cols; j += FB_VW) {
        const fb_vf old = done <= FLOW_STRETCH ? fb_vf_zero() : fb_vf_load(product + j);
        fb_vf_store(product + j, fb_vf_add(old, fb_vf_load(t->worker->stretch + j)));
    }
}

/* What a slice has summed up before its block of sources at `first`, times a factor. */
static void scale_product(const struct flow_task *t, int64_t first, float factor)
{
    const struct flow_shape *s = &t->run->shape;
    const int64_t done = first - t->first, count = s->dim * s->value_cols;
    if (done > 0 && (!s->stretched || done >= FLOW_STRETCH)) {
        scale_matrix(t->slot->product, count, factor);
    }
    if (s->stretched && done % FLOW_STRETCH != 0) {
        scale_matrix(t->worker->stretch, count, factor);
    }
}

static void collect_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    float *e = t->worker->scalar[0], *beta = t->worker->scalar[1];
    float peak = -INFINITY;
    double normaliser = 0.0;
    fb_rows_zero(t->slot->vectors, s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        float *k = fb_flow_source_rows(t, i, rows, false);
        if (t->run->options.competition == FB_FLOW_OVER_TOKENS) {
            fb_flow_source_flows(t, k, rows, beta, e);
        } else {
            fb_flow_incoming(t, k, s->cols, rows, t->state->totals.sink_sum, beta);
        }
        const float factor = fb_flow_compete(t, e, i, rows, &peak, e);
        if (factor != 1.0F) {
            scale_product(t, i, factor);
        }
        normaliser = normaliser * (double)factor + (double)sum_block(e, rows);
        add_block(t, i, rows, k, beta, e);
        end_stretch(t, i + rows);
        if (t->ahead != NULL) {
            fb_flow_step_ahead(t->ahead, FLOW_SOURCES);
        }
    }
    *t->slot->normaliser = normaliser;
    *t->slot->peak = peak;
}

/* Adds a slice's product and normaliser; the two parts are brought to the larger of their peaks. */
static void add_product(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                        const struct flow_head *state)
{
    add_first_vector(s, slot, first, state);
    float *peak = state->totals.peak;
    float keep = first ? 0.0F : 1.0F, take = 1.0F;
    if (first) {
        *peak = *slot->peak;
        *state->normaliser = 0.0;
    } else if (*slot->peak > *peak) {
        keep = expf(*peak - *slot->peak);
        *peak = *slot->peak;
    } else if (*slot->peak < *peak) {
        take = expf(*slot->peak - *peak);
    }
    const fb_vf keeping = fb_vf_set1(keep), taking = fb_vf_set1(take);
    for (int64_t j = 0; j < s->dim * s->value_cols; j += FB_VW) {
        const fb_vf part = fb_vf_mul(taking, fb_vf_load(slot->product + j));
        const fb_vf old = first ? fb_vf_zero() : fb_vf_load(state->totals.product + j);
        fb_vf_store(state->totals.product + j, fb_vf_fma(keeping, old, part));
    }
    *state->normaliser = *state->normaliser * (double)keep + *slot->normaliser * (double)take;
}

static void finish_product(const struct flow_task *t)
{
    finish_vector(t, 0, t->state->totals.source_flow);
    switch (t->run->options.competition) {
    case FB_FLOW_NO_COMPETITION:
        *t->state->totals.scale = 1.0F;
        break;
    case FB_FLOW_OVER_HEADS:
        *t->state->totals.scale = (float)t->sources;
        break;
    default:
        *t->state->totals.scale = (float)((double)t->sources / *t->state->normaliser);
        break;
    }
}

/* ---- phase 4: outputs ---------------------------------------------------------------------- */

/* r[i] = sigmoid(ratio * conserved[i]) * incoming[i] * scale. */
static void allocate(const struct flow_task *t, const float *conserved, int64_t rows,
                     const float *incoming, float *r)
{
    const struct flow_totals *totals = &t->state->totals;
    const fb_vf term = fb_vf_set1(fb_flow_epsilon_term(t, totals->source_flow));
    const fb_vf ratio = fb_vf_set1((float)((double)t->sinks / (double)t->sources));
    const fb_vf scale = fb_vf_set1(*totals->scale);
    for (int64_t i = 0; i < rows; i += FB_VW) {
        fb_vf x = fb_vf_mul(fb_vf_load(incoming + i), scale);
        if (t->run->options.allocation) {
            const fb_vf c = fb_vf_add(fb_vf_load(conserved + i), term);
            x = fb_vf_mul(x, fb_vf_sigmoid(fb_vf_mul(c, ratio)));
        }
        fb_vf_store(r + i, x);
    }
}

static void emit_sinks(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct flow_totals *totals = &t->state->totals;
    const struct fb_tensor *out = &t->run->call->out;
    const bool copied = fb_flow_copies_sinks(s);
    float *r = t->worker->scalar[1], *conserved = t->worker->scalar[2];
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const struct fb_row_range range = flow_sink_range(t, i, rows);
        const struct fb_row_block to = fb_rows_open(out, range, t->worker->values);
        int64_t stride;
        const float *q = fb_flow_sink_rows(t, i, rows, false, &stride);
        const float *incoming = incoming_of(t, i);
        if (t->alpha == NULL) {
            fb_flow_incoming(t, q, stride, rows, totals->source_sum, t->worker->scalar[0]);
        }
        fb_rows_dot(q, stride, rows, s->cols, totals->source_flow, conserved);
        allocate(t, conserved, rows, incoming, r);
        struct fb_tile_extra extra = {.hurried = true};
        fetch_sinks(t, i, &extra);
        if (copied) {
            fb_rows_scale(q, stride, rows, s->cols, r, t->worker->scaled, s->cols);
            q = t->worker->scaled;
            stride = s->cols;
        } else {
            extra.scale = r;
        }
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (rows, s->value_dim, s->dim, q, stride, 1, totals->product, s->value_cols, to.rows,
         to.stride, false, &extra);
        fb_rows_close(out, range, to);
        if (t->ahead != NULL) {
            fb_flow_step_ahead(t->ahead, FLOW_SINKS);
        }
    }
}

const struct flow_phase fb_flow_forward_phases[FLOW_FORWARD_PHASES] = {
    {.sides = {[FLOW_SOURCES] = {sum_sources, add_first_vector, finish_source_sum}}},
    {.sides = {[FLOW_SINKS] = {sum_sinks, add_two_vectors, finish_sinks}}},
    {.sides = {[FLOW_SOURCES] = {fb_flow_score_sources, NULL, NULL}}, .heads_only = true},
    {.sides = {[FLOW_SOURCES] = {fb_flow_share_sources, NULL, NULL}}, .heads_only = true},
    {.sides = {[FLOW_SOURCES] = {collect_sources, add_product, finish_product}}},
    {.sides = {[FLOW_SINKS] = {emit_sinks, NULL, NULL}}},
};
