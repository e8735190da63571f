/* What the case of a row keeps in memory, from the row itself. */
#ifndef FB_ROW_BYTES_H
#define FB_ROW_BYTES_H

#include "row.h"

#include <stdbool.h>

/* Whether the row is a decoded token, whose memory is its state. */
bool fb_row_is_decode(const struct fb_row *row);

/* Bytes of the tensors that the caller has in any case: q, k, v, out and, with a backward pass,
 * their gradients; of one token when decoding. NaN when the row lacks a size. */
double fb_row_io_bytes(const struct fb_row *row);

/* Bytes beyond these: workspace, what forward saves for backward, and the state to decode against.
 * NaN when the row does not say. */
double fb_row_memory_bytes(const struct fb_row *row);

#endif
