/*
 * Decoding by the recurrence of linear attention on a GPU: the state of a head of keys is N and z,
 * each with its rounding error, so that long sequences cost no digits. A block has 32 columns of N
 * and a copy of z of its own, so that blocks need not wait for one another.
 */
#include "linear_cuda.cuh"

namespace
{

constexpr int kColumns = 32;
constexpr int kThreads = 256;
constexpr int kGroups = kThreads / kColumns;
constexpr float kExponentMost = 60.0F; /* as on processors: e^60 times 2^24 tokens is a float */

struct decode_arguments {
    panel_tensor q, k, v, out;
    int heads, kv_heads, group, features, value_dim, parts;
    enum fb_linear_cuda_map map;
    float epsilon;
    float *state; /* [batch kv_heads][2][features][value_dim], then [parts][2][features] */
    const float *exponents; /* [batch kv_heads] of the keys above the stabiliser; NULL: none */
};

int64_t state_floats(int64_t features, int64_t value_dim)
{
    const int64_t parts = (value_dim + kColumns - 1) / kColumns;
    return 2 * features * value_dim + 2 * parts * features;
}

__device__ float feature(enum fb_linear_cuda_map map, float x)
{
    if (map == FB_LINEAR_CUDA_ELU)
        return fmaxf(x, 0.0F) + expf(smaller_of(x, 0.0F));
    return map == FB_LINEAR_CUDA_RELU ? larger_of(x, 0.0F) + 1e-3F : x;
}

__device__ float advance(float *value, float *error, float x)
{
    const float old = *value, y = x + *error, next = old + y, taken = next - old;
    *value = next;
    *error = (old - (next - taken)) + (y - taken);
    return next;
}

/* The sum over the block, in the order of its threads, in all of them. room: kThreads floats. */
__device__ float sum_block(float x, float *room)
{
    room[threadIdx.x] = x;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half)
            room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    const float sum = room[0];
    __syncthreads();
    return sum;
}

/* grid (parts of the value's columns, heads of keys): the state is read and written once, and read
 * again for every further query of the group */
template <typename F, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ decode_arguments a)
{
    extern __shared__ float phi[]; /* [features] of the key, then of a query */
    __shared__ float room[kThreads];
    const int64_t unit = blockIdx.y, b = unit / a.kv_heads, h = unit % a.kv_heads;
    const int part = (int)blockIdx.x, group = (int)threadIdx.x / kColumns;
    const int col = part * kColumns + (int)threadIdx.x % kColumns;
    const bool exists = col < a.value_dim,
               refused = a.exponents != nullptr && !(a.exponents[unit] <= kExponentMost);
    const int64_t plane = (int64_t)a.features * a.value_dim;
    float *sums = a.state + unit * (2 * plane + 2 * (int64_t)a.parts * a.features);
    float *key_sums = sums + 2 * plane + 2 * (int64_t)part * a.features;
    const panel_rows<F> k(a.k, b, h, 1);
    const panel_rows<T> v(a.v, b, h, 1);
    for (int f = threadIdx.x; f < a.features; f += kThreads)
        phi[f] = feature(a.map, to_f32(*k.at(0, f)));
    __syncthreads();
    if (!refused) {
        const float value = exists ? to_f32(*v.at(0, col)) : 0.0F;
        for (int f = group; exists && f < a.features; f += kGroups) {
            float *at = sums + (int64_t)f * a.value_dim + col;
            advance(at, at + plane, phi[f] * value);
        }
        for (int f = threadIdx.x; f < a.features; f += kThreads)
            advance(key_sums + f, key_sums + a.features + f, phi[f]);
    }
    for (int round = 0; round < a.group; round++) {
        const int64_t query = h * a.group + round;
        const panel_rows<F> q(a.q, b, query, 1);
        __syncthreads();
        float dot = 0.0F, out = 0.0F;
        for (int f = threadIdx.x; f < a.features; f += kThreads) {
            phi[f] = feature(a.map, to_f32(*q.at(0, f)));
            dot = fmaf(phi[f], key_sums[f], dot);
        }
        const float y = sum_block(dot, room) + a.epsilon;
        for (int f = group; exists && f < a.features; f += kGroups)
            out = fmaf(phi[f], sums[(int64_t)f * a.value_dim + col], out);
        room[threadIdx.x] = out;
        __syncthreads();
        if (group == 0 && exists) {
            for (int g = 1; g < kGroups; g++)
                out += room[g * kColumns + threadIdx.x];
            const float result = refused ? __int_as_float(0x7fffffff) : out / y;
            *panel_rows<T>(a.out, b, query, 1).at(0, col) = from_f32<T>(result);
        }
    }
}

template <typename F, typename T>
enum fb_status launch(const decode_arguments &a, int64_t units, cudaStream_t stream,
                      struct fb_error *error)
{
    decode_kernel<F, T><<<dim3((unsigned)a.parts, (unsigned)units), kThreads,
                          sizeof(float) * (size_t)a.features, stream>>>(a);
    return fb_cuda_launched("decoding by linear attention", error);
}

} // namespace

extern "C" size_t fb_linear_cuda_state_bytes(const struct fb_problem *p,
                                             const struct fb_linear_cuda_form *form)
{
    return sizeof(float) *
           (size_t)(p->batch * p->kv_heads * state_floats(form->feature_count, p->v_dim));
}

extern "C" enum fb_status fb_linear_cuda_decode(const struct fb_problem *p,
                                                const struct fb_linear_cuda_form *form,
                                                const struct fb_call *call, const float *exponents,
                                                struct fb_error *error)
{
    decode_arguments a = {};
    cudaStream_t stream = (cudaStream_t)call->stream;
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    a.heads = (int)p->heads;
    a.kv_heads = (int)p->kv_heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.features = (int)form->feature_count;
    a.value_dim = (int)p->v_dim;
    a.parts = (a.value_dim + kColumns - 1) / kColumns;
    a.map = form->map;
    a.epsilon = form->epsilon;
    a.state = (float *)call->decode_state;
    a.exponents = exponents;
    const int64_t units = p->batch * p->kv_heads;
    if (p->dtype == FB_F32)
        return launch<float, float>(a, units, stream, error);
    if (p->dtype == FB_BF16)
        return form->features == FB_F32
                   ? launch<float, __nv_bfloat16>(a, units, stream, error)
                   : launch<__nv_bfloat16, __nv_bfloat16>(a, units, stream, error);
    return form->features == FB_F32 ? launch<float, __half>(a, units, stream, error)
                                    : launch<__half, __half>(a, units, stream, error);
}
