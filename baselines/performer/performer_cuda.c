/*
 * Performer on a GPU as a variant: features into scratch memory, then linear attention over them
 * (linear_cuda.h), or fused kernels where they serve; kernel relu is linear attention on the
 * components themselves.
 */
#include "performer/performer_cuda.h"

#include "baseline_support.h"
#include "linear/linear_cuda.h"
#include "performer/performer.h"

/* Linear attention with a mask has shared memory for so many; in f32 the tensor cores' sums over
 * more of them lose more digits than f32 has to lose. */
enum { FEATURES_MAX = 384 };

/* Gradients take dout out from the rounded output: over few columns its error does not average
 * out. */
enum { ROUNDED_COLUMNS_MIN = 8 };

struct performer_buffers {
    struct fb_performer_cuda_plan plan;
    struct fb_linear_cuda_form form;
    struct fb_performer_cuda_side q, k;
    int32_t *lengths;
    float *peaks;
    void *linear_scratch, *linear_saved;
    size_t scratch_bytes, saved_bytes; /* without linear attention's */
};

static struct fb_linear_cuda_form relu_form(const struct fb_problem *p)
{
    return (struct fb_linear_cuda_form){
        .map = FB_LINEAR_CUDA_RELU, .features = p->dtype, .feature_count = p->qk_dim};
}

static void take_side(struct fb_scratch_cursor *scratch, const struct fb_performer_cuda_plan *plan,
                      int64_t rows, bool backward, struct fb_performer_cuda_side *side)
{
    const size_t bytes = fb_dtype_bytes(plan->dtype);
    side->phi = fb_scratch_take(scratch, rows * plan->columns, bytes);
    side->exps = backward && plan->apart != 0.0F
                     ? fb_scratch_take(scratch, rows * plan->columns, bytes)
                     : NULL;
    side->dphi = backward ? fb_scratch_take(scratch, rows * plan->columns, bytes) : NULL;
}

/* Lays out scratch and saved; with both NULL it only counts. */
static void lay_out(const struct fb_problem *p, bool backward, void *scratch, void *saved,
                    struct performer_buffers *x)
{
    struct fb_scratch_cursor here = fb_scratch_at(scratch), kept = fb_scratch_at(saved);
    *x = (struct performer_buffers){0};
    x->plan = fb_performer_cuda_plan_of(p, fb_problem_int_param(p, FB_PERFORMER_FEATURES));
    x->form = (struct fb_linear_cuda_form){.map = FB_LINEAR_CUDA_IDENTITY,
                                           .features = x->plan.dtype,
                                           .feature_count = x->plan.columns,
                                           .apart = x->plan.apart};
    const int64_t peaks = p->batch * p->kv_heads * x->plan.slices;
    x->peaks = fb_scratch_take_f32(&kept, peaks);
    if (!backward && saved == NULL)
        x->peaks = fb_scratch_take_f32(&here, peaks);
    if (p->q_lengths != NULL || p->kv_lengths != NULL)
        x->lengths = (int32_t *)fb_scratch_take(&here, 2 * p->batch, sizeof(int32_t));
    take_side(&here, &x->plan, p->batch * p->heads * p->q_len, backward, &x->q);
    take_side(&here, &x->plan, p->batch * p->kv_heads * p->kv_len, backward, &x->k);
    x->form.keys_apart = x->k.exps;
    x->q.lengths = x->lengths;
    x->k.lengths = x->lengths == NULL ? NULL : x->lengths + p->batch;
    x->scratch_bytes = here.used_bytes;
    x->saved_bytes = kept.used_bytes;
    x->linear_scratch = scratch == NULL ? NULL : here.base + here.used_bytes;
    x->linear_saved = saved == NULL ? NULL : kept.base + kept.used_bytes;
}

static struct fb_tensor features_of(const struct fb_problem *p, const struct performer_buffers *x,
                                    bool queries, void *data)
{
    return fb_tensor_dense(data, x->plan.dtype, FB_BHND, p->batch, queries ? p->heads : p->kv_heads,
                           queries ? p->q_len : p->kv_len, x->plan.columns);
}

