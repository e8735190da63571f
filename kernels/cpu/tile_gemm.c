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
enum { FETCH_LEAD = FB_TILE_PANEL / 32 + 1 };
#define FETCH_LINE(address) _mm_prefetch(address, _MM_HINT_T1)
#else
enum { CAN_FETCH = 0, LINE_BYTES = 64, FETCH_PERIOD = 1, FETCH_LANES = 3, FETCH_LEAD = 0 };
#define FETCH_LINE(address) ((void)(address))
#endif

struct tile {
    struct tile_part {
        const float *a, *b;
        int64_t a_row, ldb; /* a_col is 1 */
        int64_t k;
    } first; /* what is summed before, when joined */
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t ldb;
    int64_t k;
    float *c;
    int64_t ldc;
    int64_t last; /* columns in the last vector, 1 .. FB_VW */
    bool accumulate;
    float *twin;                    /* or NULL */
    const float *scale;             /* of C's rows, or NULL */
    const char *fetch[FETCH_LANES]; /* what to fetch next, in turn */
    int64_t fetch_bytes;            /* of each */
    int64_t lead;                   /* of them the lines that come before the first step */
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
        a += a_col;                                                                                \
        b += ldb;                                                                                  \
    } while (0)

/* to += the tile. */
FB_ALWAYS_INLINE void add_tile(fb_vf sum[TILE_ROWS][TILE_VECTORS], const int rows,
                               const int vectors, float *to, int64_t ld, const int64_t last)
{
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            float *at = to + i * ld + j * FB_VW;
            if (j == vectors - 1 && last != FB_VW) {
                const fb_vf before = fb_vf_load_part(at, last);
                fb_vf_store_part(at, fb_vf_add(before, sum[i][j]), last);
            } else {
                fb_vf_store(at, fb_vf_add(fb_vf_load(at), sum[i][j]));
            }
        }
    }
}

FB_ALWAYS_INLINE void store_tile(const struct tile *t, fb_vf sum[TILE_ROWS][TILE_VECTORS],
                                 const int rows, const int vectors, const bool partial)
{
    /* Read once: for all that the compiler knows, C may lie over the tile. */
    const bool accumulate = t->accumulate;
    const float *scales = t->scale;
    float *first = t->c;
    const int64_t ldc = t->ldc, last = t->last;
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        float *c = first + i * ldc;
        const fb_vf scale = fb_vf_set1(scales != NULL ? scales[i] : 1.0F);
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            const bool cut = partial && j == vectors - 1;
            fb_vf total = sum[i][j];
            if (accumulate) {
                total = fb_vf_add(
                    cut ? fb_vf_load_part(c + j * FB_VW, last) : fb_vf_load(c + j * FB_VW), total);
            }
            total = scales != NULL ? fb_vf_mul(scale, total) : total;
            if (cut) {
                fb_vf_store_part(c + j * FB_VW, total, last);
            } else {
                fb_vf_store(c + j * FB_VW, total);
            }
        }
    }
}

/* rows, vectors, unit_row (a_row is 1, else a_col is), partial (the last vector is not full),
 * fetching and joined (there are two parts) are constants at every call, so that the loops unroll
 * into registers. */
FB_ALWAYS_INLINE void run_tile(const struct tile *t, const int rows, const int vectors,
                               const bool unit_row, const bool partial, const bool fetching,
                               const bool joined)
{
    fb_vf sum[TILE_ROWS][TILE_VECTORS];
    FB_UNROLL
    for (int i = 0; i < rows; i++) {
        FB_UNROLL
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = fb_vf_zero();
        }
    }
    if (joined) {
        const int64_t a_row = t->first.a_row, a_col = 1, ldb = t->first.ldb;
        const float *a = t->first.a, *b = t->first.b;
        for (int64_t p = 0; p < t->first.k; p++) {
            RUN_STEP;
        }
    }
    const int64_t a_row = unit_row ? 1 : t->a_row, a_col = unit_row ? t->a_col : 1, ldb = t->ldb;
    const float *a = t->a, *b = t->b;
    int64_t p = 0;
    if (fetching) {
        const char *first = t->fetch[0], *second = t->fetch[1], *third = t->fetch[2];
        for (int64_t line = 0; line < t->lead; line++) {
            FETCH_LINE(first);
            FETCH_LINE(second);
            FETCH_LINE(third);
            first += LINE_BYTES;
            second += LINE_BYTES;
            third += LINE_BYTES;
        }
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
    if (t->twin != NULL) {
        add_tile(sum, rows, vectors, t->twin, t->ldc, partial ? t->last : FB_VW);
    }
    store_tile(t, sum, rows, vectors, partial);
}

typedef void (*tile_fn)(const struct tile *);

enum tile_kind { PLAIN, PARTIAL, FETCHING, JOINED, KINDS };

#define TILE_KIND(rows, vectors, name, unit_row, partial, fetching, joined)                        \
    static void tile_##rows##x##vectors##_##name(const struct tile *t)                             \
    {                                                                                              \
        run_tile(t, rows, vectors, unit_row, partial, fetching, joined);                           \
    }
