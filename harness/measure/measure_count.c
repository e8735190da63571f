/* The counted part of a worker's life, where another one is timed. See measure_worker.h. */
#include "measure_check.h"
#include "measure_worker.h"

#include <string.h>

static enum fb_status call_counted(void *context, struct fb_error *error)
{
    return fb_worker_call(context, error);
}

enum fb_status fb_worker_count(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    struct fb_counted counted;
    struct fb_check_outputs outputs;

    fb_worker_enter_phase(worker, "count");
    fb_worker_outputs(worker, &outputs);
    fb_check_poison(&outputs, worker->item->threads);
    enum fb_status status = fb_worker_rewind(worker, FB_REWIND_FULLY, error);
    if (status == FB_OK)
        status = fb_counter_count(worker->settings->counter, call_counted, worker, &counted, error);
    if (status != FB_OK)
        return status;
    result->instructions = counted.instructions;
    memcpy(result->counter, counted.counter, sizeof result->counter);
    fb_machine_toolchain(result->toolchain, sizeof result->toolchain);
    return FB_OK;
}
