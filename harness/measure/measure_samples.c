/* The timed part of a worker's life: warm-up, samples, the last output. See measure_worker.h. */
#include "evidence.h"
#include "measure_check.h"
#include "measure_device.h"
#include "measure_worker.h"
#include "stopping.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fb_worker_enter_phase(const struct fb_worker *worker, const char *phase)
{
    if (worker->options->on_phase)
        worker->options->on_phase(worker->options->on_phase_context, phase);
}

double fb_worker_now_s(const struct fb_worker *worker)
{
    return worker->clock.now_s(worker->clock.context);
}

enum fb_status fb_worker_timed_call(struct fb_worker *worker, double *time_s,
                                    struct fb_error *error)
{
    *time_s = 0.0;
    const enum fb_status status = fb_worker_timed_calls(worker, 1, time_s, error);
    worker->spent_s += *time_s;
    return status;
}

bool fb_worker_is_cold(const struct fb_worker *worker)
{
    return worker->settings->cache == FB_CACHE_COLD;
}

/* Calls until warmup_s is spent in calls, the first ones included: at once when those were long. */
static enum fb_status warm_up(struct fb_worker *worker, double *last_s, struct fb_error *error)
{
    const int64_t calls_most = 1 << 20; /* should a clock stand still */
    for (int64_t i = 0; i < calls_most && worker->spent_s < worker->settings->warmup_s; i++) {
        enum fb_status status = fb_worker_rewind(worker, 1, error);
        if (status == FB_OK)
            status = fb_worker_timed_call(worker, last_s, error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

int64_t fb_worker_batch_for(const struct fb_worker *worker, double call_s)
{
    if (fb_worker_is_cold(worker))
        return 1;
    const double wanted_s =
        fmax(1000.0 * worker->clock.resolution_s, worker->settings->max_time_s / 2000.0);
    if (!(call_s > 0.0) || call_s >= wanted_s)
        return 1;
    const double calls = ceil(wanted_s / call_s);
    if (worker->pass->decodes)
        return (int64_t)fmin(calls, (double)fb_case_decode_slack(worker->item));
    return (int64_t)calls;
}

static enum fb_status take_sample(struct fb_worker *worker, int64_t calls, double *sample_s,
                                  struct fb_error *error)
{
    *sample_s = 0.0;
    if (worker->device != NULL)
        return fb_worker_device_sample(worker, calls, sample_s, error);
    /* Before every sample, so that the last one is known to have written all of its output. */
    enum fb_status status = fb_worker_poison(worker, error);
    if (status == FB_OK)
        status = fb_worker_rewind(worker, calls, error);
    if (status != FB_OK)
        return status;
    if (fb_worker_is_cold(worker))
        fb_cache_flush_run(&worker->flush);
    status = fb_worker_timed_calls(worker, calls, sample_s, error);
    *sample_s /= (double)calls;
    return status;
}

static enum fb_status take_samples(struct fb_worker *worker, struct fb_stopping *stopping,
                                   struct fb_error *error)
{
    const int64_t calls = worker->result->calls_per_sample;
    const double start_s = fb_worker_now_s(worker);
    enum fb_stop decision = FB_STOP_CONTINUE;
    while (decision == FB_STOP_CONTINUE) {
        double sample_s;
        enum fb_status status = take_sample(worker, calls, &sample_s, error);
        if (status == FB_OK)
            status = fb_stopping_add(stopping, sample_s, fb_worker_now_s(worker) - start_s,
                                     &decision, error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

/* Moves the samples into the result. */
static void keep_samples(struct fb_worker *worker, struct fb_stopping *stopping)
{
    struct fb_measure_result *result = worker->result;
    result->samples_s = stopping->samples_s;
    result->samples_count = stopping->count;
    stopping->samples_s = NULL;
    snprintf(result->stop_reason, sizeof result->stop_reason, "%s", fb_stop_name(stopping->reason));
}

enum fb_status fb_worker_sample(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    fb_worker_enter_phase(worker, "warm-up");
    double call_s = result->first_call_s;
    enum fb_status status = warm_up(worker, &call_s, error);
    if (status != FB_OK)
        return status;
    fb_worker_enter_phase(worker, "samples");
    result->calls_per_sample = fb_worker_batch_for(worker, call_s);
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, worker->settings);
    struct fb_evidence before, after;
    fb_evidence_read(fb_worker_pid(worker), &before);
    status = take_samples(worker, &stopping, error);
    fb_evidence_read(fb_worker_pid(worker), &after);
    if (status == FB_OK) {
        const struct fb_evidence during = fb_evidence_since(&before, &after);
        result->ctx_involuntary = during.ctx_involuntary;
        result->page_faults = during.page_faults;
        result->steal_s = during.steal_s;
        if (worker->device != NULL)
            fb_worker_device_conclude(worker);
        else
            result->freq_hz = fb_evidence_frequency();
        keep_samples(worker, &stopping);
    }
    fb_stopping_free(&stopping);
    return status;
}

void fb_worker_drop_samples(struct fb_measure_result *result)
{
    free(result->samples_s);
    result->samples_s = NULL;
    result->samples_count = 0;
    result->stop_reason[0] = '\0';
    result->instructions = -1;
}

/* The call of the first sample once more, where calls differ from each other. */
static enum fb_status repeat_first(struct fb_worker *worker, struct fb_error *error)
{
    if (!worker->pass->rewind)
        return FB_OK;
    enum fb_status status = fb_worker_poison(worker, error);
    if (status == FB_OK)
        status = fb_worker_rewind(worker, FB_REWIND_FULLY, error);
    if (status == FB_OK)
        status = fb_worker_call(worker, error);
    return status == FB_OK ? fb_worker_fetch(worker, error) : status;
}

enum fb_status fb_worker_check_again(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    char hash[FB_MEASURE_HASH_SIZE];
    struct fb_check_outputs outputs;
    fb_worker_outputs(worker, &outputs);
    enum fb_status status = fb_worker_fetch(worker, error);
    if (status == FB_OK && fb_check_written(&outputs, result)) {
        status = repeat_first(worker, error);
        if (status == FB_OK)
            status = fb_check_hash(&outputs, hash, error);
        const bool same = status == FB_OK && strcmp(hash, result->output_hash) == 0;
        if (status == FB_OK && !same && !worker->attention->deterministic)
            status = fb_worker_check_oracle(worker, error);
        if (status != FB_OK)
            return status;
        if (worker->attention->deterministic && !same) {
            result->status = FB_MEASURE_WRONG;
            snprintf(result->reason, sizeof result->reason,
                     "the last call's output (hash %s) differs from the first's (%s), though %s/%s "
                     "says that it is deterministic",
                     hash, result->output_hash, worker->attention->mechanism->name,
                     worker->attention->variant);
        }
    }
    if (result->status == FB_MEASURE_WRONG)
        fb_worker_drop_samples(result);
    return status;
}
