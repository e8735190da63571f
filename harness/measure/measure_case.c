/*
 * The life of one worker process: see measure.h. docs/measuring.md gives the reasons.
 */
#include "evidence.h"
#include "machine.h"
#include "measure_check.h"
#include "measure_device.h"
#include "measure_worker.h"

#include <stdio.h>
#include <xxhash.h>

static void set_status(struct fb_worker *worker, enum fb_measure_status status, const char *reason)
{
    worker->result->status = status;
    snprintf(worker->result->reason, FB_MEASURE_REASON_SIZE, "%.*s", FB_MEASURE_REASON_SIZE - 1,
             reason);
}

/* The processes of one case see different inputs, the same ones in every run. */
static uint64_t seed_of_process(uint64_t seed, int process)
{
    unsigned char bytes[12];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(seed >> (8 * i));
    for (int i = 0; i < 4; i++)
        bytes[8 + i] = (unsigned char)((uint32_t)process >> (8 * i));
    return XXH64(bytes, sizeof bytes, 0);
}

/* ---- the first calls: right answer, peak memory ---------------------------------------------- */

/* One call, and by how much it made the resident set grow: -1 where the kernel does not tell. */
static enum fb_status call_with_peak(struct fb_worker *worker, double *time_s,
                                     int64_t *growth_bytes, struct fb_error *error)
{
    if (worker->device != NULL) {
        const enum fb_status called = fb_worker_timed_call(worker, time_s, error);
        return called == FB_OK ? fb_worker_device_peak(worker, growth_bytes, error) : called;
    }
    int64_t before_peak, before, peak, after;
    const pid_t pid = fb_worker_pid(worker);
    const bool known =
        fb_evidence_reset_peak(pid) && fb_evidence_resident(pid, &before_peak, &before);
    const enum fb_status status = fb_worker_timed_call(worker, time_s, error);
    *growth_bytes = -1;
    if (known && fb_evidence_resident(pid, &peak, &after))
        *growth_bytes = peak > before ? peak - before : 0;
    return status;
}

/* The first call also pays for what happens once in a process (threads, the BLAS library's own
 * buffers, code pages). Where calls are short it is repeated on untouched scratch, and the second
 * growth counts. */
static enum fb_status measure_peak_again(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    const double affordable_s = 0.25;
    if (worker->device != NULL || result->mem_peak_bytes < 0 || result->first_call_s > affordable_s)
        return FB_OK;
    if (worker->peer) /* its scratch is not ours to drop; prepare was the time for what is once */
        return FB_OK;
    fb_worker_enter_phase(worker, "memory");
    fb_mapped_buffer_drop_pages(&worker->buffers[SLOT_SCRATCH]);
    if (worker->pass->pass == FB_BOTH) /* the call writes it before it reads it */
        fb_mapped_buffer_drop_pages(&worker->buffers[SLOT_SAVED]);
    const enum fb_status status = fb_worker_rewind(worker, 1, error);
    if (status != FB_OK)
        return status;
    double time_s;
    return call_with_peak(worker, &time_s, &result->mem_peak_bytes, error);
}

/* What the oracle is asked: the case's own problem, or, for a decoded token, the last row of the
 * causal problem of all tokens so far. */
static struct fb_check_request request_of(const struct fb_worker *worker)
{
    struct fb_check_request request = {
        .mechanism = worker->attention->mechanism,
        .problem = worker->problem,
        .call = worker->call,
        .rows = worker->problem.q_len,
        .gradients = worker->pass->gradients,
        .seed = worker->input_seed,
        .threads = worker->item->threads,
    };
    if (worker->pass->decodes) {
        const int64_t tokens = worker->item->seq_len + 1;
        request.decodes = true;
        request.problem.causal = true;
        request.problem.q_len = request.problem.kv_len = tokens;
        struct fb_tensor *const inputs[] = {&request.call.q, &request.call.k, &request.call.v};
        for (int i = 0; i < 3; i++) {
            *inputs[i] = worker->tokens[i];
            inputs[i]->shape[2] = tokens;
        }
        request.first_row = tokens - 1;
    }
    return request;
}

