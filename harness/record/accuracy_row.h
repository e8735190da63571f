/*
 * A row of accuracy.csv: one training run of one case. docs/results-format.md explains every
 * column. As in row.h the list below is the only place that names the columns, and an absent value
 * is an empty cell.
 */
#ifndef FB_ACCURACY_ROW_H
#define FB_ACCURACY_ROW_H

#include "row.h"

enum { FB_ACCURACY_SCHEMA = 1 };

/* clang-format off */
#define FB_ACCURACY_COLUMNS(TEXT, INT, REAL) \
    INT(schema) TEXT(run, 96) TEXT(suite, 64) TEXT(case_id, 24) \
    TEXT(task, 64) TEXT(task_params, 256) TEXT(recipe, 16) TEXT(model, 16) \
    TEXT(mechanism, 64) TEXT(variant, 64) TEXT(params, 512) \
    TEXT(device, 16) TEXT(device_name, 128) TEXT(isa, 16) INT(threads) TEXT(precision, 8) \
    INT(epochs_cap) INT(steps_cap) INT(seed) \
    TEXT(status, 16) TEXT(reason, 512) \
    TEXT(metric_name, 16) REAL(metric) REAL(metric_last) REAL(metric_best) TEXT(selected_on, 16) \
    INT(selected_step) REAL(learning_rate) INT(steps) REAL(plateau) INT(plateau_step) \
    REAL(train_s) REAL(elapsed_s) REAL(steps_per_s) INT(mem_peak_bytes) INT(parameters) \
    INT(train_examples) INT(validation_examples) INT(test_examples) \
    TEXT(paper_model, 64) REAL(paper_value) TEXT(paper_protocol, 16) \
    INT(batch) INT(tokens)
/* clang-format on */

struct fb_accuracy_row {
    FB_ACCURACY_COLUMNS(FB_ROW_FIELD_TEXT, FB_ROW_FIELD_INT, FB_ROW_FIELD_REAL)
};

size_t fb_accuracy_column_count(void);
const struct fb_column *fb_accuracy_column_at(size_t index);

/* Every field absent. */
void fb_accuracy_row_init(struct fb_accuracy_row *row);

/* One evaluation: a row of curves.csv. */
struct fb_curve_point {
    char case_id[24];
    int64_t trial, step;
    double epoch, train_loss, loss, metric, elapsed_s;
};

/* Which test examples a case got right, for the paired bootstrap: a row of correct.csv. */
struct fb_correct_bits {
    char case_id[24];
    const char *bits; /* "0110...", one per test example */
};

struct fb_accuracy {
    const char *dir; /* borrowed */
    struct fb_accuracy_row *rows;
    size_t rows_count;
    struct fb_curve_point *points; /* grouped by case, as stored */
    size_t points_count;
    struct fb_correct_bits *correct;
    size_t correct_count;
};

#endif
