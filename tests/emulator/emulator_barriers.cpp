/* Barriers of a block, of a cluster, and those in shared memory that count arrivals and bytes. */
#include "emulator.h"

namespace emulator
{

/* ---- bar.sync and bar.arrive ---- */

static void complete_barrier(Barrier &barrier)
{
    barrier.arrived = 0;
    barrier.round++;
    race_complete(barrier.race);
    make_all_ready(barrier.waiting);
}

static Barrier &arrive(int id, int threads, Site site)
{
    if (id < 0 || id > 15)
        fail(site, "a block has barriers 0 to 15, not %d", id);
    Barrier &barrier = current->block->barriers[id];
    if (barrier.arrived > 0 && barrier.expected != threads)
        fail(site, "barrier %d is of %d threads here, of %d elsewhere", id, threads,
             barrier.expected);
    barrier.expected = threads;
    race_arrive(barrier.race, current->warp->race);
    if (++barrier.arrived == threads)
        complete_barrier(barrier);
    return barrier;
}

static void sync(int id, int threads, const char *what, Site site)
{
    Fiber *const me = current;
    const uint64_t round = me->block->barriers[id & 15].round;
    Barrier &barrier = arrive(id, threads, site);
    if (barrier.round == round) {
        barrier.waiting.push_back(me);
        me->address = (uint32_t)id;
        wait_as(State::at_barrier, what, site);
    } else {
        yield_sometimes();
    }
    race_acquire(barrier.race, me->warp->race);
    me->warp->race.epoch++;
}

static void check_threads(int threads, Site site)
{
    if (threads <= 0 || threads % 32 != 0)
        fail(site, "a barrier of %d threads: warps are counted", threads);
}

void barrier_sync(int id, int threads, Site site)
{
    check_threads(threads, site);
    sync(id, threads, "bar.sync", site);
}

void barrier_arrive(int id, int threads, Site site)
{
    check_threads(threads, site);
    (void)arrive(id, threads, site);
    yield_sometimes();
}

void sync_threads(Site site)
{
    sync(0, current->block->live, "__syncthreads", site);
}

/* Threads that have ended are not waited for. */
static void leave_block_barrier(Block &block)
{
    Barrier &barrier = block.barriers[0];
    if (barrier.arrived == 0 || barrier.expected != block.live + 1)
        return;
    barrier.expected = block.live;
    if (barrier.arrived == barrier.expected)
        complete_barrier(barrier);
}

/* ---- barrier.cluster ---- */

static void complete_cluster(Cluster &cluster)
{
    cluster.arrived = 0;
    cluster.phase++;
    race_complete(cluster.race);
    make_all_ready(cluster.waiting);
}

void cluster_arrive(Site site)
{
    Fiber *const me = current;
    Cluster &cluster = *me->block->cluster;
    if (me->in_cluster_barrier)
        fail(site, "a thread arrives twice at the cluster's barrier");
    me->in_cluster_barrier = true;
    me->cluster_phase = cluster.phase;
    race_arrive(cluster.race, me->warp->race);
    if (++cluster.arrived == cluster.live)
        complete_cluster(cluster);
    yield_sometimes();
}

void cluster_wait(Site site)
{
    Fiber *const me = current;
    Cluster &cluster = *me->block->cluster;
    if (!me->in_cluster_barrier)
        fail(site, "a thread waits for the cluster's barrier at which it has not arrived");
    me->in_cluster_barrier = false;
    if (cluster.phase == me->cluster_phase) {
        cluster.waiting.push_back(me);
        wait_as(State::at_cluster, "barrier.cluster.wait", site);
    }
    race_acquire(cluster.race, me->warp->race);
    me->warp->race.epoch++;
}

void leave_barriers(Fiber *fiber)
{
    Cluster &cluster = *fiber->block->cluster;
    leave_block_barrier(*fiber->block);
    if (fiber->in_cluster_barrier)
        cluster.arrived -= cluster.phase == fiber->cluster_phase ? 1 : 0;
    if (cluster.arrived > 0 && cluster.arrived == cluster.live)
        complete_cluster(cluster);
}

/* ---- mbarrier ---- */

static Mbarrier &mbarrier_at(Block *block, uint32_t address, Site site)
{
    const char *at = shared_at(block, address, 8, site);
    const auto found = block->mbarriers.find(address & 0xffffff);
    if (found == block->mbarriers.end())
        fail(site, "the barrier at 0x%x has not been initialised", address);
    if (memcmp(at, &found->second.mark, 8) != 0)
        fail(site, "the barrier at 0x%x has been overwritten", address);
    return found->second;
}

static void complete_if_due(Mbarrier &barrier)
{
    if (barrier.pending != 0 || barrier.bytes != 0)
        return;
    barrier.phase++;
    barrier.pending = barrier.count;
    race_complete(barrier.race);
    make_all_ready(barrier.waiting);
}

static void take_arrival(Mbarrier &barrier, uint32_t address, Site site)
{
    if (barrier.pending <= 0)
        fail(site, "more arrivals at the barrier at 0x%x than the %d it counts", address,
             barrier.count);
    barrier.pending--;
    complete_if_due(barrier);
}

void mbarrier_init(uint32_t address, int arrivals, Site site)
{
    static uint64_t marks = 0xba221e2000000000U; /* none is like another, or like a number */
    Block *const block = block_of(address, site);
    char *at = shared_at(block, address, 8, site);
    Mbarrier &barrier = block->mbarriers[address & 0xffffff];
    barrier.count = barrier.pending = arrivals;
    barrier.bytes = 0;
    barrier.phase = 0;
    barrier.mark = ++marks;
    memcpy(at, &barrier.mark, 8);
}

void mbarrier_arrive(uint32_t address, Site site)
{
    Mbarrier &barrier = mbarrier_at(block_of(address, site), address, site);
    race_arrive(barrier.race, current->warp->race);
    take_arrival(barrier, address, site);
    yield_sometimes();
}

void mbarrier_expect(uint32_t address, int bytes, Site site)
{
    Mbarrier &barrier = mbarrier_at(block_of(address, site), address, site);
    race_arrive(barrier.race, current->warp->race);
    if (barrier.bytes + bytes > (1 << 20) - 1)
        fail(site, "a barrier counts up to 2^20 - 1 bytes, not %lld",
             (long long)barrier.bytes + bytes);
    barrier.bytes += bytes;
    take_arrival(barrier, address, site);
    yield_sometimes();
}

bool mbarrier_wait(uint32_t address, uint32_t parity, Site site)
{
    Fiber *const me = current;
    if (parity > 1)
        fail(site, "a parity of %u", parity);
    for (;;) {
        Mbarrier &barrier = mbarrier_at(me->block, address, site);
        if ((barrier.phase & 1) != parity) {
            race_acquire(barrier.race, me->warp->race);
            break;
        }
        barrier.waiting.push_back(me);
        me->address = address & 0xffffff;
        me->parity = parity;
        wait_as(State::at_mbarrier, "mbarrier.try_wait", site);
    }
    yield_sometimes();
    return true;
}

void count_bytes(Block *block, uint32_t address, int bytes, const RaceOperation *race, Site site)
{
    Mbarrier &barrier = mbarrier_at(block, address, site);
    if (race != nullptr)
        race_arrive(barrier.race, *race);
    barrier.bytes -= bytes;
    complete_if_due(barrier);
}

void count_arrival(Block *block, uint32_t address, const RaceOperation *race, Site site)
{
    Mbarrier &barrier = mbarrier_at(block, address, site);
    if (race != nullptr)
        race_arrive(barrier.race, *race);
    else
        race_arrive(barrier.race, current->warp->race);
    take_arrival(barrier, address, site);
}

} // namespace emulator