static struct fb_call linear_call(const struct fb_problem *p, const struct fb_call *call,
                                  const struct performer_buffers *x)
{
    struct fb_call linear = *call;
    linear.q = features_of(p, x, true, x->q.phi);
    linear.k = features_of(p, x, false, x->k.phi);
    linear.dq = features_of(p, x, true, x->q.dphi);
    linear.dk = features_of(p, x, false, x->k.dphi);
    linear.saved = x->linear_saved;
    linear.scratch = x->linear_scratch;
    return linear;
}

static enum fb_status write_features(const struct fb_problem *p, const struct fb_call *call,
                                     struct performer_buffers *x, bool peaks_known,
                                     struct fb_error *error)
{
    const float *projection = (const float *)call->constants;
    enum fb_status status = FB_OK;
    x->q.x = call->q;
    x->k.x = call->k;
    if (x->lengths != NULL)
        status = fb_performer_cuda_lengths(p, x->lengths, call->stream, error);
    if (status == FB_OK && !peaks_known)
        status =
            fb_performer_cuda_peaks(&x->plan, &x->k, projection, x->peaks, call->stream, error);
    if (status == FB_OK)
        status =
            fb_performer_cuda_features(&x->plan, &x->k, projection, x->peaks, call->stream, error);
    if (status == FB_OK)
        status = fb_performer_cuda_features(&x->plan, &x->q, projection, NULL, call->stream, error);
    return status;
}

/* ---- the variant ----------------------------------------------------------------------------- */

static enum fb_status performer_cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                              struct fb_error *why)
{
    const int64_t features = fb_problem_int_param(p, FB_PERFORMER_FEATURES);
    const bool few_only = p->causal || p->dtype == FB_F32;
    if (few_only && pass != FB_DECODE && !fb_performer_is_relu(p) && features > FEATURES_MAX)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "performer fused on cuda serves up to %d features when causal or in "
                            "f32: features is %lld",
                            FEATURES_MAX, (long long)features);
    if ((pass == FB_BACKWARD || pass == FB_BOTH) && p->dtype != FB_F32 && p->dtype != FB_F64 &&
        p->v_dim < ROUNDED_COLUMNS_MIN)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "performer fused on cuda has gradients in %s from %d columns of "
                            "values on: v_dim is %lld; use f32",
                            fb_dtype_name(p->dtype), ROUNDED_COLUMNS_MIN, (long long)p->v_dim);
    return fb_linear_cuda_supports(p, pass, "performer fused on cuda", why);
}

static void performer_cuda_sizes(const struct fb_problem *p, int threads, struct fb_sizes *sizes)
{
    struct performer_buffers x;
    (void)threads;
    *sizes = (struct fb_sizes){0};
    if (fb_performer_is_relu(p)) {
        const struct fb_linear_cuda_form form = relu_form(p);
        fb_linear_cuda_sizes(p, &form, sizes);
        sizes->decode_state_bytes = fb_linear_cuda_state_bytes(p, &form);
        return;
    }
    lay_out(p, false, NULL, NULL, &x);
    if (fb_performer_cuda_is_fused(p, x.plan.features)) {
        fb_performer_cuda_fused_sizes(p, x.plan.features, sizes);
    } else {
        fb_linear_cuda_sizes(p, &x.form, sizes);
        sizes->saved_bytes += x.saved_bytes;
        sizes->forward_scratch_bytes += x.scratch_bytes;
        lay_out(p, true, NULL, NULL, &x);
        sizes->backward_scratch_bytes += x.scratch_bytes;
    }
    x.form.feature_count = x.plan.features;
    sizes->decode_state_bytes = fb_linear_cuda_state_bytes(p, &x.form);
    const int64_t units = p->batch * (p->heads + p->kv_heads);
    sizes->decode_scratch_bytes =
        sizeof(float) * (size_t)(units * x.plan.features + p->batch * p->kv_heads);
}

