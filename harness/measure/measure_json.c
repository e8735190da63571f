/* Results, settings and limits as JSON and back: the language between runner and worker. */
#include "measure.h"

#include "json_fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const status_names[FB_MEASURE_STATUS_COUNT] = {
    [FB_MEASURE_OK] = "ok",       [FB_MEASURE_OOM] = "oom",         [FB_MEASURE_WRONG] = "wrong",
    [FB_MEASURE_ERROR] = "error", [FB_MEASURE_SKIPPED] = "skipped", [FB_MEASURE_CRASH] = "crash",
};

static const char *const cache_names[] = {[FB_CACHE_COLD] = "cold", [FB_CACHE_WARM] = "warm"};

const char *fb_measure_status_name(enum fb_measure_status status)
{
    return status_names[status];
}

void fb_measure_result_init(struct fb_measure_result *result)
{
    const double none = (double)NAN;
    *result = (struct fb_measure_result){
        .status = FB_MEASURE_ERROR,
        .calls_per_sample = 1,
        .first_call_s = none,
        .time_host_s = none,
        .ctx_involuntary = -1,
        .page_faults = -1,
        .steal_s = none,
        .freq_hz = none,
        .flop = none,
        .bytes_min = none,
        .touch_s = none,
        .touch_bytes = none,
        .gemm_flop_per_s = none,
        .mem_workspace_bytes = -1,
        .mem_saved_bytes = -1,
        .mem_state_bytes = -1,
        .mem_peak_bytes = -1,
        .err_rel = none,
        .err_max = none,
        .err_budget = none,
        .softmax_distance = none,
        .instructions = -1,
    };
}

void fb_measure_result_free(struct fb_measure_result *result)
{
    free(result->samples_s);
    result->samples_s = NULL;
    result->samples_count = 0;
}

/* The one list of the members that travel as they are. */
static const struct fb_json_field result_fields[] = {
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, reason),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, calls_per_sample),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, stop_reason),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, first_call_s),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, time_host_s),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, ctx_involuntary),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, page_faults),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, steal_s),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, freq_hz),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, throttled),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, flop),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, bytes_min),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, touch_s),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, touch_bytes),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, gemm_flop_per_s),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, mem_workspace_bytes),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, mem_saved_bytes),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, mem_state_bytes),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, mem_peak_bytes),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, err_rel),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, err_max),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, err_budget),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_REAL, softmax_distance),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, output_hash),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_INT64, instructions),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, counter),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, toolchain),
    FB_JSON_FIELD(struct fb_measure_result, FB_JSON_TEXT, program_version),
};
enum { RESULT_FIELDS = sizeof result_fields / sizeof result_fields[0] };

static const struct fb_json_field settings_fields[] = {
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_REAL, warmup_s),
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_REAL, precision),
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_INT, min_samples),
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_INT, samples),
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_REAL, max_time_s),
    FB_JSON_FIELD(struct fb_measure_settings, FB_JSON_INT, processes),
};
enum { SETTINGS_FIELDS = sizeof settings_fields / sizeof settings_fields[0] };

static const struct fb_json_field limits_fields[] = {
    FB_JSON_FIELD(struct fb_limits, FB_JSON_REAL, case_timeout_s),
    FB_JSON_FIELD(struct fb_limits, FB_JSON_REAL, memory_fraction),
    FB_JSON_FIELD(struct fb_limits, FB_JSON_SIZE, memory_bytes),
};
enum { LIMITS_FIELDS = sizeof limits_fields / sizeof limits_fields[0] };

static const struct fb_json_field ceilings_fields[] = {
    FB_JSON_FIELD(struct fb_measure_ceilings, FB_JSON_INT, threads),
    FB_JSON_FIELD(struct fb_measure_ceilings, FB_JSON_REAL, gemm_flop_per_s),
    FB_JSON_FIELD(struct fb_measure_ceilings, FB_JSON_TEXT, gemm_shape),
    FB_JSON_FIELD(struct fb_measure_ceilings, FB_JSON_TEXT, gemm_core),
    FB_JSON_FIELD(struct fb_measure_ceilings, FB_JSON_REAL, copy_bytes_per_s),
};
enum { CEILINGS_FIELDS = sizeof ceilings_fields / sizeof ceilings_fields[0] };

/* The index of a text member's value among names, or -1 with the error filled. */
static int read_choice(const json_t *json, const char *key, const char *const *names, int count,
                       struct fb_error *error)
{
    const char *text = json_string_value(json_object_get(json, key));
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    (void)fb_error_set(error, FB_ERROR_INPUT, "JSON member \"%s\" is '%s', not one of %s ... %s",
                       key, text ? text : "(no text)", names[0], names[count - 1]);
    return -1;
}

