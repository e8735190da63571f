/*
 * Products of tensor cores: mma by a warp, wgmma by a warpgroup, whose warps here do their 16 rows
 * each. Sums are of f32 and in an order of their own: the hardware's are of more or fewer bits, and
 * nothing may depend on which.
 */
#include "emulator.h"

namespace emulator
{

/* sums[16][columns] += a[16][K] b[K][columns] */
template <int K>
static void multiply(float *__restrict sums, const float *__restrict a, const float *__restrict b,
                     int columns)
{
    for (int j = 0; j < columns; j += 8)
        for (int row = 0; row < 16; row++) {
            float sum[8] = {};
            for (int k = 0; k < K; k++)
                for (int i = 0; i < 8; i++)
                    sum[i] += a[row * K + k] * b[k * columns + j + i];
            for (int i = 0; i < 8; i++)
                sums[row * columns + j + i] += sum[i];
        }
}

static float tf32_of(uint32_t bits)
{
    return __builtin_bit_cast(float, bits & 0xffffe000U);
}

/* The part of a[16][16] of 16 bits, or a[16][8] of TF32, that a lane has in four registers. */
static void spread_left(Number type, const uint32_t registers[4], int lane, float *a)
{
    const int row = lane / 4, column = lane % 4;
    for (int i = 0; i < 4; i++) {
        const int r = row + i % 2 * 8;
        if (type == Number::tf32) {
            a[r * 8 + column + i / 2 * 4] = tf32_of(registers[i]);
        } else {
            a[r * 16 + 2 * column + i / 2 * 8] = low_of(type, registers[i]);
            a[r * 16 + 2 * column + i / 2 * 8 + 1] = high_of(type, registers[i]);
        }
    }
}

/* ---- mma ---- */

struct MmaOperands {
    Number type;
    float *sums[4];
    uint32_t a[4], b[2];
};

static void spread_right(const MmaOperands &x, int lane, float *b)
{
    const int column = lane / 4, row = lane % 4;
    for (int i = 0; i < 2; i++) {
        if (x.type == Number::tf32) {
            b[(row + 4 * i) * 8 + column] = tf32_of(x.b[i]);
        } else {
            b[(2 * row + 8 * i) * 8 + column] = low_of(x.type, x.b[i]);
            b[(2 * row + 8 * i + 1) * 8 + column] = high_of(x.type, x.b[i]);
        }
    }
}

static int place_of_sum(int lane, int i, int columns)
{
    return (lane / 4 + i % 4 / 2 * 8) * columns + i / 4 * 8 + 2 * (lane % 4) + i % 2;
}

static void execute_mma(Warp &warp)
{
    float a[16 * 16], b[16 * 8], sums[16 * 8];
    if (warp.alive != 0xffffffffU)
        fail(warp.meeting_site, "products are made by warps of 32 lanes");
    const Number type = static_cast<MmaOperands *>(warp.brought[0])->type;
    for (int lane = 0; lane < 32; lane++) {
        const MmaOperands &x = *static_cast<MmaOperands *>(warp.brought[lane]);
        spread_left(type, x.a, lane, a);
        spread_right(x, lane, b);
        for (int i = 0; i < 4; i++)
            sums[place_of_sum(lane, i, 8)] = *x.sums[i];
    }
    if (type == Number::tf32)
        multiply<8>(sums, a, b, 8);
    else
        multiply<16>(sums, a, b, 8);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            *static_cast<MmaOperands *>(warp.brought[lane])->sums[i] =
                sums[place_of_sum(lane, i, 8)];
}

void mma(Number type, float &c0, float &c1, float &c2, float &c3, uint32_t a0, uint32_t a1,
         uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, Site site)
{
    MmaOperands mine = {type, {&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}};
    meet("mma", &mine, execute_mma, site);
}

/* ---- wgmma ---- */

/* A matrix in shared memory, in rows of 128 bytes that are swizzled in groups of eight. */
struct Descriptor {
    uint32_t start, leading, stride;
};

static Descriptor descriptor_of(uint64_t bits, Site site)
{
    if (bits >> 62 != 1 || (bits >> 49 & 7) != 0)
        fail(site, "the description 0x%llx is not of matrices swizzled by 128 bytes",
             (unsigned long long)bits);
    if ((bits & 0x38) != 0)
        fail(site, "a matrix starts at 0x%x, within a group of eight rows",
             (uint32_t)(bits & 0x3fff) << 4);
    return {(uint32_t)(bits & 0x3fff) << 4, (uint32_t)(bits >> 16 & 0x3fff) << 4,
            (uint32_t)(bits >> 32 & 0x3fff) << 4};
}

/*
 * Visits a factor of `count` rows (from `first` on), or columns, by 16 K bytes along the other
 * side: pieces of 16 bytes that lie together, by visit(row, k, piece). Transposed, a piece is of
 * eight rows and one k, otherwise of one row and eight k (four of TF32).
 */
template <typename Visit>
static void visit_factor(const Warp &warp, const Wgmma &x, uint64_t bits, bool transposed,
                         int first, int count, Visit &&visit)
{
    const Descriptor d = descriptor_of(bits, x.site);
    const auto piece = [&](uint32_t address) {
        return shared_at(warp.block, swizzled(address), 16, x.site);
    };
    if (transposed && x.type == Number::tf32)
        fail(x.site, "TF32 is not transposed");
    if (!transposed) {
        const int step = x.type == Number::tf32 ? 4 : 8;
        for (int row = first; row < first + count; row++)
            for (int i = 0; i < 2; i++)
                visit(row - first, i * step,
                      piece(d.start + (uint32_t)(row / 8) * d.stride + (uint32_t)(row % 8) * 128 +
                            (uint32_t)i * 16));
        return;
    }
    if (count > 64 && d.leading == 16)
        fail(x.site, "a factor of more than 64 columns needs an offset between its halves");
    for (int k = 0; k < 16; k++)
        for (int row = first; row < first + count; row += 8)
            visit(row - first, k,
                  piece(d.start + (uint32_t)(row / 64) * d.leading + (uint32_t)(k / 8) * d.stride +
                        (uint32_t)(k % 8) * 128 + (uint32_t)(row % 64) * 2));
}

/* Eight numbers of a piece, or four, to places that are `apart`. */
static void spread(Number type, const char *piece, float *to, int apart)
{
    float x[8];
    const int count = type == Number::tf32 ? 4 : 8;
    if (type == Number::tf32)
        for (int i = 0; i < 4; i++) {
            uint32_t bits;
            memcpy(&bits, piece + 4 * i, 4);
            x[i] = tf32_of(bits);
        }
    else
        widen_eight(type, piece, x);
    for (int i = 0; i < count; i++)
        to[i * apart] = x[i];
}

static int rows_of_warp(const Warp &warp)
{
    return 16 * (warp.number % (int)warp.block->warps.size() % 4);
}

/* The reads, for race detection: they may happen whenever the product is under way. */
static void look_at(Warp &warp, const Wgmma &x)
{
    if (!races_on)
        return;
    const auto look = [&](int, int, const char *piece) {
        race_access(piece, 16, false, true, warp.race, -1, x.site);
    };
    if (x.left[0].is_shared)
        visit_factor(warp, x, x.left[0].descriptor, x.a_transposed, rows_of_warp(warp), 16, look);
    visit_factor(warp, x, x.b, x.b_transposed, 0, x.columns, look);
}

static void execute(Warp &warp, const Wgmma &x)
{
    static float a[16 * 16], b[16 * 256],
        sums[16 * 256]; /* one fiber at a time; their stacks are small */
    const int ks = x.type == Number::tf32 ? 8 : 16, n = x.columns;
    look_at(warp, x);
    if (x.left[0].is_shared)
        visit_factor(warp, x, x.left[0].descriptor, x.a_transposed, rows_of_warp(warp), 16,
                     [&](int row, int k, const char *piece) {
                         spread(x.type, piece, a + row * ks + k, x.a_transposed ? ks : 1);
                     });
    visit_factor(warp, x, x.b, x.b_transposed, 0, n, [&](int row, int k, const char *piece) {
        spread(x.type, piece, b + k * n + row, x.b_transposed ? 1 : n);
    });
    for (int lane = 0; lane < 32; lane++) {
        if (!x.left[0].is_shared)
            spread_left(x.type, x.left[lane].registers, lane, a);
        for (int i = 0; i < n / 2; i++)
            sums[place_of_sum(lane, i, n)] = x.accumulates ? *x.sums[lane][i] : 0.0F;
    }
    if (x.type == Number::tf32)
        multiply<8>(sums, a, b, n);
    else
        multiply<16>(sums, a, b, n);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < n / 2; i++)
            *x.sums[lane][i] = sums[place_of_sum(lane, i, n)];
}

