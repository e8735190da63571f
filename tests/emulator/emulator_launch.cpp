/* Launches: which blocks are resident, their memory and their threads, and what is said when a
 * kernel does what it must not. */
#include "emulator.h"

#include <map>
#include <mutex>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

dim3 gridDim, blockDim;

namespace emulator
{

std::vector<Cluster *> resident;
const std::function<void()> *thread_body;
Settings settings;

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 96 * 1024;
constexpr size_t kThreadsMost = 1024;
constexpr int kGuardedSlots = 16; /* every guard page is a mapping, and a process may have 65530 */

/* Room for a resident block. Windows end at a page that is not there. */
struct Slot {
    char *window, *stacks;
    size_t stacks_ready;
    Block block;
};

static std::vector<std::unique_ptr<Slot>> slots;
static std::vector<int> free_slots;
static std::vector<std::unique_ptr<Cluster>> clusters;
static const Launch *launched;
static size_t cluster_count, cluster_next, cluster_first, cluster_step, resident_most;

static Settings read_settings()
{
    Settings s;
    const auto choose = [](const char *name, std::initializer_list<const char *> names,
                           int otherwise) {
        const char *value = getenv(name);
        int i = 0;
        if (value == nullptr)
            return otherwise;
        for (const char *n : names) {
            if (strcmp(n, value) == 0)
                return i;
            i++;
        }
        fprintf(stderr, "emulator: %s=%s is none of:", name, value);
        for (const char *n : names)
            fprintf(stderr, " %s", n);
        fputc('\n', stderr);
        exit(2);
    };
    const auto number = [](const char *name, long otherwise) {
        const char *value = getenv(name);
        return value != nullptr ? strtol(value, nullptr, 10) : otherwise;
    };
    s.order =
        (Order)choose("FLOWBENCH_EMULATOR_ORDER", {"fifo", "lifo", "random", "warps", "blocks"}, 0);
    s.network = (Network)choose("FLOWBENCH_EMULATOR_NETWORK", {"at-once", "random", "late"}, 0);
    s.defer = (Defer)choose("FLOWBENCH_EMULATOR_DEFER", {"issued", "awaited", "random"}, 1);
    s.seed = (uint64_t)number("FLOWBENCH_EMULATOR_SEED", 1);
    s.resident = (int)number("FLOWBENCH_EMULATOR_RESIDENT", 0);
    s.rough = number("FLOWBENCH_EMULATOR_ROUGH", 0) != 0;
    s.verbose = number("FLOWBENCH_EMULATOR_VERBOSE", 0) != 0;
    races_on = number("FLOWBENCH_EMULATOR_RACE", 0) != 0;
    if (races_on)
        s.resident = 1; /* the clocks are those of one cluster */
    return s;
}

const char *file_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != nullptr ? slash + 1 : path;
}

static std::string describe(const Fiber &f)
{
    char text[400];
    int n = snprintf(text, sizeof text, "block (%u, %u, %u) warp %2d: ", f.place.block.x,
                     f.place.block.y, f.place.block.z, f.number / 32);
    n += snprintf(text + n, sizeof text - (size_t)n, "%s %s at %s:%d",
                  f.state == State::ready || f.state == State::running ? "is about to go on after"
                                                                       : "waits for",
                  f.what, file_of(f.site.file), f.site.line);
    if (f.state == State::at_barrier) {
        const Barrier &b = f.block->barriers[f.address];
        snprintf(text + n, sizeof text - (size_t)n, " (barrier %u: %d of %d)", f.address, b.arrived,
                 b.expected);
    } else if (f.state == State::at_mbarrier) {
        const Mbarrier &m = f.block->mbarriers[f.address];
        snprintf(text + n, sizeof text - (size_t)n,
                 " (0x%x, parity %u: in phase %u, %d arrivals and %lld bytes to come)", f.address,
                 f.parity, m.phase, m.pending, (long long)m.bytes);
    } else if (f.state == State::at_cluster) {
        const Cluster &c = *f.block->cluster;
        snprintf(text + n, sizeof text - (size_t)n, " (%d of %d)", c.arrived, c.live);
    }
    return text;
}

void report_waiting()
{
    std::map<std::string, int> lanes;
    for (const Cluster *cluster : resident)
        for (const Block *block : cluster->blocks)
            for (const Fiber &fiber : block->fibers)
                if (fiber.state != State::ended)
                    lanes[describe(fiber)]++;
    size_t shown = 0;
    for (const auto &[text, count] : lanes)
        if (++shown <= 60)
            fprintf(stderr, "    %s, %d lanes\n", text.c_str(), count);
    if (shown > 60)
        fprintf(stderr, "    and %zu more\n", shown - 60);
}

