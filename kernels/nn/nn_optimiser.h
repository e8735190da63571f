/*
 * Optimisers over one block of parameters, the schedules of their learning rate, and clipping.
 *
 * Every released recipe of the Flowformer tasks uses one of these; they differ in where epsilon
 * stands, in the bias correction and in what the weight decay multiplies. m and v are moments of
 * the parameters' size, zero before the first step; t counts steps from 1.
 */
#ifndef FB_NN_OPTIMISER_H
#define FB_NN_OPTIMISER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum fb_nn_optimiser_kind {
    /* Kingma and Ba 2015 with decoupled decay (Loshchilov and Hutter 2019), as torch's AdamW and
     * flax.optim.Adam: theta - lr wd theta - lr m^ / (sqrt(v^) + eps), hats for the corrections */
    FB_NN_ADAM,
    /* The same with epsilon beside the uncorrected sqrt(v), as fairseq's Adam */
    FB_NN_ADAM_RAW_EPS,
    /* Liu et al. 2020, the authors' own form: epsilon as in the line above */
    FB_NN_RADAM,
    FB_NN_OPTIMISER_COUNT
};

struct fb_nn_optimiser {
    enum fb_nn_optimiser_kind kind;
    double beta1, beta2, eps, weight_decay;
};

/* What step t does at learning rate lr: theta = keep theta - step m / (sqrt(v) / root + eps), or,
 * where RAdam is not yet certain of v, theta = keep theta - step m. keep is 1 where no decay
 * applies.
 */
struct fb_nn_update {
    double step, root, keep;
    bool adaptive;
};
struct fb_nn_update fb_nn_optimiser_update(const struct fb_nn_optimiser *o, int64_t t, double lr);

/* One step at learning rate lr over theta[count], gradient g; decay[count] is 1 where the weight
 * decay applies and 0 where not, NULL where it applies to all. Threads change nothing but time. */
void fb_nn_optimiser_step(const struct fb_nn_optimiser *o, float *theta, float *m, float *v,
                          const float *g, const unsigned char *decay, int64_t count, int64_t t,
                          double lr, int threads);

/* Scales g so that its 2-norm is at most `most`, as torch.nn.utils.clip_grad_norm_ does: by
 * most / (norm + 1e-6) where that is below 1. Returns the norm before. most <= 0: only the norm. */
double fb_nn_clip_norm(float *g, int64_t count, double most);

enum fb_nn_schedule_kind {
    FB_NN_CONSTANT,
    FB_NN_LINEAR_WARMUP, /* base min((step + 1) / warmup, 1) */
    FB_NN_RSQRT,         /* base min(1, step / W) / sqrt(max(step, W)) */
    FB_NN_COSINE,        /* base min(1, step / W) max(0, (1 + cos(pi (p mod 1))) / 2) */
    FB_NN_INVERSE_SQRT, /* from `initial` linearly to base over W, then base sqrt(W / (step + 1)) */
    FB_NN_SCHEDULE_COUNT
};

struct fb_nn_schedule {
    enum fb_nn_schedule_kind kind;
    double base, initial;
    int64_t warmup, cycle; /* steps; cycle: of the cosine, p = max(0, (step - W) / cycle) */
};

/* The learning rate of a step counted from 0. */
double fb_nn_schedule_at(const struct fb_nn_schedule *schedule, int64_t step);

#ifdef __cplusplus
}
#endif
#endif
