/* Register-tiled small matrix products; see tile_gemm.h for the contract and the tile shapes. */
#include "tile_gemm.h"

#include "simd.h"

#include <assert.h>

#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_NEON)
enum { TILE_ROWS = 6, TILE_VECTORS = 4 };
#elif defined(FB_SIMD_AVX2)
enum { TILE_ROWS = 6, TILE_VECTORS = 2 };
#else
enum { TILE_ROWS = 4, TILE_VECTORS = 3 };
#endif

static_assert(FB_TILE_PANEL == TILE_VECTORS * FB_VW, "tile_gemm.h names the width of a panel");

/* Lines are fetched one in FETCH_PERIOD steps, as evenly as the product allows: at most as many can
 * be under way at a time as the first-level cache has fill buffers, and what misses it meanwhile
 * waits for them. Where panels are narrow a product has more steps. They come from FETCH_LANES
 * places in turn, so that the processor's own fetching gets ahead of each. Where nothing is fetched
 * the period is one: compilers with sanitizers take minutes over longer ones that are never run. */
#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_AVX2)
enum { CAN_FETCH = 1, LINE_BYTES = 64, FETCH_PERIOD = 64 / FB_TILE_PANEL, FETCH_LANES = 3 };
#define FETCH_LINE(address) _mm_prefetch(address, _MM_HINT_T1)
#else
enum { CAN_FETCH = 0, LINE_BYTES = 64, FETCH_PERIOD = 1, FETCH_LANES = 3 };
#define FETCH_LINE(address) ((void)(address))
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
    const float *scale;             /* of C's rows, or NULL */
    const char *fetch[FETCH_LANES]; /* what to fetch next, in turn */
};

/* One step of k in run_tile. A macro, since clang with sanitizers takes minutes over the same as a
 * function that is inlined into all the tiles. */
#define RUN_STEP                                                                                   \
    do {                                                                                           \
        fb_vf column[TILE_VECTORS];                                                                \
        FB_UNROLL                                                                                  \
        for (int j = 0; j < vectors; j++) {                                                        \
            column[j] = partial && j == vectors - 1 ? fb_vf_load_part(b + j * FB_VW, t->last)      \
                                                    : fb_vf_load(b + j * FB_VW);                   \
        }                                                                                          \
        FB_UNROLL                                                                                  \
        for (int i = 0; i < rows; i++) {                                                           \
            const fb_vf x = fb_vf_set1(a[i * a_row]);                                              \
            FB_UNROLL                                                                              \
            for (int j = 0; j < vectors; j++) {                                                    \
                sum[i][j] = fb_vf_fma(x, column[j], sum[i][j]);                                    \
            }                                                                                      \
        }                                                                                          \
        a += t->a_col;                                                                             \
        b += t->ldb;                                                                               \
    } while (0)

/* rows, vectors, unit_row (a_row is 1), partial (the last vector is not full) and fetching are
 * constants at every call, so that the loops unroll into registers. */
FB_ALWAYS_INLINE void run_tile(const struct tile *t, const int rows, const int vectors,
                               const bool unit_row, const bool partial, const bool fetching)
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
    const float *a = t->a, *b = t->b;
    int64_t p = 0;
    if (fetching) {
        const char *first = t->fetch[0], *second = t->fetch[1], *third = t->fetch[2];
        for (; p + FETCH_PERIOD <= t->k; p += FETCH_PERIOD) {
            FETCH_LINE(first);
            const char *next = first + LINE_BYTES;
            first = second;
            second = third;
            third = next;
            FB_UNROLL
            for (int step = 0; step < FETCH_PERIOD; step++) {
                RUN_STEP;
            }
        }
    }
    for (; p < t->k; p++) {
        RUN_STEP;
    }
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        float *c = t->c + i * t->ldc;
        const bool scaled = t->scale != NULL;
        const fb_vf scale = fb_vf_set1(scaled ? t->scale[i] : 1.0F);
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            const bool cut = partial && j == vectors - 1;
            fb_vf total = sum[i][j];
            if (t->accumulate) {
                total = fb_vf_add(cut ? fb_vf_load_part(c + j * FB_VW, t->last)
                                      : fb_vf_load(c + j * FB_VW),
                                  total);
            }
            total = scaled ? fb_vf_mul(scale, total) : total;
            if (cut) {
                fb_vf_store_part(c + j * FB_VW, total, t->last);
            } else {
                fb_vf_store(c + j * FB_VW, total);
            }
        }
    }
}

