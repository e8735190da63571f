/* Between the sources of a model on a device. */
#ifndef FB_GRAPH_DEVICE_STEPS_H
#define FB_GRAPH_DEVICE_STEPS_H

#include "graph_step.h"
#include "nn_cuda.h"

extern const struct fb_graph_functions fb_graph_device_functions[FB_OP_COUNT];

/* Of the run whose blocks lie on the device. */
struct fb_nn_cuda *fb_graph_device_steps_context(const struct fb_graph_run *there);
const struct fb_nn_cuda_tokens *fb_graph_device_steps_tokens(const struct fb_graph_run *there);
/* A parameter as an operand of products. */
const void *fb_graph_device_steps_weight(const struct fb_graph_run *there, int param);

#endif
