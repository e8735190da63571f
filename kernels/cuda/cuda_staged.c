/* Device variants on host buffers: see cuda_staged.h. */
#include "cuda_staged.h"

#include "cuda_device.h"

enum { PIECES_MAX = 12 };

typedef enum fb_status staged_fn(const struct fb_attention *attention,
                                 const struct fb_problem *problem, const struct fb_call *call,
                                 struct fb_error *error);

/* A buffer of the host and its copy on the device. */
struct piece {
    const char *name;
    void *host, *device;
    size_t bytes;
    bool comes_back;
};

struct stage {
    struct piece pieces[PIECES_MAX];
    int count;
};

static void *add(struct stage *stage, const char *name, void *host, size_t bytes, bool comes_back,
                 enum fb_status *status, struct fb_error *error)
{
    if (*status != FB_OK || host == NULL || bytes == 0)
        return NULL;
    struct piece *piece = &stage->pieces[stage->count];
    *piece = (struct piece){name, host, NULL, bytes, comes_back};
    *status = fb_cuda_allocate(bytes, name, &piece->device, error);
    if (*status != FB_OK)
        return NULL;
    stage->count++;
    *status = fb_cuda_upload(piece->device, host, bytes, error);
    return piece->device;
}

/* From the first element to the last, gaps included: what lies in the gaps comes back as it was. */
static size_t span_bytes(const struct fb_tensor *t)
{
    int64_t last = 0;
    for (int i = 0; i < 4; i++) {
        if (t->shape[i] < 1)
            return 0;
        last += (t->shape[i] - 1) * t->stride[i];
    }
    return (size_t)(last + 1) * fb_dtype_bytes(t->dtype);
}

static void add_tensor(struct stage *stage, const char *name, struct fb_tensor *tensor,
                       bool comes_back, enum fb_status *status, struct fb_error *error)
{
    tensor->data = add(stage, name, tensor->data, span_bytes(tensor), comes_back, status, error);
}

static size_t scratch_bytes(const struct fb_sizes *sizes)
{
    size_t most = sizes->forward_scratch_bytes;
    most = sizes->backward_scratch_bytes > most ? sizes->backward_scratch_bytes : most;
    return sizes->decode_scratch_bytes > most ? sizes->decode_scratch_bytes : most;
}

static enum fb_status put_up(struct stage *stage, const struct fb_attention *attention,
                             const struct fb_problem *problem, struct fb_call *call, void **scratch,
                             struct fb_error *error)
{
    const uint32_t poison = UINT32_C(0xffffffff);
    struct fb_sizes sizes;
    enum fb_status status = FB_OK;
    fb_attention_sizes(attention, problem, call->threads, &sizes);
    const struct fb_mechanism *mechanism = attention->mechanism;
    const size_t constants =
        mechanism->constants_bytes != NULL ? mechanism->constants_bytes(problem) : 0;
    add_tensor(stage, "q", &call->q, false, &status, error);
    add_tensor(stage, "k", &call->k, false, &status, error);
    add_tensor(stage, "v", &call->v, false, &status, error);
    add_tensor(stage, "out", &call->out, true, &status, error);
    add_tensor(stage, "dout", &call->dout, false, &status, error);
    add_tensor(stage, "dq", &call->dq, true, &status, error);
    add_tensor(stage, "dk", &call->dk, true, &status, error);
    add_tensor(stage, "dv", &call->dv, true, &status, error);
    void *host_constants = (void *)(uintptr_t)call->constants;
    call->constants = add(stage, "constants", host_constants, constants, false, &status, error);
    call->saved = add(stage, "saved", call->saved, sizes.saved_bytes, true, &status, error);
    call->decode_state =
        add(stage, "state", call->decode_state, sizes.decode_state_bytes, true, &status, error);
    const size_t bytes = scratch_bytes(&sizes);
    if (status == FB_OK)
        status = fb_cuda_allocate(bytes, "scratch", scratch, error);
    if (status == FB_OK)
        status = fb_cuda_fill(*scratch, poison, bytes, error);
    call->scratch = *scratch;
    call->stream = NULL;
    return status;
}

static enum fb_status bring_back(const struct stage *stage, struct fb_error *error)
{
    enum fb_status status = fb_cuda_wait(NULL, error);
    for (int i = 0; i < stage->count && status == FB_OK; i++) {
        const struct piece *piece = &stage->pieces[i];
        if (piece->comes_back)
            status = fb_cuda_download(piece->host, piece->device, piece->bytes, error);
    }
    return status;
}

static enum fb_status run(staged_fn *function, const struct fb_attention *attention,
                          const struct fb_problem *problem, const struct fb_call *call,
                          struct fb_error *error)
{
    if (attention->backend == FB_CPU)
        return function(attention, problem, call, error);
    struct stage stage = {.count = 0};
    struct fb_call there = *call;
    void *scratch = NULL;
    enum fb_status status = put_up(&stage, attention, problem, &there, &scratch, error);
    if (status == FB_OK)
        status = function(attention, problem, &there, error);
    if (status == FB_OK)
        status = bring_back(&stage, error);
    for (int i = 0; i < stage.count; i++)
        fb_cuda_release(stage.pieces[i].device);
    fb_cuda_release(scratch);
    return status;
}

enum fb_status fb_staged_forward(const struct fb_attention *attention,
                                 const struct fb_problem *problem, const struct fb_call *call,
                                 struct fb_error *error)
{
    return run(fb_attention_forward, attention, problem, call, error);
}

enum fb_status fb_staged_backward(const struct fb_attention *attention,
                                  const struct fb_problem *problem, const struct fb_call *call,
                                  struct fb_error *error)
{
    return run(fb_attention_backward, attention, problem, call, error);
}

enum fb_status fb_staged_decode(const struct fb_attention *attention,
                                const struct fb_problem *problem, const struct fb_call *call,
                                struct fb_error *error)
{
    return run(fb_attention_decode, attention, problem, call, error);
}

enum fb_status fb_staged_prefill(const struct fb_attention *attention,
                                 const struct fb_problem *problem, const struct fb_call *call,
                                 struct fb_error *error)
{
    return run(fb_attention_prefill, attention, problem, call, error);
}
