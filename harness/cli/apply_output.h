/* Where `flowbench apply` writes: checked before anything is computed, written in one step. */
#ifndef FB_APPLY_OUTPUT_H
#define FB_APPLY_OUTPUT_H

#include "arena.h"
#include "attention.h"

#include <stdbool.h>

/* FB_ERROR_USAGE when path is the input under any name, no regular file, or exists and force is
 * not set; FB_ERROR_IO when its folder is missing or may not be written. */
enum fb_status fb_apply_output_check(const char *path, const char *input_path, bool force,
                                     struct fb_error *error) FB_MUST_CHECK;

struct fb_apply_output {
    const struct fb_attention *attention;
    const struct fb_problem *problem;
    const struct fb_call *call; /* out; dq, dk, dv when `gradients` */
    bool gradients, seeded;     /* seeded: the constants were drawn from seed */
    uint64_t seed;
};

/* out (and the gradients) in the dtype that they were computed in, and in the metadata what
 * computed them. */
enum fb_status fb_apply_output_write(const char *path, const struct fb_apply_output *output,
                                     struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

#endif
