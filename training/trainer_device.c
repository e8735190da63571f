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
    struct fb_nn_cuda_verdict *verdict_here; /* pinned memory of the host */
    cudaEvent_t finished;                    /* a step */
    cudaEvent_t evaluated[2];                /* evaluations, in turns as their logits */
    int64_t staged_step, staged_batch; /* whose batch is on the device, and which of them it is */
    /* A step's launches, captured, and what they have as arguments. NULL: none yet. */
    cudaGraphExec_t replay;
    struct fb_nn_optimiser optimiser;
    double clip_norm;
    bool warm; /* a step was launched directly: products have been chosen, kernels loaded */
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
    *d = (struct fb_trainer_device){.m = places[0],
                                    .v = places[1],
                                    .decay = places[2],
                                    .targets = places[3],
                                    .row_loss = places[4],
                                    .partials = places[5],
                                    .verdict = places[6]};
    d->staged_step = -1;
    void *pinned = NULL;
    if (status == FB_OK)
        status =
            fb_cuda_status(cudaHostAlloc(&pinned, sizeof *d->verdict_here, cudaHostAllocDefault),
                           "allocating pinned memory", error);
    d->verdict_here = pinned;
    if (status == FB_OK)
        status = fb_cuda_status(cudaEventCreateWithFlags(&d->finished, cudaEventDisableTiming),
                                "making an event", error);
    return status;
}

