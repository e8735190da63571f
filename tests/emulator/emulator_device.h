/*
 * What kernels use of CUDA C++ and PTX, for host compilers; put before every translated source.
 * Kernels become functions that a fiber runs for each thread; what threads do together is declared
 * here and defined in the emulator's sources.
 */
#ifndef FB_EMULATOR_DEVICE_H
#define FB_EMULATOR_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <functional>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>

/* The headers above must see their own. */
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __align__
#undef __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ EMULATOR_SHARED /* the translator replaces the declaration */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__    __attribute__((noinline))
#define __align__(n)    __attribute__((aligned(n)))

namespace emulator
{

/* Where in a source something stands that is to be reported. */
struct Site {
    const char *file;
    int line;
};
#define EMULATOR_SITE ::emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

/* Which thread it is. */
struct Place {
    uint3 thread, block;
};
extern Place *place; /* of the thread that runs */

enum class Number { bf16, f16, tf32 };

/* ---- shared memory; addresses are those of the shared window ---- */
void *dynamic_shared();
void *static_shared(const void *variable, size_t bytes, size_t alignment);
uint32_t shared_address_of(const void *p, EMULATOR_SITE);
uint32_t remote_address_of(uint32_t address, int rank, EMULATOR_SITE);
void load_shared(void *to, uint32_t address, int bytes, EMULATOR_SITE);
void store_shared(uint32_t address, const void *from, int bytes, EMULATOR_SITE);

template <typename T> inline void load_quad(T &a, T &b, T &c, T &d, uint32_t address, EMULATOR_SITE)
{
    T quad[4];
    load_shared(quad, address, 16, site);
    a = quad[0];
    b = quad[1];
    c = quad[2];
    d = quad[3];
}

template <typename T> inline void store_one(uint32_t address, T a, EMULATOR_SITE)
{
    store_shared(address, &a, sizeof a, site);
}

template <typename T> inline void store_quad(uint32_t address, T a, T b, T c, T d, EMULATOR_SITE)
{
    const T quad[4] = {a, b, c, d};
    store_shared(address, quad, 16, site);
}

/* ---- global memory between blocks ---- */
uint32_t load_acquire(const void *p, EMULATOR_SITE);
void store_release(void *p, uint32_t x);
void add_release(void *p, uint32_t x);
unsigned long long global_timer();

/* ---- warps ---- */
enum class Shuffle { index, up, down, exclusive_or };
enum class Vote { any, all, ballot };
uint32_t shuffle(Shuffle mode, uint32_t bits, int argument, int width, Site site);
uint32_t vote(Vote mode, bool predicate, Site site);
void sync_warp(Site site);
bool elect(EMULATOR_SITE);
void ldmatrix(bool transposed, uint32_t &r0, uint32_t &r1, uint32_t &r2, uint32_t &r3,
              uint32_t address, EMULATOR_SITE);
void stmatrix(bool transposed, uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3,
              EMULATOR_SITE);

/* ---- tensor cores ---- */
void mma(Number type, float &c0, float &c1, float &c2, float &c3, uint32_t a0, uint32_t a1,
         uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, EMULATOR_SITE);

/* The first factor of a warpgroup's product: a descriptor, or registers. */
struct WgmmaLeft {
    bool is_shared;
    uint64_t descriptor;
    uint32_t registers[4];
};
void wgmma(Number type, int columns, float *const *sums, const WgmmaLeft &a, uint64_t b,
           bool accumulates, bool a_transposed, bool b_transposed, EMULATOR_SITE);
void wgmma_fence(EMULATOR_SITE);
void wgmma_commit(EMULATOR_SITE);
void wgmma_wait(int pending, EMULATOR_SITE);

/* ---- barriers ---- */
void sync_threads(Site site);
void barrier_sync(int id, int threads, EMULATOR_SITE);
void barrier_arrive(int id, int threads, EMULATOR_SITE);
void cluster_arrive(EMULATOR_SITE);
void cluster_wait(EMULATOR_SITE);
void mbarrier_init(uint32_t address, int arrivals, EMULATOR_SITE);
void mbarrier_arrive(uint32_t address, EMULATOR_SITE);
void mbarrier_arrive_remote(uint32_t address, EMULATOR_SITE);
void mbarrier_expect(uint32_t address, int bytes, EMULATOR_SITE);
bool mbarrier_wait(uint32_t address, uint32_t parity, EMULATOR_SITE);
void fence_proxy_async();

/* ---- copies that take their time ---- */
void send_async(uint32_t to, uint32_t barrier, int words, uint32_t x, uint32_t y, uint32_t z,
                uint32_t w, EMULATOR_SITE);
void copy_async(uint32_t to, const void *from, int bytes, int valid_bytes, EMULATOR_SITE);
void copy_commit();
void copy_wait(int pending);
void copy_arrive(uint32_t barrier, EMULATOR_SITE);
void bulk_load(uint32_t to, const void *from, int bytes, uint32_t barrier, EMULATOR_SITE);
void bulk_store(void *to, uint32_t from, int bytes, bool adds, EMULATOR_SITE);
void tensor_load(uint32_t to, const void *map, int x, int y, int z, int w, uint32_t barrier,
                 EMULATOR_SITE);
void tensor_store(const void *map, int x, int y, int z, int w, uint32_t from, EMULATOR_SITE);
void bulk_commit();
void bulk_wait(int pending);

/* ---- launches ---- */
struct Launch {
    dim3 grid, block;
    size_t dynamic_bytes;
    unsigned cluster; /* blocks, along x */
    bool cooperative;
    const void *kernel;
    const char *name;
};
cudaError_t launch(const Launch &x, const std::function<void()> &thread);
cudaError_t launch_of_config(const cudaLaunchConfig_t &config, const void *kernel, const char *name,
                             const std::function<void()> &thread);

/* Runs a kernel with the arguments at these places. */
typedef std::function<void()> (*Binder)(const void *kernel, void **arguments);
void register_kernel(const void *kernel, Binder binder);

/* kernel_cast->*kernel is kernel as a const void *, and of other pointers no more than that. */
struct KernelCast {
};
constexpr KernelCast kernel_cast;

template <typename... P, size_t... I>
std::function<void()> bind_kernel(const void *kernel, void **arguments, std::index_sequence<I...>)
{
    const auto typed = (void (*)(P...))kernel;
    const std::tuple<std::decay_t<P>...> copy(*static_cast<std::decay_t<P> *>(arguments[I])...);
    return [typed, copy] { std::apply(typed, copy); };
}

template <typename... P> const void *operator->*(KernelCast, void (*kernel)(P...))
{
    register_kernel(
        reinterpret_cast<const void *>(kernel), [](const void *address, void **arguments) {
            return bind_kernel<P...>(address, arguments, std::index_sequence_for<P...>{});
        });
    return reinterpret_cast<const void *>(kernel);
}

inline const void *operator->*(KernelCast, const void *p)
{
    return p;
}

/* kernel<<<grid, block, bytes, stream>>>(arguments...) is configure(...).run(0, kernel,
 * arguments...). Its error is the runtime's last one. */
struct Configured {
    const char *name;
    dim3 grid, block;
    size_t bytes;