enum fb_status fb_worker_check_oracle(struct fb_worker *worker, struct fb_error *error)
{
    if (!worker->options->oracle)
        return FB_OK;
    const struct fb_check_request request = request_of(worker);
    return fb_check_oracle(&request, worker->result, error);
}

static enum fb_status check_first(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    struct fb_check_outputs outputs;
    fb_worker_outputs(worker, &outputs);
    enum fb_status status = fb_worker_fetch(worker, error);
    if (status != FB_OK || !fb_check_written(&outputs, result))
        return status;
    status = fb_check_hash(&outputs, result->output_hash, error);
    return status == FB_OK ? fb_worker_check_oracle(worker, error) : status;
}

static enum fb_status first_call(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    enum fb_status status = FB_OK;
    if (worker->pass->prepare) {
        fb_worker_enter_phase(worker, "prepare");
        status = worker->pass->prepare(worker, error);
    }
    if (status == FB_OK) {
        fb_worker_enter_phase(worker, "first call");
        status = call_with_peak(worker, &result->first_call_s, &result->mem_peak_bytes, error);
    }
    if (status == FB_OK) {
        fb_worker_enter_phase(worker, "check");
        status = check_first(worker, error);
    }
    if (status != FB_OK || result->status == FB_MEASURE_WRONG)
        return status;
    if (worker->settings->counter != FB_COUNTER_NONE) {
        result->mem_peak_bytes = -1; /* valgrind's own memory is in it */
        return FB_OK;
    }
    return measure_peak_again(worker, error);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static enum fb_status take_times(struct fb_worker *worker, struct fb_error *error)
{
    if (fb_worker_is_cold(worker) && worker->device == NULL) {
        size_t llc_bytes, private_bytes;
        fb_machine_caches(&llc_bytes, &private_bytes);
        const enum fb_status status = fb_cache_flush_init(&worker->flush, llc_bytes, private_bytes,
                                                          worker->item->threads, error);
        if (status != FB_OK)
            return status;
    }
    return fb_worker_sample(worker, error);
}

static enum fb_status run_phases(struct fb_worker *worker, const struct fb_limits *limits,
                                 struct fb_error *error)
{
    const bool counts = worker->settings->counter != FB_COUNTER_NONE;
    enum fb_status status = FB_OK;
    if (worker->item->program) {
        fb_worker_enter_phase(worker, "start");
        status = fb_peer_open(worker, error);
    }
    if (status == FB_OK) {
        fb_worker_enter_phase(worker, "allocate");
        status = fb_worker_allocate(worker, limits, error);
    }
    if (status == FB_OK)
        status = fb_worker_fill(worker, error);
    if (status == FB_OK)
        status = first_call(worker, error);
    if (status != FB_OK || worker->result->status == FB_MEASURE_WRONG)
        return status;
    status = counts ? fb_worker_count(worker, error) : take_times(worker, error);
    if (status == FB_OK)
        status = fb_worker_check_again(worker, error);
    if (status != FB_OK)
        return status;
    if (worker->result->status != FB_MEASURE_WRONG && worker->options->floor && !counts)
        status = fb_worker_measure_floor(worker, error);
    return status;
}

static enum fb_status check_request(const struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_case *item = worker->item;
    if (!worker->attention)
        return fb_error_set(error, FB_ERROR_USAGE, "case %s has no implementation to measure: %s",
                            item->id, item->skip_reason ? item->skip_reason : "none was chosen");
    if (worker->attention->backend != FB_CPU && worker->settings->counter != FB_COUNTER_NONE)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "case %s runs on %s; instructions are counted on the CPU", item->id,
                            fb_backend_name(worker->attention->backend));
    if (item->threads > 1 && worker->settings->counter != FB_COUNTER_NONE)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "case %s runs on %d threads; instructions are counted on one", item->id,
                            item->threads);
    if (item->threads < 1)
        return fb_error_set(error, FB_ERROR_USAGE, "case %s asks for %d threads; at least 1",
                            item->id, item->threads);
    return FB_OK;
}

