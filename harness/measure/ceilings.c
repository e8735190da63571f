/* GEMM and copy ceilings, by our tiles, OpenBLAS and OpenMP. docs/measuring.md, "The floor". */
#include "ceilings.h"

#include "cpu_features.h"
#include "machine.h"
#include "mapped_buffer.h"
#include "tile_gemm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#if defined(FB_HAVE_OPENBLAS)
#include "blas.h"

#include <cblas.h>
#endif

/* C[m,n] = A[m,k] B[k,n], all row-major and dense. */
struct gemm_shape {
    int m, n, k;
};
typedef void (*tile_gemm_fn)(FB_TILE_GEMM_ARGS);

/* Products of blocks in the first caches by our own tiles, repeated so that the clock can time
 * them: what a fused kernel is made of. */
static const struct gemm_shape tile_shapes[] = {
    {256, 64, 64}, {96, 64, 64}, {96, 128, 64}, {96, 64, 256}, {192, 128, 128},
};
/* Whole products by OpenBLAS, in an order that finds a good rate early, for short bursts. */
static const struct gemm_shape blas_shapes[] = {
    {256, 256, 256}, {512, 512, 512},  {384, 384, 384},    {1024, 256, 256},
    {768, 768, 768}, {512, 512, 1024}, {1024, 1024, 1024},
};
enum {
    TILE_SHAPES = sizeof tile_shapes / sizeof tile_shapes[0],
    BLAS_SHAPES = sizeof blas_shapes / sizeof blas_shapes[0],
    SIDE_MAX = 1024,
    OPERAND_FLOATS = SIDE_MAX * SIDE_MAX,
    TILE_REPEATS = 16
};

/* What one thread reached, and with what. */
struct gemm_best {
    double flop_per_s;
    struct gemm_shape shape;
    bool blas;
};

struct gemm_worker {
    float *a, *b, *c;
    const struct fb_clock *clock;
    struct gemm_best best;
};

static tile_gemm_fn tile_gemm_of(enum fb_isa isa)
{
    switch (isa) {
#if defined(FB_BUILT_AVX512)
    case FB_ISA_AVX512:
        return fb_tile_gemm_avx512;
#endif
#if defined(FB_BUILT_AVX2)
    case FB_ISA_AVX2:
        return fb_tile_gemm_avx2;
#endif
#if defined(FB_BUILT_NEON)
    case FB_ISA_NEON:
        return fb_tile_gemm_neon;
#endif
    default:
        return fb_tile_gemm_scalar;
    }
}

static double seconds(const struct gemm_worker *worker)
{
    return worker->clock->now_s(worker->clock->context);
}

static void note_rate(struct gemm_worker *worker, const struct gemm_shape *shape, int repeats,
                      double time_s, bool blas)
{
    const double rate = 2.0 * shape->m * shape->n * shape->k * repeats / time_s;
    if (rate > worker->best.flop_per_s)
        worker->best = (struct gemm_best){rate, *shape, blas};
}

static void run_tiles(struct gemm_worker *worker, tile_gemm_fn gemm)
{
    for (int i = 0; i < TILE_SHAPES; i++) {
        const struct gemm_shape *shape = &tile_shapes[i];
        const double start_s = seconds(worker);
        for (int repeat = 0; repeat < TILE_REPEATS; repeat++)
            gemm(shape->m, shape->n, shape->k, worker->a, shape->k, 1, worker->b, shape->n,
                 worker->c, shape->n, false);
        note_rate(worker, shape, TILE_REPEATS, seconds(worker) - start_s, false);
    }
}

/* Twice: the first finds another shape's operands in the caches. */
static void run_blas(struct gemm_worker *worker, const struct gemm_shape *shape)
{
#if defined(FB_HAVE_OPENBLAS)
    for (int repeat = 0; repeat < 2; repeat++) {
        const double start_s = seconds(worker);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, shape->m, shape->n, shape->k, 1.0F,
                    worker->a, shape->k, worker->b, shape->n, 0.0F, worker->c, shape->n);
        note_rate(worker, shape, 1, seconds(worker) - start_s, true);
    }
#else
    (void)worker;
    (void)shape;
#endif
}

/* One thread's rounds over the shapes for time_s, the first of each kind at least. */
static void run_rounds(struct gemm_worker *worker, tile_gemm_fn tiles, double time_s)
{
    for (int i = 0; i < OPERAND_FLOATS; i++) {
        worker->a[i] = 0.5F + (float)(i % 97) / 97.0F;
        worker->b[i] = 0.5F + (float)(i % 89) / 89.0F;
    }
    const double deadline_s = seconds(worker) + time_s;
    for (int i = 0; i == 0 || seconds(worker) < deadline_s; i = (i + 1) % BLAS_SHAPES) {
        run_tiles(worker, tiles);
        run_blas(worker, &blas_shapes[i]);
    }
}

/* Every thread works at the same time, and its best product counts: the sum is what the machine
 * gives when nothing else disturbs it, also where other work disturbs some of the products. */
