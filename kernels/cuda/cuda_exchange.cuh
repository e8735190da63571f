/*
 * Numbers between the blocks of a cluster, on Hopper. Blocks send straight into each other's shared
 * memory; each store counts its bytes on a barrier of the receiver, which waits until all have
 * come. Unlike a barrier of the cluster this makes nobody wait for memory that has nothing to do
 * with it.
 */
#ifndef FB_CUDA_EXCHANGE_CUH
#define FB_CUDA_EXCHANGE_CUH

#include "cuda_fragments.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* The same place in the shared memory of another block. */
__device__ inline uint32_t remote_address(uint32_t address, int rank)
{
    uint32_t remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

__device__ inline void send(uint32_t to, uint32_t barrier, float x)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
        "r"(__float_as_uint(x)), "r"(barrier)
        : "memory");
}

__device__ inline void send_pair(uint32_t to, uint32_t barrier, uint32_t x, uint32_t y)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::
            "r"(to),
        "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

/* To 16 aligned bytes. */
__device__ inline void send_quad(uint32_t to, uint32_t barrier, float a, float b, float c, float d)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(__float_as_uint(a)), "r"(__float_as_uint(b)), "r"(__float_as_uint(c)),
                 "r"(__float_as_uint(d)), "r"(barrier)
                 : "memory");
}

/* Says to another block's barrier that this thread, and others that were in step with it since,
 * have used what they read from shared memory, so that the place may be sent to again. For no more:
 * a release to the cluster would wait until all that the thread has written is in memory. */
__device__ inline void send_arrival(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Readies a barrier for so many bytes, and arrivals in every round; by one thread, before the
 * cluster's blocks are in step. */
__device__ inline void expect(unsigned long long *barrier, int bytes, int arrivals = 0)
{
    const uint32_t address = shared_address(barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(1 + arrivals)
                 : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes)
                 : "memory");
}

/* The barriers that this thread has readied stand for the other blocks of its cluster, too, when
 * these have passed await_cluster. By all threads of the block. Of other memory nothing is said. */
__device__ inline void announce_barriers()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ inline void await_cluster()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* The next round of a barrier whose last one this thread has awaited; by one thread. */
__device__ inline void expect_again(unsigned long long *barrier, int bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

/* Until a round's bytes have all come; rounds alternate between 0 and 1. */
__device__ inline void await_round(unsigned long long *barrier, uint32_t round)
{
    const uint32_t address = shared_address(barrier);
    uint32_t done = 0;
    while (done == 0)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(address), "r"(round)
                     : "memory");
}

/* Until they have all come. */
__device__ inline void await(unsigned long long *barrier)
{
    const uint32_t address = shared_address(barrier);
    uint32_t done = 0;
    while (done == 0)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(address)
                     : "memory");
}

#endif
#endif