/* A partial tile of rows may have a first part of no steps. */
#define TILE(rows, vectors)                                                                        \
    TILE_KIND(rows, vectors, rr, false, false, false, false)                                       \
    TILE_KIND(rows, vectors, rp, false, true, false, true)                                         \
    TILE_KIND(rows, vectors, rf, false, false, CAN_FETCH, false)                                   \
    TILE_KIND(rows, vectors, rj, false, false, CAN_FETCH, true)                                    \
    TILE_KIND(rows, vectors, ur, true, false, false, false)                                        \
    TILE_KIND(rows, vectors, up, true, true, false, false)                                         \
    TILE_KIND(rows, vectors, uf, true, false, CAN_FETCH, false)
#define TILE_ENTRY(rows, vectors)                                                                  \
    {                                                                                              \
        {tile_##rows##x##vectors##_rr, tile_##rows##x##vectors##_rp, tile_##rows##x##vectors##_rf, \
         tile_##rows##x##vectors##_rj},                                                            \
            {tile_##rows##x##vectors##_ur, tile_##rows##x##vectors##_up,                           \
             tile_##rows##x##vectors##_uf, NULL},                                                  \
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

static bool is_left(const struct fb_tile_extra *extra)
{
    int64_t left = 0;
    for (int i = 0; i < FB_TILE_RANGES; i++) {
        left |= extra->fetch[i].bytes > 0;
    }
    return left != 0;
}

/* Hands each of the tile's lanes lines of the next range in turn that has any left. */
static void take_lines(struct fb_tile_extra *extra, struct tile *t)
{
    static_assert((FB_TILE_RANGES & (FB_TILE_RANGES - 1)) == 0, "turns are counted by a mask");
    unsigned turn = (unsigned)extra->turn;
    const char *taken = NULL;
    FB_UNROLL
    for (int lane = 0; lane < FETCH_LANES; lane++) {
        struct fb_tile_range *range = &extra->fetch[turn];
        for (int tries = 1; range->bytes <= 0 && tries < FB_TILE_RANGES; tries++) {
            turn = (turn + 1) & (FB_TILE_RANGES - 1);
            range = &extra->fetch[turn];
        }
        turn = (turn + 1) & (FB_TILE_RANGES - 1);
        if (range->bytes > 0) {
            taken = range->at;
            range->at += t->fetch_bytes;
            range->bytes -= t->fetch_bytes;
        }
        t->fetch[lane] = taken;
    }
    extra->turn = (int)turn;
}

/* What the tile at row i, column j does beside its product. */
static enum tile_kind take_extra(struct fb_tile_extra *extra, struct tile *t, int64_t i, int rows,
                                 int64_t j)
{
    const struct fb_tile_lower *lower = &extra->lower;
    const bool fetching = CAN_FETCH && t->last == FB_VW && is_left(extra);
    enum tile_kind kind = fetching ? FETCHING : PLAIN;
    t->scale = extra->scale == NULL ? NULL : extra->scale + i;
    t->twin = extra->twin == NULL ? NULL : extra->twin + i * t->ldc + j;
    if (fetching) {
        take_lines(extra, t);
    }
    if (lower->k > 0) {
        assert(t->a_col == 1);
        kind = JOINED;
        t->first = (struct tile_part){
            .a = lower->l + i * lower->ldl,
            .b = lower->m + j,
            .a_row = lower->ldl,
            .ldb = lower->ldm,
            .k = smaller(lower->k, i + rows),
        };
        for (int lane = 0; !fetching && lane < FETCH_LANES; lane++) {
            t->fetch[lane] = (const char *)t->a; /* they are in the cache */
        }
    }
    return kind;
}

/* Column panels outermost: a panel of B (k x TILE_VECTORS * FB_VW) stays in the first-level cache
 * while the rows of A stream past it. Rows are dealt evenly to as few tiles as will do: a low tile
 * loads as many columns of B as a high one for less work. */
FB_ALWAYS_INLINE void run_gemm(FB_TILE_GEMM_ARGS, const bool lower, struct fb_tile_extra *extra)
{
    const int64_t heights = (m + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t low = heights > 0 ? m / heights : 0, higher = m - low * heights;
    struct tile t; /* an initialiser would clear all of it by a string instruction */
    t.first = (struct tile_part){0};
    t.a_row = a_row;
    t.a_col = a_col;
    t.ldb = ldb;
    t.ldc = ldc;
    t.accumulate = accumulate;
    t.twin = NULL;
    t.scale = NULL;
    t.fetch_bytes = t.lead = 0;
    if (CAN_FETCH && extra != NULL) {
        t.lead = extra->hurried ? FETCH_LEAD : 0;
        t.fetch_bytes = (k / FETCH_PERIOD / FETCH_LANES + (t.lead > 0 ? t.lead : 1)) * LINE_BYTES;
    }
    for (int64_t j = 0; j < n; j += TILE_VECTORS * FB_VW) {
        const int64_t columns = smaller(n - j, TILE_VECTORS * FB_VW);
        const int vectors = (int)((columns + FB_VW - 1) / FB_VW);
        t.last = columns - (vectors - 1) * FB_VW;
        t.b = b + j;
        for (int64_t i = 0, height = 0; height < heights; height++) {
            const int rows = (int)(height < higher ? low + 1 : low);
            t.a = a + i * a_row;
            t.c = c + i * ldc + j;
            t.k = lower ? smaller(k, i + rows) : k;
            enum tile_kind kind = extra == NULL ? PLAIN : take_extra(extra, &t, i, rows, j);
            kind = t.last != FB_VW ? PARTIAL : kind;
            tiles[rows - 1][vectors - 1][a_col != 1][kind](&t);
            i += rows;
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
