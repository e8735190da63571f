/* Results made up in memory with known exponents, crossovers and gaps, for tests of the report. */
#ifndef FB_MADE_RESULTS_H
#define FB_MADE_RESULTS_H

#include "results.h"

#include <stdbool.h>

/* Room for that many rows and samples, from malloc; aborts when there is no memory. */
void fb_made_init(struct fb_results *results, size_t rows, size_t samples);
void fb_made_free(struct fb_results *results);

/* An ok row: cpu, avx512, 2 threads, f32, forward, B 1, H 8, d 64. Returned for changes. */
struct fb_row *fb_made_row(struct fb_results *results, const char *mechanism, const char *variant,
                           bool causal, int64_t seq_len, double time_s);

/* Samples around the row's time with relative noise per process and per sample; sets the row's
 * interval and processes. Call once the row's factors are final. */
void fb_made_samples(struct fb_results *results, struct fb_row *row, int processes, int samples,
                     double noise);

/* A row without a value. */
struct fb_row *fb_made_missing(struct fb_results *results, const char *mechanism,
                               const char *variant, bool causal, int64_t seq_len,
                               const char *status, const char *reason);

/* The whole of a run like suites/scaling.yaml: 7 variants, N = 256 to 65536, with gaps. */
void fb_made_scaling(struct fb_results *results, int processes);

#endif
