/* The worker's side of an external program: see measure_peer.h. memfd_create is Linux's. */
#define _GNU_SOURCE
#include "measure_peer.h"

#include "checked.h"
#include "measure_worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

static enum fb_status ask(struct fb_worker *worker, enum fb_peer_request request, json_t *document,
                          struct fb_peer_answer *answer, struct fb_error *error)
{
    struct fb_peer *peer = worker->peer;
    double wall_s;
    return fb_peer_ask(&peer->process, request, document, &peer->tensors, answer, &wall_s,
                       &peer->failure, error);
}

enum fb_status fb_peer_open(struct fb_worker *worker, struct fb_error *error)
{
    char path[FB_PEER_PATH_SIZE];
    struct fb_peer_answer answer;
    struct fb_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for an external program");
    worker->peer = peer;
    peer->process.socket_fd = -1;
    peer->device_peak_bytes = -1;
    peer->failure = FB_MEASURE_SKIPPED; /* a program that is not there */
    peer->memory_fd = memfd_create("flowbench-tensors", MFD_CLOEXEC);
    enum fb_status status = fb_peer_find(worker->item->program, path, error);
    if (status == FB_OK && peer->memory_fd < 0)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no shared memory: %s", strerror(errno));
    if (status == FB_OK)
        status = fb_peer_start(path, peer->memory_fd, &peer->process, error);
    if (status == FB_OK)
        status =
            ask(worker, FB_PEER_HELLO, fb_peer_say_hello(worker->item->device), &answer, error);
    if (status == FB_OK)
        (void)snprintf(worker->result->program_version, sizeof worker->result->program_version,
                       "%.*s", (int)sizeof worker->result->program_version - 1, answer.text);
    return status;
}

/* ---- shared memory --------------------------------------------------------------------------- */

static bool add_tensor(struct fb_peer_tensors *tensors, const char *name, bool written,
                       const struct fb_tensor *view, size_t bytes)
{
    struct fb_peer_tensor *tensor = &tensors->items[tensors->count++];
    *tensor = (struct fb_peer_tensor){.name = name,
                                      .written = written,
                                      .view = *view,
                                      .offset_bytes = tensors->total_bytes,
                                      .bytes = bytes};
    const size_t pages = bytes / PAGE_BYTES + 1; /* each tensor starts on a page */
    return fb_checked_add_size(tensors->total_bytes, pages * PAGE_BYTES, &tensors->total_bytes);
}

static bool add_dense(struct fb_peer_tensors *tensors, const char *name, bool written,
                      const struct fb_tensor *view)
{
    const size_t bytes = (size_t)fb_tensor_count(view) * fb_dtype_bytes(view->dtype);
    return bytes == 0 || add_tensor(tensors, name, written, view, bytes);
}

/* What the mechanism draws for itself travels as bytes; a mechanism with constants says in its
 * header what they are. */
static bool add_constants(struct fb_peer_tensors *tensors, const struct fb_mapped_buffer *buffer)
{
    const int64_t count = (int64_t)(buffer->bytes / sizeof(float));
    const struct fb_tensor view = fb_tensor_dense(buffer->data, FB_F32, FB_BHND, 1, 1, 1, count);
    return buffer->bytes == 0 || add_tensor(tensors, "constants", false, &view, buffer->bytes);
}

static bool lay_out(const struct fb_worker *worker, struct fb_peer_tensors *tensors)
{
    const struct fb_call *call = &worker->call;
    const bool gradients = worker->pass->gradients;
    const struct {
        const char *name;
        const struct fb_tensor *tensor;
        bool written, wanted;
    } all[] = {{"q", &call->q, false, true},       {"k", &call->k, false, true},
               {"v", &call->v, false, true},       {"dout", &call->dout, false, gradients},
               {"out", &call->out, true, true}, /* backward: of the forward before it */
               {"dq", &call->dq, true, gradients}, {"dk", &call->dk, true, gradients},
               {"dv", &call->dv, true, gradients}};
    bool fits = true;
    *tensors = (struct fb_peer_tensors){.count = 0};
    for (size_t i = 0; fits && i < sizeof all / sizeof all[0]; i++)
        fits = !all[i].wanted || add_dense(tensors, all[i].name, all[i].written, all[i].tensor);
    return fits && add_constants(tensors, &worker->buffers[SLOT_CONSTANTS]);
}

