/* The context of nn's device layers, and dense layers: see nn_cuda.h. */
#include "nn_cuda_blas.h"
#include "nn_cuda_private.h"

#include "cuda_check.h"
#include "cuda_device.h"

#include <inttypes.h>
#include <stdlib.h>

struct fb_nn_cuda {
    cudaStream_t stream;
    struct fb_nn_cuda_blas *blas;
    enum fb_nn_precision precision;
    struct fb_nn_cuda_room room;
    struct fb_nn_cuda_step *step; /* this and what follows: on the device */
    float *partials;
    void *rounded_x, *rounded_dy;
    enum fb_status status;
    struct fb_error error;
};

/* Rounded values, of bf16. */
enum { ROUNDED_BYTES = 2 };

static enum fb_status allocate(struct fb_nn_cuda *c, struct fb_error *error)
{
    void *places[4] = {NULL};
    const size_t bytes[4] = {sizeof *c->step, (size_t)c->room.sums_floats * sizeof(float),
                             (size_t)c->room.rounded_x * ROUNDED_BYTES,
                             (size_t)c->room.rounded_dy * ROUNDED_BYTES};
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < 4; i++)
        status = fb_cuda_allocate(bytes[i], "the workspace of layers", &places[i], error);
    c->step = places[0];
    c->partials = places[1];
    c->rounded_x = places[2];
    c->rounded_dy = places[3];
    return status;
}

enum fb_status fb_nn_cuda_open(struct fb_nn_cuda **opened, enum fb_nn_precision precision,
                               const struct fb_nn_cuda_room *room, struct fb_error *error)
{
    *opened = NULL;
    struct fb_nn_cuda *c = calloc(1, sizeof *c);
    if (!c)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the context of the device");
    c->precision = precision;
    c->room = *room;
    enum fb_status status = fb_cuda_status(
        cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "making a stream", error);
    if (status == FB_OK)
        status = fb_nn_cuda_blas_open(&c->blas, c->stream, error);
    if (status == FB_OK)
        status = allocate(c, error);
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
    fb_cuda_release(c->step);
    fb_cuda_release(c->partials);
    fb_cuda_release(c->rounded_x);
    fb_cuda_release(c->rounded_dy);
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
    if (floats <= c->room.sums_floats)
        return c->partials;
    if (c->status == FB_OK)
        c->status = fb_error_set(&c->error, FB_ERROR_USAGE,
                                 "sums need %" PRId64 " floats of workspace, there are %" PRId64,
                                 floats, c->room.sums_floats);
    return NULL;
}

bool fb_nn_cuda_is_narrow(const struct fb_nn_cuda *c)
{
    return c->precision == FB_NN_BF16;
}

const struct fb_nn_cuda_step *fb_nn_cuda_step_there(const struct fb_nn_cuda *c)
{
    return c->step;
}

/* Not pinned, so the driver has its own copy when the call returns. */
void fb_nn_cuda_put_step(struct fb_nn_cuda *c, const struct fb_nn_cuda_step *step)
{
    fb_nn_cuda_note(c,
                    cudaMemcpyAsync(c->step, step, sizeof *step, cudaMemcpyHostToDevice, c->stream),
                    "copying the facts of a step");
}

static void multiply(struct fb_nn_cuda *c, struct fb_nn_cuda_product product, const void *a,
                     const void *b, void *out, const void *bias)
{
    product.tf32 = c->precision == FB_NN_TF32;
    product.bf16 = c->precision == FB_NN_BF16;
    if (c->status == FB_OK)
        c->status = fb_nn_cuda_blas_multiply(c->blas, &product, a, b, out, bias, &c->error);
}

/* An f32 matrix as an operand: rounded into the workspace where operands are bf16. */
static const void *operand(struct fb_nn_cuda *c, const void *matrix, bool wide, int64_t count,
                           void *rounded, int64_t room)
{
    if (!wide || c->precision != FB_NN_BF16)
        return matrix;
    if (count <= room)
        fb_nn_cuda_round(c, rounded, matrix, count);
    else if (c->status == FB_OK)
        c->status =
            fb_error_set(&c->error, FB_ERROR_USAGE,
                         "a matrix of %" PRId64 " values is to be rounded, there is room for "
                         "%" PRId64,
                         count, room);
    return rounded;
}

static const void *operand_x(struct fb_nn_cuda *c, const struct fb_nn_cuda_dense *d, const void *x)
{
    return operand(c, x, d->wide_x, d->size.rows * d->size.in, c->rounded_x, c->room.rounded_x);
}

/* A row-major [rows, columns] is the column-major [columns, rows]. */
void fb_nn_cuda_dense_forward(struct fb_nn_cuda *c, const struct fb_nn_cuda_dense *d, void *y,
                              const void *x, const void *w, const void *b)
{
    const struct fb_nn_cuda_product product = {.transpose_a = true,
                                               .bias = b != NULL,
                                               .wide_c = d->wide_y,
                                               .m = d->size.out,
                                               .n = d->size.rows,
                                               .k = d->size.in,
                                               .lda = d->size.in,
                                               .ldb = d->size.in,
                                               .ldc = d->size.out};
    multiply(c, product, w, operand_x(c, d, x), y, b);
}

void fb_nn_cuda_dense_backward(struct fb_nn_cuda *c, const struct fb_nn_cuda_dense *d, void *dx,
                               bool add_dx, float *dw, float *db, const void *dy, const void *x,
                               const void *w)
{
    const struct fb_nn_cuda_product to_x = {.add = add_dx,
                                            .wide_c = d->wide_x,
                                            .m = d->size.in,
                                            .n = d->size.rows,
                                            .k = d->size.out,
                                            .lda = d->size.in,
                                            .ldb = d->size.out,
                                            .ldc = d->size.in};
    const struct fb_nn_cuda_product to_w = {.transpose_b = true,
                                            .add = true,
                                            .wide_c = true,
                                            .m = d->size.in,
                                            .n = d->size.out,
                                            .k = d->size.rows,
                                            .lda = d->size.in,
                                            .ldb = d->size.out,
                                            .ldc = d->size.in};
    const void *narrow_dy =
        operand(c, dy, d->wide_y, d->size.rows * d->size.out, c->rounded_dy, c->room.rounded_dy);
    if (dx)
        multiply(c, to_x, w, narrow_dy, dx, NULL);
    multiply(c, to_w, operand_x(c, d, x), narrow_dy, dw, NULL);
    if (db)
        fb_nn_cuda_columns_add(c, db, dy, d->wide_y, d->size.rows, d->size.out);
}
