/* Graphs of cuDNN operations: see cudnn_graph.h. */
#include "softmax/cudnn_graph.h"

#include <stdio.h>
#include <string.h>

struct fb_cudnn_shape fb_cudnn_dense(int64_t batch, int64_t heads, int64_t rows, int64_t columns)
{
    return (struct fb_cudnn_shape){
        .size = {batch, heads, rows, columns},
        .stride = {heads * rows * columns, rows * columns, columns, 1},
    };
}

struct fb_cudnn_shape fb_cudnn_transposed(const struct fb_cudnn_shape *shape)
{
    return (struct fb_cudnn_shape){
        .size = {shape->size[0], shape->size[1], shape->size[3], shape->size[2]},
        .stride = {shape->stride[0], shape->stride[1], shape->stride[3], shape->stride[2]},
    };
}

enum fb_status fb_cudnn_complain(const struct fb_cudnn *api, const char *what,
                                 struct fb_error *error)
{
    char words[256] = "";
    api->last_error(words, sizeof words);
    words[sizeof words - 1] = '\0';
    for (char *c = words; *c != '\0'; c++)
        if (*c == '\n')
            *c = ' ';
    return fb_error_set(error, FB_ERROR_DEVICE, "cuDNN %zu: %s: %s", api->version, what, words);
}

void fb_cudnn_graph_init(struct fb_cudnn_graph *graph, const struct fb_cudnn *api, void *handle)
{
    *graph = (struct fb_cudnn_graph){.api = api, .handle = handle, .next_virtual_id = 1000};
}

