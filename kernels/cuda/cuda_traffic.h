/* Kernels that only move bytes, or wait: cuda_traffic.cu. Private to this room. */
#ifndef FB_CUDA_TRAFFIC_H
#define FB_CUDA_TRAFFIC_H

#include "cuda_device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fb_status fb_cuda_launch_fill(void *data, uint32_t pattern, size_t bytes, void *stream,
                                   struct fb_error *error) FB_MUST_CHECK;

/* word[0] is what the kernel waits for; word[1] becomes 1 when it has waited for ten seconds. */
enum fb_status fb_cuda_launch_block(volatile uint32_t *word, void *stream,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Reads all of it; writes one word of it only if a sum is one that no fill makes. */
enum fb_status fb_cuda_launch_read(void *data, size_t bytes, void *stream,
                                   struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
