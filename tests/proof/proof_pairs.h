/*
 * Log ratios of pairs of real processes of one program, taken live: what the proof of the gate
 * draws from. Stored as CSV (case,log_ratio), collected from what `compare --ab X X --format json`
 * has printed.
 */
#ifndef FB_PROOF_PAIRS_H
#define FB_PROOF_PAIRS_H

#include "arena.h"

#include <stdio.h>

enum { PAIR_CASES_MAX = 16, PAIR_CASE_PAIRS_MAX = 4000 };

struct pair_case {
    const char *name;
    double *ratios;
    size_t count, capacity;
    double sigma;     /* robust deviation of ln t of one process, as compare prints it */
    double deviation; /* the plain one, in which the tails count */
};

struct pair_pool {
    struct pair_case cases[PAIR_CASES_MAX];
    size_t count;
};

enum fb_status pair_pool_read(const char *path, struct fb_arena *arena, struct pair_pool *pool,
                              struct fb_error *error) FB_MUST_CHECK;

/* Writes the pairs of live comparisons as CSV. */
enum fb_status pair_pool_collect(char *const *documents, int count, FILE *out,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
