/* Declarations of row_block_probe.c for every instruction set. */
#ifndef FB_ROW_BLOCK_PROBE_H
#define FB_ROW_BLOCK_PROBE_H

#include "attention.h"

/* What fb_rows_range says of head 1. */
struct probe_range {
    const char *at;
    int64_t bytes;
};

#define PROBE_ROWS(isa)                                                                            \
    void probe_row_widen_##isa(enum fb_dtype dtype, const void *from, int64_t count, float *to);   \
    void probe_row_narrow_##isa(enum fb_dtype dtype, const float *from, int64_t count, void *to);  \
    void probe_copy_rows_##isa(const struct fb_tensor *from, const struct fb_tensor *to,           \
                               int64_t first, int64_t step, int64_t count, float *room);           \
    struct probe_range probe_rows_range_##isa(const struct fb_tensor *t, int64_t first,            \
                                              int64_t step, int64_t count);
PROBE_ROWS(scalar)
PROBE_ROWS(neon)
PROBE_ROWS(avx2)
PROBE_ROWS(avx512)

#endif