json_t *fb_measure_result_to_json(const struct fb_measure_result *result)
{
    json_t *json = fb_json_from_fields(result_fields, RESULT_FIELDS, result);
    json_t *samples = json_array();
    bool failed = !json || !samples;
    for (size_t i = 0; !failed && i < result->samples_count; i++)
        failed = json_array_append_new(samples, json_real(result->samples_s[i])) != 0;
    failed = failed || json_object_set(json, "samples_s", samples) != 0;
    failed =
        failed || json_object_set_new(json, "status",
                                      json_string(fb_measure_status_name(result->status))) != 0;
    json_decref(samples);
    if (!failed)
        return json;
    json_decref(json);
    return NULL;
}

static enum fb_status read_samples(const json_t *json, struct fb_measure_result *result,
                                   struct fb_error *error)
{
    const json_t *samples = json_object_get(json, "samples_s");
    if (!json_is_array(samples))
        return fb_error_set(error, FB_ERROR_INPUT, "JSON member \"samples_s\" is not an array");
    const size_t count = json_array_size(samples);
    if (count == 0)
        return FB_OK;
    result->samples_s = calloc(count, sizeof *result->samples_s);
    if (!result->samples_s)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu timing samples", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(samples, i);
        if (!json_is_number(value))
            return fb_error_set(error, FB_ERROR_INPUT, "JSON: samples_s[%zu] is not a number", i);
        result->samples_s[i] = json_number_value(value);
    }
    result->samples_count = count;
    return FB_OK;
}

enum fb_status fb_measure_result_from_json(const json_t *json, struct fb_measure_result *result,
                                           struct fb_error *error)
{
    fb_measure_result_init(result);
    /* A worker of another version may not know every member: those stay absent. */
    json_t *whole = fb_json_from_fields(result_fields, RESULT_FIELDS, result);
    if (!whole || (json_is_object(json) && json_object_update(whole, (json_t *)json) != 0)) {
        json_decref(whole);
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's result");
    }
    enum fb_status status = fb_json_to_fields(result_fields, RESULT_FIELDS, whole, result, error);
    json_decref(whole);
    if (status != FB_OK)
        return status;
    const int value = read_choice(json, "status", status_names, FB_MEASURE_STATUS_COUNT, error);
    if (value < 0)
        return FB_ERROR_INPUT;
    result->status = (enum fb_measure_status)value;
    return read_samples(json, result, error);
}

json_t *fb_measure_settings_to_json(const struct fb_measure_settings *settings)
{
    json_t *json = fb_json_from_fields(settings_fields, SETTINGS_FIELDS, settings);
    if (json &&
        json_object_set_new(json, "cache", json_string(cache_names[settings->cache])) == 0 &&
        json_object_set_new(json, "counter", json_string(fb_counter_name(settings->counter))) == 0)
        return json;
    json_decref(json);
    return NULL;
}

enum fb_status fb_measure_settings_from_json(const json_t *json,
                                             struct fb_measure_settings *settings,
                                             struct fb_error *error)
{
    *settings = (struct fb_measure_settings){0};
    const enum fb_status status =
        fb_json_to_fields(settings_fields, SETTINGS_FIELDS, json, settings, error);
    if (status != FB_OK)
        return status;
    const char *counter_names[FB_COUNTER_COUNT];
    for (int i = 0; i < FB_COUNTER_COUNT; i++)
        counter_names[i] = fb_counter_name((enum fb_counter)i);
    const int cache = read_choice(json, "cache", cache_names, 2, error);
    const int counter =
        cache < 0 ? -1 : read_choice(json, "counter", counter_names, FB_COUNTER_COUNT, error);
    if (counter < 0)
        return FB_ERROR_INPUT;
    settings->cache = (enum fb_cache_mode)cache;
    settings->counter = (enum fb_counter)counter;
    return FB_OK;
}

json_t *fb_limits_to_json(const struct fb_limits *limits)
{
    return fb_json_from_fields(limits_fields, LIMITS_FIELDS, limits);
}

enum fb_status fb_limits_from_json(const json_t *json, struct fb_limits *limits,
                                   struct fb_error *error)
{
    *limits = (struct fb_limits){0};
    return fb_json_to_fields(limits_fields, LIMITS_FIELDS, json, limits, error);
}

json_t *fb_measure_ceilings_to_json(const struct fb_measure_ceilings *ceilings)
{
    return fb_json_from_fields(ceilings_fields, CEILINGS_FIELDS, ceilings);
}

enum fb_status fb_measure_ceilings_from_json(const json_t *json,
                                             struct fb_measure_ceilings *ceilings,
                                             struct fb_error *error)
{
    *ceilings = (struct fb_measure_ceilings){0};
    return fb_json_to_fields(ceilings_fields, CEILINGS_FIELDS, json, ceilings, error);
}
