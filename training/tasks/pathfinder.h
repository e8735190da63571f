/*
 * Pathfinder (Linsley et al. 2018): are two markers joined by a dashed path? Drawn with the
 * parameters of the Long Range Arena's 32 x 32 "hard" set (Tay et al. 2021), by the rules of the
 * original generator as it was in 2019: contrasts are stretched to 8 bit before every shrinking,
 * and the final image again.
 *
 * Two target paths of 14 segments each and up to five distractors of 4 segments. Label 1: both
 * markers are on the ends of one target path; 0: on ends of different ones.
 */
#ifndef FB_PATHFINDER_H
#define FB_PATHFINDER_H

#include "arena.h"

#include <stdint.h>

enum { FB_PATHFINDER_SIZE = 32, FB_PATHFINDER_PIXELS = FB_PATHFINDER_SIZE * FB_PATHFINDER_SIZE };

struct fb_pathfinder; /* what every image needs: segments and markers as small pictures */

/* In the arena; NULL with the error filled. */
const struct fb_pathfinder *fb_pathfinder_new(struct fb_arena *arena, struct fb_error *error);

/* Image `index` of the set that the seed names; pure, from any thread. pixels: FB_PATHFINDER_PIXELS
 * bytes, row by row. */
void fb_pathfinder_draw(const struct fb_pathfinder *tables, uint64_t seed, uint64_t index,
                        uint8_t *pixels, uint8_t *label);

#endif