typedef void (*tile_fn)(const struct tile *);

enum tile_kind { PLAIN, PARTIAL, FETCHING, KINDS };

#define TILE_KIND(rows, vectors, name, unit_row, partial, fetching)                                \
    static void tile_##rows##x##vectors##_##name(const struct tile *t)                             \
    {                                                                                              \
        run_tile(t, rows, vectors, unit_row, partial, fetching);                                   \
    }
#define TILE(rows, vectors)                                                                        \
    TILE_KIND(rows, vectors, rr, false, false, false)                                              \
    TILE_KIND(rows, vectors, rp, false, true, false)                                               \
    TILE_KIND(rows, vectors, rf, false, false, CAN_FETCH)                                          \
    TILE_KIND(rows, vectors, ur, true, false, false)                                               \
    TILE_KIND(rows, vectors, up, true, true, false)                                                \
    TILE_KIND(rows, vectors, uf, true, false, CAN_FETCH)
#define TILE_ENTRY(rows, vectors)                                                                  \
    {                                                                                              \
        {tile_##rows##x##vectors##_rr, tile_##rows##x##vectors##_rp,                               \
         tile_##rows##x##vectors##_rf},                                                            \
            {tile_##rows##x##vectors##_ur, tile_##rows##x##vectors##_up,                           \
             tile_##rows##x##vectors##_uf},                                                        \
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
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][KINDS] = {
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
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][KINDS] = {
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
    static const tile_fn tiles[TILE_ROWS][TILE_VECTORS][2][KINDS] = {TILE_TABLE(1), TILE_TABLE(2),
                                                                     TILE_TABLE(3), TILE_TABLE(4)};
#endif

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Hands each of the tile's lanes lines of the next range in turn that has any left. */
static enum tile_kind take_lines(struct fb_tile_extra *extra, struct tile *t)
{
    const int64_t bytes = (t->k / FETCH_PERIOD / FETCH_LANES + 1) * LINE_BYTES;
    const char *taken = NULL;
    for (int lane = 0; lane < FETCH_LANES; lane++) {
        for (int tries = 0; tries < FB_TILE_RANGES; tries++) {
            struct fb_tile_range *range = &extra->fetch[extra->turn];
            extra->turn = (extra->turn + 1) % FB_TILE_RANGES;
            if (range->bytes > 0) {
                taken = range->at;
                range->at += bytes;
                range->bytes -= bytes;
                break;
            }
        }
        t->fetch[lane] = taken;
    }
    return taken != NULL ? FETCHING : PLAIN;
}

/* Column panels outermost: a panel of B (k x TILE_VECTORS * FB_VW) stays in the first-level cache
 * while the rows of A stream past it. */
FB_ALWAYS_INLINE void run_gemm(FB_TILE_GEMM_ARGS, const bool lower, struct fb_tile_extra *extra)
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
            enum tile_kind kind = last != FB_VW ? PARTIAL : PLAIN;
            if (extra != NULL) {
                t.scale = extra->scale == NULL ? NULL : extra->scale + i;
                kind = CAN_FETCH && kind == PLAIN ? take_lines(extra, &t) : kind;
            }
            tiles[rows - 1][vectors - 1][a_row == 1][kind](&t);
        }
    }
}

void FB_ISA_SYMBOL(fb_tile_gemm)(FB_TILE_GEMM_ARGS)
{
    run_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate, false, NULL);
}

void FB_ISA_SYMBOL(fb_tile_gemm_lower)(FB_TILE_GEMM_ARGS)
{
    run_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate, true, NULL);
}

void FB_ISA_SYMBOL(fb_tile_gemm_extra)(FB_TILE_GEMM_ARGS, struct fb_tile_extra *extra)
{
    run_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate, false, extra);
}
