/* Addresses of shared memory, and what is said when an access finds no memory. */
#include "emulator.h"

#include <dlfcn.h>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

namespace emulator
{

/* A shared address is an offset in the block's window; in the cluster's space its upper byte is the
 * rank of the block, plus one. */

void *dynamic_shared()
{
    const Block &block = *current->block;
    return block.window + block.dynamic_offset;
}

/* The block's own copy, made when the first of its threads comes by. */
void *static_shared(const void *key, size_t bytes, size_t alignment)
{
    Block &block = *current->block;
    for (const StaticVariable &variable : block.statics)
        if (variable.key == key)
            return block.window + variable.offset;
    const uint32_t offset = (uint32_t)((block.static_end + alignment - 1) / alignment * alignment);
    block.static_end = offset + (uint32_t)bytes;
    if (block.static_end - kWindowStart + block.dynamic_bytes > kSharedMost)
        fail({"shared memory", 0}, "%u bytes of shared variables and %u dynamic ones are too many",
             block.static_end - kWindowStart, block.dynamic_bytes);
    memset(block.window + offset, 0xff, bytes);
    block.statics.push_back({key, offset});
    return block.window + offset;
}

static bool is_inside(const Block &block, int64_t offset, int64_t bytes)
{
    const int64_t dynamic_end = (int64_t)block.dynamic_offset + block.dynamic_bytes;
    return (offset >= kWindowStart && offset + bytes <= block.static_end) ||
           (offset >= block.dynamic_offset && offset + bytes <= dynamic_end);
}

uint32_t shared_address_of(const void *p, Site site)
{
    const Block &block = *current->block;
    const int64_t offset = static_cast<const char *>(p) - block.window;
    if (!is_inside(block, offset, 0))
        fail(site, "%p is no address of this block's shared memory", p);
    return (uint32_t)offset;
}

Block *block_of(uint32_t address, Site site)
{
    const uint32_t rank = address >> 24;
    if (rank == 0)
        return current->block;
    const std::vector<Block *> &blocks = current->block->cluster->blocks;
    if (rank > blocks.size())
        fail(site, "the shared address 0x%x is of block %u of a cluster of %zu", address, rank - 1,
             blocks.size());
    return blocks[rank - 1];
}

char *shared_at(Block *block, uint32_t address, int bytes, Site site)
{
    const uint32_t offset = address & 0xffffff;
    if (!is_inside(*block, offset, bytes))
        fail(site, "the shared address 0x%x, %d bytes, lies outside of the %u that the block has",
             address, bytes, block->dynamic_bytes);
    if (offset % (uint32_t)bytes != 0)
        fail(site, "the shared address 0x%x is no multiple of %d", address, bytes);
    return block->window + offset;
}

uint32_t remote_address_of(uint32_t address, int rank, Site site)
{
    if (rank < 0 || (size_t)rank >= current->block->cluster->blocks.size())
        fail(site, "block %d of a cluster of %zu", rank, current->block->cluster->blocks.size());
    if (!is_inside(*current->block, address & 0xffffff, 0))
        fail(site, "0x%x is no address of shared memory", address);
    return (address & 0xffffff) | (uint32_t)(rank + 1) << 24;
}

void load_shared(void *to, uint32_t address, int bytes, Site site)
{
    const char *from = shared_at(block_of(address, site), address, bytes, site);
    race_access(from, bytes, false, false, current->warp->race, current->lane, site);
    memcpy(to, from, (size_t)bytes);
}

void store_shared(uint32_t address, const void *from, int bytes, Site site)
{
    char *to = shared_at(block_of(address, site), address, bytes, site);
    race_access(to, bytes, true, false, current->warp->race, current->lane, site);
    memcpy(to, from, (size_t)bytes);
}

/* One fiber at a time: what others have written is there, and nothing comes between. */
void store_release(void *p, uint32_t x)
{
    memcpy(p, &x, sizeof x);
    yield_sometimes();
}

void add_release(void *p, uint32_t x)
{
    uint32_t before;
    memcpy(&before, p, sizeof before);
    before += x;
    memcpy(p, &before, sizeof before);
    yield_sometimes();
}

unsigned long long global_timer()
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000000000ULL + (unsigned long long)now.tv_nsec;
}

/* ---- accesses that find nothing ---- */

static void report_fault(int number, siginfo_t *info, void *context)
{
    const char *at = static_cast<const char *>(info->si_addr);
    char text[200] = "no memory of the device";
    if (current == nullptr) { /* not ours */
        signal(number, SIG_DFL);
        return;
    }
    if (at < current->stack && current->stack - at < 128 * 1024)
        snprintf(text, sizeof text, "the stack of this thread has overflown");
    for (const Cluster *cluster : resident)
        for (const Block *block : cluster->blocks)
            if (at >= block->window && at - block->window < kWindowBytes + 4096)
                snprintf(text, sizeof text, "%td bytes behind the shared memory of block %d",
                         at - block->window - kWindowBytes, block->rank);
    (void)describe_global(at, text, sizeof text);
    const uintptr_t pc = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    Dl_info program = {};
    (void)dladdr((void *)pc, &program);
    fprintf(stderr, "emulator: access to %p: %s\n  addr2line -Cfie %s 0x%tx tells where\n",
            info->si_addr, text, program.dli_fname, pc - (uintptr_t)program.dli_fbase);
    fail({"fault", 0}, "a thread accesses memory that is not there");
}

void install_fault_report()
{
    static char stack[64 * 1024]; /* that of the fiber may be what is full */
    stack_t alternative = {};
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    struct sigaction action = {};
    action.sa_sigaction = report_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    (void)sigaltstack(&alternative, nullptr);
    (void)sigaction(SIGSEGV, &action, nullptr);
    (void)sigaction(SIGBUS, &action, nullptr);
}

} // namespace emulator