void fail(Site site, const char *format, ...)
{
    if (site.line > 0)
        fprintf(stderr, "emulator: %s:%d: ", file_of(site.file), site.line);
    else
        fprintf(stderr, "emulator: %s: ", site.file);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    if (current != nullptr)
        fprintf(stderr, "  by thread %d of block (%u, %u, %u)\n", current->number,
                current->place.block.x, current->place.block.y, current->place.block.z);
    if (launched != nullptr)
        fprintf(stderr, "  of %s\n", launched->name);
    report_waiting();
    fflush(stdout);
    _exit(3);
}

static void *map_memory(size_t bytes)
{
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("emulator: memory of a block");
        exit(2);
    }
    return memory;
}

static void make_slot()
{
    slots.push_back(std::make_unique<Slot>());
    Slot &slot = *slots.back();
    slot.window = (char *)map_memory(kWindowBytes + kPage);
    (void)mprotect(slot.window + kWindowBytes, kPage, PROT_NONE);
    race_watch(slot.window, kWindowBytes);
    slot.stacks = (char *)map_memory(kThreadsMost * kStackBytes);
    slot.stacks_ready = 0;
    free_slots.push_back((int)slots.size() - 1);
}

static void begin_block(Slot &slot, int index, Cluster *cluster, int rank, uint3 place_of_block)
{
    Block &b = slot.block;
    const size_t threads = launched->block.x;
    const uint32_t dynamic = (uint32_t)(launched->dynamic_bytes + 1023) / 1024 * 1024;
    b.cluster = cluster;
    b.rank = rank;
    b.slot = index;
    b.live = (int)threads;
    b.priority = draw();
    b.window = slot.window;
    b.dynamic_offset = kWindowBytes - dynamic;
    b.dynamic_bytes = (uint32_t)launched->dynamic_bytes;
    b.static_end = kWindowStart;
    b.statics.clear();
    for (Barrier &barrier : b.barriers)
        barrier = {};
    b.mbarriers.clear();
    memset(b.window + b.dynamic_offset, 0xff, dynamic); /* not a number, in any type */
    for (; index < kGuardedSlots && slot.stacks_ready < threads; slot.stacks_ready++)
        (void)mprotect(slot.stacks + slot.stacks_ready * kStackBytes, kPage, PROT_NONE);
    b.warps.resize((threads + 31) / 32);
    b.fibers.resize(threads);
    for (size_t w = 0; w < b.warps.size(); w++) {
        Warp &warp = b.warps[w];
        warp.number = rank * (int)b.warps.size() + (int)w;
        warp.block = &b;
        warp.alive = 0;
        warp.meeting = nullptr;
        warp.met = 0;
        warp.fenced = false;
        warp.products = {};
        warp.ready.clear();
        warp.priority = draw();
        race_init(warp.race, warp.number);
        for (Fiber *&lane : warp.lanes)
            lane = nullptr;
    }
    for (size_t t = 0; t < threads; t++) {
        Fiber &f = b.fibers[t];
        f.place = {{(unsigned)t, 0, 0}, place_of_block};
        f.warp = &b.warps[t / 32];
        f.block = &b;
        f.lane = (int)t % 32;
        f.number = (int)t;
        f.what = "its start";
        f.site = {"", 0};
        f.in_cluster_barrier = false;
        f.polled = nullptr;
        f.copies = {};
        f.stores = {};
        /* not all at the same place of a page: they would all want the same lines of the cache */
        f.stack = slot.stacks + (t + 1) * kStackBytes - t * 7 % 64 * 64;
        f.warp->lanes[f.lane] = &f;
        f.warp->alive |= 1U << f.lane;
        prepare_fiber(&f);
    }
}

bool admit_cluster()
{
    const size_t size = launched->cluster;
    if (cluster_next == cluster_count || resident.size() >= resident_most)
        return false;
    const size_t i = (cluster_first + cluster_next++ * cluster_step) % cluster_count;
    const size_t across = launched->grid.x / size, rows = launched->grid.y;
    while (free_slots.size() < size)
        make_slot();
    clusters.push_back(std::make_unique<Cluster>());
    Cluster *const cluster = clusters.back().get();
    cluster->threads = cluster->live = (int)(launched->block.x * size);
    cluster->arrived = 0;
    cluster->phase = 0;
    race_begin((int)((launched->block.x + 31) / 32 * size));
    for (size_t r = 0; r < size; r++) {
        const int slot = free_slots.back();
        free_slots.pop_back();
        begin_block(*slots[(size_t)slot], slot, cluster, (int)r,
                    {(unsigned)(i % across * size + r), (unsigned)(i / across % rows),
                     (unsigned)(i / across / rows)});
        cluster->blocks.push_back(&slots[(size_t)slot]->block);
    }
    resident.push_back(cluster);
    for (Block *block : cluster->blocks)
        for (Fiber &fiber : block->fibers)
            make_ready(&fiber);
    return true;
}

