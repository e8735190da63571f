/*
 * xoshiro256** streams, seeded through splitmix64 (Blackman & Vigna, "Scrambled Linear
 * Pseudorandom Number Generators", 2018), and normals by Marsaglia's polar method.
 */
#include "random.h"

#include <math.h>

/* Values per independently seeded block of fb_random_fill_normal_f32. */
enum { FILL_BLOCK = 4096 };

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void fb_random_init(struct fb_random *random, uint64_t seed, uint64_t stream)
{
    uint64_t state = seed;
    state = splitmix64(&state) ^ (stream * UINT64_C(0xD1342543DE82EF95));
    for (int i = 0; i < 4; i++) {
        random->state[i] = splitmix64(&state);
    }
}

uint64_t fb_random_next(struct fb_random *random)
{
    uint64_t *s = random->state;
    const uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    const uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double fb_random_uniform(struct fb_random *random)
{
    return (double)(fb_random_next(random) >> 11) * 0x1.0p-53;
}

uint64_t fb_random_below(struct fb_random *random, uint64_t bound)
{
    /* Values under the remainder of 2^64 / bound would make small results likelier. */
    const uint64_t remainder = (0 - bound) % bound;
    uint64_t value;
    do {
        value = fb_random_next(random);
    } while (value < remainder);
    return value % bound;
}

/* Two independent standard normals. */
static void normal_pair(struct fb_random *random, double *first, double *second)
{
    double x, y, square;
    do {
        x = 2.0 * fb_random_uniform(random) - 1.0;
        y = 2.0 * fb_random_uniform(random) - 1.0;
        square = x * x + y * y;
    } while (square >= 1.0 || square == 0.0);
    const double factor = sqrt(-2.0 * log(square) / square);
    *first = x * factor;
    *second = y * factor;
}

double fb_random_normal(struct fb_random *random)
{
    double first, second;
    normal_pair(random, &first, &second);
    return first;
}

static void fill_block(float *values, int64_t count, float scale, uint64_t seed, uint64_t stream)
{
    struct fb_random random;
    fb_random_init(&random, seed, stream);
    for (int64_t i = 0; i < count; i += 2) {
        double first, second;
        normal_pair(&random, &first, &second);
        values[i] = scale * (float)first;
        if (i + 1 < count) {
            values[i + 1] = scale * (float)second;
        }
    }
}

void fb_random_fill_normal_f32(float *values, int64_t count, float scale, uint64_t seed,
                               uint64_t stream, int threads)
{
    const int64_t blocks = (count + FILL_BLOCK - 1) / FILL_BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * FILL_BLOCK;
        const int64_t rest = count - start;
        fill_block(values + start, rest < FILL_BLOCK ? rest : FILL_BLOCK, scale, seed,
                   stream * UINT64_C(0x100000001B3) + (uint64_t)block + 1);
    }
}