static enum fb_status performer_cuda_forward(const struct fb_problem *p, const struct fb_call *call,
                                             struct fb_error *error)
{
    struct performer_buffers x;
    if (fb_performer_is_relu(p)) {
        const struct fb_linear_cuda_form form = relu_form(p);
        return fb_linear_cuda_forward(p, &form, call, error);
    }
    const int64_t features = fb_problem_int_param(p, FB_PERFORMER_FEATURES);
    if (fb_performer_cuda_is_fused(p, features))
        return fb_performer_cuda_fused_forward(p, features, call, error);
    lay_out(p, false, call->scratch, call->saved, &x);
    const enum fb_status status = write_features(p, call, &x, false, error);
    if (status != FB_OK)
        return status;
    const struct fb_call linear = linear_call(p, call, &x);
    return fb_linear_cuda_forward(p, &x.form, &linear, error);
}

static enum fb_status performer_cuda_backward(const struct fb_problem *p,
                                              const struct fb_call *call, struct fb_error *error)
{
    struct performer_buffers x;
    if (fb_performer_is_relu(p)) {
        const struct fb_linear_cuda_form form = relu_form(p);
        return fb_linear_cuda_backward(p, &form, call, error);
    }
    const int64_t features = fb_problem_int_param(p, FB_PERFORMER_FEATURES);
    if (fb_performer_cuda_is_fused(p, features))
        return fb_performer_cuda_fused_backward(p, features, call, error);
    lay_out(p, true, call->scratch, call->saved, &x);
    enum fb_status status = write_features(p, call, &x, true, error);
    const struct fb_call linear = linear_call(p, call, &x);
    const float *projection = (const float *)call->constants;
    if (status == FB_OK)
        status = fb_linear_cuda_backward(p, &x.form, &linear, error);
    x.q.dx = call->dq;
    x.k.dx = call->dk;
    if (status == FB_OK)
        status = fb_performer_cuda_pull(&x.plan, &x.q, true, projection, call->stream, error);
    if (status == FB_OK)
        status = fb_performer_cuda_pull(&x.plan, &x.k, false, projection, call->stream, error);
    return status;
}

/* Scratch: the queries' features, the keys', the keys' exponents. */
static enum fb_status performer_cuda_decode(const struct fb_problem *p, const struct fb_call *call,
                                            struct fb_error *error)
{
    if (fb_performer_is_relu(p)) {
        const struct fb_linear_cuda_form form = relu_form(p);
        return fb_linear_cuda_decode(p, &form, call, NULL, error);
    }
    const int64_t features = fb_problem_int_param(p, FB_PERFORMER_FEATURES);
    const struct fb_linear_cuda_form form = {
        .map = FB_LINEAR_CUDA_IDENTITY, .features = FB_F32, .feature_count = features};
    const float *projection = (const float *)call->constants;
    float *q = (float *)call->scratch, *k = q + p->batch * p->heads * features;
    float *exponents = k + p->batch * p->kv_heads * features;
    struct fb_call linear = *call;
    linear.q = fb_tensor_dense(q, FB_F32, FB_BHND, p->batch, p->heads, 1, features);
    linear.k = fb_tensor_dense(k, FB_F32, FB_BHND, p->batch, p->kv_heads, 1, features);
    enum fb_status status =
        fb_performer_cuda_token(&call->q, features, projection, 0.0F, q, NULL, call->stream, error);
    if (status == FB_OK)
        status =
            fb_performer_cuda_token(&call->k, features, projection, (float)call->key_stabiliser, k,
                                    exponents, call->stream, error);
    return status == FB_OK ? fb_linear_cuda_decode(p, &form, &linear, exponents, error) : status;
}

const struct fb_attention fb_performer_fused_cuda = {
    .mechanism = &fb_performer,
    .variant = "fused",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = performer_cuda_supports,
    .sizes = performer_cuda_sizes,
    .forward = performer_cuda_forward,
    .backward = performer_cuda_backward,
    .decode = performer_cuda_decode,
};
