/* The factors of a row by name and as people read them: what tables and pictures tell apart. */
#ifndef FB_ROW_FACTOR_H
#define FB_ROW_FACTOR_H

#include "series.h"

enum fb_factor {
    FB_FACTOR_RUN,
    FB_FACTOR_DEVICE,
    FB_FACTOR_DEVICE_NAME,
    FB_FACTOR_ISA,
    FB_FACTOR_THREADS,
    FB_FACTOR_DTYPE,
    FB_FACTOR_LAYOUT,
    FB_FACTOR_PASS,
    FB_FACTOR_BATCH,
    FB_FACTOR_HEADS,
    FB_FACTOR_SEQ_LEN,
    FB_FACTOR_KV_LEN,
    FB_FACTOR_HEAD_DIM,
    FB_FACTOR_VALUE_DIM,
    FB_FACTOR_KV_HEADS,
    FB_FACTOR_LENGTHS,
    FB_FACTOR_PARAMS,
    FB_FACTOR_SEED,
    FB_FACTOR_COUNT
};

enum { FB_FACTOR_TEXT_SIZE = 640 };

const char *fb_factor_name(enum fb_factor factor);

/* The value alone: "avx512", "64", "4K", "{\"features\":256}"; empty when absent. */
void fb_factor_value(const struct fb_row *row, enum fb_factor factor, char *text);

/* The value so that it speaks for itself: "avx512", "2 threads", "H 8", "d 64", "N 4K". */
void fb_factor_phrase(const struct fb_row *row, enum fb_factor factor, char *text);

/* The place of a row on an axis: "N 4K", "H 16, d 32" where the two are tied. */
void fb_factor_axis_phrase(const struct fb_row *row, enum fb_axis axis, char *text);

/* Whether the row says nothing with it: kv_len = seq_len, value_dim = head_dim, kv_heads = heads,
 * sequences of full length, a GPU's instruction set and threads; likewise where an older
 * results.csv has no such column. */
bool fb_factor_is_plain(const struct fb_row *row, enum fb_factor factor);

/* Whether the factor moves with the axis and so tells no two series apart. */
bool fb_factor_is_axis(enum fb_factor factor, enum fb_axis axis);

/* Whether two series of one mechanism and variant differ in the factor. */
bool fb_factor_varies(const struct fb_series_set *set, enum fb_factor factor);

#endif
