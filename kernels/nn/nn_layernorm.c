/* Layer normalisation: see nn_layernorm.h. */
#include "nn_layernorm.h"

#include "nn_columns.h"
#include "parallel.h"

#include <math.h>

enum { TASK_ROWS = 32 };

struct pass {
    const struct fb_nn_layernorm *n;
    float *y, *stats_out, *dx, *dgain;
    const float *x, *gain, *bias, *dy, *stats;
    bool add_dx;
};

static int64_t last_row(const struct fb_nn_layernorm *n, int64_t task)
{
    const int64_t end = (task + 1) * TASK_ROWS;
    return end < n->rows ? end : n->rows;
}

static void forward_row(const struct pass *p, int64_t row)
{
    const int64_t width = p->n->width;
    const float *x = p->x + row * width;
    float *y = p->y + row * width;
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < width; i++)
        sum += (double)x[i];
    const double mean = sum / (double)width;
    for (int64_t i = 0; i < width; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double scale = 1.0 / sqrt(squares / (double)width + (double)p->n->eps);
    const float m = (float)mean, s = (float)scale;
    for (int64_t i = 0; i < width; i++)
        y[i] = (x[i] - m) * s * p->gain[i] + p->bias[i];
    p->stats_out[2 * row] = m;
    p->stats_out[2 * row + 1] = s;
}

static void forward_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    for (int64_t row = task * TASK_ROWS; row < last_row(p->n, task); row++)
        forward_row(p, row);
}

/* With g = dy * gain and z the normalised row: dx = s (g - mean(g) - z mean(g z)). */
static void backward_row(const struct pass *p, int64_t row)
{
    const int64_t width = p->n->width;
    const float *x = p->x + row * width, *dy = p->dy + row * width;
    const float mean = p->stats[2 * row], scale = p->stats[2 * row + 1];
    float *dx = p->dx + row * width;
    double sum = 0.0, product = 0.0;
    for (int64_t i = 0; i < width; i++) {
        const float g = dy[i] * p->gain[i], z = (x[i] - mean) * scale;
        sum += (double)g;
        product += (double)g * (double)z;
    }
    const float g_mean = (float)(sum / (double)width), gz_mean = (float)(product / (double)width);
    for (int64_t i = 0; i < width; i++) {
        const float z = (x[i] - mean) * scale;
        const float value = scale * (dy[i] * p->gain[i] - g_mean - z * gz_mean);
        dx[i] = p->add_dx ? dx[i] + value : value;
    }
}

static void backward_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    for (int64_t row = task * TASK_ROWS; row < last_row(p->n, task); row++)
        backward_row(p, row);
}

static void gain_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct pass *p = context;
    const int64_t width = p->n->width, first = task * FB_NN_COLUMNS_TASK, left = width - first;
    const int count = (int)(left < FB_NN_COLUMNS_TASK ? left : FB_NN_COLUMNS_TASK);
    double sums[FB_NN_COLUMNS_TASK] = {0};
    for (int64_t r = 0; r < p->n->rows; r++) {
        const float mean = p->stats[2 * r], scale = p->stats[2 * r + 1];
        const float *x = p->x + r * width + first, *dy = p->dy + r * width + first;
        for (int i = 0; i < count; i++)
            sums[i] += (double)(dy[i] * ((x[i] - mean) * scale));
    }
    for (int i = 0; i < count; i++)
        p->dgain[first + i] += (float)sums[i];
}

static int64_t row_tasks(const struct fb_nn_layernorm *n)
{
    return (n->rows + TASK_ROWS - 1) / TASK_ROWS;
}

void fb_nn_layernorm_forward(const struct fb_nn_layernorm *n, float *y, float *stats,
                             const float *x, const float *gain, const float *bias, int threads)
{
    struct pass pass = {.n = n, .x = x, .gain = gain, .bias = bias};
    pass.y = y;
    pass.stats_out = stats;
    fb_parallel_for(threads, row_tasks(n), forward_task, &pass);
}

void fb_nn_layernorm_backward(const struct fb_nn_layernorm *n, float *dx, bool add_dx, float *dgain,
                              float *dbias, const float *dy, const float *x, const float *stats,
                              const float *gain, int threads)
{
    struct pass pass = {.n = n, .dy = dy, .x = x, .stats = stats, .gain = gain, .add_dx = add_dx};
    pass.dx = dx;
    pass.dgain = dgain;
    const int64_t column_tasks = (n->width + FB_NN_COLUMNS_TASK - 1) / FB_NN_COLUMNS_TASK;
    fb_parallel_for(threads, column_tasks, gain_task, &pass);
    fb_nn_columns_add(dbias, dy, n->rows, n->width, threads);
    fb_parallel_for(threads, row_tasks(n), backward_task, &pass);
}
