/* Memory of the device: that of the host, in buffers that end before a page that is not there. */
#include "emulator.h"

#include <mutex>
#include <stdlib.h>
#include <sys/mman.h>

namespace emulator
{

constexpr size_t kPage = 4096;
constexpr unsigned char kSlack = 0xc5;

static std::mutex lock;

struct Buffer {
    char *mapping;
    size_t mapped, bytes;
};

static std::map<char *, Buffer> buffers;
static size_t used_bytes;

/* Where an address lies that no buffer has. */
const char *describe_global(const void *address, char *text, size_t bytes)
{
    const char *at = static_cast<const char *>(address);
    for (const auto &[data, b] : buffers)
        if (at >= b.mapping && at < b.mapping + b.mapped)
            snprintf(text, bytes, "%td bytes %s a buffer of %zu", at < data ? data - at : at - data,
                     at < data ? "before" : "from the start of", b.bytes);
    return text;
}

cudaError_t allocate_buffer(void **data, size_t bytes)
{
    const std::lock_guard<std::mutex> guard(lock);
    *data = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > kMemoryBytes || used_bytes + bytes > kMemoryBytes)
        return cudaErrorMemoryAllocation;
    /* cudaMalloc aligns to 256; what lies between the end and the page is looked at later */
    const size_t rounded = (bytes + 255) / 256 * 256, room = (rounded + kPage - 1) / kPage * kPage;
    char *mapping = (char *)mmap(nullptr, room + 2 * kPage, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    (void)mprotect(mapping, kPage, PROT_NONE);
    (void)mprotect(mapping + kPage + room, kPage, PROT_NONE);
    char *const buffer = mapping + kPage + room - rounded;
    memset(buffer, 0xff, bytes);
    memset(buffer + bytes, kSlack, rounded - bytes);
    buffers[buffer] = {mapping, room + 2 * kPage, bytes};
    used_bytes += bytes;
    race_watch(buffer, bytes);
    *data = buffer;
    return cudaSuccess;
}

cudaError_t release_buffer(void *data)
{
    const std::lock_guard<std::mutex> guard(lock);
    if (data == nullptr)
        return cudaSuccess;
    const auto found = buffers.find(static_cast<char *>(data));
    if (found == buffers.end())
        return cudaErrorInvalidValue;
    const Buffer b = found->second;
    for (size_t i = b.bytes; i % 256 != 0; i++)
        if (static_cast<unsigned char *>(data)[i] != kSlack)
            fail({"memory", 0}, "something has been written %zu bytes behind a buffer of %zu",
                 i - b.bytes, b.bytes);
    race_forget(data);
    (void)munmap(b.mapping, b.mapped);
    used_bytes -= b.bytes;
    buffers.erase(found);
    return cudaSuccess;
}

/* ---- what comes back from the device, as a number: FLOWBENCH_EMULATOR_HASH=1 ---- */

static uint64_t hash = 0xcbf29ce484222325U;

static void print_hash()
{
    fprintf(stderr, "emulator: what came back hashes to %016llx\n", (unsigned long long)hash);
}

void copy_memory(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    static const bool wanted =
        getenv("FLOWBENCH_EMULATOR_HASH") != nullptr && atexit(print_hash) == 0;
    memmove(to, from, bytes);
    for (size_t i = 0; wanted && kind == cudaMemcpyDeviceToHost && i < bytes; i++)
        hash = (hash ^ static_cast<unsigned char *>(to)[i]) * 0x100000001b3U; /* FNV-1a */
}

size_t used_buffer_bytes()
{
    return used_bytes;
}

} // namespace emulator