    template <typename... P>
    void run(int, void (*kernel)(P...), std::type_identity_t<P>... arguments) const
    {
        const Launch x = {grid, block, bytes, 1, false, reinterpret_cast<const void *>(kernel),
                          name};
        (void)launch(x, [&] { kernel(arguments...); });
    }

    /* A template whose last parameters follow from the arguments. */
    template <typename... A>
    void run(long, std::type_identity_t<void (*)(A...)> kernel, A... arguments) const
    {
        run<A...>(0, kernel, arguments...);
    }
};

inline Configured configure(const char *name, dim3 grid, dim3 block, size_t bytes = 0,
                            cudaStream_t = nullptr)
{
    return {name, grid, block, bytes};
}

/* ---- numbers ---- */
uint32_t multiply_pair(Number type, uint32_t x, uint32_t y);
uint32_t fma_pair(Number type, uint32_t x, uint32_t y, uint32_t z);
uint32_t max_pair(Number type, uint32_t x, uint32_t y, bool keeps_nan);
uint32_t min_pair(Number type, uint32_t x, uint32_t y, bool keeps_nan);
uint32_t narrow_saturated(float high, float low); /* two f16 */
uint32_t round_tf32(float x);
float tanh_approx(float x);

inline float flushed(float x)
{
    return fabsf(x) < 1.17549435e-38F ? copysignf(0.0F, x) : x;
}

inline float reciprocal(float x)
{
    return 1.0F / x;
}

inline float reciprocal_flushed(float x)
{
    return flushed(1.0F / flushed(x));
}

inline float exp2_flushed(float x)
{
    return flushed(exp2f(flushed(x)));
}

inline float max_nan(float x, float y)
{
    return isnan(x) || isnan(y) ? __builtin_nanf("") : fmaxf(x, y);
}

inline float min_nan(float x, float y)
{
    return isnan(x) || isnan(y) ? __builtin_nanf("") : fminf(x, y);
}

template <typename T> T shuffle_any(Shuffle mode, T x, int argument, int width, Site site)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move words");
    if constexpr (sizeof(T) == 4) {
        return __builtin_bit_cast(
            T, shuffle(mode, __builtin_bit_cast(uint32_t, x), argument, width, site));
    } else {
        const uint64_t bits = __builtin_bit_cast(uint64_t, x);
        const uint64_t low = shuffle(mode, (uint32_t)bits, argument, width, site);
        const uint64_t high = shuffle(mode, (uint32_t)(bits >> 32), argument, width, site);
        return __builtin_bit_cast(T, high << 32 | low);
    }
}

} // namespace emulator

template <typename T>
cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute attribute, int value)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...),
                               A &&...arguments)
{
    const std::tuple<std::decay_t<P>...> copy(std::forward<A>(arguments)...);
    return emulator::launch_of_config(*config, reinterpret_cast<const void *>(kernel),
                                      __PRETTY_FUNCTION__, [&] { std::apply(kernel, copy); });
}

#include "emulator_intrinsics.h"

#define __CUDA_ARCH__ 900

#endif
