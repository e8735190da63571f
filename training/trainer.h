/*
 * One training run: a model, its optimiser, its state. A step is forward, loss, backward, clipping,
 * update; its result depends on the state and the batch alone, so a run that goes on from a
 * checkpoint is the run that was never interrupted, bit for bit.
 */
#ifndef FB_TRAINER_H
#define FB_TRAINER_H

#include "graph_run.h"
#include "nn_cuda.h"
#include "nn_optimiser.h"

struct fb_trainer_device;

struct fb_trainer {
    struct fb_graph_run run;
    struct fb_nn_optimiser optimiser;
    struct fb_nn_schedule schedule;
    double clip_norm; /* 0: none */
    uint64_t seed;    /* of the initial weights and of dropout */
    int64_t step;     /* steps done */
    float *m, *v;
    float *best; /* parameters put aside; NULL: none ever are */
    unsigned char *decay;
    const int32_t *targets;           /* of the batch: one per row of the logits */
    struct fb_trainer_device *device; /* NULL: trained on this processor */
    const char *note;                 /* travels with checkpoints; NULL: none */
    /* A device is given the kernels of a step one by one, not as one graph captured from the first
     * of them: to compare the two, and for profilers. */
    bool launches_directly;
    double pending_loss, pending_norm; /* of a step that was started on this processor */
    float *evaluated[2];               /* logits of two evaluations, which take turns */
    int64_t started, finished;         /* evaluations */
};

/* Allocates from the graph's arena and draws the weights. */
enum fb_status fb_trainer_init(struct fb_trainer *trainer, const struct fb_graph *graph,
                               uint64_t seed, struct fb_error *error) FB_MUST_CHECK;

/* Back to the weights of its seed and step 0. */
enum fb_status fb_trainer_restart(struct fb_trainer *trainer, struct fb_error *error) FB_MUST_CHECK;

/* Moves a trainer whose graph was built for a device there (backend FB_CUDA, the precision's
 * dtype); everything below then works as before. FB_ERROR_DEVICE without one. */
enum fb_status fb_trainer_use_device(struct fb_trainer *trainer, enum fb_nn_precision precision,
                                     struct fb_error *error) FB_MUST_CHECK;
/* Gives the device's memory back; nothing to do on the processor. */
void fb_trainer_release(struct fb_trainer *trainer);

/* One step on the batch that run.ids, run.row_mask, the input values and targets hold. *loss is the
 * loss before the step. A loss or a gradient that is not finite changes nothing:
 * FB_ERROR_INPUT, naming the step and the parameter. */
enum fb_status fb_trainer_step(struct fb_trainer *trainer, double *loss,
                               struct fb_error *error) FB_MUST_CHECK;

/* The same in two parts, between which a device computes. Once start has returned the buffers of
 * the batch may be filled for the step after it; fb_trainer_stage_step then sends them ahead.
 * Nothing else may happen before finish; between finish and the start that uses a staged batch, the
 * buffers must stay as they are. */
enum fb_status fb_trainer_start_step(struct fb_trainer *trainer,
                                     struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_stage_step(struct fb_trainer *trainer,
                                     struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_finish_step(struct fb_trainer *trainer, double *loss,
                                      struct fb_error *error) FB_MUST_CHECK;

/* Room for parameters that are put aside: once, before any are. They travel with checkpoints. */
enum fb_status fb_trainer_make_best(struct fb_trainer *trainer,
                                    struct fb_error *error) FB_MUST_CHECK;
/* Puts the parameters aside as they are; and takes them back in place of the present ones. Moments
 * and step stay. */
enum fb_status fb_trainer_keep_best(struct fb_trainer *trainer,
                                    struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_take_best(struct fb_trainer *trainer,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Forward without dropout; *loss over the batch. The logits lie in fb_graph_run_values. */
enum fb_status fb_trainer_evaluate(struct fb_trainer *trainer, double *loss,
                                   struct fb_error *error) FB_MUST_CHECK;

/* The same in two parts, for a series of batches: the next may be started before the one before it
 * is finished, so that a device does not wait for the host. What start reads is free again when it
 * returns. finish is of the oldest that was started; targets are those of its batch, and its
 * *logits stand until the next but one is started. */
enum fb_status fb_trainer_start_evaluation(struct fb_trainer *trainer,
                                           struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_finish_evaluation(struct fb_trainer *trainer, const int32_t *targets,
                                            double *loss, const float **logits,
                                            struct fb_error *error) FB_MUST_CHECK;

/* A checkpoint is a safetensors file: every parameter under its official name, the moments as
 * "optimiser.m.NAME" and "optimiser.v.NAME", what was put aside as "best.NAME", step, seed and note
 * in the metadata. Written whole or not at all. Reading checks every name, type and shape before it
 * changes the trainer; the note then lies in the graph's arena. */
enum fb_status fb_trainer_save(const struct fb_trainer *trainer, const char *path,
                               struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_load(struct fb_trainer *trainer, const char *path,
                               struct fb_error *error) FB_MUST_CHECK;

#endif
