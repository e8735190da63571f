/* Training steps on a CUDA device: parameters and moments stay there from step to step. */
#ifndef FB_TRAINER_DEVICE_H
#define FB_TRAINER_DEVICE_H

#include "trainer.h"

enum fb_status fb_trainer_device_open(struct fb_trainer *trainer, enum fb_nn_precision precision,
                                      struct fb_error *error) FB_MUST_CHECK;
void fb_trainer_device_close(struct fb_trainer *trainer);

/* As fb_trainer_start_step and fb_trainer_finish_step; *norm is that of the gradient before
 * clipping. Loss or norm may not be finite: then nothing was changed. */
enum fb_status fb_trainer_device_start(struct fb_trainer *trainer,
                                       struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_device_finish(struct fb_trainer *trainer, double *loss, double *norm,
                                        struct fb_error *error) FB_MUST_CHECK;
/* Sends the batch that the buffers hold for the given step, counted from 0, ahead. */
enum fb_status fb_trainer_device_stage(struct fb_trainer *trainer, int64_t step,
                                       struct fb_error *error) FB_MUST_CHECK;
/* As fb_trainer_start_evaluation; *logits, NULL at first, becomes pinned memory of the host, which
 * close gives back. finish waits for the evaluation trainer->finished counts. */
enum fb_status fb_trainer_device_start_evaluation(struct fb_trainer *trainer, float **logits,
                                                  struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_device_finish_evaluation(struct fb_trainer *trainer,
                                                   struct fb_error *error) FB_MUST_CHECK;
/* The seed of a step's dropout. */
uint64_t fb_trainer_dropout_seed(const struct fb_trainer *trainer, int64_t step);

/* Parameters and moments between the device and the host's blocks, which checkpoints read. */
enum fb_status fb_trainer_device_fetch(const struct fb_trainer *trainer,
                                       struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_device_fetch_params(const struct fb_trainer *trainer,
                                              struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_trainer_device_put(struct fb_trainer *trainer,
                                     struct fb_error *error) FB_MUST_CHECK;
/* The gradient of the last step, to the host. */
enum fb_status fb_trainer_device_fetch_gradient(struct fb_trainer *trainer,
                                                struct fb_error *error) FB_MUST_CHECK;

#endif
