/* A comparison as a JSON document: see comparison_print.h; docs/comparing.md has its members. */
#include "comparison_print.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *int_or_null(int64_t value)
{
    return value == FB_ROW_NONE ? json_null() : json_integer(value);
}

/* Texts come from files and need not be UTF-8, which JSON is: foreign bytes become '?'. */
static json_t *text_or_null(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return json_null();
    json_t *json = json_string(text);
    if (json != NULL)
        return json;
    char *plain = strdup(text);
    for (char *c = plain; c != NULL && *c != '\0'; c++)
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    json = plain == NULL ? NULL : json_string(plain);
    free(plain);
    return json;
}

static json_t *reals(const double *values, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_real(values[i]));
    return array;
}

static json_t *side_json(const struct fb_compare_side *side)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "label", text_or_null(side->label), "flowbench",
                     text_or_null(side->version), "git_sha", text_or_null(side->git_sha), "machine",
                     text_or_null(side->machine_name), "identity", text_or_null(side->identity));
}

static json_t *row_json(const struct fb_row *row)
{
    if (row == NULL)
        return json_null();
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "status",
        text_or_null(row->status), "time_median_s", real_or_null(row->time_median_s), "processes",
        int_or_null(row->processes), "samples", int_or_null(row->samples), "mem_workspace_bytes",
        int_or_null(row->mem_workspace_bytes), "mem_saved_bytes", int_or_null(row->mem_saved_bytes),
        "mem_state_bytes", int_or_null(row->mem_state_bytes), "mem_peak_bytes",
        int_or_null(row->mem_peak_bytes), "err_rel", real_or_null(row->err_rel), "err_budget",
        real_or_null(row->err_budget), "instructions", int_or_null(row->instructions));
}

static json_t *failed_json(const struct fb_compared *one)
{
    json_t *array = json_array();

    if (one->slower)
        json_array_append_new(array, json_string("time"));
    if (one->hungrier)
        json_array_append_new(array, json_string("memory"));
    if (one->wrong)
        json_array_append_new(array, json_string("error"));
    if (one->broken)
        json_array_append_new(array, json_string("status"));
    return array;
}

static json_t *case_json(const struct fb_compared *one)
{
    json_t *json =
        json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o}", "case_id", fb_compared_id(one), "case",
                  text_or_null(one->name), "verdict", fb_verdict_name(one->verdict), "failed",
                  failed_json(one), "reason", text_or_null(one->reason), "base",
                  row_json(one->base), "new", row_json(one->fresh));
    json_t *time = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:I, s:I}", "change", real_or_null(one->change),
        "change_low", real_or_null(one->change_low), "change_high", real_or_null(one->change_high),
        "detectable", real_or_null(one->detectable), "threshold", real_or_null(one->threshold),
        "p_adjusted", real_or_null(one->p_adjusted), "sigma", real_or_null(one->sigma), "unit",
        fb_compare_unit_name(one->unit), "base_count", (json_int_t)one->base_count, "new_count",
        (json_int_t)one->fresh_count);

    if (json_object_update(json, time) != 0) {
        json_decref(json);
        json = NULL;
    }
    json_decref(time);
    if (json != NULL && one->unit == FB_UNIT_PAIRS) {
        json_object_set_new(json, "screen_log_ratios",
                            reals(one->screen_ratios, one->screen_ratios_count));
        json_object_set_new(json, "fresh_log_ratios",
                            reals(one->fresh_ratios, one->fresh_ratios_count));
    }
    return json;
}

static json_t *control_json(const struct fb_compare_control *control)
{
    if (control->cases == 0)
        return json_null();
    return json_pack("{s:I, s:I, s:o, s:s, s:o, s:I}", "cases", (json_int_t)control->cases, "pairs",
                     (json_int_t)control->pairs, "largest_change", real_or_null(control->largest),
                     "largest_case_id",
                     control->largest_case == NULL ? "" : control->largest_case->case_id, "sigma",
                     real_or_null(control->spread), "suspected", (json_int_t)control->candidates);
}

static json_t *rule_json(const struct fb_comparison *comparison)
{
    const struct fb_gate_rule *rule = &comparison->rule;

    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:f}", "threshold",
                     rule->threshold, "sample_floor", comparison->sample_floor, "count_growth",
                     comparison->count_growth, "memory_growth", 0.01, "alpha", rule->alpha,
                     "confidence", 1.0 - rule->alpha, "power", rule->power, "screen_pairs",
                     (json_int_t)rule->screen_pairs, "confirm_pairs",
                     (json_int_t)rule->confirm_pairs, "confirm_pairs_noisy",
                     (json_int_t)rule->confirm_pairs_noisy, "noisy_sigma", rule->noisy_sigma);
}

enum fb_status fb_comparison_print_json(const struct fb_comparison *comparison, FILE *out,
                                        struct fb_error *error)
{
    static const char *const outcomes[] = {
        [FB_COMPARISON_FINE] = "passed",
        [FB_COMPARISON_AMBIGUOUS] = "ambiguous",
        [FB_COMPARISON_FAILED] = "failed",
        [FB_COMPARISON_NOTHING] = "nothing comparable",
    };
    json_t *counts = json_object();
    json_t *cases = json_array();

    for (int verdict = 0; verdict < FB_VERDICT_COUNT; verdict++)
        json_object_set_new(counts, fb_verdict_name((enum fb_verdict)verdict),
                            json_integer((json_int_t)comparison->counts[verdict]));
    for (size_t i = 0; i < comparison->cases_count; i++)
        json_array_append_new(cases, case_json(&comparison->cases[i]));
    json_t *document =
        json_pack("{s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "schema",
                  FB_COMPARISON_SCHEMA, "document", "flowbench comparison", "kind",
                  comparison->live ? "live" : "stored", "suite", text_or_null(comparison->suite),
                  "common", text_or_null(comparison->common), "base", side_json(&comparison->base),
                  "new", side_json(&comparison->fresh), "rule", rule_json(comparison), "outcome",
                  outcomes[fb_comparison_outcome(comparison)], "counts", counts, "same",
                  control_json(&comparison->same), "layout", control_json(&comparison->layout),
                  "cases", cases);
    char *text =
        document == NULL ? NULL : json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(document);
    if (text == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the comparison as JSON");
    (void)fprintf(out, "%s\n", text);
    free(text);
    return FB_OK;
}
