/* Problems, tensors and checked calls; see attention.h. */
#include "attention.h"
#include "checked.h"
#include "cpu_features.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* No buffer of a problem may pass this size: far above any machine, far below overflow. */
#define TENSOR_BYTES_MAX (INT64_C(1) << 48)

void fb_problem_init(struct fb_problem *problem, const struct fb_mechanism *mechanism,
                     int64_t batch, int64_t heads, int64_t len, int64_t dim)
{
    memset(problem, 0, sizeof *problem);
    problem->batch = batch;
    problem->heads = heads;
    problem->kv_heads = heads;
    problem->q_len = len;
    problem->kv_len = len;
    problem->qk_dim = dim;
    problem->v_dim = dim;
    problem->dtype = FB_F32;
    for (int i = 0; i < mechanism->param_count; i++) {
        problem->params[i] = mechanism->params[i].default_value;
    }
}

int fb_param_index(const struct fb_mechanism *mechanism, const char *name)
{
    for (int i = 0; i < mechanism->param_count; i++) {
        if (strcmp(mechanism->params[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static enum fb_status check_sizes(const struct fb_problem *p, struct fb_error *error)
{
    const struct {
        const char *name;
        int64_t value, limit;
    } sizes[] = {
        {"batch", p->batch, INT64_MAX},           {"heads", p->heads, INT64_MAX},
        {"kv_heads", p->kv_heads, INT64_MAX},     {"seq_len", p->q_len, INT64_MAX},
        {"kv_len", p->kv_len, INT64_MAX},         {"head_dim", p->qk_dim, FB_HEAD_DIM_MAX},
        {"value_dim", p->v_dim, FB_HEAD_DIM_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].limit) {
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s is %" PRId64 "; it must be between 1 and %" PRId64,
                                sizes[i].name, sizes[i].value, sizes[i].limit);
        }
    }
    const int64_t len = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const int64_t dim = p->qk_dim > p->v_dim ? p->qk_dim : p->v_dim;
    int64_t bytes;
    if (!fb_checked_mul_i64(p->batch, p->heads, &bytes) ||
        !fb_checked_mul_i64(bytes, len, &bytes) || !fb_checked_mul_i64(bytes, dim, &bytes) ||
        !fb_checked_mul_i64(bytes, (int64_t)fb_dtype_bytes(p->dtype), &bytes) ||
        bytes > TENSOR_BYTES_MAX) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "batch %" PRId64 " x heads %" PRId64 " x length %" PRId64
                            " x dim %" PRId64 " does not fit: a tensor holds at most 2^48 bytes",
                            p->batch, p->heads, len, dim);
    }
    if (p->heads % p->kv_heads != 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "kv_heads %" PRId64 " does not divide heads %" PRId64, p->kv_heads,
                            p->heads);
    }
    return FB_OK;
}

static enum fb_status check_lengths(const char *name, const int64_t *lengths, int64_t batch,
                                    int64_t limit, struct fb_error *error)
{
    for (int64_t b = 0; lengths != NULL && b < batch; b++) {
        if (lengths[b] < 0 || lengths[b] > limit) {
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s[%" PRId64 "] is %" PRId64 "; it must be between 0 and %" PRId64,
                                name, b, lengths[b], limit);
        }
    }
    return FB_OK;
}

static enum fb_status check_param(const struct fb_mechanism *mechanism,
                                  const struct fb_param *param, double value,
                                  struct fb_error *error)
{
    const bool whole = param->type == FB_PARAM_REAL || value == floor(value);
    if (!(value >= param->min && value <= param->max) || !whole) {
        return fb_error_set(error, FB_ERROR_INPUT, "%s: %s is %g; it must be %s between %g and %g",
                            mechanism->name, param->name, value,
                            param->type == FB_PARAM_REAL ? "a number" : "a whole number",
                            param->min, param->max);
    }
    return FB_OK;
}

enum fb_status fb_problem_check(const struct fb_problem *problem,
                                const struct fb_mechanism *mechanism, struct fb_error *error)
{
    if ((unsigned int)problem->dtype >= FB_DTYPE_COUNT) {
        return fb_error_set(error, FB_ERROR_INPUT, "dtype %d is not one of f32, f64, bf16, f16",
                            (int)problem->dtype);
    }
    enum fb_status status = check_sizes(problem, error);
    if (status == FB_OK) {
        status =
            check_lengths("q_lengths", problem->q_lengths, problem->batch, problem->q_len, error);
    }
    if (status == FB_OK) {
        status = check_lengths("kv_lengths", problem->kv_lengths, problem->batch, problem->kv_len,
                               error);
    }
    for (int i = 0; status == FB_OK && i < mechanism->param_count; i++) {
        status = check_param(mechanism, &mechanism->params[i], problem->params[i], error);
    }
    if (status == FB_OK && mechanism->supports != NULL) {
        status = mechanism->supports(problem, error);
    }
    return status;
}

