/*
 * A model on a CUDA device. The graph was built with backend FB_CUDA; after fb_graph_device_open
 * the functions of graph_run.h work as on the processor: the host's parameters and inputs go up,
 * logits and gradients come down. The functions below are the parts of that, for whoever keeps
 * parameters on the device from step to step; the ones that launch do not wait.
 *
 * Without CUDA in the build, or without a device, open returns FB_ERROR_DEVICE.
 */
#ifndef FB_GRAPH_DEVICE_H
#define FB_GRAPH_DEVICE_H

#include "graph_run.h"
#include "nn_cuda.h"

/* Allocates everything on the device and copies the parameters there. FB_ERROR_MEMORY says how much
 * was asked for and what is free. The graph's dtype must be the precision's. extra: bytes of a
 * batch that fb_graph_device_send takes. */
enum fb_status fb_graph_device_open(struct fb_graph_run *run, enum fb_nn_precision precision,
                                    size_t extra, struct fb_error *error) FB_MUST_CHECK;
void fb_graph_device_close(struct fb_graph_run *run);

struct fb_nn_cuda *fb_graph_device_context(const struct fb_graph_run *run);
/* The run whose blocks lie on the device. */
struct fb_graph_run *fb_graph_device_run(const struct fb_graph_run *run);
/* The bf16 copy of the parameters, which whoever changes them keeps up to date; NULL: none. */
void *fb_graph_device_rounded(const struct fb_graph_run *run);
/* Facts of a step that are the trainer's: put_batch adds the others and sends them. */
struct fb_nn_cuda_step *fb_graph_device_step(const struct fb_graph_run *run);
/* Batches put so far. */
int64_t fb_graph_device_batches(const struct fb_graph_run *run);
/* Whether the launches of a step are the same for every batch: lengths that attention masks padding
 * by are not, they travel as arguments. */
bool fb_graph_device_can_replay(const struct fb_graph_run *run);

enum fb_status fb_graph_device_put_params(struct fb_graph_run *run,
                                          struct fb_error *error) FB_MUST_CHECK;
/* Ids, mask and inputs of the batch, in the order of the stream: a step that was launched before
 * still has its own. The host's are free again when it returns. */
enum fb_status fb_graph_device_put_batch(struct fb_graph_run *run,
                                         struct fb_error *error) FB_MUST_CHECK;
/* What else belongs to the batch that was put last, likewise. */
enum fb_status fb_graph_device_send(struct fb_graph_run *run, void *to, const void *from,
                                    size_t bytes, struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_graph_device_forward(struct fb_graph_run *run,
                                       struct fb_error *error) FB_MUST_CHECK;
/* From the gradient of the logits on the device; zeroes the parameters' gradients first. */
enum fb_status fb_graph_device_backward(struct fb_graph_run *run,
                                        struct fb_error *error) FB_MUST_CHECK;
/* Waits, then copies the logits to the host. */
enum fb_status fb_graph_device_get_logits(struct fb_graph_run *run,
                                          struct fb_error *error) FB_MUST_CHECK;

/* What graph_run.h's functions do on a device. */
enum fb_status fb_graph_device_forward_through(struct fb_graph_run *run,
                                               struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_graph_device_backward_through(struct fb_graph_run *run,
                                                struct fb_error *error) FB_MUST_CHECK;

#endif
