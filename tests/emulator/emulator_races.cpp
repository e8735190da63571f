/* Race detection: see emulator_races.h. */
#include "emulator.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
#include <unordered_map>

namespace emulator
{

bool races_on;

static int warps, threads;

static void join(RaceClock &a, const RaceClock &b)
{
    for (int i = 0; i < threads; i++)
        a.at[i] = std::max(a.at[i], b.at[i]);
}

/* ---- clocks ---- */

void race_init(RaceThread &thread, int number)
{
    thread.number = number;
    thread.epoch = 1;
    thread.sent = 0;
    if (!races_on)
        return;
    thread.seen = std::make_unique<RaceClock>();
    thread.published = std::make_unique<RaceClock>();
    thread.seen->at[number] = 1;
}

static void make_ready(RaceSync &sync)
{
    if (sync.seen != nullptr)
        return;
    for (std::unique_ptr<RaceClock> *clock :
         {&sync.seen, &sync.published, &sync.done_seen, &sync.done_published})
        *clock = std::make_unique<RaceClock>();
}

void race_arrive(RaceSync &sync, RaceThread &thread)
{
    if (!races_on)
        return;
    make_ready(sync);
    join(*sync.seen, *thread.seen);
    join(*sync.published, *thread.published);
    thread.seen->at[thread.number]++;
}

void race_arrive(RaceSync &sync, const RaceOperation &operation)
{
    if (!races_on)
        return;
    make_ready(sync);
    join(*sync.seen, *operation.seen);
    join(*sync.published, *operation.published);
    uint32_t &own = sync.seen->at[operation.number];
    own = std::max(own, operation.clock);
}

void race_complete(RaceSync &sync)
{
    if (!races_on)
        return;
    make_ready(sync);
    join(*sync.done_seen, *sync.seen);
    join(*sync.done_published, *sync.published);
}

void race_acquire(RaceSync &sync, RaceThread &thread)
{
    if (!races_on)
        return;
    make_ready(sync);
    join(*thread.seen, *sync.done_seen);
    join(*thread.published, *sync.done_published);
}

void race_publish(RaceThread &thread)
{
    if (races_on)
        join(*thread.published, *thread.seen);
}

RaceOperation race_send(RaceThread &thread)
{
    RaceOperation operation;
    operation.seen = std::make_shared<RaceClock>(*thread.seen);
    operation.published = std::make_shared<RaceClock>(*thread.published);
    operation.number = warps + thread.number;
    operation.clock = ++thread.sent;
    thread.seen->at[thread.number]++;
    return operation;
}

/* ---- what is known about two bytes of memory ---- */

struct RaceRead {
    uint16_t number;
    int8_t lane; /* -1: none in particular, -2: several */
    bool asynchronous;
    uint32_t clock, epoch, site;
};

struct RaceCell {
    uint32_t clock, epoch, site; /* of the last write; clock 0: there is none */
    uint16_t number;
    int8_t lane;
    bool asynchronous;
    uint8_t reads;
    RaceRead read[4];
};

constexpr size_t kCellsOfPage = 2048;
struct RacePage {
    uint64_t launch;
    RaceCell cells[kCellsOfPage];
};

static std::map<const char *, size_t> watched; /* start and bytes */
static std::unordered_map<uintptr_t, std::unique_ptr<RacePage>> pages;
static uint64_t launch_count = 1;

void race_watch(const void *p, size_t bytes)
{
    if (races_on)
        watched[static_cast<const char *>(p)] = bytes;
}

void race_forget(const void *p)
{
    watched.erase(static_cast<const char *>(p));
}

static bool is_watched(const char *p)
{
    const auto next = watched.upper_bound(p);
    if (next == watched.begin())
        return false;
    const auto &[start, bytes] = *std::prev(next);
    return (size_t)(p - start) < bytes;
}

static RaceCell &cell_of(const char *p)
{
    static uintptr_t last_number;
    static RacePage *last;
    const uintptr_t i = (uintptr_t)p / 2, number = i / kCellsOfPage;
    if (last == nullptr || number != last_number) {
        std::unique_ptr<RacePage> &page = pages[number];
        if (page == nullptr)
            page = std::make_unique<RacePage>();
        last = page.get();
        last_number = number;
    }
    if (last->launch != launch_count) { /* launches, and clusters, come one after another */
        memset(last->cells, 0, sizeof last->cells);
        last->launch = launch_count;
    }
    return last->cells[i % kCellsOfPage];
}

void race_begin(int count)
{
    if (!races_on)
        return;
    launch_count++;
    warps = count;
    threads = 2 * count;
    if (threads > kRaceThreads)
        fail({"races", 0}, "clusters of %d warps are too large to look for races", count);
}

/* ---- what has been found ---- */

struct RacePlace {
    const char *file;
    int line;
    void *pc;
};

static std::vector<RacePlace> places = {{"", 0, nullptr}};

static uint32_t place_of(Site site)
{
    static std::map<std::pair<const void *, int>, uint32_t> known;
    uint32_t &number = known[{site.file, site.line}];
    if (number == 0) {
        number = (uint32_t)places.size();
        places.push_back({site.file, site.line, nullptr});
    }
    return number;
}

static uint32_t place_of(void *pc)
{
    static std::unordered_map<void *, uint32_t> known;
    uint32_t &number = known[pc];
    if (number == 0) {
        number = (uint32_t)places.size();
        places.push_back({nullptr, 0, pc});
    }
    return number;
}

struct RaceKind {
    const char *what;
    uint32_t before, now;
    auto operator<=>(const RaceKind &) const = default;
};

static std::map<RaceKind, uint64_t> found;

static void note(const char *what, uint32_t before, uint32_t now)
{
    if (found.empty())
        (void)atexit(race_report);
    found[{what, before, now}]++;
}

static std::string text_of(uint32_t number)
{
    const RacePlace &p = places[number];
    if (p.pc == nullptr)
        return std::string(file_of(p.file)) + ":" + std::to_string(p.line);
    Dl_info program = {};
    (void)dladdr(p.pc, &program);
    char command[600], text[300];
    snprintf(command, sizeof command, "addr2line -ie %s 0x%tx", program.dli_fname,
             static_cast<char *>(p.pc) - static_cast<char *>(program.dli_fbase) - 1);
    std::string all;
    FILE *pipe = popen(command, "r");
    for (int i = 0; pipe != nullptr && i < 5 && fgets(text, sizeof text, pipe) != nullptr; i++) {
        text[strcspn(text, "\n (")] = '\0';
        all += (i > 0 ? " < " : "") + std::string(file_of(text));
    }
    if (pipe != nullptr)
        (void)pclose(pipe);
    return all;
}

void race_report()
{
    for (const auto &[kind, count] : found)
        fprintf(stderr, "emulator: race: %s: %s, then %s (%llu times)\n", kind.what,
                text_of(kind.before).c_str(), text_of(kind.now).c_str(), (unsigned long long)count);
    fflush(stdout);
    if (!found.empty())
        _exit(3);
}

/* ---- accesses ---- */

struct RaceAccess {
    const RaceClock *seen, *published;
    uint16_t number;
    int8_t lane;
    bool writes, asynchronous;
    uint32_t clock, epoch, site;

