/*
 * Softmax by cuDNN, where its library is: the yardstick that a GPU's owner has already. Forward and
 * backward, for 16-bit numbers. The library is loaded at run time (cudnn_api.h), its plans are
 * built once and kept (cudnn_plan.h).
 */
#include "softmax/cudnn_plan.h"
#include "softmax/softmax.h"

enum { DIM_STEP = 8, DIM_MOST = 128, ALIGNMENT = 256 };

static enum fb_status supports(const struct fb_problem *p, enum fb_pass pass, struct fb_error *why)
{
    if (p->qk_dim % DIM_STEP != 0 || p->qk_dim > DIM_MOST || p->v_dim != p->qk_dim)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax cudnn has one head dimension, a multiple of %d up to %d: "
                            "qk_dim is %lld, v_dim is %lld",
                            (int)DIM_STEP, (int)DIM_MOST, (long long)p->qk_dim,
                            (long long)p->v_dim);
    if (p->heads != p->kv_heads || p->q_len != p->kv_len)
        return fb_error_set(
            why, FB_ERROR_UNSUPPORTED,
            "softmax cudnn takes kv_heads equal to heads and kv_len equal to seq_len: "
            "they are %lld and %lld, %lld and %lld",
            (long long)p->kv_heads, (long long)p->heads, (long long)p->kv_len, (long long)p->q_len);
    if (p->q_lengths != NULL || p->kv_lengths != NULL)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax cudnn takes sequences of full length: leave lengths unset");
    if (p->dtype != FB_BF16 && p->dtype != FB_F16)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax cudnn computes in bf16 and f16, not %s: use the variant tiled",
                            fb_dtype_name(p->dtype));
    const struct fb_cudnn *api = fb_cudnn_load(why);
    if (api == NULL)
        return FB_ERROR_UNSUPPORTED;
    if (pass != FB_FORWARD && p->kv_len % FB_CUDNN_TILE != 0 &&
        api->version < FB_CUDNN_VERSION_TAILS)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax cudnn: gradients of cuDNN %zu touch memory beyond sequences "
                            "that are no multiple of %d long: seq_len is %lld; install %d or newer",
                            api->version, (int)FB_CUDNN_TILE, (long long)p->kv_len,
                            (int)FB_CUDNN_VERSION_TAILS);
    return FB_OK;
}

size_t fb_softmax_cudnn_version(void)
{
    const struct fb_cudnn *api = fb_cudnn_load(NULL);
    return api != NULL ? api->version : 0;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t stats_bytes(const struct fb_problem *p)
{
    return (size_t)(p->batch * p->heads * p->q_len) * sizeof(float);
}

static size_t dq_bytes(const struct fb_problem *p)
{
    return stats_bytes(p) * (size_t)p->qk_dim;
}

/* Of dense tensors; strides do not change it. Where no plan can be built it is 0, and the call will
 * say why. */
static size_t workspace_bytes(const struct fb_problem *p, enum fb_cudnn_pass pass)
{
    const struct fb_cudnn *api = fb_cudnn_load(NULL);
    const struct fb_tensor dense =
        fb_tensor_dense(NULL, p->dtype, FB_BHND, p->batch, p->heads, p->q_len, p->qk_dim);
    const struct fb_call call = {.q = dense,
                                 .k = dense,
                                 .v = dense,
                                 .out = dense,
                                 .dout = dense,
                                 .dq = dense,
                                 .dk = dense,
                                 .dv = dense};
    size_t bytes = 0;
    if (api == NULL || fb_cudnn_plan_workspace(api, p, &call, pass, &bytes, NULL) != FB_OK)
        return 0;
    return bytes;
}

static void sizes(const struct fb_problem *p, int threads, struct fb_sizes *sizes)
{
    (void)threads;
    const size_t inference = workspace_bytes(p, FB_CUDNN_INFERENCE);
    const size_t training = workspace_bytes(p, FB_CUDNN_TRAINING);
    *sizes = (struct fb_sizes){
        .saved_bytes = stats_bytes(p),
        .forward_scratch_bytes = inference > training ? inference : training,
        .backward_scratch_bytes =
            aligned(stats_bytes(p)) + aligned(dq_bytes(p)) + workspace_bytes(p, FB_CUDNN_BACKWARD),
    };
}

/* ---- passes ---------------------------------------------------------------------------------- */

/* Its kernels move 16 bytes at a time. */
static bool is_aligned(const struct fb_tensor *tensor)
{
    enum { STEP = 16 };
    bool aligned = (uintptr_t)tensor->data % STEP == 0;
    for (int i = 0; i < 3; i++)
        aligned = aligned && tensor->stride[i] * (int64_t)fb_dtype_bytes(tensor->dtype) % STEP == 0;
    return aligned;
}

static enum fb_status check_alignment(const struct fb_call *call, bool gradients,
                                      struct fb_error *error)
{
    const struct {
        const char *name;
        const struct fb_tensor *tensor;
    } all[] = {{"q", &call->q},       {"k", &call->k},   {"v", &call->v},   {"out", &call->out},
               {"dout", &call->dout}, {"dq", &call->dq}, {"dk", &call->dk}, {"dv", &call->dv}};
    for (size_t i = 0; i < (gradients ? 8U : 4U); i++)
        if (!is_aligned(all[i].tensor))
            return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                                "softmax cudnn: the rows of %s do not all begin at multiples of 16 "
                                "bytes: use a dense layout, or the variant tiled",
                                all[i].name);
    return FB_OK;
}

static enum fb_status forward(const struct fb_problem *problem, const struct fb_call *call,
                              struct fb_error *error)
{
    const struct fb_cudnn *api = fb_cudnn_load(error);
    if (api == NULL)
        return FB_ERROR_UNSUPPORTED;
    const enum fb_cudnn_pass pass = call->saved != NULL ? FB_CUDNN_TRAINING : FB_CUDNN_INFERENCE;
    const enum fb_status status = check_alignment(call, false, error);
    if (status != FB_OK)
        return status;
    struct fb_sizes bytes;
    sizes(problem, call->threads, &bytes);
    const struct fb_cudnn_extra extra = {.stats = call->saved,
                                         .workspace = call->scratch,
                                         .workspace_bytes = bytes.forward_scratch_bytes};
    return fb_cudnn_plan_run(api, problem, call, pass, &extra, error);
}

static enum fb_status backward(const struct fb_problem *problem, const struct fb_call *call,
                               struct fb_error *error)
{
    const struct fb_cudnn *api = fb_cudnn_load(error);
    if (api == NULL)
        return FB_ERROR_UNSUPPORTED;
    const enum fb_status status = check_alignment(call, true, error);
    if (status != FB_OK)
        return status;
    struct fb_sizes bytes;
    sizes(problem, call->threads, &bytes);
    unsigned char *scratch = call->scratch;
    const size_t rows = aligned(stats_bytes(problem));
    const size_t before = rows + aligned(dq_bytes(problem));
    struct fb_cudnn_extra extra = {.stats = call->saved, .rows = scratch, .dq = scratch + rows};
    extra.workspace = scratch + before;
    extra.workspace_bytes = bytes.backward_scratch_bytes - before;
    return fb_cudnn_plan_run(api, problem, call, FB_CUDNN_BACKWARD, &extra, error);
}

const struct fb_attention fb_softmax_cudnn = {
    .mechanism = &fb_softmax,
    .variant = "cudnn",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = false,
    .supports = supports,
    .sizes = sizes,
    .forward = forward,
    .backward = backward,
};
