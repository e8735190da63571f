/* What the gradients of softmax by warpgroups (window_cuda_groups_gradient.cu) are told. */
#ifndef FB_WINDOW_CUDA_GROUPS_CUH
#define FB_WINDOW_CUDA_GROUPS_CUH

#include "window_cuda.cuh"

struct window_gradient_view {
    window_arguments w; /* sizes, band, scale, inputs */
    tensor_view dout, dq, dk, dv;
    float slope;      /* of scores before log2(e): D^(-1/2) */
    const float *lse; /* [batch heads][q_len], base 2 */
    float *shares;    /* [batch heads][q_len] dout out: scratch */
    float *lowered;   /* likewise, lse less the power of weights; NULL: they have none */
};

/* bf16 or f16, heads of 64, rows of 16-byte chunks, on Hopper. */
enum fb_status window_cuda_groups_gradient(enum fb_dtype dtype, const window_gradient_view &a,
                                           cudaStream_t stream, struct fb_error *error);

/* The same in one pass: window_cuda_joint.cu; for which problems fb_window_cuda_is_joint tells. */
enum fb_status window_cuda_joint_gradient(const struct fb_call *call, const window_gradient_view &a,
                                          const struct fb_window_cuda_gradient_buffers &buffers,
                                          cudaStream_t stream, struct fb_error *error);

#endif