/* Sizes and costs, once the problem is known to make sense. */
static enum fb_status describe(struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_attention *attention = worker->attention;
    const struct fb_mechanism *mechanism = attention->mechanism;
    struct fb_measure_result *result = worker->result;
    const enum fb_status status =
        fb_attention_supports(attention, &worker->problem, worker->item->pass, error);
    if (status != FB_OK)
        return status;
    fb_attention_sizes(attention, &worker->problem, worker->item->threads, &worker->sizes);
    worker->constants_bytes =
        mechanism->constants_bytes ? mechanism->constants_bytes(&worker->problem) : 0;
    worker->scratch_bytes = fb_pass_scratch_bytes(&worker->sizes, worker->item->pass);
    worker->saved_bytes = worker->pass->gradients ? worker->sizes.saved_bytes : 0;
    if (!worker->item->program) { /* a program keeps its workspace to itself */
        result->mem_workspace_bytes = (int64_t)(worker->scratch_bytes + worker->constants_bytes);
        result->mem_saved_bytes = (int64_t)worker->saved_bytes; /* inference saves nothing */
    }
    if (worker->pass->decodes)
        result->mem_state_bytes = (int64_t)fb_case_state_bytes(worker->item, attention);
    struct fb_cost cost;
    fb_case_cost(worker->item, &cost);
    result->flop = cost.flop;
    result->bytes_min = cost.bytes_min;
    return FB_OK;
}

/* What the failure of a case is in its row. */
static enum fb_measure_status status_of_failure(const struct fb_worker *worker,
                                                enum fb_status status)
{
    if (worker->peer && worker->peer->failure != FB_MEASURE_OK)
        return worker->peer->failure;
    return status == FB_ERROR_MEMORY ? FB_MEASURE_OOM : FB_MEASURE_ERROR;
}

void fb_measure_options_init(struct fb_measure_options *options)
{
    *options = (struct fb_measure_options){.oracle = true, .floor = true};
}

enum fb_status fb_measure_case(const struct fb_case *item,
                               const struct fb_measure_settings *settings,
                               const struct fb_limits *limits,
                               const struct fb_measure_options *options,
                               struct fb_measure_result *result, struct fb_error *error)
{
    fb_measure_result_init(result);
    struct fb_worker worker = {
        .item = item,
        .settings = settings,
        .options = options,
        .attention = options->attention ? options->attention : item->attention,
        .pass = fb_worker_pass_of(item->pass, item->program != NULL),
        .result = result,
        .input_seed = seed_of_process(item->seed, options->process),
    };
    enum fb_status status = check_request(&worker, error);
    if (status != FB_OK)
        return status;
    if (options->clock)
        worker.clock = *options->clock;
    else
        fb_clock_init_monotonic(&worker.clock);
    fb_case_problem(item, &worker.problem);
    fb_arena_init(&worker.arena, 0);
    result->status = FB_MEASURE_OK;
    struct fb_error own = {.code = FB_OK};
    status = fb_case_draw_lengths(item, &worker.arena, &worker.problem, &own);
    if (status == FB_OK)
        status = describe(&worker, &own);
    if (status == FB_OK)
        status = run_phases(&worker, limits, &own);
    if (status != FB_OK) {
        set_status(&worker, status_of_failure(&worker, status), own.text);
        fb_worker_drop_samples(result);
    }
    fb_peer_close(&worker);
    fb_cache_flush_free(&worker.flush);
    fb_worker_device_close(&worker);
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        fb_mapped_buffer_free(&worker.buffers[slot]);
    fb_arena_free(&worker.arena);
    return FB_OK;
}
