/*
 * A row of results.csv: one case of one run. docs/results-format.md explains every column.
 *
 * The table below is the only place that lists the columns: their order, their type and, for text,
 * their room. An absent value (not applicable, not measured) is an empty text, FB_ROW_NONE or NaN,
 * and an empty cell in the file.
 */
#ifndef FB_ROW_H
#define FB_ROW_H

#include "status.h"

#include <stddef.h>
#include <stdint.h>

enum { FB_RESULTS_SCHEMA = 1 };
#define FB_ROW_NONE INT64_MIN

/* clang-format off */
#define FB_ROW_COLUMNS(TEXT, INT, REAL) \
    INT(schema) TEXT(run, 96) TEXT(suite, 64) TEXT(case_id, 24) \
    TEXT(mechanism, 64) TEXT(variant, 64) TEXT(device, 16) TEXT(device_name, 128) TEXT(isa, 16) \
    INT(threads) TEXT(dtype, 8) TEXT(layout, 8) TEXT(causal, 8) TEXT(pass, 16) \
    INT(batch) INT(heads) INT(seq_len) INT(kv_len) INT(head_dim) INT(value_dim) \
    TEXT(params, 512) INT(seed) \
    TEXT(status, 16) TEXT(reason, 512) \
    REAL(time_median_s) REAL(time_ci_low_s) REAL(time_ci_high_s) REAL(time_min_s) \
    REAL(time_host_median_s) INT(samples) INT(iterations) INT(processes) TEXT(stop_reason, 32) \
    INT(ctx_involuntary) INT(page_faults) REAL(steal_s) REAL(freq_hz) TEXT(throttled, 8) \
    REAL(flop) REAL(gflop_per_s) REAL(bytes_min) REAL(gb_per_s) REAL(floor_s) REAL(floor_ratio) \
    REAL(tokens_per_s) REAL(energy_j) \
    INT(mem_workspace_bytes) INT(mem_saved_bytes) INT(mem_peak_bytes) \
    REAL(err_rel) REAL(err_max) REAL(err_budget) REAL(softmax_distance) TEXT(output_hash, 24) \
    INT(kv_heads) TEXT(lengths, 16) INT(mem_state_bytes) \
    INT(instructions) TEXT(counter, 24) TEXT(toolchain, 96) \
    TEXT(program, 256) TEXT(program_version, 128)
/* clang-format on */

#define FB_ROW_FIELD_TEXT(name, size) char name[size];
#define FB_ROW_FIELD_INT(name)        int64_t name;
#define FB_ROW_FIELD_REAL(name)       double name;
struct fb_row {
    FB_ROW_COLUMNS(FB_ROW_FIELD_TEXT, FB_ROW_FIELD_INT, FB_ROW_FIELD_REAL)
};

enum fb_column_type { FB_COLUMN_TEXT, FB_COLUMN_INT, FB_COLUMN_REAL };

struct fb_column {
    const char *name;
    enum fb_column_type type;
    size_t offset; /* in struct fb_row */
    size_t size;   /* of the field, in bytes */
};

size_t fb_column_count(void);
const struct fb_column *fb_column_at(size_t index);
const struct fb_column *fb_column_find(const char *name);

/* Every field absent. */
void fb_row_init(struct fb_row *row);

/* What status may hold. Anything but ok keeps its row, its reason and its place on the plots. */
extern const char *const fb_row_statuses[]; /* ok skipped oom timeout crash wrong error, NULL */

#endif
