/*
 * xoshiro256** streams, seeded through splitmix64 (Blackman & Vigna, "Scrambled Linear
 * Pseudorandom Number Generators", 2018). Normals: single ones by Marsaglia's polar method, whole
 * arrays by the ziggurat (Marsaglia & Tsang, J. Stat. Software 5(8), 2000, in the form of Doornik,
 * 2005: the layer and the abscissa from disjoint bits), five times as fast.
 */
#include "random.h"

#include "dtype.h"

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

/* The ziggurat: LAYERS areas of equal size under exp(-x^2/2), edges[0] > edges[1] > ... > 0. */
enum { LAYERS = 128 };
#define TAIL_START 3.442619855899
#define LAYER_AREA 9.91256303526217e-3

struct ziggurat {
    double edges[LAYERS + 1];
    double ratios[LAYERS]; /* edges[i+1] / edges[i]: below it a point is inside without a look */
};

static void ziggurat_init(struct ziggurat *z)
{
    double density = exp(-0.5 * TAIL_START * TAIL_START);
    z->edges[0] = LAYER_AREA / density;
    z->edges[1] = TAIL_START;
    for (int i = 2; i < LAYERS; i++) {
        z->edges[i] = sqrt(-2.0 * log(LAYER_AREA / z->edges[i - 1] + density));
        density = exp(-0.5 * z->edges[i] * z->edges[i]);
    }
    z->edges[LAYERS] = 0.0;
    for (int i = 0; i < LAYERS; i++) {
        z->ratios[i] = z->edges[i + 1] / z->edges[i];
    }
}

/* A normal beyond TAIL_START (Marsaglia 1964). */
static double normal_tail(struct fb_random *random)
{
    double x, y;
    do {
        x = log(1.0 - fb_random_uniform(random)) / TAIL_START;
        y = log(1.0 - fb_random_uniform(random));
    } while (-2.0 * y < x * x);
    return TAIL_START - x;
}

static double ziggurat_normal(const struct ziggurat *z, struct fb_random *random)
{
    for (;;) {
        const uint64_t bits = fb_random_next(random);
        const int layer = (int)(bits & (LAYERS - 1));
        /* 53 bits in [-1, 1); the layer took the lowest seven, which are not among them. */
        const double u = (double)(int64_t)(bits >> 10) * 0x1.0p-53 - 1.0;
        if (fabs(u) < z->ratios[layer]) {
            return u * z->edges[layer];
        }
        if (layer == 0) {
            const double tail = normal_tail(random);
            return u < 0.0 ? -tail : tail;
        }
        const double x = u * z->edges[layer];
        const double outer = exp(-0.5 * (z->edges[layer] * z->edges[layer] - x * x));
        const double inner = exp(-0.5 * (z->edges[layer + 1] * z->edges[layer + 1] - x * x));
        if (inner + fb_random_uniform(random) * (outer - inner) < 1.0) {
            return x;
        }
    }
}

static void fill_block(const struct ziggurat *z, float *values, int64_t count, float scale,
                       uint64_t seed, uint64_t stream)
{
    struct fb_random random;
    fb_random_init(&random, seed, stream);
    for (int64_t i = 0; i < count; i++) {
        values[i] = scale * (float)ziggurat_normal(z, &random);
    }
}

void fb_random_fill_normal_f32(float *values, int64_t count, float scale, uint64_t seed,
                               uint64_t stream, int threads)
{
    fb_random_fill_normal(values, FB_F32, count, scale, seed, stream, threads);
}

void fb_random_fill_normal(void *values, enum fb_dtype dtype, int64_t count, float scale,
                           uint64_t seed, uint64_t stream, int threads)
{
    const int64_t blocks = (count + FILL_BLOCK - 1) / FILL_BLOCK;
    struct ziggurat z;
    ziggurat_init(&z);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * FILL_BLOCK;
        const int64_t rest = count - start;
        const int64_t size = rest < FILL_BLOCK ? rest : FILL_BLOCK;
        unsigned char *to = (unsigned char *)values + (size_t)start * fb_dtype_bytes(dtype);
        float block_values[FILL_BLOCK];
        float *drawn = dtype == FB_F32 ? (float *)(void *)to : block_values;
        fill_block(&z, drawn, size, scale, seed,
                   stream * UINT64_C(0x100000001B3) + (uint64_t)block + 1);
        if (dtype != FB_F32) {
            fb_dtype_narrow(dtype, drawn, size, to);
        }
    }
}
