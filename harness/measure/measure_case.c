/*
 * The life of one worker process: see measure.h. docs/measuring.md gives the reasons.
 */
#include "evidence.h"
#include "machine.h"
#include "measure_check.h"
#include "measure_worker.h"
#include "random.h"

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

/* ---- allocate and fill ---------------------------------------------------------------------- */

static struct fb_tensor view(void *data, const struct fb_case *item, int64_t heads, int64_t tokens,
                             int64_t dim)
{
    return fb_tensor_dense(data, item->dtype, item->layout, item->batch, heads, tokens, dim);
}

static void set_views(struct fb_worker *worker)
{
    const struct fb_case *item = worker->item;
    const struct fb_problem *p = &worker->problem;
    struct fb_call *call = &worker->call;
    call->q = view(worker->buffers[SLOT_Q].data, item, p->heads, p->q_len, p->qk_dim);
    call->k = view(worker->buffers[SLOT_K].data, item, p->kv_heads, p->kv_len, p->qk_dim);
    call->v = view(worker->buffers[SLOT_V].data, item, p->kv_heads, p->kv_len, p->v_dim);
    call->out = view(worker->buffers[SLOT_OUT].data, item, p->heads, p->q_len, p->v_dim);
    call->constants = worker->buffers[SLOT_CONSTANTS].data;
    call->scratch = worker->buffers[SLOT_SCRATCH].data;
    call->threads = item->threads;
}

/* Fails with FB_ERROR_MEMORY before anything is allocated when the case would pass its limit. */
static enum fb_status check_limit(const size_t bytes[SLOT_COUNT], size_t limit_bytes,
                                  struct fb_error *error)
{
    double total = 0.0;
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        total += (double)bytes[slot];
    if (limit_bytes > 0 && total > (double)limit_bytes)
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "inputs, output and workspace need %.0f bytes, the limit is %zu; raise "
                            "limits.memory or use shorter sequences",
                            total, limit_bytes);
    return FB_OK;
}

static enum fb_status allocate(struct fb_worker *worker, const struct fb_limits *limits,
                               struct fb_error *error)
{
    static const char *const names[SLOT_COUNT] = {"q", "k", "v", "out", "constants", "scratch"};
    const size_t element = fb_dtype_bytes(worker->item->dtype);
    set_views(worker); /* for the counts; the data follow below */
    const struct fb_call *call = &worker->call;
    const size_t bytes[SLOT_COUNT] = {
        (size_t)fb_tensor_count(&call->q) * element,
        (size_t)fb_tensor_count(&call->k) * element,
        (size_t)fb_tensor_count(&call->v) * element,
        (size_t)fb_tensor_count(&call->out) * element,
        worker->constants_bytes,
        worker->sizes.forward_scratch_bytes,
    };
    enum fb_status status = check_limit(bytes, fb_limits_memory_bytes(limits), error);
    for (int slot = 0; status == FB_OK && slot < SLOT_COUNT; slot++)
        status =
            fb_mapped_buffer_init(&worker->buffers[slot], bytes[slot], slot, names[slot], error);
    if (status == FB_OK)
        set_views(worker);
    return status;
}

static enum fb_status fill(struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_tensor *inputs[3] = {&worker->call.q, &worker->call.k, &worker->call.v};
    const int threads = worker->item->threads;
    for (int i = 0; i < 3; i++)
        fb_random_fill_normal_f32(inputs[i]->data, fb_tensor_count(inputs[i]), 1.0F,
                                  worker->input_seed, (uint64_t)i, threads);
    fb_check_poison(&worker->call.out, threads);
    const struct fb_mechanism *mechanism = worker->attention->mechanism;
    if (!mechanism->prepare)
        return FB_OK;
    return mechanism->prepare(&worker->problem, worker->item->seed,
                              worker->buffers[SLOT_CONSTANTS].data, error);
}

/* ---- the first calls: right answer, peak memory ---------------------------------------------- */