static enum fb_status share_inputs(struct fb_peer *peer, struct fb_error *error)
{
    const size_t bytes = peer->tensors.total_bytes;
    void *map = MAP_FAILED;
    if (ftruncate(peer->memory_fd, (off_t)bytes) == 0)
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, peer->memory_fd, 0);
    if (map == MAP_FAILED)
        return fb_error_set(error, FB_ERROR_MEMORY, "%zu bytes of shared memory: %s", bytes,
                            strerror(errno));
    peer->memory = map;
    for (int i = 0; i < peer->tensors.count; i++) {
        const struct fb_peer_tensor *tensor = &peer->tensors.items[i];
        if (!tensor->written)
            memcpy(peer->memory + tensor->offset_bytes, tensor->view.data, tensor->bytes);
    }
    return FB_OK;
}

/* ---- the worker's verbs ---------------------------------------------------------------------- */

enum fb_status fb_peer_prepare(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_peer *peer = worker->peer;
    struct fb_peer_answer answer;
    peer->failure = FB_MEASURE_OOM;
    if (!lay_out(worker, &peer->tensors))
        return fb_error_set(error, FB_ERROR_MEMORY, "the tensors cannot be addressed");
    enum fb_status status = share_inputs(peer, error);
    if (status == FB_OK)
        status = ask(worker, FB_PEER_PREPARE,
                     fb_peer_say_prepare(worker->item, &peer->tensors, FB_PEER_MEMORY_FD), &answer,
                     error);
    if (status == FB_OK)
        peer->device_peak_bytes = answer.device_peak_bytes;
    return status;
}

static enum fb_status call(struct fb_worker *worker, int64_t calls, bool evict,
                           struct fb_peer_answer *answer, struct fb_error *error)
{
    const enum fb_status status =
        ask(worker, FB_PEER_CALL, fb_peer_say_call(calls, evict), answer, error);
    return status == FB_OK ? fb_peer_check_times(worker->item->device, answer, error) : status;
}

enum fb_status fb_peer_call(struct fb_worker *worker, int64_t calls, double *time_s,
                            struct fb_error *error)
{
    struct fb_peer_answer answer;
    const enum fb_status status = call(worker, calls, false, &answer, error);
    *time_s = answer.time_s;
    return status;
}

enum fb_status fb_peer_call_device(struct fb_worker *worker, int64_t calls, double *host_s,
                                   double *device_s, struct fb_error *error)
{
    struct fb_peer_answer answer;
    const enum fb_status status = call(worker, calls, fb_worker_is_cold(worker), &answer, error);
    *host_s = answer.time_s;
    *device_s = answer.device_time_s;
    return status;
}

/* The worker's outputs are poison already: what the program is shown is, too. */
enum fb_status fb_peer_fetch(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_peer *peer = worker->peer;
    struct fb_peer_answer answer;
    struct fb_check_outputs outputs;
    fb_worker_outputs(worker, &outputs);
    fb_check_poison(&outputs, worker->item->threads);
    for (int i = 0; i < peer->tensors.count; i++) {
        const struct fb_peer_tensor *tensor = &peer->tensors.items[i];
        if (tensor->written)
            memcpy(peer->memory + tensor->offset_bytes, tensor->view.data, tensor->bytes);
    }
    const enum fb_status status = ask(worker, FB_PEER_STORE, fb_peer_say_store(), &answer, error);
    for (int i = 0; status == FB_OK && i < peer->tensors.count; i++) {
        const struct fb_peer_tensor *tensor = &peer->tensors.items[i];
        if (tensor->written)
            memcpy(tensor->view.data, peer->memory + tensor->offset_bytes, tensor->bytes);
    }
    return status;
}

void fb_peer_close(struct fb_worker *worker)
{
    struct fb_peer *peer = worker->peer;
    if (peer == NULL)
        return;
    fb_peer_end(&peer->process);
    if (peer->memory != NULL)
        (void)munmap(peer->memory, peer->tensors.total_bytes);
    if (peer->memory_fd >= 0)
        (void)close(peer->memory_fd);
    free(peer);
    worker->peer = NULL;
}