static void end_cluster(Cluster *cluster)
{
    for (Block *block : cluster->blocks) {
        for (const auto &[address, barrier] : block->mbarriers)
            if (barrier.bytes < 0)
                fail(current->site, "the barrier at 0x%x ends with %lld bytes more than expected",
                     address, (long long)-barrier.bytes);
        free_slots.push_back(block->slot);
    }
    std::erase(resident, cluster);
    std::erase_if(clusters, [&](const auto &c) { return c.get() == cluster; });
}

void end_fiber(Fiber *fiber)
{
    Cluster *const cluster = fiber->block->cluster;
    finish_copies(fiber);
    fiber->state = State::ended;
    fiber->what = "its end";
    fiber->block->live--;
    cluster->live--;
    leave_warp(fiber);
    leave_barriers(fiber);
    if (cluster->live == 0)
        end_cluster(cluster);
}

int blocks_at_once(int threads, size_t shared_bytes)
{
    const int by_threads = 2048 / ((threads + 31) / 32 * 32);
    const int by_shared = (int)((size_t)228 * 1024 / (shared_bytes + 1024));
    return std::min({by_threads, by_shared, 32});
}

/* Blocks start in their order, or, where schedules are random, in another one. */
static void plan_clusters(const Launch &x)
{
    cluster_count = (size_t)(x.grid.x / x.cluster) * x.grid.y * x.grid.z;
    cluster_next = cluster_first = 0;
    cluster_step = 1;
    resident_most = (size_t)(132 * blocks_at_once((int)x.block.x, x.dynamic_bytes)) / x.cluster;
    if (settings.order >= Order::random) {
        cluster_first = draw() % cluster_count;
        do
            cluster_step = 1 + draw() % cluster_count;
        while (std::__gcd(cluster_step, cluster_count) != 1);
    }
}

static void run_launch(const Launch &x, const std::function<void()> &thread)
{
    static const bool known = (settings = read_settings(), install_fault_report(), true);
    (void)known;
    if (settings.verbose)
        fprintf(stderr,
                "emulator: %s, (%u, %u, %u) blocks of %u threads, clusters of %u, %zu bytes\n",
                x.name, x.grid.x, x.grid.y, x.grid.z, x.block.x, x.cluster, x.dynamic_bytes);
    launched = &x;
    thread_body = &thread;
    gridDim = x.grid;
    blockDim = x.block;
    seed_draws(settings.seed);
    plan_clusters(x);
    run_fibers(x.cooperative ? cluster_count : (size_t)settings.resident);
    if (!resident.empty())
        fail({"deadlock", 0}, "nobody can go on in %s", x.name);
    forget_messages();
    launched = nullptr;
}

cudaError_t launch(const Launch &x, const std::function<void()> &thread)
{
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const cudaError_t code = check_launch(x);
    if (code == cudaSuccess)
        run_launch(x, thread);
    return set_last_error(code);
}

cudaError_t launch_of_config(const cudaLaunchConfig_t &config, const void *kernel, const char *name,
                             const std::function<void()> &thread)
{
    Launch x = {config.gridDim, config.blockDim, config.dynamicSmemBytes, 1, false, kernel, name};
    for (unsigned i = 0; i < config.numAttrs; i++) {
        const cudaLaunchAttribute &attribute = config.attrs[i];
        if (attribute.id == cudaLaunchAttributeClusterDimension)
            x.cluster = attribute.val.clusterDim.x;
        if (attribute.id == cudaLaunchAttributeCooperative)
            x.cooperative = attribute.val.cooperative != 0;
    }
    return launch(x, thread);
}

/* ---- kernels whose parameters only their address tells ---- */

static std::mutex registering;
static std::map<const void *, Binder> registered;

void register_kernel(const void *kernel, Binder binder)
{
    const std::lock_guard<std::mutex> guard(registering);
    registered[kernel] = binder;
}

static Binder binder_of(const void *kernel)
{
    const std::lock_guard<std::mutex> guard(registering);
    const auto found = registered.find(kernel);
    return found != registered.end() ? found->second : nullptr;
}

} // namespace emulator

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments,
                             size_t dynamic_bytes, cudaStream_t)
{
    const emulator::Binder binder = emulator::binder_of(kernel);
    if (binder == nullptr)
        return emulator::set_last_error(cudaErrorInvalidDeviceFunction);
    return emulator::launch({grid, block, dynamic_bytes, 1, false, kernel, "cudaLaunchKernel"},
                            binder(kernel, arguments));
}
