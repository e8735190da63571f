/*
 * Which memory a product shall fetch (tile_gemm.h) so that rows of a tensor are in the cache when
 * the next block asks for them.
 */
#ifndef FB_ROW_FETCH_H
#define FB_ROW_FETCH_H

#include "row_block.h"
#include "tile_gemm.h"

/* The memory of these rows when they lie together, else none. count may be 0 or less: none. */
static inline struct fb_tile_range fb_rows_range(const struct fb_tensor *t, struct fb_row_range r)
{
    if (r.count <= 0 || t->stride[2] * r.step != t->shape[3]) {
        return (struct fb_tile_range){NULL, 0};
    }
    return (struct fb_tile_range){(const char *)fb_tensor_row(t, r.b, r.h, r.first),
                                  r.count * t->shape[3] * (int64_t)fb_dtype_bytes(t->dtype)};
}

#endif
