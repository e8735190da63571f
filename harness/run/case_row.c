/* Merging processes into a row: see case_row.h. */
#include "case_row.h"

#include "stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fb_case_record_free(struct fb_case_record *record)
{
    free(record->samples);
    memset(record, 0, sizeof *record);
}

/* ---- merging --------------------------------------------------------------------------------- */

static enum fb_status keep_samples(struct fb_case_record *record, const struct fb_case *item,
                                   int process, const struct fb_measure_result *result,
                                   struct fb_error *error)
{
    const size_t needed = record->samples_count + result->samples_count;

    if (needed > record->samples_capacity) {
        struct fb_sample *samples = realloc(record->samples, needed * sizeof *samples);
        if (samples == NULL)
            return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu samples", needed);
        record->samples = samples;
        record->samples_capacity = needed;
    }
    for (size_t i = 0; i < result->samples_count; i++) {
        struct fb_sample *sample = &record->samples[record->samples_count++];
        memset(sample, 0, sizeof *sample);
        snprintf(sample->case_id, sizeof sample->case_id, "%s", item->id);
        sample->process = process;
        sample->sample = (int)i;
        sample->time_s = result->samples_s[i];
    }
    return FB_OK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Evidence adds up, frequencies are kept at their lowest, errors and memory at their largest, the
 * touch kernel at its fastest: each at what would excuse the machine least. */
static void merge(struct fb_measure_result *all, const struct fb_measure_result *one)
{
    all->ctx_involuntary += one->ctx_involuntary;
    all->page_faults += one->page_faults;
    all->steal_s += one->steal_s;
    all->freq_hz = fmin(all->freq_hz, one->freq_hz);
    all->time_host_s = fmax(all->time_host_s, one->time_host_s);
    if (strcmp(one->throttled, "true") == 0 || all->throttled[0] == '\0')
        memcpy(all->throttled, one->throttled, sizeof all->throttled);
    if (strcmp(one->stop_reason, "max_time") == 0 || all->stop_reason[0] == '\0')
        memcpy(all->stop_reason, one->stop_reason, sizeof all->stop_reason);
    if (isnan(all->touch_s) || one->touch_s / one->touch_bytes < all->touch_s / all->touch_bytes) {
        all->touch_s = one->touch_s;
        all->touch_bytes = one->touch_bytes;
    }
    all->mem_workspace_bytes = larger(all->mem_workspace_bytes, one->mem_workspace_bytes);
    all->mem_saved_bytes = larger(all->mem_saved_bytes, one->mem_saved_bytes);
    all->mem_state_bytes = larger(all->mem_state_bytes, one->mem_state_bytes);
    all->mem_peak_bytes = larger(all->mem_peak_bytes, one->mem_peak_bytes);
    /* The errors of one tensor belong together: the worst one, relative to its budget. */
    const double all_ratio = fmax(all->err_rel, all->err_max) / all->err_budget;
    const double one_ratio = fmax(one->err_rel, one->err_max) / one->err_budget;
    if (isnan(one_ratio) || one_ratio > all_ratio) {
        all->err_rel = one->err_rel;
        all->err_max = one->err_max;
        all->err_budget = one->err_budget;
    }
}

enum fb_status fb_case_record_add(struct fb_case_record *record, const struct fb_case *item,
                                  int process, const struct fb_measure_result *result,
                                  struct fb_error *error)
{
    enum fb_status status = keep_samples(record, item, process, result, error);

    if (status != FB_OK)
        return status;
    if (record->processes == 0)
        record->worst = *result;
    else
        merge(&record->worst, result);
    /* Inputs differ between processes, so the output does too: the first process speaks for it. */
    if (process == 0) {
        memcpy(record->worst.output_hash, result->output_hash, sizeof result->output_hash);
        memcpy(record->worst.program_version, result->program_version,
               sizeof result->program_version);
        record->worst.softmax_distance = result->softmax_distance;
    }
    record->worst.samples_s = NULL;
    record->worst.samples_count = 0;
    record->iterations += (int64_t)result->samples_count * result->calls_per_sample;
    record->processes++;
    if (result->status == FB_MEASURE_WRONG && !record->wrong) {
        record->wrong = true;
        snprintf(record->reason, sizeof record->reason, "%s", result->reason);
    }
    return FB_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

#define COPY_TEXT(target, text) snprintf(target, sizeof(target), "%s", text)

/* One line, printable: fit for a cell, a terminal and a log. Cuts no UTF-8 character in two. */
static void copy_reason(char *target, size_t size, const char *text)
{
    size_t length = 0;

    for (; *text != '\0' && length + 1 < size; text++) {
        const unsigned char c = (unsigned char)*text;
        target[length++] = c < 0x20 || c == 0x7F ? ' ' : *text;
    }
    while (*text != '\0' && ((unsigned char)*text & 0xC0) == 0x80 && length > 0 &&
           (unsigned char)target[length - 1] >= 0x80) {
        const bool lead = (unsigned char)target[length - 1] >= 0xC0;
        length--;
        if (lead)
            break;
    }
    target[length] = '\0';
}

static const char *name_of_device(const struct fb_row_context *context, enum fb_backend device)
{
    const char *name = device == FB_CPU ? context->device_name : context->gpu_name;

    return name == NULL ? "" : name;
}

void fb_row_from_case(const struct fb_row_context *context, const struct fb_case *item,
                      struct fb_row *row)
{
    json_t *params = fb_case_params_json(item);
    char *params_text = params == NULL ? NULL : json_dumps(params, JSON_COMPACT | JSON_SORT_KEYS);