/* What a lane brings. */
struct WgmmaOperands {
    Number type;
    int columns;
    const WgmmaLeft *a;
    uint64_t b;
    bool accumulates, a_transposed, b_transposed;
    float *const *sums;
    Site site;
};

static void issue(Warp &warp)
{
    const WgmmaOperands &first = *static_cast<WgmmaOperands *>(warp.brought[0]);
    if (warp.alive != 0xffffffffU)
        fail(warp.meeting_site, "products are made by warps of 32 lanes");
    if (!warp.fenced)
        fail(first.site, "a product with no wgmma.fence before it");
    warp.products.items.emplace_back();
    Wgmma &product = warp.products.items.back();
    product.type = first.type;
    product.columns = first.columns;
    product.b = first.b;
    product.accumulates = first.accumulates;
    product.a_transposed = first.a_transposed;
    product.b_transposed = first.b_transposed;
    product.site = first.site;
    for (int lane = 0; lane < 32; lane++) {
        const WgmmaOperands &x = *static_cast<WgmmaOperands *>(warp.brought[lane]);
        if (x.b != first.b || x.accumulates != first.accumulates ||
            x.a->descriptor != first.a->descriptor)
            fail(first.site, "lanes disagree about the factors of a product");
        product.left[lane] = *x.a;
        memcpy(product.sums[lane], x.sums, (size_t)(x.columns / 2) * sizeof x.sums[0]);
    }
    look_at(warp, product);
    if (settings.defer == Defer::awaited || (settings.defer == Defer::random && draw_one_of(2)))
        return;
    for (const Wgmma &earlier : warp.products.items) /* they come one after another */
        execute(warp, earlier);
    warp.products.items.clear();
    for (size_t &end : warp.products.ends)
        end = 0;
}

void wgmma(Number type, int columns, float *const *sums, const WgmmaLeft &a, uint64_t b,
           bool accumulates, bool a_transposed, bool b_transposed, Site site)
{
    WgmmaOperands mine = {type,         columns,      &a,   b,   accumulates,
                          a_transposed, b_transposed, sums, site};
    meet("wgmma", &mine, issue, site);
}

void wgmma_fence(Site site)
{
    meet(
        "wgmma.fence", nullptr, [](Warp &warp) { warp.fenced = true; }, site);
}

void wgmma_commit(Site site)
{
    meet(
        "wgmma.commit_group", nullptr, [](Warp &warp) { warp.products.commit(); }, site);
}

/* What follows may use registers of products, which then need a fence again. */
void wgmma_wait(int pending, Site site)
{
    meet(
        "wgmma.wait_group", &pending,
        [](Warp &warp) {
            warp.products.wait(*static_cast<int *>(warp.brought[__builtin_ctz(warp.alive)]),
                               [&](const Wgmma &product) { execute(warp, product); });
            warp.fenced = false;
        },
        site);
}

void fence_proxy_async()
{
    race_publish(current->warp->race);
}

} // namespace emulator
