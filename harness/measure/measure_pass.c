/*
 * The passes: what is timed, what comes before it untimed, what it writes. See measure_worker.h.
 *
 *   forward   inference: saved is NULL
 *   backward  the backward call alone; the training forward that it starts from ran before
 *   both      training forward and backward, one after the other, in one sample
 *   decode    one token against the state of seq_len tokens
 */
#include "measure_device.h"
#include "measure_worker.h"

#include <string.h>

/* The call that the variant gets. */
static struct fb_call *live_call(struct fb_worker *worker)
{
    return worker->device != NULL ? &worker->device->call : &worker->call;
}

/* ---- forward, backward ----------------------------------------------------------------------- */

static enum fb_status call_forward(struct fb_worker *worker, struct fb_error *error)
{
    return fb_attention_forward(worker->attention, &worker->problem, live_call(worker), error);
}

static enum fb_status call_backward(struct fb_worker *worker, struct fb_error *error)
{
    return fb_attention_backward(worker->attention, &worker->problem, live_call(worker), error);
}

static enum fb_status call_both(struct fb_worker *worker, struct fb_error *error)
{
    const enum fb_status status = call_forward(worker, error);
    return status == FB_OK ? call_backward(worker, error) : status;
}

/* Leaves saved and out, and no trace in scratch: the peak of backward is its own. */
static enum fb_status prepare_backward(struct fb_worker *worker, struct fb_error *error)
{
    const enum fb_status status = call_forward(worker, error);
    fb_mapped_buffer_drop_pages(&worker->buffers[SLOT_SCRATCH]);
    return status;
}

/* ---- decode ---------------------------------------------------------------------------------- */

/* `count` tokens from `first` on. */
static struct fb_tensor some_tokens(const struct fb_tensor *tensor, int64_t first, int64_t count)
{
    struct fb_tensor part = *tensor;
    part.data = (unsigned char *)tensor->data +
                (size_t)(first * tensor->stride[2]) * fb_dtype_bytes(tensor->dtype);
    part.shape[2] = count;
    return part;
}

static void show_tokens(struct fb_worker *worker, int64_t first, int64_t count)
{
    struct fb_call *call = live_call(worker);
    const struct fb_tensor *tokens =
        worker->device != NULL ? worker->device->tokens : worker->tokens;
    call->q = some_tokens(&tokens[0], first, count);
    call->k = some_tokens(&tokens[1], first, count);
    call->v = some_tokens(&tokens[2], first, count);
}

static enum fb_status copy_state(struct fb_worker *worker, enum buffer_slot to,
                                 enum buffer_slot from, struct fb_error *error)
{
    if (worker->device != NULL)
        return fb_cuda_copy(worker->device->data[to], worker->device->data[from],
                            worker->device->bytes[from], error);
    if (worker->buffers[from].bytes > 0)
        memcpy(worker->buffers[to].data, worker->buffers[from].data, worker->buffers[from].bytes);
    return FB_OK;
}

static enum fb_status prepare_decode(struct fb_worker *worker, struct fb_error *error)
{
    show_tokens(worker, 0, worker->item->seq_len);
    enum fb_status status =
        fb_attention_prefill(worker->attention, &worker->problem, live_call(worker), error);
    if (status == FB_OK && worker->device != NULL)
        status = fb_cuda_wait(worker->device->call.stream, error);
    if (status == FB_OK)
        status = copy_state(worker, SLOT_STATE_COPY, SLOT_STATE, error);
    show_tokens(worker, worker->item->seq_len, 1);
    return status == FB_OK ? fb_worker_poison(worker, error) : status; /* prefill may write out */
}

/* Copying a long cache takes longer than reading it once: the state advances a little first. */
static enum fb_status rewind_decode(struct fb_worker *worker, int64_t calls, struct fb_error *error)
{
    if (worker->decoded + calls <= fb_case_decode_slack(worker->item))
        return FB_OK;
    worker->decoded = 0;
    return copy_state(worker, SLOT_STATE, SLOT_STATE_COPY, error);
}