    fb_row_init(row);
    row->schema = FB_RESULTS_SCHEMA;
    COPY_TEXT(row->run, context->run_id);
    COPY_TEXT(row->suite, context->suite_name);
    COPY_TEXT(row->case_id, item->id);
    COPY_TEXT(row->mechanism, item->mechanism->name);
    COPY_TEXT(row->variant, item->variant);
    COPY_TEXT(row->device, fb_backend_name(item->device));
    COPY_TEXT(row->device_name, name_of_device(context, item->device));
    COPY_TEXT(row->isa, fb_isa_name(item->isa));
    COPY_TEXT(row->dtype, fb_dtype_name(item->dtype));
    COPY_TEXT(row->layout, fb_layout_name(item->layout));
    COPY_TEXT(row->causal, item->causal ? "true" : "false");
    COPY_TEXT(row->pass, fb_pass_name(item->pass));
    COPY_TEXT(row->params, params_text == NULL ? "" : params_text);
    row->threads = item->threads;
    row->batch = item->batch;
    row->heads = item->heads;
    row->seq_len = item->seq_len;
    row->kv_len = item->kv_len;
    row->head_dim = item->head_dim;
    row->value_dim = item->value_dim;
    row->kv_heads = item->kv_heads > 0 ? item->kv_heads : item->heads;
    COPY_TEXT(row->lengths, fb_lengths_name(item->lengths));
    row->seed = (int64_t)item->seed;
    COPY_TEXT(row->program, item->program != NULL ? item->program : "");
    free(params_text);
    json_decref(params);
}

void fb_row_from_failure(const struct fb_row_context *context, const struct fb_case *item,
                         const char *status, const char *reason, struct fb_row *row)
{
    fb_row_from_case(context, item, row);
    COPY_TEXT(row->status, status);
    copy_reason(row->reason, sizeof row->reason, reason);
}

/* Tokens of one sequence that one call brings forth. */
static int64_t tokens_of_call(const struct fb_case *item)
{
    return item->pass == FB_DECODE ? 1 : item->seq_len;
}

static void set_times(const struct fb_case *item, const struct fb_summary *summary,
                      struct fb_row *row)
{
    row->time_median_s = summary->median;
    row->time_ci_low_s = summary->low;
    row->time_ci_high_s = summary->high;
    row->time_min_s = summary->min;
    row->gflop_per_s = row->flop / summary->median / 1e9;
    row->gb_per_s = row->bytes_min / summary->median / 1e9;
    row->tokens_per_s = (double)item->batch * (double)tokens_of_call(item) / summary->median;
    row->floor_ratio = summary->median / row->floor_s;
}

static double floor_s(const struct fb_measure_result *found, const struct fb_ceiling *ceiling)
{
    const double bytes_s = found->bytes_min * found->touch_s / found->touch_bytes;
    const double flop_s = ceiling == NULL ? (double)NAN : found->flop / ceiling->gemm_flop_per_s;

    /* Half a floor would be a wrong one. */
    return isnan(bytes_s) || isnan(flop_s) ? (double)NAN : fmax(bytes_s, flop_s);
}

static int64_t bytes_or_none(int64_t bytes)
{
    return bytes < 0 ? FB_ROW_NONE : bytes;
}

static void set_evidence(const struct fb_case_record *record, const struct fb_ceiling *ceiling,
                         struct fb_row *row)
{
    const struct fb_measure_result *found = &record->worst;

    row->processes = record->processes;
    row->flop = found->flop;
    row->bytes_min = found->bytes_min;
    row->mem_workspace_bytes = bytes_or_none(found->mem_workspace_bytes);
    row->mem_saved_bytes = bytes_or_none(found->mem_saved_bytes);
    row->mem_state_bytes = bytes_or_none(found->mem_state_bytes);
    row->mem_peak_bytes = bytes_or_none(found->mem_peak_bytes);
    row->err_rel = found->err_rel;
    row->err_max = found->err_max;
    row->err_budget = found->err_budget;
    row->softmax_distance = found->softmax_distance;
    COPY_TEXT(row->output_hash, found->output_hash);
    if (!record->wrong && found->instructions >= 0) {
        row->instructions = found->instructions;
        COPY_TEXT(row->counter, found->counter);
        COPY_TEXT(row->toolchain, found->toolchain);
    }
    COPY_TEXT(row->program_version, found->program_version);
    if (record->wrong || record->samples_count == 0)
        return;
    row->samples = (int64_t)record->samples_count;
    row->iterations = record->iterations;
    row->ctx_involuntary = found->ctx_involuntary;
    row->page_faults = found->page_faults;
    row->steal_s = found->steal_s;
    row->freq_hz = found->freq_hz;
    COPY_TEXT(row->stop_reason, found->stop_reason);
    COPY_TEXT(row->throttled, found->throttled);
    row->time_host_median_s = found->time_host_s;
    row->floor_s = floor_s(found, ceiling);
}

enum fb_status fb_row_from_record(const struct fb_row_context *context, const struct fb_case *item,
                                  const struct fb_case_record *record,
                                  const struct fb_ceiling *ceiling, struct fb_row *row,
                                  struct fb_error *error)
{
    struct fb_summary summary;

    fb_row_from_case(context, item, row);
    COPY_TEXT(row->status, record->wrong ? "wrong" : "ok");
    if (record->wrong)
        copy_reason(row->reason, sizeof row->reason, record->reason);
    set_evidence(record, ceiling, row);
    if (record->wrong || record->samples_count == 0)
        return FB_OK;
    double *times = malloc(record->samples_count * sizeof *times);
    if (times == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu samples",
                            record->samples_count);
    for (size_t i = 0; i < record->samples_count; i++)
        times[i] = record->samples[i].time_s;
    fb_stats_summarise(times, record->samples_count, &summary);
    free(times);
    set_times(item, &summary, row);
    return FB_OK;
}
