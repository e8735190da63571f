/*
 * Small matrix products for blocks that live in the first and second level caches, register-tiled,
 * without packing. One function per instruction set: FB_ISA_SYMBOL(fb_tile_gemm).
 *
 *     C[i][j] = sum_p A(i, p) B[p][j]   (+ C[i][j] when accumulate)
 *     A(i, p) = a[i * a_row + p * a_col],  B[p][j] = b[p * ldb + j],  C[i][j] = c[i * ldc + j]
 *
 * Strides in elements. A is read one float at a time, B and C by vectors of columns; no byte
 * outside the given extents is touched. One of a_row, a_col is 1. The sum over p is taken in
 * order, from zero, in float; C is added last. C must not overlap A or B.
 *
 * Tiles, rows x vectors: AVX-512 6 x 4 (24 accumulators, 4 columns of B, broadcasts from memory),
 * AVX2 6 x 2, NEON 6 x 4, scalar 4 x 3.
 */
#ifndef FB_TILE_GEMM_H
#define FB_TILE_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#define FB_TILE_GEMM_ARGS                                                                          \
    int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b, \
        int64_t ldb, float *c, int64_t ldc, bool accumulate

void fb_tile_gemm_scalar(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_neon(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_avx2(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_avx512(FB_TILE_GEMM_ARGS);

enum { FB_TILE_RANGES = 4 };

/* What a product does beside C = A B or C += A B. A zeroed one changes nothing. */
struct fb_tile_extra {
    /* C = diag(scale) A B, or diag(scale) (C + A B) when accumulating, m values; NULL: none. */
    const float *scale;
    /* Summed before A B: L M with a triangular L as in fb_tile_gemm_lower, L(i, p) = l[i * ldl +
     * p], M[p][j] = m[p * ldm + j], p < k; k = 0: none. Needs a_col = 1. */
    struct fb_tile_lower {
        const float *l, *m;
        int64_t ldl, ldm;
        int64_t k;
    } lower;
    /* twin += A B (and L M), laid out as C; NULL: none. */
    float *twin;
    /* Memory that comes into the second-level cache meanwhile, of each range a line in turn, spread
     * over the steps of the product, whose arithmetic hides the latency. Advanced past what was
     * asked for. x86 only. */
    struct fb_tile_range {
        const char *at;
        int64_t bytes;
    } fetch[FB_TILE_RANGES];
    int turn;     /* whose lines come next */
    bool hurried; /* each tile asks for lines before its first step, too */
};

/* The product, with extra. A may lie in C's own rows when C is one panel wide, n <= FB_TILE_PANEL,
 * and k <= n: a tile's rows are read before they are written. */
void fb_tile_gemm_extra_scalar(FB_TILE_GEMM_ARGS, struct fb_tile_extra *extra);
void fb_tile_gemm_extra_neon(FB_TILE_GEMM_ARGS, struct fb_tile_extra *extra);
void fb_tile_gemm_extra_avx2(FB_TILE_GEMM_ARGS, struct fb_tile_extra *extra);
void fb_tile_gemm_extra_avx512(FB_TILE_GEMM_ARGS, struct fb_tile_extra *extra);

/* Columns of C that a tile covers, for code that is compiled for one instruction set. */
#if defined(FB_SIMD_AVX512)
enum { FB_TILE_PANEL = 64 };
#elif defined(FB_SIMD_AVX2) || defined(FB_SIMD_NEON)
enum { FB_TILE_PANEL = 16 };
#else
enum { FB_TILE_PANEL = 3 };
#endif

/* C = A B with a triangular A: the sum for row i runs over p <= i only (lower), so A's upper
 * triangle is never read by more than a tile's height and must hold zeros there: for tile rows
 * i0 .. i0+5 the sum runs over p <= min(i0+5, k-1). */
void fb_tile_gemm_lower_scalar(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_lower_neon(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_lower_avx2(FB_TILE_GEMM_ARGS);
void fb_tile_gemm_lower_avx512(FB_TILE_GEMM_ARGS);

#endif
