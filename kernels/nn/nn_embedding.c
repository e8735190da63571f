/* Embeddings and positions: see nn_embedding.h. */
#include "nn_embedding.h"

#include "parallel.h"

#include <math.h>
#include <string.h>

enum { TASK_ROWS = 64, TASK_COLUMNS = 64 };

struct job {
    float *out;
    const float *in;
    const int32_t *ids;
    int64_t count, width;
};

static void gather_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_ROWS; i < (task + 1) * TASK_ROWS && i < j->count; i++)
        memcpy(j->out + i * j->width, j->in + j->ids[i] * j->width,
               (size_t)j->width * sizeof *j->out);
}

static void scatter_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    const int64_t first = task * TASK_COLUMNS, end = first + TASK_COLUMNS;
    for (int64_t i = 0; i < j->count; i++)
        for (int64_t c = first; c < end && c < j->width; c++)
            j->out[j->ids[i] * j->width + c] += j->in[i * j->width + c];
}

void fb_nn_embedding_forward(float *y, const float *table, const int32_t *ids, int64_t count,
                             int64_t width, int threads)
{
    struct job job = {.in = table, .ids = ids, .count = count, .width = width};
    job.out = y;
    fb_parallel_for(threads, (count + TASK_ROWS - 1) / TASK_ROWS, gather_task, &job);
}

void fb_nn_embedding_backward(float *dtable, const float *dy, const int32_t *ids, int64_t count,
                              int64_t width, int threads)
{
    struct job job = {.in = dy, .ids = ids, .count = count, .width = width};
    job.out = dtable;
    fb_parallel_for(threads, (width + TASK_COLUMNS - 1) / TASK_COLUMNS, scatter_task, &job);
}

void fb_nn_position_forward(float *y, const float *x, const float *positions, int64_t batch,
                            int64_t tokens, int64_t width)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < tokens * width; i++)
            y[b * tokens * width + i] = x[b * tokens * width + i] + positions[i];
}

void fb_nn_position_backward(float *dpositions, const float *dy, int64_t batch, int64_t tokens,
                             int64_t width)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < tokens * width; i++)
            dpositions[i] += dy[b * tokens * width + i];
}

void fb_nn_position_sinusoid(float *table, int64_t tokens, int64_t width)
{
    for (int64_t p = 0; p < tokens; p++)
        for (int64_t c = 0; c < width; c++) {
            const int64_t even = c - c % 2;
            const double rate = exp(-(double)even * log(10000.0) / (double)width);
            const double angle = (double)p * rate;
            table[p * width + c] = (float)(c % 2 == 0 ? sin(angle) : cos(angle));
        }
}
