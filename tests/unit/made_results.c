/* Made-up results. See made_results.h. */
#include "made_results.h"

#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fb_made_init(struct fb_results *results, size_t rows, size_t samples)
{
    *results = (struct fb_results){0};
    results->rows = calloc(rows, sizeof *results->rows);
    results->samples = calloc(samples + 1, sizeof *results->samples);
    if (!results->rows || !results->samples) {
        abort();
    }
}

void fb_made_free(struct fb_results *results)
{
    free(results->rows);
    free(results->samples);
    *results = (struct fb_results){0};
}

struct fb_row *fb_made_row(struct fb_results *results, const char *mechanism, const char *variant,
                           bool causal, int64_t seq_len, double time_s)
{
    struct fb_row *row = &results->rows[results->rows_count];
    fb_row_init(row);
    row->schema = FB_RESULTS_SCHEMA;
    (void)snprintf(row->run, sizeof row->run, "20261124T031500Z-made");
    (void)snprintf(row->suite, sizeof row->suite, "scaling");
    (void)snprintf(row->case_id, sizeof row->case_id, "%016zx", results->rows_count++);
    (void)snprintf(row->mechanism, sizeof row->mechanism, "%s", mechanism);
    (void)snprintf(row->variant, sizeof row->variant, "%s", variant);
    (void)snprintf(row->device, sizeof row->device, "cpu");
    (void)snprintf(row->device_name, sizeof row->device_name, "Made Processor 9000");
    (void)snprintf(row->isa, sizeof row->isa, strcmp(variant, "plain") == 0 ? "any" : "avx512");
    (void)snprintf(row->dtype, sizeof row->dtype, "f32");
    (void)snprintf(row->layout, sizeof row->layout, "BHND");
    (void)snprintf(row->causal, sizeof row->causal, causal ? "true" : "false");
    (void)snprintf(row->pass, sizeof row->pass, "forward");
    (void)snprintf(row->params, sizeof row->params, "{}");
    (void)snprintf(row->status, sizeof row->status, "ok");
    row->threads = 2;
    row->batch = 1;
    row->heads = 8;
    row->seq_len = row->kv_len = seq_len;
    row->head_dim = row->value_dim = 64;
    row->seed = 1;
    row->processes = 1;
    row->time_median_s = row->time_min_s = time_s;
    row->time_ci_low_s = row->time_ci_high_s = time_s;
    row->mem_workspace_bytes = row->mem_saved_bytes = 0;
    row->err_rel = 3e-7;
    row->err_budget = 1e-5;
    return row;
}

void fb_made_samples(struct fb_results *results, struct fb_row *row, int processes, int samples,
                     double noise)
{
    struct fb_random random;
    fb_random_init(&random, 7, (uint64_t)(row - results->rows));
    for (int p = 0; p < processes; p++) {
        double luck = processes > 1 ? exp(noise * fb_random_normal(&random)) : 1.0;
        for (int s = 0; s < samples; s++) {
            struct fb_sample *sample = &results->samples[results->samples_count++];
            (void)snprintf(sample->case_id, sizeof sample->case_id, "%s", row->case_id);
            sample->process = p;
            sample->sample = s;
            sample->time_s = row->time_median_s * luck * exp(noise * fb_random_normal(&random));
        }
    }
    row->processes = processes;
    row->samples = (int64_t)processes * samples;
    row->time_ci_low_s = row->time_median_s * (1 - noise);
    row->time_ci_high_s = row->time_median_s * (1 + noise);
}

struct fb_row *fb_made_missing(struct fb_results *results, const char *mechanism,
                               const char *variant, bool causal, int64_t seq_len,
                               const char *status, const char *reason)
{
    struct fb_row *row = fb_made_row(results, mechanism, variant, causal, seq_len, (double)NAN);
    (void)snprintf(row->status, sizeof row->status, "%s", status);
    (void)snprintf(row->reason, sizeof row->reason, "%s", reason);
    row->time_median_s = row->time_min_s = (double)NAN;
    row->time_ci_low_s = row->time_ci_high_s = row->err_rel = (double)NAN;
    row->mem_workspace_bytes = row->mem_saved_bytes = FB_ROW_NONE;
    return row;
}

/* t = fixed + unit * N^power for each, workspace = bytes_unit * N^bytes_power. */
static const struct made_mechanism {
    const char *mechanism, *variant;
    double fixed_s, unit_s, power, bytes_unit, bytes_power;
} made[] = {
    {"flow", "fused", 8e-6, 4.0e-7, 1.0, 4224, 0.0},
    {"flow", "plain", 3e-5, 1.6e-6, 1.0, 9000, 1.0},
    {"softmax", "tiled", 5e-6, 8.0e-10, 2.0, 70000, 0.0},
    {"softmax", "plain", 2e-5, 1.5e-9, 2.0, 32, 2.0},
    {"linear", "fused", 4e-6, 2.4e-7, 1.0, 0, 0.0},
    {"performer", "fused", 2e-5, 2.2e-6, 1.0, 2e6, 0.0},
    {"local", "tiled", 6e-6, 6.5e-7, 1.0, 40000, 0.0},
};

void fb_made_scaling(struct fb_results *results, int processes)
{
    for (int causal = 0; causal < 2; causal++) {
        for (size_t m = 0; m < sizeof made / sizeof made[0]; m++) {
            for (int64_t n = 256; n <= 65536; n *= 2) {
                double size = (double)n, factor = causal && m / 2 != 1 ? 1.9 : causal ? 0.55 : 1;
                double time = made[m].fixed_s + factor * made[m].unit_s * pow(size, made[m].power);
                if (m == 3 && n > 16384) {
                    fb_made_missing(results, "softmax", "plain", causal, n, "oom",
                                    "needs 68.7 GiB, the limit is 12.4 GiB");
                } else if (m == 2 && n == 65536) {
                    fb_made_missing(results, "softmax", "tiled", causal, n, "skipped",
                                    "predicted 93 s, over the limit of 60 s");
                } else if (m == 1 && causal && n > 32768) {
                    fb_made_missing(results, "flow", "plain", causal, n, "timeout",
                                    "over the limit of 60 s");
                } else {
                    struct fb_row *row =
                        fb_made_row(results, made[m].mechanism, made[m].variant, causal, n, time);
                    row->mem_workspace_bytes =
                        (int64_t)(made[m].bytes_unit * pow(size, made[m].bytes_power));
                    row->floor_s = time / (1.3 + 0.4 * (double)m + 20 / sqrt(size));
                    row->floor_ratio = time / row->floor_s;
                    fb_made_samples(results, row, processes, 12, 0.01);
                }
            }
        }
    }
}
