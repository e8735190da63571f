/* Element-wise layers: see nn_pointwise.h. */
#include "nn_pointwise.h"

#include "parallel.h"

#include <math.h>

enum { TASK_COUNT = 8192 };

#define SQRT_HALF    0.70710678118654752F
#define INV_SQRT_2PI 0.39894228040143268F
#define SQRT_2_PI    0.79788456080286536F /* sqrt(2 / pi) */
#define GELU_CUBE    0.044715F

/* What dropout does: a value whose draw is below the bound becomes 0, another one is scaled. */
struct keep {
    uint64_t key;
    uint32_t bound; /* 0: all are kept, and none is drawn */
    float scale;
};

struct job {
    float *y;
    const float *x, *dy, *other;
    float scale;
    bool add;
    enum fb_nn_activation kind;
    struct keep keep;
    int64_t count;
};

static int64_t end_of(const struct job *j, int64_t task)
{
    const int64_t end = (task + 1) * TASK_COUNT;
    return end < j->count ? end : j->count;
}

static void run(fb_task_fn task, struct job *job, int threads)
{
    fb_parallel_for(threads, (job->count + TASK_COUNT - 1) / TASK_COUNT, task, job);
}

static inline void put(const struct job *j, int64_t i, float value)
{
    j->y[i] = j->add ? j->y[i] + value : value;
}

/* splitmix64's finaliser (Steele, Lea and Flood 2014) over a counter: any index on its own. */
static uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static struct keep keep_of(const struct fb_nn_dropout *d)
{
    return (struct keep){.key = mixed(d->seed + mixed(d->stream)),
                         .bound = (uint32_t)((double)d->p * 4294967296.0),
                         .scale = 1.0F / (1.0F - d->p)};
}

static inline float kept(const struct keep *k, int64_t i, float x)
{
    if (k->bound == 0)
        return x;
    const uint64_t bits = mixed(k->key + 0x9e3779b97f4a7c15U * ((uint64_t)i / 2 + 1));
    const uint32_t draw = (uint32_t)(i % 2 == 0 ? bits : bits >> 32);
    return draw < k->bound ? 0.0F : k->scale * x;
}

static float gelu_tanh(float x)
{
    return 0.5F * x * (1.0F + tanhf(SQRT_2_PI * (x + GELU_CUBE * x * x * x)));
}

static float gelu_tanh_slope(float x)
{
    const float t = tanhf(SQRT_2_PI * (x + GELU_CUBE * x * x * x));
    const float inner = SQRT_2_PI * (1.0F + 3.0F * GELU_CUBE * x * x);
    return 0.5F * (1.0F + t) + 0.5F * x * (1.0F - t * t) * inner;
}

static float gelu_erf(float x)
{
    return 0.5F * x * (1.0F + erff(SQRT_HALF * x));
}

static float gelu_erf_slope(float x)
{
    return 0.5F * (1.0F + erff(SQRT_HALF * x)) + x * INV_SQRT_2PI * expf(-0.5F * x * x);
}

static float relu(float x)
{
    return x > 0.0F ? x : 0.0F;
}

static float relu_slope(float x)
{
    return x > 0.0F ? 1.0F : 0.0F;
}

static const struct {
    float (*value)(float x);
    float (*slope)(float x);
} activations[FB_NN_ACTIVATION_COUNT] = {
    [FB_NN_RELU] = {relu, relu_slope},
    [FB_NN_GELU_ERF] = {gelu_erf, gelu_erf_slope},
    [FB_NN_GELU_TANH] = {gelu_tanh, gelu_tanh_slope},
};

static void activation_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_COUNT; i < end_of(j, task); i++)
        j->y[i] = kept(&j->keep, i, activations[j->kind].value(j->x[i]));
}

static void slope_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_COUNT; i < end_of(j, task); i++)
        put(j, i, activations[j->kind].slope(j->x[i]) * kept(&j->keep, i, j->dy[i]));
}

static void scale_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_COUNT; i < end_of(j, task); i++)
        put(j, i, j->scale * j->x[i]);
}

static void dropout_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_COUNT; i < end_of(j, task); i++)
        put(j, i, kept(&j->keep, i, j->x[i]));
}

static void sum_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    for (int64_t i = task * TASK_COUNT; i < end_of(j, task); i++)
        j->y[i] = j->x[i] + kept(&j->keep, i, j->other[i]);
}

void fb_nn_activation_forward(enum fb_nn_activation kind, const struct fb_nn_dropout *dropout,
                              float *y, const float *x, int64_t count, int threads)
{
    struct job job = {.x = x, .kind = kind, .keep = keep_of(dropout), .count = count};
    job.y = y;
    run(activation_task, &job, threads);
}

void fb_nn_activation_backward(enum fb_nn_activation kind, const struct fb_nn_dropout *dropout,
                               float *dx, bool add_dx, const float *dy, const float *x,
                               int64_t count, int threads)
{
    struct job job = {
        .x = x, .dy = dy, .add = add_dx, .kind = kind, .keep = keep_of(dropout), .count = count};
    job.y = dx;
    run(slope_task, &job, threads);
}

void fb_nn_dropout_apply(const struct fb_nn_dropout *dropout, float *y, bool add, const float *x,
                         int64_t count, int threads)
{
    struct job job = {.x = x, .add = add, .keep = keep_of(dropout), .count = count};
    job.y = y;
    run(dropout_task, &job, threads);
}

void fb_nn_sum_apply(const struct fb_nn_dropout *dropout, float *y, const float *a, const float *b,
                     int64_t count, int threads)
{
    struct job job = {.x = a, .other = b, .keep = keep_of(dropout), .count = count};
    job.y = y;
    run(sum_task, &job, threads);
}

void fb_nn_scale_apply(float *y, bool add, const float *x, float scale, int64_t count, int threads)
{
    struct job job = {.x = x, .add = add, .scale = scale, .count = count};
    job.y = y;
    run(scale_task, &job, threads);
}