    bool follows(uint32_t other, int number_of_other) const
    {
        return other <= seen->at[number_of_other] || (number_of_other == number && number < warps);
    }

    /* Of the same warp, another lane, and nothing between that keeps lanes in step. */
    bool is_beside(int number_of_other, uint32_t epoch_of_other, int lane_of_other) const
    {
        return number_of_other == number && number < warps && epoch_of_other == epoch &&
               lane >= 0 && lane_of_other != -1 && lane_of_other != lane;
    }
};

static void check_write(const RaceCell &c, const RaceAccess &x)
{
    if (c.clock == 0)
        return;
    if (!x.follows(c.clock, c.number))
        note(x.writes ? "write after write" : "read after write", c.site, x.site);
    else if (x.asynchronous && !x.writes && !c.asynchronous && c.clock > x.published->at[c.number])
        note("read by the asynchronous proxy with no fence after the write", c.site, x.site);
    else if (c.lane >= 0 && x.is_beside(c.number, c.epoch, c.lane))
        note(x.writes ? "lanes write after one another" : "lanes read what another writes", c.site,
             x.site);
}

static void check_reads(const RaceCell &c, const RaceAccess &x)
{
    for (int i = 0; i < c.reads; i++) {
        const RaceRead &r = c.read[i];
        if (!x.follows(r.clock, r.number))
            note("write after read", r.site, x.site);
        else if (x.is_beside(r.number, r.epoch, r.lane))
            note("lanes write what another reads", r.site, x.site);
    }
}

static void add_read(RaceCell &c, const RaceAccess &x)
{
    RaceRead read = {x.number, x.lane, x.asynchronous, x.clock, x.epoch, x.site};
    int at = -1;
    for (int i = 0; i < c.reads; i++)
        if (c.read[i].number == x.number) {
            if (c.read[i].epoch == x.epoch && c.read[i].lane != x.lane)
                read.lane = -2;
            c.read[i] = read;
            return;
        }
    if (c.reads < 4)
        at = c.reads++;
    for (int i = 0; i < 4 && at < 0; i++)
        if (x.follows(c.read[i].clock, c.read[i].number))
            at = i;
    c.read[at < 0 ? x.site % 4 : (uint32_t)at] = read;
}

static void touch(const char *p, int bytes, const RaceAccess &x)
{
    for (int i = 0; i < bytes; i += 2) {
        RaceCell &c = cell_of(p + i);
        check_write(c, x);
        if (!x.writes) {
            add_read(c, x);
            continue;
        }
        check_reads(c, x);
        c.reads = 0;
        c.clock = x.clock;
        c.epoch = x.epoch;
        c.site = x.site;
        c.number = x.number;
        c.lane = x.lane;
        c.asynchronous = x.asynchronous;
    }
}

static void access_by(const void *p, int bytes, bool writes, bool asynchronous,
                      const RaceThread &thread, int lane, uint32_t where)
{
    touch(static_cast<const char *>(p), bytes,
          {thread.seen.get(), thread.published.get(), (uint16_t)thread.number, (int8_t)lane, writes,
           asynchronous, thread.seen->at[thread.number], thread.epoch, where});
}

void race_access(const void *p, int bytes, bool writes, bool asynchronous, RaceThread &thread,
                 int lane, Site site)
{
    if (races_on)
        access_by(p, bytes, writes, asynchronous, thread, lane, place_of(site));
}

void race_access(const void *p, int bytes, bool writes, bool asynchronous,
                 const RaceOperation &operation, Site site)
{
    if (races_on)
        touch(static_cast<const char *>(p), bytes,
              {operation.seen.get(), operation.published.get(), (uint16_t)operation.number, -1,
               writes, asynchronous, operation.clock, 0, place_of(site)});
}

static void see(const void *p, int bytes, bool writes, void *pc)
{
    if (races_on && current != nullptr && is_watched(static_cast<const char *>(p)))
        access_by(p, bytes, writes, false, current->warp->race, current->lane, place_of(pc));
}

} // namespace emulator