struct fb_tensor fb_tensor_dense(void *data, enum fb_dtype dtype, enum fb_layout layout,
                                 int64_t batch, int64_t heads, int64_t tokens, int64_t dim)
{
    struct fb_tensor tensor = {.data = data, .dtype = dtype, .shape = {batch, heads, tokens, dim}};
    tensor.stride[0] = heads * tokens * dim;
    tensor.stride[1] = layout == FB_BHND ? tokens * dim : dim;
    tensor.stride[2] = layout == FB_BHND ? dim : heads * dim;
    tensor.stride[3] = 1;
    return tensor;
}

int64_t fb_tensor_count(const struct fb_tensor *tensor)
{
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

static bool has_pass(const struct fb_attention *attention, enum fb_pass pass)
{
    switch (pass) {
    case FB_FORWARD:
        return attention->forward != NULL;
    case FB_BACKWARD:
    case FB_BOTH:
        return attention->forward != NULL && attention->backward != NULL;
    case FB_DECODE:
        return attention->decode != NULL;
    default:
        return false;
    }
}

enum fb_status fb_attention_supports(const struct fb_attention *attention,
                                     const struct fb_problem *problem, enum fb_pass pass,
                                     struct fb_error *why)
{
    const enum fb_status status = fb_problem_check(problem, attention->mechanism, why);
    if (status != FB_OK) {
        return status;
    }
    if (!has_pass(attention, pass)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED, "%s/%s on %s has no %s pass",
                            attention->mechanism->name, attention->variant,
                            fb_backend_name(attention->backend), fb_pass_name(pass));
    }
    /* Before the variant is asked: all of its code is compiled for that instruction set. */
    if (attention->backend == FB_CPU && !fb_cpu_has(attention->isa)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED, "%s/%s needs %s, which this processor lacks",
                            attention->mechanism->name, attention->variant,
                            fb_isa_name(attention->isa));
    }
    return attention->supports == NULL ? FB_OK : attention->supports(problem, pass, why);
}

void fb_attention_sizes(const struct fb_attention *attention, const struct fb_problem *problem,
                        int threads, struct fb_sizes *sizes)
{
    memset(sizes, 0, sizeof *sizes);
    attention->sizes(problem, threads, sizes);
}

static enum fb_status check_tensor(const char *name, const struct fb_tensor *t, enum fb_dtype dtype,
                                   int64_t batch, int64_t heads, int64_t tokens, int64_t dim,
                                   struct fb_error *error)
{
    const int64_t want[4] = {batch, heads, tokens, dim};
    if (t->data == NULL) {
        return fb_error_set(error, FB_ERROR_INPUT, "%s has no data", name);
    }
    if (t->dtype != dtype) {
        return fb_error_set(error, FB_ERROR_INPUT, "%s is %s; the problem says %s", name,
                            fb_dtype_name(t->dtype), fb_dtype_name(dtype));
    }
    if (memcmp(t->shape, want, sizeof want) != 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s has shape [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                            "]; the problem asks for [%" PRId64 ", %" PRId64 ", %" PRId64
                            ", %" PRId64 "]",
                            name, t->shape[0], t->shape[1], t->shape[2], t->shape[3], want[0],
                            want[1], want[2], want[3]);
    }
    if (t->stride[3] != 1) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: the last stride is %" PRId64
                            "; components must be adjacent (stride 1)",
                            name, t->stride[3]);
    }
    return FB_OK;
}

/* keys: the tokens that k and v hold in this call. */
static enum fb_status check_call(const struct fb_attention *attention, const struct fb_problem *p,
                                 const struct fb_call *call, int64_t keys, struct fb_error *error)
{
    const struct {
        const char *name;
        const struct fb_tensor *tensor;
        int64_t heads, tokens, dim;
    } tensors[] = {
        {"q", &call->q, p->heads, p->q_len, p->qk_dim},
        {"k", &call->k, p->kv_heads, keys, p->qk_dim},
        {"v", &call->v, p->kv_heads, keys, p->v_dim},
        {"out", &call->out, p->heads, p->q_len, p->v_dim},
    };
    enum fb_status status = FB_OK;
    for (size_t i = 0; status == FB_OK && i < sizeof tensors / sizeof tensors[0]; i++) {
        status = check_tensor(tensors[i].name, tensors[i].tensor, p->dtype, p->batch,
                              tensors[i].heads, tensors[i].tokens, tensors[i].dim, error);
    }
    if (status != FB_OK) {
        return status;
    }
    const struct fb_mechanism *mechanism = attention->mechanism;
    if (mechanism->constants_bytes != NULL && mechanism->constants_bytes(p) > 0 &&
        call->constants == NULL) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s needs its constants: call the mechanism's prepare first",
                            mechanism->name);
    }
    if (call->threads < 1) {
        return fb_error_set(error, FB_ERROR_INPUT, "threads is %d; it must be at least 1",
                            call->threads);
    }
    return FB_OK;
}

