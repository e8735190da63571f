/*
 * Races between warps in shared memory and in global memory within a cluster: happens-before by
 * vector clocks, a warp being one thread; what the copy engine and the tensor cores read without a
 * proxy fence; and lanes of a warp that use what others have written with no __syncwarp between.
 *
 * Needs kernels that were compiled with -fsanitize=thread, whose calls are answered here
 * (FLOWBENCH_EMULATOR_RACES), and FLOWBENCH_EMULATOR_RACE=1. Otherwise nothing of this costs
 * anything.
 */
#ifndef FB_EMULATOR_RACES_H
#define FB_EMULATOR_RACES_H

#include "emulator_device.h"

#include <memory>
#include <stddef.h>
#include <stdint.h>

namespace emulator
{

constexpr int kRaceThreads = 1024; /* warps of a cluster, and what each has sent off */

struct RaceClock {
    uint32_t at[kRaceThreads];
};

/* A warp: what it has seen, and what of that it has published to the asynchronous proxy. */
struct RaceThread {
    int number = 0;
    uint32_t epoch = 1, sent = 0; /* an epoch ends when lanes are in step */
    std::unique_ptr<RaceClock> seen, published;
};

/* What a warp has sent off, by the copy engine or to another block: it happens on its own later. */
struct RaceOperation {
    std::shared_ptr<RaceClock> seen, published;
    int number = 0;
    uint32_t clock = 0;
};

/* A barrier: what those who arrive have seen; after a round, what those who leave it see. */
struct RaceSync {
    std::unique_ptr<RaceClock> seen, published, done_seen, done_published;
};

extern bool races_on;

void race_begin(int warps);
void race_init(RaceThread &thread, int number);
void race_arrive(RaceSync &sync, RaceThread &thread);
void race_arrive(RaceSync &sync, const RaceOperation &operation);
void race_complete(RaceSync &sync);
void race_acquire(RaceSync &sync, RaceThread &thread);
void race_publish(RaceThread &thread);
RaceOperation race_send(RaceThread &thread);
void race_access(const void *p, int bytes, bool writes, bool asynchronous, RaceThread &thread,
                 int lane, Site site);
void race_access(const void *p, int bytes, bool writes, bool asynchronous,
                 const RaceOperation &operation, Site site);
void race_watch(const void *p, size_t bytes);
void race_forget(const void *p);
void race_report(); /* at exit; what was found makes the program fail */

} // namespace emulator

#endif
