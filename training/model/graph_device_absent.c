/* A build without CUDA: no model runs on a device. See graph_device.h. */
#include "graph_device.h"

static enum fb_status absent(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_DEVICE,
                        "this build has no CUDA backend: install the CUDA toolkit and configure "
                        "with FLOWBENCH_CUDA=ON");
}

enum fb_status fb_graph_device_open(struct fb_graph_run *run, enum fb_nn_precision precision,
                                    size_t extra, struct fb_error *error)
{
    (void)run;
    (void)precision;
    (void)extra;
    return absent(error);
}

void fb_graph_device_close(struct fb_graph_run *run)
{
    (void)run;
}

enum fb_status fb_graph_device_forward_through(struct fb_graph_run *run, struct fb_error *error)
{
    (void)run;
    return absent(error);
}

enum fb_status fb_graph_device_backward_through(struct fb_graph_run *run, struct fb_error *error)
{
    (void)run;
    return absent(error);
}
