/*
 * Shrinking 8-bit images by a Lanczos filter of three lobes whose support is widened by the shrink
 * factor (Duchon 1979), columns first, then rows, rounded and clipped to 8 bit after each: to the
 * bit what Pillow does, which the original Pathfinder images went through.
 */
#ifndef FB_LANCZOS_H
#define FB_LANCZOS_H

#include <stdint.h>

enum { FB_LANCZOS_SIZE_MAX = 64 };

/* A square image of `from` x `from` bytes to `to` x `to`; from >= to, from <= SIZE_MAX. */
void fb_lanczos_shrink(const uint8_t *image, int from, int to, uint8_t *out);

#endif