/* What kernels call that have been compiled with -fsanitize=thread, for each load and store. */
#define PC __builtin_return_address(0)
#define HOOKS(n)                                                                                   \
    void __tsan_read##n(void *p)                                                                   \
    {                                                                                              \
        emulator::see(p, n, false, PC);                                                            \
    }                                                                                              \
    void __tsan_write##n(void *p)                                                                  \
    {                                                                                              \
        emulator::see(p, n, true, PC);                                                             \
    }                                                                                              \
    void __tsan_unaligned_read##n(void *p)                                                         \
    {                                                                                              \
        emulator::see(p, n, false, PC);                                                            \
    }                                                                                              \
    void __tsan_unaligned_write##n(void *p)                                                        \
    {                                                                                              \
        emulator::see(p, n, true, PC);                                                             \
    }                                                                                              \
    void __tsan_read_write##n(void *p)                                                             \
    {                                                                                              \
        emulator::see(p, n, false, PC);                                                            \
        emulator::see(p, n, true, PC);                                                             \
    }

#pragma clang diagnostic ignored "-Wmissing-prototypes"
extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_init(void)
{
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit(void)
{
}

void __tsan_vptr_update(void **, void *)
{
}

void __tsan_vptr_read(void **)
{
}

void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    emulator::see(from, (int)bytes, false, PC);
    emulator::see(to, (int)bytes, true, PC);
    return memcpy(to, from, bytes);
}

void *__tsan_memmove(void *to, const void *from, size_t bytes)
{
    emulator::see(from, (int)bytes, false, PC);
    emulator::see(to, (int)bytes, true, PC);
    return memmove(to, from, bytes);
}

void *__tsan_memset(void *to, int byte, size_t bytes)
{
    emulator::see(to, (int)bytes, true, PC);
    return memset(to, byte, bytes);
}
}