static enum fb_status call_decode(struct fb_worker *worker, struct fb_error *error)
{
    show_tokens(worker, worker->item->seq_len + worker->decoded, 1);
    worker->decoded++;
    return fb_attention_decode(worker->attention, &worker->problem, live_call(worker), error);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct fb_worker_pass passes[FB_PASS_COUNT] = {
    [FB_FORWARD] = {.pass = FB_FORWARD, .writes_out = true, .call = call_forward},
    [FB_BACKWARD] = {.pass = FB_BACKWARD,
                     .gradients = true,
                     .prepare = prepare_backward,
                     .call = call_backward},
    [FB_BOTH] = {.pass = FB_BOTH, .gradients = true, .writes_out = true, .call = call_both},
    [FB_DECODE] = {.pass = FB_DECODE,
                   .decodes = true,
                   .writes_out = true,
                   .prepare = prepare_decode,
                   .rewind = rewind_decode,
                   .call = call_decode},
};

static enum fb_status call_program(struct fb_worker *worker, struct fb_error *error)
{
    double time_s;
    return fb_peer_call(worker, 1, &time_s, error);
}

static const struct fb_worker_pass external_passes[FB_PASS_COUNT] = {
    [FB_FORWARD] = {.pass = FB_FORWARD,
                    .writes_out = true,
                    .prepare = fb_peer_prepare,
                    .call = call_program},
    [FB_BACKWARD] = {.pass = FB_BACKWARD,
                     .gradients = true,
                     .prepare = fb_peer_prepare,
                     .call = call_program},
    [FB_BOTH] = {.pass = FB_BOTH,
                 .gradients = true,
                 .writes_out = true,
                 .prepare = fb_peer_prepare,
                 .call = call_program},
    [FB_DECODE] = {.pass = FB_DECODE, .decodes = true, .writes_out = true, .call = call_program},
};

const struct fb_worker_pass *fb_worker_pass_of(enum fb_pass pass, bool external)
{
    return external ? &external_passes[pass] : &passes[pass];
}

void fb_worker_outputs(const struct fb_worker *worker, struct fb_check_outputs *outputs)
{
    outputs->count = 0;
    if (worker->pass->writes_out)
        fb_check_add_output(outputs, "out", &worker->call.out);
    if (worker->pass->gradients) {
        fb_check_add_output(outputs, "dq", &worker->call.dq);
        fb_check_add_output(outputs, "dk", &worker->call.dk);
        fb_check_add_output(outputs, "dv", &worker->call.dv);
    }
}

enum fb_status fb_worker_rewind(struct fb_worker *worker, int64_t calls, struct fb_error *error)
{
    return worker->pass->rewind ? worker->pass->rewind(worker, calls, error) : FB_OK;
}

enum fb_status fb_worker_poison(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_check_outputs outputs;
    if (worker->device != NULL && worker->peer == NULL)
        return fb_worker_device_poison(worker, error);
    fb_worker_outputs(worker, &outputs);
    fb_check_poison(&outputs, worker->item->threads);
    return FB_OK;
}

enum fb_status fb_worker_fetch(struct fb_worker *worker, struct fb_error *error)
{
    if (worker->peer != NULL)
        return fb_peer_fetch(worker, error);
    return worker->device != NULL ? fb_worker_device_fetch(worker, error) : FB_OK;
}

enum fb_status fb_worker_call(struct fb_worker *worker, struct fb_error *error)
{
    return worker->pass->call(worker, error);
}

enum fb_status fb_worker_timed_calls(struct fb_worker *worker, int64_t calls, double *time_s,
                                     struct fb_error *error)
{
    if (worker->peer != NULL)
        return fb_peer_call(worker, calls, time_s, error);
    const double start_s = fb_worker_now_s(worker);
    enum fb_status status = FB_OK;
    for (int64_t i = 0; i < calls && status == FB_OK; i++)
        status = fb_worker_call(worker, error);
    if (status == FB_OK && worker->device != NULL)
        status = fb_cuda_wait(worker->device->call.stream, error);
    *time_s = fb_worker_now_s(worker) - start_s;
    return status;
}

pid_t fb_worker_pid(const struct fb_worker *worker)
{
    return worker->peer != NULL ? worker->peer->process.pid : 0;
}
