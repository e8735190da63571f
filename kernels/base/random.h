/*
 * Reproducible random numbers. A stream is named by (seed, stream): equal names give equal numbers
 * on every machine, in any order, on any number of threads.
 */
#ifndef FB_RANDOM_H
#define FB_RANDOM_H

#include "attention.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* xoshiro256** (Blackman & Vigna 2018), seeded by splitmix64. */
struct fb_random {
    uint64_t state[4];
};

void fb_random_init(struct fb_random *random, uint64_t seed, uint64_t stream);
uint64_t fb_random_next(struct fb_random *random);
/* Uniform in [0, 1), 53 bits. */
double fb_random_uniform(struct fb_random *random);
/* Uniform in 0 .. bound-1, without bias; bound >= 1. */
uint64_t fb_random_below(struct fb_random *random, uint64_t bound);
/* Standard normal. */
double fb_random_normal(struct fb_random *random);

/* Fills count floats with standard normals times scale, block by block, on the given number of
 * threads; the values do not depend on that number. */
void fb_random_fill_normal_f32(float *values, int64_t count, float scale, uint64_t seed,
                               uint64_t stream, int threads);
/* The same numbers rounded to a dtype. */
void fb_random_fill_normal(void *values, enum fb_dtype dtype, int64_t count, float scale,
                           uint64_t seed, uint64_t stream, int threads);

#ifdef __cplusplus
}
#endif
#endif
