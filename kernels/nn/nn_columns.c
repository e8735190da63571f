/* Column sums: see nn_columns.h. */
#include "nn_columns.h"

#include "parallel.h"

struct columns {
    float *sums;
    const float *x;
    int64_t rows, width;
};

static void sum_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct columns *c = context;
    const int64_t first = task * FB_NN_COLUMNS_TASK, left = c->width - first;
    const int count = (int)(left < FB_NN_COLUMNS_TASK ? left : FB_NN_COLUMNS_TASK);
    double sums[FB_NN_COLUMNS_TASK] = {0};
    for (int64_t r = 0; r < c->rows; r++)
        for (int i = 0; i < count; i++)
            sums[i] += (double)c->x[r * c->width + first + i];
    for (int i = 0; i < count; i++)
        c->sums[first + i] += (float)sums[i];
}

void fb_nn_columns_add(float *sums, const float *x, int64_t rows, int64_t width, int threads)
{
    struct columns columns = {.x = x, .rows = rows, .width = width};
    columns.sums = sums;
    fb_parallel_for(threads, (width + FB_NN_COLUMNS_TASK - 1) / FB_NN_COLUMNS_TASK, sum_task,
                    &columns);
}
