/* Rows of any dtype behind plain functions, once per instruction set, for the tests. */
#include "row_block_probe.h"

#include "row_fetch.h"

void FB_ISA_SYMBOL(probe_row_widen)(enum fb_dtype dtype, const void *from, int64_t count, float *to)
{
    fb_row_widen(dtype, from, count, to);
}

void FB_ISA_SYMBOL(probe_row_narrow)(enum fb_dtype dtype, const float *from, int64_t count,
                                     void *to)
{
    fb_row_narrow(dtype, from, count, to);
}

/* Rows of head 1 of batch element 0; room has place for two blocks. */
void FB_ISA_SYMBOL(probe_copy_rows)(const struct fb_tensor *from, const struct fb_tensor *to,
                                    int64_t first, int64_t step, int64_t count, float *room)
{
    const struct fb_row_range rows = {0, 1, first, step, count};
    const struct fb_row_block x = fb_rows_load(from, rows, room);
    const struct fb_row_block y =
        fb_rows_open(to, rows, room + fb_row_room(from->dtype, count, from->shape[3]));
    for (int64_t i = 0; i < count; i++) {
        for (int64_t c = 0; c < from->shape[3]; c++) {
            y.rows[i * y.stride + c] = x.rows[i * x.stride + c];
        }
    }
    fb_rows_close(to, rows, y);
}

struct probe_range FB_ISA_SYMBOL(probe_rows_range)(const struct fb_tensor *t, int64_t first,
                                                   int64_t step, int64_t count)
{
    const struct fb_tile_range r =
        fb_rows_range(t, (struct fb_row_range){0, 1, first, step, count});
    return (struct probe_range){r.at, r.bytes};
}
