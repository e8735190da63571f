/* Optimisers and schedules: see nn_optimiser.h. */
#include "nn_optimiser.h"

#include "parallel.h"

#include <math.h>

enum { TASK_COUNT = 16384 };

struct job {
    const struct fb_nn_optimiser *o;
    struct fb_nn_update u;
    float *theta, *m, *v;
    const float *g;
    const unsigned char *decay;
    int64_t count;
};

static void update_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct job *j = context;
    const struct fb_nn_update *u = &j->u;
    const int64_t end = (task + 1) * TASK_COUNT < j->count ? (task + 1) * TASK_COUNT : j->count;
    const double b1 = j->o->beta1, b2 = j->o->beta2, eps = j->o->eps;
    for (int64_t i = task * TASK_COUNT; i < end; i++) {
        const double g = (double)j->g[i];
        const double m = b1 * (double)j->m[i] + (1.0 - b1) * g;
        const double v = b2 * (double)j->v[i] + (1.0 - b2) * g * g;
        const double keep = !j->decay || j->decay[i] ? u->keep : 1.0;
        const double change = u->adaptive ? m / (sqrt(v) / u->root + eps) : m;
        j->m[i] = (float)m;
        j->v[i] = (float)v;
        j->theta[i] = (float)(keep * (double)j->theta[i] - u->step * change);
    }
}

/* The rectification of Liu et al. 2020, algorithm 2, and their certainty bound of 5. */
static void set_radam(struct fb_nn_update *u, const struct fb_nn_optimiser *o, int64_t t, double lr)
{
    const double b1_t = pow(o->beta1, (double)t), b2_t = pow(o->beta2, (double)t);
    const double rho_inf = 2.0 / (1.0 - o->beta2) - 1.0;
    const double rho = rho_inf - 2.0 * (double)t * b2_t / (1.0 - b2_t);
    u->root = 1.0;
    u->adaptive = rho >= 5.0;
    u->step = lr / (1.0 - b1_t);
    if (u->adaptive)
        u->step *= sqrt((1.0 - b2_t) * (rho - 4.0) / (rho_inf - 4.0) * (rho - 2.0) / rho * rho_inf /
                        (rho_inf - 2.0));
}

struct fb_nn_update fb_nn_optimiser_update(const struct fb_nn_optimiser *o, int64_t t, double lr)
{
    const double b1_t = pow(o->beta1, (double)t), root = sqrt(1.0 - pow(o->beta2, (double)t));
    struct fb_nn_update u = {.keep = 1.0 - lr * o->weight_decay, .adaptive = true};
    if (o->kind == FB_NN_RADAM) {
        set_radam(&u, o, t, lr);
    } else if (o->kind == FB_NN_ADAM_RAW_EPS) {
        u.step = lr * root / (1.0 - b1_t);
        u.root = 1.0;
    } else {
        u.step = lr / (1.0 - b1_t);
        u.root = root;
    }
    return u;
}

void fb_nn_optimiser_step(const struct fb_nn_optimiser *o, float *theta, float *m, float *v,
                          const float *g, const unsigned char *decay, int64_t count, int64_t t,
                          double lr, int threads)
{
    struct job job = {
        .o = o, .u = fb_nn_optimiser_update(o, t, lr), .g = g, .decay = decay, .count = count};
    job.theta = theta;
    job.m = m;
    job.v = v;
    fb_parallel_for(threads, (count + TASK_COUNT - 1) / TASK_COUNT, update_task, &job);
}

double fb_nn_clip_norm(float *g, int64_t count, double most)
{
    double squares = 0.0;
    for (int64_t i = 0; i < count; i++)
        squares += (double)g[i] * (double)g[i];
    const double norm = sqrt(squares), scale = most / (norm + 1e-6);
    if (most > 0.0 && scale < 1.0)
        for (int64_t i = 0; i < count; i++)
            g[i] = (float)((double)g[i] * scale);
    return norm;
}

double fb_nn_schedule_at(const struct fb_nn_schedule *s, int64_t step)
{
    const double pi = 3.14159265358979323846, at = (double)step, warmup = (double)s->warmup;
    const double ramp = s->warmup > 0 ? fmin(1.0, at / warmup) : 1.0;
    switch (s->kind) {
    case FB_NN_LINEAR_WARMUP:
        return s->base * (s->warmup > 0 ? fmin(1.0, (at + 1.0) / warmup) : 1.0);
    case FB_NN_RSQRT:
        return s->base * ramp / sqrt(fmax(fmax(at, warmup), 1.0));
    case FB_NN_COSINE: {
        const double p = fmax(0.0, (at - warmup) / (double)s->cycle);
        return s->base * ramp * fmax(0.0, 0.5 * (1.0 + cos(pi * (p - floor(p)))));
    }
    case FB_NN_INVERSE_SQRT:
        return at + 1.0 <= warmup ? s->initial + (s->base - s->initial) * (at + 1.0) / warmup
                                  : s->base * sqrt(warmup / (at + 1.0));
    default:
        return s->base;
    }
}
