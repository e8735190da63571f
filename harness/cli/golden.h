/*
 * Golden files (tests/golden/README.md): reading one of format attention-golden-1, and checking one
 * variant of its mechanism against it by the rule of that README ("Judging").
 */
#ifndef FB_GOLDEN_H
#define FB_GOLDEN_H

#include "arena.h"
#include "attention.h"
#include "judge.h"

#include <stdbool.h>

/* One golden file: inputs in the problem's dtype, f32 when read; results as f64; all dense BHND and
 * owned by the arena. */
struct fb_golden {
    const char *path;
    const struct fb_mechanism *mechanism;
    struct fb_problem problem;
    struct fb_tensor q, k, v, dout;
    struct fb_tensor out, dq, dk, dv; /* references */
    const float *constants;           /* Performer's projection, else NULL */
    bool *kv_kinks;                   /* NULL, or [B][Hkv][S] of oracle.h: dk rows left out */
    bool training;                    /* of format training-golden-1: nothing else is set */
};

/* FB_ERROR_IO or FB_ERROR_INPUT when the file cannot be read or contradicts itself, the mechanism
 * is unknown, a parameter is unknown or out of range. The error names file and tensor. */
enum fb_status fb_golden_read(struct fb_golden *golden, const char *path, struct fb_arena *arena,
                              struct fb_error *error) FB_MUST_CHECK;

/* Rounds the inputs to a dtype; the references become the oracle's on the rounded inputs, which is
 * what a kernel of that dtype is judged against. f32 changes nothing. */
enum fb_status fb_golden_round(struct fb_golden *golden, enum fb_dtype dtype,
                               struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* What was found out about one variant on one golden file. */
struct fb_golden_check {
    struct fb_judgement out;
    bool has_gradients; /* dq, dk and dv are judged */
    struct fb_judgement dq, dk, dv;
    struct fb_error why_no_gradients; /* otherwise: the variant's own words */
    bool passed;                      /* everything that was judged is within budget */
};

/* Runs forward, and backward where the variant has one that serves the problem, on fresh, poisoned
 * buffers. FB_OK whatever the verdict; an error when the variant refuses the forward pass
 * (FB_ERROR_UNSUPPORTED) or fails. */
enum fb_status fb_golden_check_variant(const struct fb_golden *golden,
                                       const struct fb_attention *attention, int threads,
                                       struct fb_golden_check *check,
                                       struct fb_error *error) FB_MUST_CHECK;

#endif
