/* Buffers, samples and floor of a worker on a GPU: see measure_device.h. */
#include "measure_device.h"

#include "stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { RETRIES_MOST = 20 };

/* ---- buffers --------------------------------------------------------------------------------- */

bool fb_worker_device_mirrors(enum buffer_slot slot)
{
    return slot != SLOT_SCRATCH && slot != SLOT_SAVED && slot != SLOT_STATE &&
           slot != SLOT_STATE_COPY;
}

static enum fb_status check_limit(const struct fb_worker_device *device,
                                  const struct fb_limits *limits, struct fb_error *error)
{
    const double limit = limits->memory_bytes > 0
                             ? (double)limits->memory_bytes
                             : limits->memory_fraction * (double)device->free_bytes;
    double total = 0.0;
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        total += (double)device->bytes[slot];
    if (limit > 0.0 && total > limit)
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "inputs, output and workspace need %.0f bytes on the GPU, the limit is "
                            "%.0f; raise limits.memory or use shorter sequences",
                            total, limit);
    return FB_OK;
}

/* A tensor of the host over the device's copy of its buffer. */
static struct fb_tensor moved(const struct fb_tensor *tensor, void *data)
{
    struct fb_tensor copy = *tensor;
    copy.data = tensor->data == NULL ? NULL : data;
    return copy;
}

static void set_call(struct fb_worker *worker)
{
    struct fb_worker_device *device = worker->device;
    struct fb_call *call = &device->call;
    *call = worker->call;
    for (int i = 0; i < 3; i++)
        device->tokens[i] = moved(&worker->tokens[i], device->data[SLOT_Q + i]);
    call->q = device->tokens[0];
    call->k = device->tokens[1];
    call->v = device->tokens[2];
    call->out = moved(&worker->call.out, device->data[SLOT_OUT]);
    call->dout = moved(&worker->call.dout, device->data[SLOT_DOUT]);
    call->dq = moved(&worker->call.dq, device->data[SLOT_DQ]);
    call->dk = moved(&worker->call.dk, device->data[SLOT_DK]);
    call->dv = moved(&worker->call.dv, device->data[SLOT_DV]);
    call->constants = device->data[SLOT_CONSTANTS];
    call->saved = device->data[SLOT_SAVED];
    call->scratch = device->data[SLOT_SCRATCH];
    call->decode_state = device->data[SLOT_STATE];
    call->stream = fb_cuda_timer_stream(device->timer);
}

enum fb_status fb_worker_device_open(struct fb_worker *worker, const size_t bytes[SLOT_COUNT],
                                     const struct fb_limits *limits, struct fb_error *error)
{
    struct fb_worker_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the worker's device");
    worker->device = device;
    enum fb_status status = fb_cuda_timer_new(&device->timer, error);
    device->clock_max_hz =
        status == FB_OK ? fb_cuda_timer_clock_max_hz(device->timer) : (double)NAN;
    device->retries_left = RETRIES_MOST;
    if (status == FB_OK)
        status = fb_cuda_free_bytes(&device->free_bytes, error);
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        device->bytes[slot] = bytes[slot];
    if (status == FB_OK)
        status = check_limit(device, limits, error);
    for (int slot = 0; slot < SLOT_COUNT && status == FB_OK; slot++)
        status = fb_cuda_allocate(bytes[slot], "a buffer of the case", &device->data[slot], error);
    if (status == FB_OK)
        status = fb_cuda_free_bytes(&device->free_bytes, error);
    if (status == FB_OK)
        set_call(worker);
    return status;
}

void fb_worker_device_close(struct fb_worker *worker)
{
    struct fb_worker_device *device = worker->device;
    if (device == NULL)
        return;
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        fb_cuda_release(device->data[slot]);
    fb_cuda_timer_destroy(device->timer);
    free(device->host_s);
    free(device);
    worker->device = NULL;
}

enum fb_status fb_worker_device_upload(struct fb_worker *worker, struct fb_error *error)
{
    static const enum buffer_slot inputs[] = {SLOT_Q, SLOT_K, SLOT_V, SLOT_CONSTANTS, SLOT_DOUT};
    struct fb_worker_device *device = worker->device;
    enum fb_status status = FB_OK;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0] && status == FB_OK; i++)
        status = fb_cuda_upload(device->data[inputs[i]], worker->buffers[inputs[i]].data,
                                device->bytes[inputs[i]], error);
    /* A state of zero bytes is the one before the first token. */
    if (status == FB_OK)
        status = fb_cuda_fill(device->data[SLOT_STATE], 0, device->bytes[SLOT_STATE], error);
    return status == FB_OK ? fb_worker_device_poison(worker, error) : status;
}

/* The slots of what a call writes. */
static int outputs_of(const struct fb_worker *worker, enum buffer_slot *slots)
{
    int count = 0;
    if (worker->pass->writes_out)
        slots[count++] = SLOT_OUT;
    if (worker->pass->gradients) {
        slots[count++] = SLOT_DQ;
        slots[count++] = SLOT_DK;
        slots[count++] = SLOT_DV;
    }
    return count;
}

