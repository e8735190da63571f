/* Register-tiled small matrix products; see tile_gemm.h for the contract and the tile shapes. */
#include "tile_gemm.h"

#include "simd.h"

#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_NEON)
enum { TILE_ROWS = 6, TILE_VECTORS = 4 };
#elif defined(FB_SIMD_AVX2)
enum { TILE_ROWS = 6, TILE_VECTORS = 2 };
#else
enum { TILE_ROWS = 4, TILE_VECTORS = 3 };
#endif

struct tile {
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    int64_t k;
    int64_t last; /* columns in the last vector, 1 .. FB_VW */
    bool accumulate;
};

/* rows, vectors, unit_row (a_row is 1) and partial (the last vector is not full) are constants at
 * every call, so that the loops unroll into registers. */
FB_ALWAYS_INLINE void run_tile(const struct tile *t, const int rows, const int vectors,
                               const bool unit_row, const bool partial)
{
    fb_vf sum[TILE_ROWS][TILE_VECTORS];
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = fb_vf_zero();
        }
    }
    const int64_t a_row = unit_row ? 1 : t->a_row;
    const float *a = t->a;
    const float *b = t->b;
    for (int64_t p = 0; p < t->k; p++) {
        fb_vf column[TILE_VECTORS];
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            column[j] = partial && j == vectors - 1 ? fb_vf_load_part(b + j * FB_VW, t->last)
                                                    : fb_vf_load(b + j * FB_VW);
        }
        FB_UNROLL
        for (int i = 0; i < rows; i++) {
            const fb_vf x = fb_vf_set1(a[i * a_row]);
            FB_UNROLL
            for (int j = 0; j < vectors; j++) {
                sum[i][j] = fb_vf_fma(x, column[j], sum[i][j]);
            }
        }
        a += unit_row ? t->a_col : (t->a_col == 1 ? 1 : t->a_col);
        b += t->ldb;
    }
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        float *c = t->c + i * t->ldc;
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            if (partial && j == vectors - 1) {
                const fb_vf old =
                    t->accumulate ? fb_vf_load_part(c + j * FB_VW, t->last) : fb_vf_zero();
                fb_vf_store_part(c + j * FB_VW, fb_vf_add(old, sum[i][j]), t->last);
            } else {
                const fb_vf old = t->accumulate ? fb_vf_load(c + j * FB_VW) : fb_vf_zero();
                fb_vf_store(c + j * FB_VW, fb_vf_add(old, sum[i][j]));
            }
        }
    }
}

typedef void (*tile_fn)(const struct tile *);

#define TILE(rows, vectors)                                                                        \
    static void tile_##rows##x##vectors##_rr(const struct tile *t)                                 \
    {                                                                                              \
        run_tile(t, rows, vectors, false, false);                                                  \
    }                                                                                              \
    static void tile_##rows##x##vectors##_rp(const struct tile *t)                                 \
    {                                                                                              \
        run_tile(t, rows, vectors, false, true);                                                   \
    }                                                                                              \
    static void tile_##rows##x##vectors##_ur(const struct tile *t)                                 \
    {                                                                                              \
        run_tile(t, rows, vectors, true, false);                                                   \
    }                                                                                              \
    static void tile_##rows##x##vectors##_up(const struct tile *t)                                 \
    {                                                                                              \
        run_tile(t, rows, vectors, true, true);                                                    \
    }
#define TILE_ENTRY(rows, vectors)                                                                  \
    {                                                                                              \
        {tile_##rows##x##vectors##_rr, tile_##rows##x##vectors##_rp},                              \
            {tile_##rows##x##vectors##_ur, tile_##rows##x##vectors##_up},                          \
    }

#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_NEON)
#define TILE_ROW(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3) TILE(rows, 4)
#define TILE_TABLE(rows)                                                                           \
    {                                                                                              \
        TILE_ENTRY(rows, 1), TILE_ENTRY(rows, 2), TILE_ENTRY(rows, 3), TILE_ENTRY(rows, 4)         \
    }
/* clang-format takes the rows for the beginning of the next declaration. */
/* clang-format off */
TILE_ROW(1) TILE_ROW(2) TILE_ROW(3) TILE_ROW(4) TILE_ROW(5) TILE_ROW(6)
    /* clang-format on */
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][2] = {
        TILE_TABLE(1), TILE_TABLE(2), TILE_TABLE(3), TILE_TABLE(4), TILE_TABLE(5), TILE_TABLE(6)};
#elif defined(FB_SIMD_AVX2)
#define TILE_ROW(rows) TILE(rows, 1) TILE(rows, 2)
#define TILE_TABLE(rows)                                                                           \
    {                                                                                              \
        TILE_ENTRY(rows, 1), TILE_ENTRY(rows, 2)                                                   \
    }
/* clang-format takes the rows for the beginning of the next declaration. */
/* clang-format off */
TILE_ROW(1) TILE_ROW(2) TILE_ROW(3) TILE_ROW(4) TILE_ROW(5) TILE_ROW(6)
    /* clang-format on */
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][2] = {
        TILE_TABLE(1), TILE_TABLE(2), TILE_TABLE(3), TILE_TABLE(4), TILE_TABLE(5), TILE_TABLE(6)};
#else
#define TILE_ROW(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3)
#define TILE_TABLE(rows)                                                                           \
    {                                                                                              \
        TILE_ENTRY(rows, 1), TILE_ENTRY(rows, 2), TILE_ENTRY(rows, 3)                              \
    }
/* clang-format off */
TILE_ROW(1) TILE_ROW(2) TILE_ROW(3) TILE_ROW(4)
    /* clang-format on */
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][2] = {TILE_TABLE(1), TILE_TABLE(2),
                                                                 TILE_TABLE(3), TILE_TABLE(4)};
#endif

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Column panels outermost: a panel of B (k x TILE_VECTORS * FB_VW) stays in the first-level cache
 * while the rows of A stream past it. */
FB_ALWAYS_INLINE void run_gemm(FB_TILE_GEMM_ARGS, const bool lower)
{
    for (int64_t j = 0; j < n; j += TILE_VECTORS * FB_VW) {
        const int64_t columns = smaller(n - j, TILE_VECTORS * FB_VW);
        const int vectors = (int)((columns + FB_VW - 1) / FB_VW);
        const int64_t last = columns - (vectors - 1) * FB_VW;
        for (int64_t i = 0; i < m; i += TILE_ROWS) {
            const int rows = (int)smaller(m - i, TILE_ROWS);
            struct tile t = {
                .a = a + i * a_row,
                .a_row = a_row,
                .a_col = a_col,
                .b = b + j,
                .ldb = ldb,
                .ldc = ldc,
                .k = lower ? smaller(k, i + rows) : k,
                .last = last,
                .accumulate = accumulate,
            };
            t.c = c + i * ldc + j;
            tiles[rows - 1][vectors - 1][a_row == 1][last != FB_VW](&t);
        }
    }
}

void FB_ISA_SYMBOL(fb_tile_gemm)(FB_TILE_GEMM_ARGS)
{
    run_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate, false);
}

void FB_ISA_SYMBOL(fb_tile_gemm_lower)(FB_TILE_GEMM_ARGS)
{
    run_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate, true);
}
