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
 * was asked for and what is free. */
enum fb_status fb_graph_device_open(struct fb_graph_run *run, enum fb_nn_precision precision,
                                    struct fb_error *error) FB_MUST_CHECK;
void fb_graph_device_close(struct fb_graph_run *run);

struct fb_nn_cuda *fb_graph_device_context(const struct fb_graph_run *run);
/* The run whose blocks lie on the device. */
struct fb_graph_run *fb_graph_device_run(const struct fb_graph_run *run);

enum fb_status fb_graph_device_put_params(struct fb_graph_run *run,
                                          struct fb_error *error) FB_MUST_CHECK;
/* Ids, mask and inputs of the batch. */
enum fb_status fb_graph_device_put_batch(struct fb_graph_run *run,
                                         struct fb_error *error) FB_MUST_CHECK;
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
