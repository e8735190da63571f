/* What the lanes of a warp do together: they meet at an instruction, and the last one does it. */
#include "emulator.h"

namespace emulator
{

static void finish_meeting(Warp &warp, Fiber *but)
{
    warp.met = 0;
    warp.meeting = nullptr;
    warp.complete(warp);
    for (Fiber *lane : warp.lanes)
        if (lane != nullptr && lane != but && lane->state == State::at_warp)
            make_ready(lane);
}

void meet(const char *what, void *brought, void (*complete)(Warp &), Site site)
{
    Fiber *const me = current;
    Warp &warp = *me->warp;
    if (warp.met == 0) {
        warp.meeting = what;
        warp.meeting_site = site;
        warp.complete = complete;
    } else if (warp.complete != complete || warp.meeting_site.line != site.line) {
        fail(site, "lanes of a warp meet at different instructions: %s here, %s at %s:%d", what,
             warp.meeting, file_of(warp.meeting_site.file), warp.meeting_site.line);
    }
    warp.brought[me->lane] = brought;
    warp.met |= 1U << me->lane;
    if (warp.met == warp.alive)
        finish_meeting(warp, me);
    else
        wait_as(State::at_warp, what, site);
}

/* Lanes that have ended are not waited for. */
void leave_warp(Fiber *fiber)
{
    Warp &warp = *fiber->warp;
    warp.alive &= ~(1U << fiber->lane);
    if (warp.alive == 0 && !warp.products.items.empty())
        fail(warp.products.items[0].site, "a warp ends with a product that nobody has waited for");
    if (warp.met != 0 && warp.met == warp.alive)
        finish_meeting(warp, fiber);
}

template <typename T> static T &brought_by(Warp &warp, int lane)
{
    return *static_cast<T *>(warp.brought[lane]);
}

static bool is_alive(const Warp &warp, int lane)
{
    return (warp.alive >> lane & 1) != 0;
}

struct ShuffleOperand {
    uint32_t in, out;
    Shuffle mode;
    int argument, width;
};

static int source_lane(const ShuffleOperand &x, int lane)
{
    const int first = lane / x.width * x.width, i = lane % x.width;
    int from = i;
    switch (x.mode) {
    case Shuffle::index:
        from = x.argument & (x.width - 1);
        break;
    case Shuffle::up:
        from = i - x.argument;
        break;
    case Shuffle::down:
        from = i + x.argument;
        break;
    case Shuffle::exclusive_or:
        from = i ^ x.argument;
        break;
    }
    return first + (from < 0 || from >= x.width ? i : from);
}

uint32_t shuffle(Shuffle mode, uint32_t bits, int argument, int width, Site site)
{
    ShuffleOperand mine = {bits, 0, mode, argument, width};
    meet(
        "a shuffle", &mine,
        [](Warp &warp) {
            for (int lane = 0; lane < 32; lane++)
                if (is_alive(warp, lane)) {
                    ShuffleOperand &x = brought_by<ShuffleOperand>(warp, lane);
                    const int from = source_lane(x, lane);
                    /* of a lane that is not there: anything, so what shows when it is used */
                    x.out = is_alive(warp, from) ? brought_by<ShuffleOperand>(warp, from).in
                                                 : 0xffffffffU;
                }
        },
        site);
    return mine.out;
}

struct VoteOperand {
    bool in;
    uint32_t ballot, voters;
};

uint32_t vote(Vote mode, bool predicate, Site site)
{
    VoteOperand mine = {predicate, 0, 0};
    meet(
        "a vote", &mine,
        [](Warp &warp) {
            uint32_t ballot = 0;
            for (int lane = 0; lane < 32; lane++)
                if (is_alive(warp, lane) && brought_by<VoteOperand>(warp, lane).in)
                    ballot |= 1U << lane;
            for (int lane = 0; lane < 32; lane++)
                if (is_alive(warp, lane)) {
                    brought_by<VoteOperand>(warp, lane).ballot = ballot;
                    brought_by<VoteOperand>(warp, lane).voters = warp.alive;
                }
        },
        site);
    if (mode == Vote::ballot)
        return mine.ballot;
    return mode == Vote::any ? mine.ballot != 0 : mine.ballot == mine.voters;
}

void sync_warp(Site site)
{
    meet(
        "__syncwarp", nullptr, [](Warp &warp) { warp.race.epoch++; }, site);
}

bool elect(Site site)
{
    meet(
        "elect.sync", nullptr, [](Warp &) {}, site);
    return current->lane == 0;
}

/* Four 8 x 8 matrices of 16 bits: lane i has the address of a row, and of each matrix the values of
 * columns 2 (i mod 4) and the next in row i div 4. */
struct MatrixOperand {
    uint32_t address, registers[4];
    bool transposed;
    Site site;
};

static void fetch_rows(Warp &warp, uint16_t rows[32][8], bool stores)
{
    if (warp.alive != 0xffffffffU)
        fail(warp.meeting_site, "matrices are moved by warps of 32 lanes");
    for (int lane = 0; lane < 32; lane++) {
        const MatrixOperand &x = brought_by<MatrixOperand>(warp, lane);
        char *row = shared_at(warp.block, x.address, 16, x.site);
        race_access(row, 16, stores, false, warp.race, lane, x.site);
        if (stores)
            memcpy(row, rows[lane], 16);
        else
            memcpy(rows[lane], row, 16);
    }
}

/* The value of a lane's register in the four matrices, its lower or upper half. */
static uint16_t &element(uint16_t rows[32][8], bool transposed, int matrix, int lane, int half)
{
    const int i = lane / 4, j = 2 * (lane % 4) + half;
    return transposed ? rows[8 * matrix + j][i] : rows[8 * matrix + i][j];
}

void ldmatrix(bool transposed, uint32_t &r0, uint32_t &r1, uint32_t &r2, uint32_t &r3,
              uint32_t address, Site site)
{
    MatrixOperand mine = {address, {}, transposed, site};
    meet(
        "ldmatrix", &mine,
        [](Warp &warp) {
            uint16_t rows[32][8];
            fetch_rows(warp, rows, false);
            for (int lane = 0; lane < 32; lane++) {
                MatrixOperand &x = brought_by<MatrixOperand>(warp, lane);
                for (int m = 0; m < 4; m++)
                    x.registers[m] = element(rows, x.transposed, m, lane, 0) |
                                     (uint32_t)element(rows, x.transposed, m, lane, 1) << 16;
            }
        },
        site);
    r0 = mine.registers[0];
    r1 = mine.registers[1];
    r2 = mine.registers[2];
    r3 = mine.registers[3];
}

void stmatrix(bool transposed, uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3,
              Site site)
{
    MatrixOperand mine = {address, {r0, r1, r2, r3}, transposed, site};
    meet(
        "stmatrix", &mine,
        [](Warp &warp) {
            uint16_t rows[32][8];
            for (int lane = 0; lane < 32; lane++) {
                const MatrixOperand &x = brought_by<MatrixOperand>(warp, lane);
                for (int m = 0; m < 4; m++)
                    for (int half = 0; half < 2; half++)
                        element(rows, x.transposed, m, lane, half) =
                            (uint16_t)(x.registers[m] >> (16 * half));
            }
            fetch_rows(warp, rows, true);
        },
        site);
}

} // namespace emulator
