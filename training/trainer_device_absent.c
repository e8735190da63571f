/* A build without CUDA: nothing is trained on a device. See trainer_device.h. */
#include "trainer_device.h"

static enum fb_status absent(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_DEVICE,
                        "this build has no CUDA backend: install the CUDA toolkit and configure "
                        "with FLOWBENCH_CUDA=ON");
}

enum fb_status fb_trainer_device_open(struct fb_trainer *trainer, enum fb_nn_precision precision,
                                      struct fb_error *error)
{
    (void)trainer;
    (void)precision;
    return absent(error);
}

void fb_trainer_device_close(struct fb_trainer *trainer)
{
    (void)trainer;
}

enum fb_status fb_trainer_device_start(struct fb_trainer *trainer, struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}

enum fb_status fb_trainer_device_finish(struct fb_trainer *trainer, double *loss, double *norm,
                                        struct fb_error *error)
{
    (void)trainer;
    (void)loss;
    (void)norm;
    return absent(error);
}

enum fb_status fb_trainer_device_stage(struct fb_trainer *trainer, int64_t step,
                                       struct fb_error *error)
{
    (void)trainer;
    (void)step;
    return absent(error);
}

enum fb_status fb_trainer_device_start_evaluation(struct fb_trainer *trainer, float **logits,
                                                  struct fb_error *error)
{
    (void)trainer;
    (void)logits;
    return absent(error);
}

enum fb_status fb_trainer_device_finish_evaluation(struct fb_trainer *trainer,
                                                   struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}

enum fb_status fb_trainer_device_fetch(const struct fb_trainer *trainer, struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}

enum fb_status fb_trainer_device_fetch_params(const struct fb_trainer *trainer,
                                              struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}

enum fb_status fb_trainer_device_put(struct fb_trainer *trainer, struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}

enum fb_status fb_trainer_device_fetch_gradient(struct fb_trainer *trainer, struct fb_error *error)
{
    (void)trainer;
    return absent(error);
}
