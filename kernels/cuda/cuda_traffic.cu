/*
 * Kernels that move bytes or wait: fill, read, touch, block. Grids are a few blocks of 256 threads
 * per multiprocessor; every thread moves 16 bytes at a time.
 */
#include "cuda_check.h"
#include "cuda_traffic.h"

namespace {

constexpr int kThreads = 256;

__global__ void fill_kernel(uint4 *data, size_t count, unsigned char *tail, int tail_bytes,
                            uint32_t pattern)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (size_t i = first; i < count; i += step)
        data[i] = make_uint4(pattern, pattern, pattern, pattern);
    if (first < (size_t)tail_bytes)
        tail[first] = (unsigned char)(pattern >> (8 * (first % 4)));
}

__global__ void read_kernel(uint4 *data, size_t count)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const uint4 x = data[i];
        sum |= x.x ^ x.y ^ x.z ^ x.w;
    }
    if (sum == 0x9e3779b9U)
        data[0].x = sum;
}

/*
 * The blocking kernel. Problem: what is launched after an event starts as soon as it arrives, so the
 * event also times how fast the host launches. Pattern: one thread of this kernel keeps the stream
 * busy until the host, having queued everything, sets a word of pinned memory. Caveat: nothing
 * queued in between may make the host wait for the stream, or both wait for each other; after ten
 * seconds the kernel gives up and says so.
 */
__global__ void block_kernel(volatile uint32_t *word)
{
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    while (word[0] == 0) {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
        if (now - start > 10000000000ULL) {
            word[1] = 1;
            __threadfence_system();
            return;
        }
    }
}

struct traffic_arguments {
    const uint4 *read[FB_CUDA_READS];
    size_t read_count[FB_CUDA_READS];
    uint4 *write[FB_CUDA_WRITES];
    size_t write_count[FB_CUDA_WRITES];
    size_t most;
};

/* Ranges are passed side by side, four strides at a time, so that many loads are in flight. */
__global__ void touch_kernel(const __grid_constant__ traffic_arguments a)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.most; i += 4 * step) {
#pragma unroll
        for (int r = 0; r < FB_CUDA_READS; r++) {
#pragma unroll
            for (int u = 0; u < 4; u++) {
                const size_t at = i + u * step;
                if (at < a.read_count[r]) {
                    const uint4 x = __ldcs(a.read[r] + at);
                    sum |= x.x ^ x.y ^ x.z ^ x.w;
                }
            }
        }
#pragma unroll
        for (int w = 0; w < FB_CUDA_WRITES; w++) {
#pragma unroll
            for (int u = 0; u < 4; u++) {
                const size_t at = i + u * step;
                if (at < a.write_count[w])
                    a.write[w][at] = make_uint4(sum, sum, sum, sum);
            }
        }
    }
}

unsigned blocks_for(size_t count)
{
    const size_t wanted = (count + kThreads - 1) / kThreads;
    return (unsigned)(wanted < 1 ? 1 : wanted > 2112 ? 2112 : wanted);
}

} // namespace

extern "C" enum fb_status fb_cuda_launch_fill(void *data, uint32_t pattern, size_t bytes,
                                              void *stream, struct fb_error *error)
{
    const size_t count = bytes / sizeof(uint4);
    fill_kernel<<<blocks_for(count), kThreads, 0, (cudaStream_t)stream>>>(
        (uint4 *)data, count, (unsigned char *)data + count * sizeof(uint4),
        (int)(bytes % sizeof(uint4)), pattern);
    return fb_cuda_launched("the fill kernel", error);
}

extern "C" enum fb_status fb_cuda_launch_read(void *data, size_t bytes, void *stream,
                                              struct fb_error *error)
{
    const size_t count = bytes / sizeof(uint4);
    read_kernel<<<blocks_for(count), kThreads, 0, (cudaStream_t)stream>>>((uint4 *)data, count);
    return fb_cuda_launched("the read kernel", error);
}

extern "C" enum fb_status fb_cuda_launch_block(volatile uint32_t *word, void *stream,
                                               struct fb_error *error)
{
    block_kernel<<<1, 1, 0, (cudaStream_t)stream>>>(word);
    return fb_cuda_launched("the blocking kernel", error);
}

extern "C" enum fb_status fb_cuda_touch(const struct fb_cuda_traffic *traffic, void *stream,
                                        struct fb_error *error)
{
    traffic_arguments a = {};
    for (int r = 0; r < FB_CUDA_READS; r++) {
        a.read[r] = (const uint4 *)traffic->read[r].data;
        a.read_count[r] = traffic->read[r].bytes / sizeof(uint4);
        a.most = a.read_count[r] > a.most ? a.read_count[r] : a.most;
    }
    for (int w = 0; w < FB_CUDA_WRITES; w++) {
        a.write[w] = (uint4 *)traffic->write[w].data;
        a.write_count[w] = traffic->write[w].bytes / sizeof(uint4);
        a.most = a.write_count[w] > a.most ? a.write_count[w] : a.most;
    }
    touch_kernel<<<blocks_for((a.most + 3) / 4), kThreads, 0, (cudaStream_t)stream>>>(a);
    return fb_cuda_launched("the touch kernel", error);
}

extern "C" double fb_cuda_traffic_bytes(const struct fb_cuda_traffic *traffic)
{
    double bytes = 0.0;
    for (int r = 0; r < FB_CUDA_READS; r++)
        bytes += (double)(traffic->read[r].bytes / sizeof(uint4) * sizeof(uint4));
    for (int w = 0; w < FB_CUDA_WRITES; w++)
        bytes += (double)(traffic->write[w].bytes / sizeof(uint4) * sizeof(uint4));
    return bytes;
}
