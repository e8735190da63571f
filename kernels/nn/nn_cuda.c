/* The context of nn's device layers, and dense layers: see nn_cuda.h. */
#include "nn_cuda_blas.h"
#include "nn_cuda_private.h"

#include "cuda_check.h"

#include <inttypes.h>
#include <stdlib.h>

struct fb_nn_cuda {
    cudaStream_t stream;
    struct fb_nn_cuda_blas *blas;
    enum fb_nn_precision precision;
    float *partials;
    int64_t partials_floats;
    enum fb_status status;
    struct fb_error error;
};

enum fb_status fb_nn_cuda_open(struct fb_nn_cuda **opened, enum fb_nn_precision precision,
                               int64_t workspace_floats, struct fb_error *error)
{
    *opened = NULL;
    struct fb_nn_cuda *c = calloc(1, sizeof *c);
    if (!c)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the context of the device");
    c->precision = precision;
    enum fb_status status = fb_cuda_status(
        cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "making a stream", error);
    if (status == FB_OK)
        status = fb_nn_cuda_blas_open(&c->blas, c->stream, error);
    if (status == FB_OK && workspace_floats > 0) {
        void *data = NULL;
        status = fb_cuda_status(cudaMalloc(&data, (size_t)workspace_floats * sizeof(float)),
                                "allocating the workspace of sums", error);
        c->partials = data;
        c->partials_floats = workspace_floats;
    }
    if (status == FB_OK)
        *opened = c;
    else
        fb_nn_cuda_close(c);
    return status;
}

void fb_nn_cuda_close(struct fb_nn_cuda *c)
{
    if (!c)
        return;
    fb_nn_cuda_blas_close(c->blas);
    if (c->partials)
        (void)cudaFree(c->partials);
    if (c->stream)
        (void)cudaStreamDestroy(c->stream);
    free(c);
}

void *fb_nn_cuda_stream(const struct fb_nn_cuda *c)
{
    return c->stream;
}

enum fb_status fb_nn_cuda_check(struct fb_nn_cuda *c, struct fb_error *error)
{
    const enum fb_status status = c->status;
    c->status = FB_OK;
    if (status == FB_OK)
        return FB_OK;
    return fb_error_set(error, status, "%s", c->error.text);
}

void fb_nn_cuda_note(struct fb_nn_cuda *c, cudaError_t code, const char *what)
{
    if (c->status == FB_OK)
        c->status = fb_cuda_status(code, what, &c->error);
}

float *fb_nn_cuda_partials(struct fb_nn_cuda *c, int64_t floats)
{
    if (floats <= c->partials_floats)
        return c->partials;
    if (c->status == FB_OK)
        c->status = fb_error_set(&c->error, FB_ERROR_USAGE,
                                 "sums need %" PRId64 " floats of workspace, there are %" PRId64,
                                 floats, c->partials_floats);
    return NULL;
}

static void multiply(struct fb_nn_cuda *c, struct fb_nn_cuda_product product, const float *a,
                     const float *b, float *out, const float *bias)
{
    product.tf32 = c->precision == FB_NN_PRODUCT_TF32;
    if (c->status == FB_OK)
        c->status = fb_nn_cuda_blas_multiply(c->blas, &product, a, b, out, bias, &c->error);
}

/* A row-major [rows, columns] is the column-major [columns, rows]. */
void fb_nn_cuda_dense_forward(struct fb_nn_cuda *c, const struct fb_nn_dense *d, float *y,
                              const float *x, const float *w, const float *b)
{
    const struct fb_nn_cuda_product product = {.transpose_a = true,
                                               .bias = b != NULL,
                                               .m = d->out,
                                               .n = d->rows,
                                               .k = d->in,
                                               .lda = d->in,
                                               .ldb = d->in,
                                               .ldc = d->out};
    multiply(c, product, w, x, y, b);
}

void fb_nn_cuda_dense_backward(struct fb_nn_cuda *c, const struct fb_nn_dense *d, float *dx,
                               bool add_dx, float *dw, float *db, const float *dy, const float *x,
                               const float *w)
{
    const struct fb_nn_cuda_product to_x = {.add = add_dx,
                                            .m = d->in,
                                            .n = d->rows,
                                            .k = d->out,
                                            .lda = d->in,
                                            .ldb = d->out,
                                            .ldc = d->in};
    const struct fb_nn_cuda_product to_w = {.transpose_b = true,
                                            .add = true,
                                            .m = d->in,
                                            .n = d->out,
                                            .k = d->rows,
                                            .lda = d->in,
                                            .ldb = d->out,
                                            .ldc = d->in};
    if (dx)
        multiply(c, to_x, w, dy, dx, NULL);
    multiply(c, to_w, x, dy, dw, NULL);
    if (db)
        fb_nn_cuda_columns_add(c, db, dy, d->rows, d->out);
}