static double run_threads(float *operands, int threads, enum fb_isa isa, double time_s,
                          struct gemm_best *first)
{
    const tile_gemm_fn tiles = tile_gemm_of(isa == FB_ISA_ANY ? fb_cpu_best_isa() : isa);
    struct fb_clock clock;
    fb_clock_init_monotonic(&clock);
    double sum = 0.0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int t = 0; t < threads; t++) {
        float *own = operands + (size_t)t * 3 * OPERAND_FLOATS;
        struct gemm_worker worker = {
            .a = own, .b = own + OPERAND_FLOATS, .c = own + 2 * OPERAND_FLOATS, .clock = &clock};
        run_rounds(&worker, tiles, time_s);
        sum += worker.best.flop_per_s;
        if (t == 0)
            *first = worker.best;
    }
    return sum;
}

static void describe_best(const struct gemm_best *best, enum fb_isa isa,
                          struct fb_measure_ceilings *ceilings)
{
    snprintf(ceilings->gemm_shape, sizeof ceilings->gemm_shape, "%d x %d x %d", best->shape.m,
             best->shape.n, best->shape.k);
    const enum fb_isa used = isa == FB_ISA_ANY ? fb_cpu_best_isa() : isa;
    snprintf(ceilings->gemm_core, sizeof ceilings->gemm_core, "flowbench %s", fb_isa_name(used));
#if defined(FB_HAVE_OPENBLAS)
    if (best->blas)
        snprintf(ceilings->gemm_core, sizeof ceilings->gemm_core, "OpenBLAS %.20s",
                 openblas_get_corename());
#endif
}

enum fb_status fb_ceilings_gemm(int threads, enum fb_isa isa, double time_s,
                                struct fb_measure_ceilings *ceilings, struct fb_error *error)
{
    const size_t bytes = (size_t)threads * 3 * OPERAND_FLOATS * sizeof(float);
    struct fb_mapped_buffer operands;
    const enum fb_status status =
        fb_mapped_buffer_init(&operands, bytes, 0, "the operands of the GEMM ceiling", error);
    if (status != FB_OK)
        return status;
    struct gemm_best first = {0};
#if defined(FB_HAVE_OPENBLAS)
    const int previous = fb_blas_threads_begin();
#endif
    ceilings->gemm_flop_per_s = run_threads(operands.data, threads, isa, time_s, &first);
#if defined(FB_HAVE_OPENBLAS)
    fb_blas_threads_end(previous);
#endif
    describe_best(&first, isa, ceilings);
    fb_mapped_buffer_free(&operands);
    return FB_OK;
}

static enum fb_status measure_copy(int threads, double *bytes_per_s, struct fb_error *error)
{
    enum { REPEATS = 6 };
    const size_t part_max = (size_t)256 << 20;
    size_t llc_bytes = 0, private_bytes = 0;
    fb_machine_caches(&llc_bytes, &private_bytes);
    size_t bytes = llc_bytes > 0 ? 4 * llc_bytes : (size_t)128 << 20;
    bytes = bytes < part_max ? bytes : part_max;
    const size_t part = bytes / (size_t)threads / 64 * 64;
    struct fb_mapped_buffer from, to = {0};
    enum fb_status status = fb_mapped_buffer_init(&from, bytes, 0, "the copy's source", error);
    if (status == FB_OK)
        status = fb_mapped_buffer_init(&to, bytes, 1, "the copy's destination", error);
    struct fb_clock clock;
    fb_clock_init_monotonic(&clock);
    double best_s = HUGE_VAL;
    for (int repeat = 0; status == FB_OK && repeat < REPEATS; repeat++) {
        const double start_s = clock.now_s(clock.context);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
        for (int t = 0; t < threads; t++) {
            char *source = (char *)from.data + (size_t)t * part;
            char *target = (char *)to.data + (size_t)t * part;
            if (repeat == 0)
                memset(source, t + 1, part); /* first touch by the thread that copies */
            memcpy(target, source, part);
        }
        const double time_s = clock.now_s(clock.context) - start_s;
        best_s = repeat > 0 && time_s < best_s ? time_s : best_s;
    }
    if (status == FB_OK)
        *bytes_per_s = 2.0 * (double)part * threads / best_s;
    fb_mapped_buffer_free(&from);
    fb_mapped_buffer_free(&to);
    return status;
}

enum fb_status fb_measure_ceilings(int threads, enum fb_isa isa,
                                   struct fb_measure_ceilings *ceilings, struct fb_error *error)
{
    *ceilings = (struct fb_measure_ceilings){
        .threads = threads, .gemm_flop_per_s = (double)NAN, .copy_bytes_per_s = (double)NAN};
    if (threads < 1)
        return fb_error_set(error, FB_ERROR_USAGE, "ceilings: %d threads; at least 1 is needed",
                            threads);
    if (isa != FB_ISA_ANY && !fb_cpu_has(isa))
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "ceilings: this machine does not execute %s", fb_isa_name(isa));
    const enum fb_status status = fb_ceilings_gemm(threads, isa, 0.3, ceilings, error);
    return status == FB_OK ? measure_copy(threads, &ceilings->copy_bytes_per_s, error) : status;
}
