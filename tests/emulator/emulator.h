/*
 * Inside the emulator: fibers, warps, blocks and clusters, and how they wait for one another.
 *
 * Every thread of a resident cluster is a fiber of the one host thread that launches: it runs until
 * it waits, and a scheduler chooses the next. Nothing happens at the same time, so that a run can
 * be repeated; that another order gives the same bits is tested by other schedules.
 */
#ifndef FB_EMULATOR_H
#define FB_EMULATOR_H

#include "emulator_device.h"
/* Its language is not for the sources of the emulator. */
#undef __CUDA_ARCH__
#undef __expf
#undef __shared__
#undef __device__
#undef __host__
#undef __global__
#undef __noinline__
#undef __forceinline__
#undef __constant__

#include "emulator_races.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulator
{

enum class Order { fifo, lifo, random, warps, blocks };
enum class Network { at_once, random, late };
enum class Defer { issued, awaited, random };

/* FLOWBENCH_EMULATOR_*; see README.md. */
struct Settings {
    Order order = Order::fifo;
    Network network = Network::at_once;
    Defer defer = Defer::awaited;
    uint64_t seed = 1;
    int resident = 0; /* clusters at the same time; 0: one, and more where blocks wait for others */
    bool rough = false;   /* tanh as inexact as the unit's */
    bool verbose = false; /* every launch is named */
};
extern Settings settings;

struct Block;
struct Cluster;
struct Warp;

enum class State { running, ready, at_warp, at_barrier, at_mbarrier, at_cluster, polling, ended };

/* A copy of global to shared memory that has been issued. */
struct Copy {
    uint32_t to;
    const void *from;
    int bytes, valid_bytes;
    Site site;
};

/* A copy of shared to global memory by the copy engine. */
struct Store {
    const void *map; /* or none: the bytes go to `to` */
    int at[4];
    void *to;
    uint32_t from;
    int bytes;
    bool adds;
    Site site;
};

/* What has been issued in groups that can be awaited. */
template <typename T> struct Groups {
    std::vector<T> items;
    std::vector<size_t> ends;

    void commit()
    {
        ends.push_back(items.size());
    }

    /* All but the last `pending` groups, each item by `act`. */
    template <typename Act> void wait(int pending, Act &&act)
    {
        if (ends.size() <= (size_t)pending)
            return;
        const size_t groups = ends.size() - (size_t)pending, count = ends[groups - 1];
        for (size_t i = 0; i < count; i++)
            act(items[i]);
        items.erase(items.begin(), items.begin() + (ptrdiff_t)count);
        ends.erase(ends.begin(), ends.begin() + (ptrdiff_t)groups);
        for (size_t &end : ends)
            end -= count;
    }
};

struct Fiber {
    Place place;
    void *stack_pointer;
    char *stack;
    Warp *warp;
    Block *block;
    int lane, number; /* in the block */
    State state;
    const char *what; /* it waits for */
    Site site;
    uint32_t address, parity; /* of the barrier it waits for */
    bool in_cluster_barrier;
    uint32_t cluster_phase;
    const void *polled;
    uint32_t polled_value;
    Groups<Copy> copies;
    Groups<Store> stores;
};

/* A warpgroup's product, as one of its warps sees it. */
struct Wgmma {
    Number type;
    int columns;
    WgmmaLeft left[32];
    uint64_t b;
    bool accumulates, a_transposed, b_transposed;
    float *sums[32][64];
    Site site;
};

struct Warp {
    int number; /* in the cluster */
    Block *block;
    Fiber *lanes[32];
    uint32_t alive; /* a bit for each lane that has not ended */
    /* The instruction at which lanes meet, and what each has brought. */
    const char *meeting;
    Site meeting_site;
    uint32_t met;
    void *brought[32];
    void (*complete)(Warp &);
    Groups<Wgmma> products;
    bool fenced;
    uint64_t priority;
    std::vector<Fiber *> ready;
    RaceThread race;
};

struct Barrier {
    int arrived, expected;
    uint64_t round;
    std::vector<Fiber *> waiting;
    RaceSync race;
};

struct Mbarrier {
    int count, pending;
    int64_t bytes; /* that are still to come */
    uint32_t phase;
    uint64_t mark; /* what its place in shared memory holds */
    std::vector<Fiber *> waiting;
    RaceSync race;
};

struct StaticVariable {
    const void *key;
    uint32_t offset;
};

struct Block {
    Cluster *cluster;
    int rank, slot, live;
    uint64_t priority;
    char *window; /* of shared memory; addresses count from here */
    uint32_t dynamic_offset, dynamic_bytes, static_end;
    std::vector<StaticVariable> statics;
    Barrier barriers[16];
    std::map<uint32_t, Mbarrier> mbarriers;
    std::vector<Warp> warps;
    std::vector<Fiber> fibers;
};

/* What is on its way to a block's shared memory, and then counts on a barrier there. */
struct Message {
    enum class Kind { words, arrival, bulk, tensor } kind;
    Block *to_block;
    uint32_t to, barrier;
    int bytes;
    uint32_t words[4];
    const void *from; /* memory, or a tensor map */
    int at[4];
    RaceOperation race;
    Site site;
};

struct Cluster {
    std::vector<Block *> blocks;
    int live, threads;
    int arrived; /* at the cluster's barrier */
    uint32_t phase;
    std::vector<Fiber *> waiting;
    RaceSync race;
};

/* ---- emulator_fibers.cpp ---- */
extern Fiber *current;
void seed_draws(uint64_t seed);
uint64_t draw(); /* a pseudo-random number */
bool draw_one_of(uint64_t n);
void make_ready(Fiber *fiber);
void make_all_ready(std::vector<Fiber *> &fibers);
void wait_as(State state, const char *what, Site site);
void yield_sometimes();           /* under random schedules */
void run_fibers(size_t together); /* of so many clusters; until none is left, or none can go on */
void prepare_fiber(Fiber *fiber);
char *stack_fault(const void *address); /* text, if it is a fiber's stack that has overflown */

/* ---- emulator_launch.cpp ---- */
constexpr uint32_t kWindowBytes = 256 * 1024; /* descriptors of wgmma reach no further */
constexpr uint32_t kWindowStart = 1024;       /* nothing lies at the address 0 */
constexpr uint32_t kSharedMost = 227 * 1024;
extern std::vector<Cluster *> resident;
extern const std::function<void()> *thread_body;
bool admit_cluster(); /* makes another cluster of the launch resident; false: there is none, or no
                         room */
void end_fiber(Fiber *fiber);
[[noreturn]] void fail(Site site, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_waiting();
const char *file_of(const char *path);
int blocks_at_once(int threads, size_t shared_bytes); /* on a multiprocessor */

/* ---- emulator_warps.cpp ---- */
void meet(const char *what, void *brought, void (*complete)(Warp &), Site site);
void leave_warp(Fiber *fiber);

/* ---- emulator_barriers.cpp ---- */
void leave_barriers(Fiber *fiber);
void count_bytes(Block *block, uint32_t barrier, int bytes, const RaceOperation *race, Site site);
void count_arrival(Block *block, uint32_t barrier, const RaceOperation *race, Site site);

/* ---- emulator_copies.cpp ---- */
bool network_is_empty();
void deliver_one();
void finish_copies(Fiber *fiber);
void forget_messages();

/* ---- emulator_memory.cpp ---- */
Block *block_of(uint32_t address, Site site);
char *shared_at(Block *block, uint32_t address, int bytes, Site site);
inline uint32_t swizzled(uint32_t address) /* by 128 bytes */
{
    return address ^ (address >> 7 & 7) << 4;
}
void install_fault_report();

/* ---- emulator_buffers.cpp ---- */
constexpr size_t kMemoryBytes = (size_t)16 << 30;
cudaError_t allocate_buffer(void **data, size_t bytes);
cudaError_t release_buffer(void *data);
void copy_memory(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
size_t used_buffer_bytes();
const char *describe_global(const void *address, char *text, size_t bytes);

/* ---- emulator_runtime.cpp ---- */
cudaError_t check_launch(const Launch &x);
cudaError_t set_last_error(cudaError_t code);

/* ---- tensor maps, in place of what the driver makes ---- */
constexpr uint64_t kTensorMapMark = 0x7e450a3a9U;
struct TensorMap {
    uint64_t mark;
    char *data;
    uint64_t sizes[4], strides[3];
    uint32_t box[4];
};

/* ---- emulator_numbers.cpp ---- */
float widen(Number type, uint16_t bits);
void widen_eight(Number type, const void *from, float *to);
uint16_t narrow(Number type, float x);

inline float low_of(Number type, uint32_t pair)
{
    return widen(type, (uint16_t)pair);
}

inline float high_of(Number type, uint32_t pair)
{
    return widen(type, (uint16_t)(pair >> 16));
}

} // namespace emulator

#endif
