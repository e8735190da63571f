/*
 * cuDNN 9's graph interface, loaded at run time: the functions that softmax by cuDNN calls and the
 * values that it passes, declared here as cuDNN's documentation has them ("Backend API"), so that
 * building needs no cuDNN. Private to softmax_cudnn.c and the files it is made of.
 */
#ifndef FB_CUDNN_API_H
#define FB_CUDNN_API_H

#include "status.h"

#include <stddef.h>
#include <stdint.h>

/* Before 9.6 who asks for gradients had to clear the sums of dq; before 9.15.1 gradients of lengths
 * that are no multiple of 128 touch memory beyond their tensors. */
enum {
    FB_CUDNN_OK = 0,
    FB_CUDNN_VERSION_LEAST = 90600,
    FB_CUDNN_VERSION_TAILS = 91501, /* gradients of any length */
    FB_CUDNN_TILE = 128
};

/* cudnnDataType_t */
enum fb_cudnn_dtype {
    FB_CUDNN_FLOAT = 0,
    FB_CUDNN_HALF = 2,
    FB_CUDNN_INT32 = 4,
    FB_CUDNN_BFLOAT16 = 9,
    FB_CUDNN_BOOLEAN = 11
};

/* cudnnPointwiseMode_t, cudnnReduceTensorOp_t, cudnnBackendHeurMode_t */
enum fb_cudnn_pointwise {
    FB_CUDNN_ADD = 0,
    FB_CUDNN_MUL = 1,
    FB_CUDNN_DIV = 6,
    FB_CUDNN_SUB = 9,
    FB_CUDNN_EXP = 13,
    FB_CUDNN_LOG = 15,
    FB_CUDNN_IDENTITY = 21,
    FB_CUDNN_CMP_GE = 303,
    FB_CUDNN_GEN_INDEX = 501,
    FB_CUDNN_SELECT = 601
};
enum fb_cudnn_reduction { FB_CUDNN_REDUCE_ADD = 0, FB_CUDNN_REDUCE_MAX = 3 };
enum { FB_CUDNN_HEURISTIC_A = 3 };

/* cudnnBackendDescriptorType_t */
enum fb_cudnn_kind {
    FB_CUDNN_POINTWISE = 0,
    FB_CUDNN_ENGINE_CONFIG = 3,
    FB_CUDNN_HEURISTIC = 4,
    FB_CUDNN_PLAN = 5,
    FB_CUDNN_OP_POINTWISE = 13,
    FB_CUDNN_GRAPH = 15,
    FB_CUDNN_PACK = 16,
    FB_CUDNN_TENSOR = 17,
    FB_CUDNN_MATMUL = 18,
    FB_CUDNN_OP_MATMUL = 19,
    FB_CUDNN_REDUCTION = 21,
    FB_CUDNN_OP_REDUCTION = 22,
    FB_CUDNN_OP_RESHAPE = 31
};

/* cudnnBackendAttributeType_t */
enum fb_cudnn_type {
    FB_CUDNN_T_HANDLE = 0,
    FB_CUDNN_T_DTYPE = 1,
    FB_CUDNN_T_BOOL = 2,
    FB_CUDNN_T_INT64 = 3,
    FB_CUDNN_T_POINTER = 6,
    FB_CUDNN_T_HEURISTIC = 8,
    FB_CUDNN_T_POINTWISE = 14,
    FB_CUDNN_T_DESCRIPTOR = 15,
    FB_CUDNN_T_REDUCTION = 18
};

/* cudnnBackendAttributeName_t */
enum fb_cudnn_name {
    FB_CUDNN_POINTWISE_MODE = 0,
    FB_CUDNN_POINTWISE_PRECISION = 1,
    FB_CUDNN_POINTWISE_AXIS = 9,
    FB_CUDNN_HEURISTIC_MODE = 200,
    FB_CUDNN_HEURISTIC_GRAPH = 201,
    FB_CUDNN_HEURISTIC_RESULTS = 202,
    FB_CUDNN_PLAN_HANDLE = 400,
    FB_CUDNN_PLAN_ENGINE_CONFIG = 401,
    FB_CUDNN_PLAN_WORKSPACE_SIZE = 402,
    FB_CUDNN_OP_POINTWISE_DESCRIPTOR = 750,
    FB_CUDNN_OP_POINTWISE_X = 751,
    FB_CUDNN_OP_POINTWISE_B = 752,
    FB_CUDNN_OP_POINTWISE_Y = 753,
    FB_CUDNN_OP_POINTWISE_T = 758,
    FB_CUDNN_GRAPH_HANDLE = 800,
    FB_CUDNN_GRAPH_OPS = 801,
    FB_CUDNN_TENSOR_ALIGNMENT = 900,
    FB_CUDNN_TENSOR_DTYPE = 901,
    FB_CUDNN_TENSOR_DIMENSIONS = 902,
    FB_CUDNN_TENSOR_STRIDES = 903,
    FB_CUDNN_TENSOR_ID = 906,
    FB_CUDNN_TENSOR_IS_VIRTUAL = 907,
    FB_CUDNN_TENSOR_IS_BY_VALUE = 908,
    FB_CUDNN_PACK_IDS = 1000,
    FB_CUDNN_PACK_POINTERS = 1001,
    FB_CUDNN_PACK_WORKSPACE = 1003,
    FB_CUDNN_MATMUL_PRECISION = 1500,
    FB_CUDNN_OP_MATMUL_A = 1520,
    FB_CUDNN_OP_MATMUL_B = 1521,
    FB_CUDNN_OP_MATMUL_C = 1522,
    FB_CUDNN_OP_MATMUL_DESCRIPTOR = 1523,
    FB_CUDNN_REDUCTION_OPERATOR = 1600,
    FB_CUDNN_REDUCTION_PRECISION = 1601,
    FB_CUDNN_OP_REDUCTION_X = 1610,
    FB_CUDNN_OP_REDUCTION_Y = 1611,
    FB_CUDNN_OP_REDUCTION_DESCRIPTOR = 1612,
    FB_CUDNN_OP_RESHAPE_X = 2200,
    FB_CUDNN_OP_RESHAPE_Y = 2201
};

/* A cudnnHandle_t and a cudnnBackendDescriptor_t are pointers; a cudnnStatus_t is an int. */
struct fb_cudnn {
    size_t version; /* 9.19.0 is 91900 */
    int (*create_handle)(void **handle);
    int (*set_stream)(void *handle, void *stream);
    void (*last_error)(char *text, size_t size);
    int (*create)(int kind, void **descriptor);
    int (*destroy)(void *descriptor);
    int (*finalize)(void *descriptor);
    int (*set)(void *descriptor, int name, int type, int64_t count, const void *values);
    int (*get)(void *descriptor, int name, int type, int64_t room, int64_t *count, void *values);
    int (*execute)(void *handle, void *plan, void *pack);
};

/* Loads the library once per process: the file that FLOWBENCH_CUDNN names, else libcudnn.so.9 where
 * the loader finds it. NULL, with FB_ERROR_UNSUPPORTED and the remedy in why, when it is not there
 * or too old. Creates no context. */
const struct fb_cudnn *fb_cudnn_load(struct fb_error *why);

#endif
