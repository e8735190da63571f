/* The buffers of a worker: how large, where, and what is in them at the start. */
#include "measure_device.h"
#include "measure_worker.h"

#include "random.h"

static struct fb_tensor view(const struct fb_worker *worker, enum buffer_slot slot, int64_t heads,
                             int64_t tokens, int64_t dim)
{
    const struct fb_case *item = worker->item;
    return fb_tensor_dense(worker->buffers[slot].data, item->dtype, item->layout, item->batch,
                           heads, tokens, dim);
}

/* Tensors over the buffers; before these exist, tensors whose sizes count and whose data are NULL.
 * What the pass does not use stays a tensor of no elements. */
static void set_views(struct fb_worker *worker)
{
    const struct fb_problem *p = &worker->problem;
    const bool decodes = worker->pass->decodes;
    const int64_t queries = decodes ? p->kv_len : p->q_len; /* every token has its query */
    struct fb_call *call = &worker->call;
    worker->tokens[0] = view(worker, SLOT_Q, p->heads, queries, p->qk_dim);
    worker->tokens[1] = view(worker, SLOT_K, p->kv_heads, p->kv_len, p->qk_dim);
    worker->tokens[2] = view(worker, SLOT_V, p->kv_heads, p->kv_len, p->v_dim);
    call->q = worker->tokens[0];
    call->k = worker->tokens[1];
    call->v = worker->tokens[2];
    call->out = view(worker, SLOT_OUT, p->heads, p->q_len, p->v_dim);
    if (worker->pass->gradients) {
        call->dout = view(worker, SLOT_DOUT, p->heads, p->q_len, p->v_dim);
        call->dq = view(worker, SLOT_DQ, p->heads, p->q_len, p->qk_dim);
        call->dk = view(worker, SLOT_DK, p->kv_heads, p->kv_len, p->qk_dim);
        call->dv = view(worker, SLOT_DV, p->kv_heads, p->kv_len, p->v_dim);
    }
    call->constants = worker->buffers[SLOT_CONSTANTS].data;
    call->saved = worker->buffers[SLOT_SAVED].data;
    call->scratch = worker->buffers[SLOT_SCRATCH].data;
    call->decode_state = worker->buffers[SLOT_STATE].data;
    call->threads = worker->item->threads;
}

/* Fails with FB_ERROR_MEMORY before anything is allocated when the case would pass its limit. */
static enum fb_status check_limit(const size_t bytes[SLOT_COUNT], size_t limit_bytes,
                                  struct fb_error *error)
{
    double total = 0.0;
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        total += (double)bytes[slot];
    if (limit_bytes > 0 && total > (double)limit_bytes)
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "inputs, output and workspace need %.0f bytes, the limit is %zu; raise "
                            "limits.memory or use shorter sequences",
                            total, limit_bytes);
    return FB_OK;
}

static size_t tensor_bytes(const struct fb_tensor *tensor)
{
    return (size_t)fb_tensor_count(tensor) * fb_dtype_bytes(tensor->dtype);
}

enum fb_status fb_worker_allocate(struct fb_worker *worker, const struct fb_limits *limits,
                                  struct fb_error *error)
{
    static const char *const names[SLOT_COUNT] = {
        "q",  "k",  "v",     "out",   "constants",          "scratch", "dout", "dq",
        "dk", "dv", "saved", "state", "a copy of the state"};
    set_views(worker); /* for the counts; the data follow below */
    const struct fb_call *call = &worker->call;
    const size_t state_bytes = worker->pass->decodes ? worker->sizes.decode_state_bytes : 0;
    const size_t bytes[SLOT_COUNT] = {
        [SLOT_Q] = tensor_bytes(&call->q),
        [SLOT_K] = tensor_bytes(&call->k),
        [SLOT_V] = tensor_bytes(&call->v),
        [SLOT_OUT] = tensor_bytes(&call->out),
        [SLOT_CONSTANTS] = worker->constants_bytes,
        [SLOT_SCRATCH] = worker->scratch_bytes,
        [SLOT_DOUT] = tensor_bytes(&call->dout),
        [SLOT_DQ] = tensor_bytes(&call->dq),
        [SLOT_DK] = tensor_bytes(&call->dk),
        [SLOT_DV] = tensor_bytes(&call->dv),
        [SLOT_SAVED] = worker->saved_bytes,
        [SLOT_STATE] = state_bytes,
        [SLOT_STATE_COPY] = state_bytes,
    };
    const bool on_device = worker->attention->backend != FB_CPU;
    enum fb_status status =
        on_device ? FB_OK : check_limit(bytes, fb_limits_memory_bytes(limits), error);
    for (int slot = 0; status == FB_OK && slot < SLOT_COUNT; slot++)
        if (!on_device || fb_worker_device_mirrors((enum buffer_slot)slot))
            status = fb_mapped_buffer_init(&worker->buffers[slot], bytes[slot], slot, names[slot],
                                           error);
    if (status == FB_OK)
        set_views(worker);
    return status == FB_OK && on_device ? fb_worker_device_open(worker, bytes, limits, error)
                                        : status;
}

static enum fb_status prepare_constants(struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_mechanism *mechanism = worker->attention->mechanism;
    if (!mechanism->prepare)
        return FB_OK;
    /* Processes share what is drawn for them, unless the mechanism's `redraw` asks otherwise. */
    const int redraw = fb_param_index(mechanism, "redraw");
    const bool own = redraw >= 0 && worker->problem.params[redraw] > 0.0;
    return mechanism->prepare(&worker->problem, own ? worker->input_seed : worker->item->seed,
                              worker->buffers[SLOT_CONSTANTS].data, error);
}

/* Padding holds random numbers too: a kernel that looks at it is found out. */
enum fb_status fb_worker_fill(struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_tensor *inputs[] = {&worker->tokens[0], &worker->tokens[1], &worker->tokens[2],
                                        &worker->call.dout};
    const int threads = worker->item->threads;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        if (inputs[i]->data)
            fb_random_fill_normal(inputs[i]->data, inputs[i]->dtype, fb_tensor_count(inputs[i]),
                                  1.0F, worker->input_seed, (uint64_t)i, threads);
    const enum fb_status status = prepare_constants(worker, error);
    if (status != FB_OK)
        return status;
    return worker->device != NULL && worker->peer == NULL ? fb_worker_device_upload(worker, error)
                                                          : fb_worker_poison(worker, error);
}