static enum fb_status check_scratch(const struct fb_call *call, size_t bytes,
                                    struct fb_error *error)
{
    if (bytes > 0 && (call->scratch == NULL || (uintptr_t)call->scratch % FB_ALIGNMENT != 0)) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "scratch is %p; %zu bytes aligned to %d are needed", call->scratch,
                            bytes, (int)FB_ALIGNMENT);
    }
    return FB_OK;
}

enum fb_status fb_attention_forward(const struct fb_attention *attention,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    enum fb_status status = fb_attention_supports(attention, problem, FB_FORWARD, error);
    if (status == FB_OK) {
        status = check_call(attention, problem, call, problem->kv_len, error);
    }
    if (status == FB_OK) {
        struct fb_sizes sizes;
        fb_attention_sizes(attention, problem, call->threads, &sizes);
        status = check_scratch(call, sizes.forward_scratch_bytes, error);
    }
    return status == FB_OK ? attention->forward(problem, call, error) : status;
}

enum fb_status fb_attention_backward(const struct fb_attention *attention,
                                     const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error)
{
    enum fb_status status = fb_attention_supports(attention, problem, FB_BACKWARD, error);
    if (status == FB_OK) {
        status = check_call(attention, problem, call, problem->kv_len, error);
    }
    const struct {
        const char *name;
        const struct fb_tensor *tensor, *like;
    } gradients[] = {{"dout", &call->dout, &call->out},
                     {"dq", &call->dq, &call->q},
                     {"dk", &call->dk, &call->k},
                     {"dv", &call->dv, &call->v}};
    for (size_t i = 0; status == FB_OK && i < sizeof gradients / sizeof gradients[0]; i++) {
        const int64_t *shape = gradients[i].like->shape;
        status = check_tensor(gradients[i].name, gradients[i].tensor, problem->dtype, shape[0],
                              shape[1], shape[2], shape[3], error);
    }
    if (status == FB_OK) {
        struct fb_sizes sizes;
        fb_attention_sizes(attention, problem, call->threads, &sizes);
        status = check_scratch(call, sizes.backward_scratch_bytes, error);
        if (status == FB_OK && sizes.saved_bytes > 0 && call->saved == NULL) {
            status = fb_error_set(error, FB_ERROR_INPUT,
                                  "backward needs what a training forward saved: pass the same "
                                  "`saved` buffer to both");
        }
    }
    return status == FB_OK ? attention->backward(problem, call, error) : status;
}

static enum fb_status check_decode(const struct fb_attention *attention,
                                   const struct fb_problem *problem, const struct fb_call *call,
                                   int64_t keys, struct fb_error *error)
{
    enum fb_status status = fb_attention_supports(attention, problem, FB_DECODE, error);
    if (status == FB_OK && problem->causal) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "decoding is causal by nature: leave the problem's causal unset");
    }
    if (status != FB_OK) {
        return status;
    }
    struct fb_sizes sizes;
    fb_attention_sizes(attention, problem, call->threads, &sizes);
    status = check_scratch(call, sizes.decode_scratch_bytes, error);
    if (status == FB_OK &&
        (call->decode_state == NULL || (uintptr_t)call->decode_state % FB_ALIGNMENT != 0)) {
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "decode_state is %p; %zu bytes aligned to %d are needed, zero before "
                              "the first token",
                              call->decode_state, sizes.decode_state_bytes, (int)FB_ALIGNMENT);
    }
    return status == FB_OK ? check_call(attention, problem, call, keys, error) : status;
}

enum fb_status fb_attention_decode(const struct fb_attention *attention,
                                   const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    const enum fb_status status = check_decode(attention, problem, call, 1, error);
    return status == FB_OK ? attention->decode(problem, call, error) : status;
}

static struct fb_tensor one_token(const struct fb_tensor *tensor, int64_t token)
{
    struct fb_tensor view = *tensor;
    view.data = (unsigned char *)tensor->data +
                (size_t)(token * tensor->stride[2]) * fb_dtype_bytes(tensor->dtype);
    view.shape[2] = 1;
    return view;
}

enum fb_status fb_attention_prefill(const struct fb_attention *attention,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    struct fb_call step = *call;
    const int64_t tokens = call->q.shape[2];
    step.q = one_token(&call->q, 0);
    enum fb_status status = check_decode(attention, problem, &step, tokens, error);
    if (status == FB_OK && tokens > problem->kv_len) {
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "%" PRId64 " tokens do not fit in a state for %" PRId64, tokens,
                              problem->kv_len);
    }
    if (status != FB_OK || attention->prefill != NULL) {
        return status == FB_OK ? attention->prefill(problem, call, error) : status;
    }
    for (int64_t token = 0; status == FB_OK && token < tokens; token++) {
        step.q = one_token(&call->q, token);
        step.k = one_token(&call->k, token);
        step.v = one_token(&call->v, token);
        status = attention->decode(problem, &step, error);
    }
    return status;
}