/* One call, and by how much it made the resident set grow: -1 where the kernel does not tell. */
static enum fb_status call_with_peak(struct fb_worker *worker, double *time_s,
                                     int64_t *growth_bytes, struct fb_error *error)
{
    int64_t before_peak, before, peak, after;
    const bool known = fb_evidence_reset_peak() && fb_evidence_resident(&before_peak, &before);
    const enum fb_status status = fb_worker_timed_call(worker, time_s, error);
    *growth_bytes = -1;
    if (known && fb_evidence_resident(&peak, &after))
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
    if (result->mem_peak_bytes < 0 || result->first_call_s > affordable_s)
        return FB_OK;
    fb_worker_enter_phase(worker, "memory");
    fb_mapped_buffer_drop_pages(&worker->buffers[SLOT_SCRATCH]);
    double time_s;
    return call_with_peak(worker, &time_s, &result->mem_peak_bytes, error);
}

static enum fb_status first_call(struct fb_worker *worker, struct fb_error *error)
{
    struct fb_measure_result *result = worker->result;
    fb_worker_enter_phase(worker, "first call");
    enum fb_status status =
        call_with_peak(worker, &result->first_call_s, &result->mem_peak_bytes, error);
    if (status != FB_OK)
        return status;
    fb_worker_enter_phase(worker, "check");
    if (!fb_check_written(&worker->call.out, result))
        return FB_OK;
    fb_check_hash(&worker->call.out, result->output_hash);
    if (worker->options->oracle) {
        status = fb_check_oracle(worker->attention->mechanism, &worker->problem, &worker->call,
                                 worker->item->pass, worker->input_seed, worker->item->threads,
                                 result, error);
        if (status != FB_OK || result->status == FB_MEASURE_WRONG)
            return status;
    }
    return measure_peak_again(worker, error);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static enum fb_status run_phases(struct fb_worker *worker, const struct fb_limits *limits,
                                 struct fb_error *error)
{
    fb_worker_enter_phase(worker, "allocate");
    enum fb_status status = allocate(worker, limits, error);
    if (status == FB_OK)
        status = fill(worker, error);
    if (status == FB_OK)
        status = first_call(worker, error);
    if (status != FB_OK || worker->result->status == FB_MEASURE_WRONG)
        return status;
    if (fb_worker_is_cold(worker)) {
        size_t llc_bytes, private_bytes;
        fb_machine_caches(&llc_bytes, &private_bytes);
        status = fb_cache_flush_init(&worker->flush, llc_bytes, private_bytes,
                                     worker->item->threads, error);
    }
    if (status == FB_OK)
        status = fb_worker_sample(worker, error);
    if (status != FB_OK)
        return status;
    fb_worker_check_again(worker);
    if (worker->result->status != FB_MEASURE_WRONG && worker->options->floor)
        status = fb_worker_measure_floor(worker, error);
    return status;
}

static enum fb_status check_request(const struct fb_worker *worker, struct fb_error *error)
{
    const struct fb_case *item = worker->item;
    if (!worker->attention)
        return fb_error_set(error, FB_ERROR_USAGE, "case %s has no implementation to measure: %s",
                            item->id, item->skip_reason ? item->skip_reason : "none was chosen");
    if (worker->attention->backend != FB_CPU)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "case %s runs on %s; this version measures on cpu only", item->id,
                            fb_backend_name(worker->attention->backend));
    if (item->pass != FB_FORWARD || item->dtype != FB_F32)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "case %s is %s in %s; this version measures forward in f32", item->id,
                            fb_pass_name(item->pass), fb_dtype_name(item->dtype));
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
    result->mem_workspace_bytes =
        (int64_t)(worker->sizes.forward_scratch_bytes + worker->constants_bytes);
    result->mem_saved_bytes = 0; /* inference: forward is called with saved = NULL */
    struct fb_cost cost;
    mechanism->cost(&worker->problem, worker->item->pass, &cost);
    result->flop = cost.flop;
    result->bytes_min = cost.bytes_min;
    return FB_OK;
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
    result->status = FB_MEASURE_OK;
    struct fb_error own = {.code = FB_OK};
    status = describe(&worker, &own);
    if (status == FB_OK)
        status = run_phases(&worker, limits, &own);
    if (status != FB_OK) {
        set_status(&worker, status == FB_ERROR_MEMORY ? FB_MEASURE_OOM : FB_MEASURE_ERROR,
                   own.text);
        fb_worker_drop_samples(result);
    }
    fb_cache_flush_free(&worker.flush);
    for (int slot = 0; slot < SLOT_COUNT; slot++)
        fb_mapped_buffer_free(&worker.buffers[slot]);
    return FB_OK;
}
