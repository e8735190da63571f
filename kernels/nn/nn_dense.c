/* Dense layers over OpenBLAS: see nn_dense.h. */
#include "nn_dense.h"

#include "blas.h"
#include "nn_columns.h"
#include "parallel.h"

#include <cblas.h>
#include <stddef.h>

enum { TASK_ROWS = 128 }; /* of the result, a task's share: long enough that packing is paid */

struct pass {
    const struct fb_nn_dense *d;
    float *dx, *dw;
    const float *dy, *x, *w, *b;
    float *y;
    bool add_dx;
};

static int64_t task_count(int64_t rows)
{
    return (rows + TASK_ROWS - 1) / TASK_ROWS;
}

static int rows_of(int64_t task, int64_t rows)
{
    const int64_t left = rows - task * TASK_ROWS;
    return (int)(left < TASK_ROWS ? left : TASK_ROWS);
}

static void forward_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    const int in = (int)p->d->in, out = (int)p->d->out, rows = rows_of(task, p->d->rows);
    float *y = p->y + task * TASK_ROWS * out;
    for (int r = 0; p->b && r < rows; r++)
        for (int c = 0; c < out; c++)
            y[(ptrdiff_t)r * out + c] = p->b[c];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1.0F,
                p->x + task * TASK_ROWS * in, in, p->w, in, p->b ? 1.0F : 0.0F, y, out);
}

static void dx_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    const int in = (int)p->d->in, out = (int)p->d->out;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows_of(task, p->d->rows), in, out, 1.0F,
                p->dy + task * TASK_ROWS * out, out, p->w, in, p->add_dx ? 1.0F : 0.0F,
                p->dx + task * TASK_ROWS * in, in);
}

static void dw_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    const int in = (int)p->d->in, out = (int)p->d->out;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows_of(task, out), in, (int)p->d->rows,
                1.0F, p->dy + task * TASK_ROWS, out, p->x, in, 1.0F, p->dw + task * TASK_ROWS * in,
                in);
}

void fb_nn_dense_forward(const struct fb_nn_dense *d, float *y, const float *x, const float *w,
                         const float *b, int threads)
{
    struct pass pass = {.d = d, .x = x, .w = w, .b = b};
    pass.y = y;
    const int previous = fb_blas_threads_begin();
    fb_parallel_for(threads, task_count(d->rows), forward_task, &pass);
    fb_blas_threads_end(previous);
}

void fb_nn_dense_backward(const struct fb_nn_dense *d, float *dx, bool add_dx, float *dw, float *db,
                          const float *dy, const float *x, const float *w, int threads)
{
    struct pass pass = {.d = d, .dy = dy, .x = x, .w = w, .add_dx = add_dx};
    pass.dx = dx;
    pass.dw = dw;
    const int previous = fb_blas_threads_begin();
    if (dx)
        fb_parallel_for(threads, task_count(d->rows), dx_task, &pass);
    fb_parallel_for(threads, task_count(d->out), dw_task, &pass);
    fb_blas_threads_end(previous);
    if (db)
        fb_nn_columns_add(db, dy, d->rows, d->out, threads);
}