enum fb_status fb_trainer_device_open(struct fb_trainer *t, enum fb_nn_precision precision,
                                      struct fb_error *error)
{
    struct fb_trainer_device *d = calloc(1, sizeof *d);
    if (!d)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the tables of the device");
    t->device = d;
    const size_t targets = (size_t)rows_of(t) * sizeof *d->targets;
    enum fb_status status = fb_graph_device_open(&t->run, precision, targets, error);
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
    fb_graph_device_close(&t->run); /* waits */
    if (!d)
        return;
    if (d->replay)
        (void)cudaGraphExecDestroy(d->replay);
    if (d->finished)
        (void)cudaEventDestroy(d->finished);
    for (int i = 0; i < 2; i++) {
        if (d->evaluated[i])
            (void)cudaEventDestroy(d->evaluated[i]);
        (void)cudaFreeHost(t->evaluated[i]);
        t->evaluated[i] = NULL;
    }
    (void)cudaFreeHost(d->verdict_here);
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

/* ---- one step -------------------------------------------------------------------------------- */

static cudaStream_t stream_of(const struct fb_trainer *t)
{
    return (cudaStream_t)fb_graph_device_run(&t->run)->stream;
}

enum fb_status fb_trainer_device_stage(struct fb_trainer *t, int64_t step, struct fb_error *error)
{
    struct fb_trainer_device *d = t->device;
    struct fb_nn_cuda_step *facts = fb_graph_device_step(&t->run);
    facts->counted = counted_rows(t);
    facts->update =
        fb_nn_optimiser_update(&t->optimiser, step + 1, fb_nn_schedule_at(&t->schedule, step));
    t->run.dropout_seed = fb_trainer_dropout_seed(t, step);
    d->staged_step = -1;
    enum fb_status status = fb_graph_device_put_batch(&t->run, error);
    if (status == FB_OK)
        status = fb_graph_device_send(&t->run, d->targets, t->targets,
                                      (size_t)rows_of(t) * sizeof *d->targets, error);
    if (status != FB_OK)
        return status;
    d->staged_step = step;
    d->staged_batch = fb_graph_device_batches(&t->run);
    return FB_OK;
}

/* Everything from the batch to the verdict: the same launches for every step. */
static enum fb_status queue_step(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    struct fb_graph_run *there = fb_graph_device_run(&t->run);
    struct fb_nn_cuda *c = fb_graph_device_context(&t->run);
    struct fb_trainer_device *d = t->device;
    const struct fb_nn_cuda_trained trained = {.theta = there->params,
                                               .m = d->m,
                                               .v = d->v,
                                               .gradient = there->param_gradients,
                                               .decay = d->decay,
                                               .rounded = fb_graph_device_rounded(&t->run),
                                               .count = g->trained_floats};
    enum fb_status status = fb_graph_device_forward(&t->run, error);
    if (status != FB_OK)
        return status;
    fb_nn_cuda_cross_entropy(c, d->verdict, fb_graph_run_gradient(there, g->logits), d->row_loss,
                             fb_graph_run_values(there, g->logits), d->targets, rows_of(t),
                             g->tensors[g->logits].width);
    status = fb_graph_device_backward(&t->run, error);
    if (status != FB_OK)
        return status;
    fb_nn_cuda_norm(c, d->verdict, d->partials, there->param_gradients, g->trained_floats);
    fb_nn_cuda_optimiser_step(c, &t->optimiser, d->verdict, &trained, t->clip_norm);
    status = fb_cuda_status(cudaMemcpyAsync(d->verdict_here, d->verdict, sizeof *d->verdict_here,
                                            cudaMemcpyDeviceToHost, stream_of(t)),
                            "fetching the loss", error);
    return status == FB_OK ? fb_nn_cuda_check(c, error) : status;
}

static enum fb_status capture(struct fb_trainer *t, struct fb_error *error)
{
    struct fb_trainer_device *d = t->device;
    cudaGraph_t graph = NULL;
    struct fb_error ending;
    enum fb_status status =
        fb_cuda_status(cudaStreamBeginCapture(stream_of(t), cudaStreamCaptureModeThreadLocal),
                       "beginning to capture a step", error);
    if (status != FB_OK)
        return status;
    status = queue_step(t, error);
    const enum fb_status ended =
        fb_cuda_status(cudaStreamEndCapture(stream_of(t), &graph), "capturing a step", &ending);
    if (status == FB_OK && ended != FB_OK)
        status = fb_error_set(error, ended, "%s", ending.text);
    if (status == FB_OK)
        status = fb_cuda_status(cudaGraphInstantiate(&d->replay, graph, 0),
                                "preparing a captured step", error);
    if (graph)
        (void)cudaGraphDestroy(graph);
    d->optimiser = t->optimiser;
    d->clip_norm = t->clip_norm;
    return status;
}

static bool has_arguments(const struct fb_trainer_device *d, const struct fb_trainer *t)
{
    const struct fb_nn_optimiser *a = &d->optimiser, *b = &t->optimiser;
    return a->kind == b->kind && a->beta1 == b->beta1 && a->beta2 == b->beta2 && a->eps == b->eps &&
           a->weight_decay == b->weight_decay && d->clip_norm == t->clip_norm;
}

/* The first step is launched directly, since it chooses products and loads kernels. */
static enum fb_status launch(struct fb_trainer *t, struct fb_error *error)
{
    struct fb_trainer_device *d = t->device;
    enum fb_status status = FB_OK;
    if (!d->warm || t->launches_directly || !fb_graph_device_can_replay(&t->run)) {
        d->warm = true;
        return queue_step(t, error);
    }
    if (d->replay && !has_arguments(d, t)) {
        (void)cudaGraphExecDestroy(d->replay);
        d->replay = NULL;
    }
    if (!d->replay)
        status = capture(t, error);
    return status == FB_OK ? fb_cuda_status(cudaGraphLaunch(d->replay, stream_of(t)),
                                            "launching a captured step", error)
                           : status;
}

enum fb_status fb_trainer_device_start(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_trainer_device *d = t->device;
    const bool staged =
        d->staged_step == t->step && d->staged_batch == fb_graph_device_batches(&t->run);
    enum fb_status status = staged ? FB_OK : fb_trainer_device_stage(t, t->step, error);
    if (status == FB_OK)
        status = launch(t, error);
    return status == FB_OK ? fb_cuda_status(cudaEventRecord(d->finished, stream_of(t)),
                                            "recording an event", error)
                           : status;
}

enum fb_status fb_trainer_device_finish(struct fb_trainer *t, double *loss, double *norm,
                                        struct fb_error *error)
{
    const struct fb_trainer_device *d = t->device;
    const enum fb_status status =
        fb_cuda_status(cudaEventSynchronize(d->finished), "a training step", error);
    *loss = status == FB_OK ? d->verdict_here->loss : 0.0;
    *norm = status == FB_OK ? d->verdict_here->norm : 0.0;
    return status;
}

/* ---- evaluations ----------------------------------------------------------------------------- */

enum fb_status fb_trainer_device_start_evaluation(struct fb_trainer *t, float **logits,
                                                  struct fb_error *error)
{
    struct fb_trainer_device *d = t->device;
    const struct fb_graph_tensor *tensor = &t->run.graph->tensors[t->run.graph->logits];
    const size_t bytes = (size_t)(tensor->rows * tensor->width) * sizeof(float);
    cudaEvent_t *done = &d->evaluated[t->started % 2];
    enum fb_status status = FB_OK;
    if (!*done)
        status = fb_cuda_status(cudaEventCreateWithFlags(done, cudaEventDisableTiming),
                                "making an event", error);
    if (status == FB_OK && !*logits) {
        void *pinned = NULL;
        status = fb_cuda_status(cudaHostAlloc(&pinned, bytes, cudaHostAllocDefault),
                                "allocating pinned memory", error);
        *logits = pinned;
    }
    if (status == FB_OK)
        status = fb_graph_device_put_batch(&t->run, error);
    if (status == FB_OK)
        status = fb_graph_device_forward(&t->run, error);
    if (status == FB_OK)
        status = fb_cuda_status(
            cudaMemcpyAsync(*logits,
                            fb_graph_run_values(fb_graph_device_run(&t->run), t->run.graph->logits),
                            bytes, cudaMemcpyDeviceToHost, stream_of(t)),
            "fetching logits", error);
    return status == FB_OK
               ? fb_cuda_status(cudaEventRecord(*done, stream_of(t)), "recording an event", error)
               : status;
}

enum fb_status fb_trainer_device_finish_evaluation(struct fb_trainer *t, struct fb_error *error)
{
    return fb_cuda_status(cudaEventSynchronize(t->device->evaluated[t->finished % 2]),
                          "an evaluation", error);
}

/* ---- the state ------------------------------------------------------------------------------- */

enum fb_status fb_trainer_device_fetch_params(const struct fb_trainer *t, struct fb_error *error)
{
    return fb_cuda_download(t->run.params, fb_graph_device_run(&t->run)->params, block_bytes(t),
                            error);
}

enum fb_status fb_trainer_device_fetch(const struct fb_trainer *t, struct fb_error *error)
{
    enum fb_status status = fb_trainer_device_fetch_params(t, error);
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
    t->device->staged_step = -1; /* whatever follows is another run of steps */
    /* the copies may still be on their way when the calls return, and kernels would not wait */
    return status == FB_OK ? fb_cuda_wait(NULL, error) : status;
}

enum fb_status fb_trainer_device_fetch_gradient(struct fb_trainer *t, struct fb_error *error)
{
    return fb_cuda_download(t->run.param_gradients, fb_graph_device_run(&t->run)->param_gradients,
                            block_bytes(t), error);
}
