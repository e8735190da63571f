/*
 * A graph of cuDNN operations on tensors of four dimensions, put together step by step. Failure is
 * sticky: after it every step does nothing and returns NULL, and finishing reports the first one.
 */
#ifndef FB_CUDNN_GRAPH_H
#define FB_CUDNN_GRAPH_H

#include "attention.h"
#include "softmax/cudnn_api.h"

enum { FB_CUDNN_DESCRIPTORS_MAX = 128, FB_CUDNN_OPS_MAX = 32 };

struct fb_cudnn_graph {
    const struct fb_cudnn *api;
    void *handle;
    void *owned[FB_CUDNN_DESCRIPTORS_MAX]; /* descriptors, destroyed with the graph */
    int owned_count;
    void *ops[FB_CUDNN_OPS_MAX];
    int ops_count;
    int64_t next_virtual_id;
    struct fb_error error; /* code FB_OK: none yet */
};

/* Sizes and strides, in elements, of a tensor: batch, head, row, column. */
struct fb_cudnn_shape {
    int64_t size[4], stride[4];
};

struct fb_cudnn_shape fb_cudnn_dense(int64_t batch, int64_t heads, int64_t rows, int64_t columns);
struct fb_cudnn_shape fb_cudnn_transposed(const struct fb_cudnn_shape *shape);

void fb_cudnn_graph_init(struct fb_cudnn_graph *graph, const struct fb_cudnn *api, void *handle);
/* Destroys what the graph owns; a plan made of it lives on. */
void fb_cudnn_graph_free(struct fb_cudnn_graph *graph);

/* Tensors: in the caller's memory under an id; one f32 that the host passes; one that no memory
 * holds. */
void *fb_cudnn_add_tensor(struct fb_cudnn_graph *graph, int64_t id, enum fb_cudnn_dtype dtype,
                          const struct fb_cudnn_shape *shape);
void *fb_cudnn_add_scalar(struct fb_cudnn_graph *graph, int64_t id);
void *fb_cudnn_add_virtual(struct fb_cudnn_graph *graph, enum fb_cudnn_dtype dtype,
                           const struct fb_cudnn_shape *shape);

/* Operations on such tensors, f32 inside. b is NULL for one operand. */
void fb_cudnn_add_pointwise(struct fb_cudnn_graph *graph, enum fb_cudnn_pointwise mode, void *x,
                            void *b, void *y);
/* y: mask ? x : b */
void fb_cudnn_add_select(struct fb_cudnn_graph *graph, void *x, void *b, void *mask, void *y);
/* y: the index along that axis, as int32; x gives the shape */
void fb_cudnn_add_index(struct fb_cudnn_graph *graph, int64_t axis, void *x, void *y);
/* y: a >= b of two index tensors */
void fb_cudnn_add_greater_equal(struct fb_cudnn_graph *graph, void *a, void *b, void *y);
void fb_cudnn_add_reduction(struct fb_cudnn_graph *graph, enum fb_cudnn_reduction operation,
                            void *x, void *y);
void fb_cudnn_add_matmul(struct fb_cudnn_graph *graph, void *a, void *b, void *c);
void fb_cudnn_add_reshape(struct fb_cudnn_graph *graph, void *x, void *y);

/* The first plan that cuDNN's heuristics offer and that can be built, and its workspace. The caller
 * destroys the plan. */
enum fb_status fb_cudnn_graph_plan(struct fb_cudnn_graph *graph, void **plan,
                                   size_t *workspace_bytes, struct fb_error *error) FB_MUST_CHECK;

/* FB_ERROR_DEVICE with cuDNN's own words. */
enum fb_status fb_cudnn_complain(const struct fb_cudnn *api, const char *what,
                                 struct fb_error *error);

#endif
