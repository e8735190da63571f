/* Training steps on a CUDA device: see trainer_device.h. */
#include "trainer_device.h"

#include "cuda_check.h"
#include "cuda_device.h"
#include "graph_device.h"
#include "nn_loss.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

struct fb_trainer_device {
    float *m, *v;
    unsigned char *decay;
    int32_t *targets;
    double *row_loss, *partials;
    struct fb_nn_cuda_verdict *verdict;
};

static int64_t rows_of(const struct fb_trainer *t)
{
    return t->run.graph->tensors[t->run.graph->logits].rows;
}

static size_t block_bytes(const struct fb_trainer *t)
{
    return (size_t)t->run.graph->trained_floats * sizeof(float);
}

static enum fb_status allocate(const struct fb_trainer *t, struct fb_trainer_device *d,
                               struct fb_error *error)
{
    const size_t count = (size_t)t->run.graph->trained_floats, rows = (size_t)rows_of(t);
    void *places[7] = {NULL};
    const size_t bytes[7] = {block_bytes(t),
                             block_bytes(t),
                             count,
                             rows * sizeof *d->targets,
                             rows * sizeof *d->row_loss,
                             (size_t)fb_nn_cuda_norm_doubles() * sizeof *d->partials,
                             sizeof *d->verdict};
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < 7; i++)
        status = fb_cuda_allocate(bytes[i], "the optimiser's state", &places[i], error);
    *d = (struct fb_trainer_device){places[0], places[1], places[2], places[3],
                                    places[4], places[5], places[6]};
    return status;
}

enum fb_status fb_trainer_device_open(struct fb_trainer *t, enum fb_nn_precision precision,
                                      struct fb_error *error)
{
    struct fb_trainer_device *d = calloc(1, sizeof *d);
    if (!d)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the tables of the device");
    t->device = d;
    enum fb_status status = fb_graph_device_open(&t->run, precision, error);
    if (status == FB_OK)
        status = allocate(t, d, error);
    if (status == FB_OK)
        status = fb_cuda_upload(d->decay, t->decay, (size_t)t->run.graph->trained_floats, error);
    if (status == FB_OK)
        status = fb_trainer_device_put(t, error);
    if (status != FB_OK)
        fb_trainer_device_close(t);
    return status;
}

void fb_trainer_device_close(struct fb_trainer *t)
{
    struct fb_trainer_device *d = t->device;
    t->device = NULL;
    fb_graph_device_close(&t->run);
    if (!d)
        return;
    fb_cuda_release(d->m);
    fb_cuda_release(d->v);
    fb_cuda_release(d->decay);
    fb_cuda_release(d->targets);
    fb_cuda_release(d->row_loss);
    fb_cuda_release(d->partials);
    fb_cuda_release(d->verdict);
    free(d);
}

static int64_t counted_rows(const struct fb_trainer *t)
{
    int64_t counted = 0;
    for (int64_t r = 0; r < rows_of(t); r++)
        counted += t->targets[r] != FB_NN_IGNORED;
    return counted;
}

/* Loss, gradient, its norm and the update, all queued behind the forward pass. */
static enum fb_status queue_update(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    struct fb_graph_run *there = fb_graph_device_run(&t->run);
    struct fb_nn_cuda *c = fb_graph_device_context(&t->run);
    const struct fb_trainer_device *d = t->device;
    fb_nn_cuda_cross_entropy(c, d->verdict, fb_graph_run_gradient(there, g->logits), d->row_loss,
                             fb_graph_run_values(there, g->logits), d->targets, rows_of(t),
                             g->tensors[g->logits].width, counted_rows(t));
    const enum fb_status status = fb_graph_device_backward(&t->run, error);
    if (status != FB_OK)
        return status;
    fb_nn_cuda_norm(c, d->verdict, d->partials, there->param_gradients, g->trained_floats);
    fb_nn_cuda_optimiser_step(c, &t->optimiser, d->verdict, there->params, d->m, d->v,
                              there->param_gradients, d->decay, g->trained_floats, t->step + 1,
                              fb_nn_schedule_at(&t->schedule, t->step), t->clip_norm);
    return fb_nn_cuda_check(c, error);
}

enum fb_status fb_trainer_device_step(struct fb_trainer *t, double *loss, double *norm,
                                      struct fb_error *error)
{
    const struct fb_trainer_device *d = t->device;
    cudaStream_t stream = (cudaStream_t)fb_graph_device_run(&t->run)->stream;
    struct fb_nn_cuda_verdict verdict = {0.0, 0.0};
    enum fb_status status = fb_graph_device_put_batch(&t->run, error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaMemcpyAsync(d->targets, t->targets,
                                                (size_t)rows_of(t) * sizeof *d->targets,
                                                cudaMemcpyHostToDevice, stream),
                                "copying the targets", error);
    if (status == FB_OK)
        status = fb_graph_device_forward(&t->run, error);
    if (status == FB_OK)
        status = queue_update(t, error);
    if (status == FB_OK)
        status = fb_cuda_status(
            cudaMemcpyAsync(&verdict, d->verdict, sizeof verdict, cudaMemcpyDeviceToHost, stream),
            "fetching the loss", error);
    if (status == FB_OK)
        status = fb_cuda_wait(stream, error);
    *loss = verdict.loss;
    *norm = verdict.norm;
    return status;
}

enum fb_status fb_trainer_device_fetch(const struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph_run *there = fb_graph_device_run(&t->run);
    enum fb_status status = fb_cuda_download(t->run.params, there->params, block_bytes(t), error);
    if (status == FB_OK)
        status = fb_cuda_download(t->m, t->device->m, block_bytes(t), error);
    return status == FB_OK ? fb_cuda_download(t->v, t->device->v, block_bytes(t), error) : status;
}

enum fb_status fb_trainer_device_put(struct fb_trainer *t, struct fb_error *error)
{
    enum fb_status status = fb_graph_device_put_params(&t->run, error);
    if (status == FB_OK)
        status = fb_cuda_upload(t->device->m, t->m, block_bytes(t), error);
    if (status == FB_OK)
        status = fb_cuda_upload(t->device->v, t->v, block_bytes(t), error);
    /* the copies may still be on their way when the calls return, and kernels would not wait */
    return status == FB_OK ? fb_cuda_wait(NULL, error) : status;
}

enum fb_status fb_trainer_device_fetch_gradient(struct fb_trainer *t, struct fb_error *error)
{
    return fb_cuda_download(t->run.param_gradients, fb_graph_device_run(&t->run)->param_gradients,
                            block_bytes(t), error);
}