enum fb_status fb_worker_device_poison(struct fb_worker *worker, struct fb_error *error)
{
    enum buffer_slot slots[4];
    const int count = outputs_of(worker, slots);
    const uint32_t pattern = fb_check_poison_pattern(worker->item->dtype);
    enum fb_status status = FB_OK;
    for (int i = 0; i < count && status == FB_OK; i++)
        status = fb_cuda_fill(worker->device->data[slots[i]], pattern,
                              worker->device->bytes[slots[i]], error);
    return status;
}

enum fb_status fb_worker_device_fetch(struct fb_worker *worker, struct fb_error *error)
{
    enum buffer_slot slots[5];
    int count = outputs_of(worker, slots);
    if (!worker->pass->writes_out) /* of the forward that the backward call starts from */
        slots[count++] = SLOT_OUT;
    enum fb_status status = fb_cuda_wait(worker->device->call.stream, error);
    for (int i = 0; i < count && status == FB_OK; i++)
        status = fb_cuda_download(worker->buffers[slots[i]].data, worker->device->data[slots[i]],
                                  worker->device->bytes[slots[i]], error);
    return status;
}

enum fb_status fb_worker_device_peak(const struct fb_worker *worker, int64_t *bytes,
                                     struct fb_error *error)
{
    const struct fb_worker_device *device = worker->device;
    size_t now = 0;
    if (worker->peer != NULL) { /* the growth would hold its context and its pools */
        *bytes = worker->peer->device_peak_bytes;
        return FB_OK;
    }
    const enum fb_status status = fb_cuda_free_bytes(&now, error);
    const size_t growth = device->free_bytes > now ? device->free_bytes - now : 0;
    *bytes = (int64_t)(device->bytes[SLOT_SCRATCH] + device->bytes[SLOT_SAVED] + growth);
    return status;
}

/* ---- samples --------------------------------------------------------------------------------- */

static enum fb_status call_many(struct fb_worker *worker, int64_t calls, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (int64_t i = 0; i < calls && status == FB_OK; i++)
        status = fb_worker_call(worker, error);
    return status;
}

/* Rewound and with the caches as the settings ask, the device idle. */
static enum fb_status make_ready(struct fb_worker *worker, int64_t calls, struct fb_error *error)
{
    struct fb_worker_device *device = worker->device;
    enum fb_status status = fb_worker_device_poison(worker, error);
    if (status == FB_OK)
        status = fb_worker_rewind(worker, calls, error);
    if (status == FB_OK && fb_worker_is_cold(worker))
        status = fb_cuda_timer_evict(device->timer, error);
    return status == FB_OK ? fb_cuda_wait(device->call.stream, error) : status;
}

static enum fb_status keep_host_time(struct fb_worker_device *device, double time_s,
                                     struct fb_error *error)
{
    if (device->host_count == device->host_capacity) {
        const size_t capacity = device->host_capacity > 0 ? 2 * device->host_capacity : 64;
        double *times = realloc(device->host_s, capacity * sizeof *times);
        if (times == NULL)
            return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu host times", capacity);
        device->host_s = times;
        device->host_capacity = capacity;
    }
    device->host_s[device->host_count++] = time_s;
    return FB_OK;
}

static enum fb_status take_host_time(struct fb_worker *worker, int64_t calls,
                                     struct fb_error *error)
{
    struct fb_worker_device *device = worker->device;
    enum fb_status status = make_ready(worker, calls, error);
    if (status != FB_OK)
        return status;
    const double start_s = fb_worker_now_s(worker);
    status = call_many(worker, calls, error);
    if (status == FB_OK)
        status = fb_cuda_wait(device->call.stream, error);
    const double time_s = (fb_worker_now_s(worker) - start_s) / (double)calls;
    return status == FB_OK ? keep_host_time(device, time_s, error) : status;
}

static enum fb_status take_device_time(struct fb_worker *worker, int64_t calls, double *sample_s,
                                       struct fb_error *error)
{
    struct fb_worker_device *device = worker->device;
    enum fb_status status = make_ready(worker, calls, error);
    if (status == FB_OK)
        status = fb_cuda_timer_begin(device->timer, error);
    if (status != FB_OK)
        return status;
    status = call_many(worker, calls, error);
    struct fb_error own = {.code = FB_OK};
    const enum fb_status end = fb_cuda_timer_end(device->timer, sample_s, &own);
    *sample_s /= (double)calls;
    if (status == FB_OK && end != FB_OK)
        return fb_error_set(error, end, "%s", own.text);
    return status;
}

/* Of an external program, both times at once. */
static enum fb_status take_program_times(struct fb_worker *worker, int64_t calls, double *sample_s,
                                         struct fb_error *error)
{
    double host_s;
    const enum fb_status status = fb_peer_call_device(worker, calls, &host_s, sample_s, error);
    *sample_s /= (double)calls;
    return status == FB_OK ? keep_host_time(worker->device, host_s / (double)calls, error) : status;
}