void fb_cudnn_graph_free(struct fb_cudnn_graph *graph)
{
    while (graph->owned_count > 0)
        (void)graph->api->destroy(graph->owned[--graph->owned_count]);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static void fail(struct fb_cudnn_graph *graph, const char *what)
{
    if (graph->error.code == FB_OK)
        (void)fb_cudnn_complain(graph->api, what, &graph->error);
}

static void *create(struct fb_cudnn_graph *graph, enum fb_cudnn_kind kind, const char *what)
{
    void *descriptor = NULL;
    if (graph->error.code != FB_OK)
        return NULL;
    if (graph->owned_count == FB_CUDNN_DESCRIPTORS_MAX) {
        (void)fb_error_set(&graph->error, FB_ERROR_INTERNAL, "a cuDNN graph is too large");
        return NULL;
    }
    if (graph->api->create((int)kind, &descriptor) != FB_CUDNN_OK) {
        fail(graph, what);
        return NULL;
    }
    graph->owned[graph->owned_count++] = descriptor;
    return descriptor;
}

static void set_many(struct fb_cudnn_graph *graph, void *descriptor, enum fb_cudnn_name name,
                     enum fb_cudnn_type type, int64_t count, const void *values)
{
    if (graph->error.code == FB_OK &&
        graph->api->set(descriptor, (int)name, (int)type, count, values) != FB_CUDNN_OK)
        fail(graph, "setting an attribute");
}

static void set_number(struct fb_cudnn_graph *graph, void *descriptor, enum fb_cudnn_name name,
                       int64_t value)
{
    set_many(graph, descriptor, name, FB_CUDNN_T_INT64, 1, &value);
}

/* Of one of cuDNN's enumerations. */
static void set_choice(struct fb_cudnn_graph *graph, void *descriptor, enum fb_cudnn_name name,
                       enum fb_cudnn_type type, int value)
{
    set_many(graph, descriptor, name, type, 1, &value);
}

static void set_flag(struct fb_cudnn_graph *graph, void *descriptor, enum fb_cudnn_name name)
{
    const bool yes = true;
    set_many(graph, descriptor, name, FB_CUDNN_T_BOOL, 1, &yes);
}

static void set_part(struct fb_cudnn_graph *graph, void *descriptor, enum fb_cudnn_name name,
                     void *part)
{
    set_many(graph, descriptor, name, FB_CUDNN_T_DESCRIPTOR, 1, &part);
}

static void finish(struct fb_cudnn_graph *graph, void *descriptor, const char *what)
{
    if (graph->error.code == FB_OK && graph->api->finalize(descriptor) != FB_CUDNN_OK)
        fail(graph, what);
}

/* ---- tensors --------------------------------------------------------------------------------- */

enum tensor_place { IN_MEMORY, BY_VALUE, NOWHERE };

static void *add_tensor(struct fb_cudnn_graph *graph, int64_t id, enum fb_cudnn_dtype dtype,
                        const struct fb_cudnn_shape *shape, enum tensor_place place)
{
    enum { ALIGNMENT_BYTES = 16 };
    void *tensor = create(graph, FB_CUDNN_TENSOR, "a tensor");
    set_choice(graph, tensor, FB_CUDNN_TENSOR_DTYPE, FB_CUDNN_T_DTYPE, (int)dtype);
    set_many(graph, tensor, FB_CUDNN_TENSOR_DIMENSIONS, FB_CUDNN_T_INT64, 4, shape->size);
    set_many(graph, tensor, FB_CUDNN_TENSOR_STRIDES, FB_CUDNN_T_INT64, 4, shape->stride);
    set_number(graph, tensor, FB_CUDNN_TENSOR_ID, id);
    set_number(graph, tensor, FB_CUDNN_TENSOR_ALIGNMENT, ALIGNMENT_BYTES);
    if (place == BY_VALUE)
        set_flag(graph, tensor, FB_CUDNN_TENSOR_IS_BY_VALUE);
    if (place == NOWHERE)
        set_flag(graph, tensor, FB_CUDNN_TENSOR_IS_VIRTUAL);
    finish(graph, tensor, "a tensor");
    return tensor;
}

void *fb_cudnn_add_tensor(struct fb_cudnn_graph *graph, int64_t id, enum fb_cudnn_dtype dtype,
                          const struct fb_cudnn_shape *shape)
{
    return add_tensor(graph, id, dtype, shape, IN_MEMORY);
}

void *fb_cudnn_add_scalar(struct fb_cudnn_graph *graph, int64_t id)
{
    const struct fb_cudnn_shape one = fb_cudnn_dense(1, 1, 1, 1);
    return add_tensor(graph, id, FB_CUDNN_FLOAT, &one, BY_VALUE);
}

void *fb_cudnn_add_virtual(struct fb_cudnn_graph *graph, enum fb_cudnn_dtype dtype,
                           const struct fb_cudnn_shape *shape)
{
    return add_tensor(graph, graph->next_virtual_id++, dtype, shape, NOWHERE);
}

/* ---- operations ------------------------------------------------------------------------------ */

static void add_op(struct fb_cudnn_graph *graph, void *op, const char *what)
{
    finish(graph, op, what);
    if (graph->error.code != FB_OK)
        return;
    if (graph->ops_count == FB_CUDNN_OPS_MAX)
        (void)fb_error_set(&graph->error, FB_ERROR_INTERNAL, "a cuDNN graph has too many steps");
    else
        graph->ops[graph->ops_count++] = op;
}

/* Of any kind; axis < 0 and NULL tensors: none. */
static void add_pointwise(struct fb_cudnn_graph *graph, enum fb_cudnn_pointwise mode,
                          enum fb_cudnn_dtype precision, int64_t axis, void *const tensors[4])
{
    static const enum fb_cudnn_name names[4] = {FB_CUDNN_OP_POINTWISE_X, FB_CUDNN_OP_POINTWISE_B,
                                                FB_CUDNN_OP_POINTWISE_T, FB_CUDNN_OP_POINTWISE_Y};
    void *what = create(graph, FB_CUDNN_POINTWISE, "a pointwise operation");
    set_choice(graph, what, FB_CUDNN_POINTWISE_MODE, FB_CUDNN_T_POINTWISE, (int)mode);
    set_choice(graph, what, FB_CUDNN_POINTWISE_PRECISION, FB_CUDNN_T_DTYPE, (int)precision);
    if (axis >= 0)
        set_number(graph, what, FB_CUDNN_POINTWISE_AXIS, axis);
    finish(graph, what, "a pointwise operation");
    void *op = create(graph, FB_CUDNN_OP_POINTWISE, "a pointwise step");
    set_part(graph, op, FB_CUDNN_OP_POINTWISE_DESCRIPTOR, what);
    for (int i = 0; i < 4; i++)
        if (tensors[i] != NULL)
            set_part(graph, op, names[i], tensors[i]);
    add_op(graph, op, "a pointwise step");
}

void fb_cudnn_add_pointwise(struct fb_cudnn_graph *graph, enum fb_cudnn_pointwise mode, void *x,
                            void *b, void *y)
{
    add_pointwise(graph, mode, FB_CUDNN_FLOAT, -1, (void *[4]){x, b, NULL, y});
}

void fb_cudnn_add_select(struct fb_cudnn_graph *graph, void *x, void *b, void *mask, void *y)
{
    add_pointwise(graph, FB_CUDNN_SELECT, FB_CUDNN_FLOAT, -1, (void *[4]){x, b, mask, y});
}

void fb_cudnn_add_index(struct fb_cudnn_graph *graph, int64_t axis, void *x, void *y)
{
    add_pointwise(graph, FB_CUDNN_GEN_INDEX, FB_CUDNN_INT32, axis, (void *[4]){x, NULL, NULL, y});
}

void fb_cudnn_add_greater_equal(struct fb_cudnn_graph *graph, void *a, void *b, void *y)
{
    add_pointwise(graph, FB_CUDNN_CMP_GE, FB_CUDNN_BOOLEAN, -1, (void *[4]){a, b, NULL, y});
}

void fb_cudnn_add_reduction(struct fb_cudnn_graph *graph, enum fb_cudnn_reduction operation,
                            void *x, void *y)
{
    void *what = create(graph, FB_CUDNN_REDUCTION, "a reduction");
    set_choice(graph, what, FB_CUDNN_REDUCTION_OPERATOR, FB_CUDNN_T_REDUCTION, (int)operation);
    set_choice(graph, what, FB_CUDNN_REDUCTION_PRECISION, FB_CUDNN_T_DTYPE, FB_CUDNN_FLOAT);
    finish(graph, what, "a reduction");
    void *op = create(graph, FB_CUDNN_OP_REDUCTION, "a reduction step");
    set_part(graph, op, FB_CUDNN_OP_REDUCTION_DESCRIPTOR, what);
    set_part(graph, op, FB_CUDNN_OP_REDUCTION_X, x);
    set_part(graph, op, FB_CUDNN_OP_REDUCTION_Y, y);
    add_op(graph, op, "a reduction step");
}

void fb_cudnn_add_matmul(struct fb_cudnn_graph *graph, void *a, void *b, void *c)
{
    void *what = create(graph, FB_CUDNN_MATMUL, "a matrix product");
    set_choice(graph, what, FB_CUDNN_MATMUL_PRECISION, FB_CUDNN_T_DTYPE, FB_CUDNN_FLOAT);
    finish(graph, what, "a matrix product");
    void *op = create(graph, FB_CUDNN_OP_MATMUL, "a product step");
    set_part(graph, op, FB_CUDNN_OP_MATMUL_DESCRIPTOR, what);
    set_part(graph, op, FB_CUDNN_OP_MATMUL_A, a);
    set_part(graph, op, FB_CUDNN_OP_MATMUL_B, b);
    set_part(graph, op, FB_CUDNN_OP_MATMUL_C, c);
    add_op(graph, op, "a product step");
}

void fb_cudnn_add_reshape(struct fb_cudnn_graph *graph, void *x, void *y)
{
    void *op = create(graph, FB_CUDNN_OP_RESHAPE, "a reshape step");
    set_part(graph, op, FB_CUDNN_OP_RESHAPE_X, x);
    set_part(graph, op, FB_CUDNN_OP_RESHAPE_Y, y);
    add_op(graph, op, "a reshape step");
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void *close_graph(struct fb_cudnn_graph *graph)
{
    void *all = create(graph, FB_CUDNN_GRAPH, "the graph");
    set_many(graph, all, FB_CUDNN_GRAPH_HANDLE, FB_CUDNN_T_HANDLE, 1, &graph->handle);
    set_many(graph, all, FB_CUDNN_GRAPH_OPS, FB_CUDNN_T_DESCRIPTOR, graph->ops_count, graph->ops);
    finish(graph, all, "the graph of the whole attention");
    return all;
}

enum { CONFIGS_MOST = 8 };

/* Asks for the engines that serve the graph, best first; returns how many. */
static int64_t find_engines(struct fb_cudnn_graph *graph, void *all, void *configs[CONFIGS_MOST])
{
    int64_t count = 0;
    void *heuristic = create(graph, FB_CUDNN_HEURISTIC, "the heuristics");
    set_part(graph, heuristic, FB_CUDNN_HEURISTIC_GRAPH, all);
    set_choice(graph, heuristic, FB_CUDNN_HEURISTIC_MODE, FB_CUDNN_T_HEURISTIC,
               FB_CUDNN_HEURISTIC_A);
    finish(graph, heuristic, "looking for an engine");
    for (int i = 0; i < CONFIGS_MOST; i++)
        configs[i] = create(graph, FB_CUDNN_ENGINE_CONFIG, "an engine's configuration");
    if (graph->error.code == FB_OK &&
        graph->api->get(heuristic, FB_CUDNN_HEURISTIC_RESULTS, FB_CUDNN_T_DESCRIPTOR, CONFIGS_MOST,
                        &count, configs) != FB_CUDNN_OK)
        fail(graph, "looking for an engine");
    return graph->error.code == FB_OK ? count : 0;
}

/* False when the engine does not take it. */
static bool build_plan(struct fb_cudnn_graph *graph, void *config, void **plan,
                       size_t *workspace_bytes)
{
    const struct fb_cudnn *api = graph->api;
    int64_t bytes = 0, count = 0;
    if (api->create(FB_CUDNN_PLAN, plan) != FB_CUDNN_OK)
        return false;
    if (api->set(*plan, FB_CUDNN_PLAN_HANDLE, FB_CUDNN_T_HANDLE, 1, &graph->handle) ==
            FB_CUDNN_OK &&
        api->set(*plan, FB_CUDNN_PLAN_ENGINE_CONFIG, FB_CUDNN_T_DESCRIPTOR, 1, &config) ==
            FB_CUDNN_OK &&
        api->finalize(*plan) == FB_CUDNN_OK &&
        api->get(*plan, FB_CUDNN_PLAN_WORKSPACE_SIZE, FB_CUDNN_T_INT64, 1, &count, &bytes) ==
            FB_CUDNN_OK) {
        *workspace_bytes = (size_t)bytes;
        return true;
    }
    (void)api->destroy(*plan);
    *plan = NULL;
    return false;
}

enum fb_status fb_cudnn_graph_plan(struct fb_cudnn_graph *graph, void **plan,
                                   size_t *workspace_bytes, struct fb_error *error)
{
    void *configs[CONFIGS_MOST];
    *plan = NULL;
    *workspace_bytes = 0;
    void *all = close_graph(graph);
    const int64_t count = find_engines(graph, all, configs);
    for (int64_t i = 0; i < count && i < CONFIGS_MOST; i++)
        if (build_plan(graph, configs[i], plan, workspace_bytes))
            return FB_OK;
    fail(graph, "no engine serves this attention on this device");
    return fb_error_set(error, graph->error.code, "%s", graph->error.text);
}