static bool is_throttled(struct fb_worker *worker)
{
    struct fb_worker_device *device = worker->device;
    if (isnan(device->clock_max_hz))
        return false;
    const double clock_hz = fb_cuda_timer_clock_hz(device->timer);
    worker->result->freq_hz = fmin(worker->result->freq_hz, clock_hz);
    return clock_hz < 0.75 * device->clock_max_hz;
}

enum fb_status fb_worker_device_sample(struct fb_worker *worker, int64_t calls, double *sample_s,
                                       struct fb_error *error)
{
    struct fb_worker_device *device = worker->device;
    bool throttled = false;
    const bool external = worker->peer != NULL;
    enum fb_status status = external ? FB_OK : take_host_time(worker, calls, error);
    do {
        if (status == FB_OK)
            status = external ? take_program_times(worker, calls, sample_s, error)
                              : take_device_time(worker, calls, sample_s, error);
        throttled = status == FB_OK && is_throttled(worker);
    } while (throttled && device->retries_left-- > 0);
    if (throttled)
        snprintf(worker->result->throttled, sizeof worker->result->throttled, "true");
    return status;
}

void fb_worker_device_conclude(struct fb_worker *worker)
{
    struct fb_worker_device *device = worker->device;
    struct fb_measure_result *result = worker->result;
    struct fb_summary summary;
    if (device->host_count == 0)
        return;
    fb_stats_summarise(device->host_s, device->host_count, &summary);
    result->time_host_s = summary.median;
    if (result->throttled[0] == '\0' && !isnan(device->clock_max_hz))
        snprintf(result->throttled, sizeof result->throttled, "false");
}

/* ---- floor ----------------------------------------------------------------------------------- */

static struct fb_cuda_range range_of(const struct fb_worker *worker, enum buffer_slot slot)
{
    return (struct fb_cuda_range){worker->device->data[slot], worker->device->bytes[slot]};
}

/* What the pass reads and writes once, stage by stage; returns the number of stages. */
static int stages_of(const struct fb_worker *worker, struct fb_cuda_traffic stages[2])
{
    int count = 0;
    const enum fb_pass pass = worker->pass->pass;
    if (pass == FB_FORWARD || pass == FB_BOTH)
        stages[count++] = (struct fb_cuda_traffic){
            .read = {range_of(worker, SLOT_Q), range_of(worker, SLOT_K), range_of(worker, SLOT_V)},
            .write = {range_of(worker, SLOT_OUT)}};
    if (pass == FB_BACKWARD || pass == FB_BOTH)
        stages[count++] = (struct fb_cuda_traffic){
            .read = {range_of(worker, SLOT_Q), range_of(worker, SLOT_K), range_of(worker, SLOT_V),
                     range_of(worker, SLOT_DOUT)},
            .write = {range_of(worker, SLOT_DQ), range_of(worker, SLOT_DK),
                      range_of(worker, SLOT_DV)}};
    if (pass == FB_DECODE)
        stages[count++] = (struct fb_cuda_traffic){.read = {range_of(worker, SLOT_STATE)},
                                                   .write = {range_of(worker, SLOT_OUT)}};
    return count;
}

static enum fb_status time_touch(struct fb_worker *worker, const struct fb_cuda_traffic stages[2],
                                 int count, int64_t calls, double *time_s, struct fb_error *error)
{
    struct fb_worker_device *device = worker->device;
    enum fb_status status = FB_OK;
    if (fb_worker_is_cold(worker))
        status = fb_cuda_timer_evict(device->timer, error);
    if (status == FB_OK)
        status = fb_cuda_timer_begin(device->timer, error);
    if (status != FB_OK)
        return status;
    for (int64_t call = 0; call < calls && status == FB_OK; call++)
        for (int i = 0; i < count && status == FB_OK; i++)
            status = fb_cuda_touch(&stages[i], device->call.stream, error);
    const enum fb_status end = fb_cuda_timer_end(device->timer, time_s, error);
    *time_s /= (double)calls;
    return status == FB_OK ? end : status;
}

enum fb_status fb_worker_device_floor(struct fb_worker *worker, struct fb_error *error)
{
    enum { REPEATS_LEAST = 8, REPEATS_MOST = 100 };
    const double budget_s = 0.05;
    struct fb_cuda_traffic stages[2];
    const int count = stages_of(worker, stages);
    const int64_t calls = worker->result->calls_per_sample;
    double best_s = HUGE_VAL;
    fb_worker_enter_phase(worker, "floor");
    const double start_s = fb_worker_now_s(worker);
    for (int i = 0; i < REPEATS_MOST; i++) {
        double time_s;
        const enum fb_status status = time_touch(worker, stages, count, calls, &time_s, error);
        if (status != FB_OK)
            return status;
        best_s = i > 0 ? fmin(best_s, time_s) : best_s; /* the first loads the kernel */
        if (i + 1 >= REPEATS_LEAST && fb_worker_now_s(worker) - start_s > budget_s)
            break;
    }
    worker->result->touch_s = best_s;
    worker->result->touch_bytes = 0.0;
    for (int i = 0; i < count; i++)
        worker->result->touch_bytes += fb_cuda_traffic_bytes(&stages[i]);
    return FB_OK;
}
