/* The causal form's rows in bf16 or f16 with heads of 64, forward. See linear_cuda_causal.cuh. */
#include "linear_cuda_causal.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* y += the products of the strip's rows g and g + 8 with z: y[0] + y[1] and y[2] + y[3], in every
 * lane of a quad. Even columns of the operand are the high parts, odd ones the low. */
template <typename T>
__device__ void dot_vector(const causal_slice<LINEAR_OUT, T> &x, const char *rows, float (&y)[4])
{
    const int lane = (int)threadIdx.x % 32;
    const lane_places at(lane);
    const T *part = x.own->parts[lane / 4 % 2] + lane % 4 * 2;
    const uint32_t strip = shared_address(rows) + (uint32_t)(x.strip * kRowBytes);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t q[4];
        load_a(q, strip, at, step);
        multiply<T>(y, q, *reinterpret_cast<const uint32_t *>(part + 16 * step),
                    *reinterpret_cast<const uint32_t *>(part + 16 * step + 8));
    }
}

/* Likewise the sums of the rows of an operand, which are rounded as what they divide. */
template <typename T> __device__ void add_rows(const causal_operand<T> &p, float (&y)[4])
{
    const uint32_t ones = threadIdx.x % 32 / 4 % 2 == 0 ? pairs<T>::ones : 0U;
#pragma unroll
    for (int step = 0; step < 4; step++)
        multiply<T>(y, p.x[step], ones, ones);
}

template <typename T>
__device__ void visit_out(const linear_arguments &a, const causal_slice<LINEAR_OUT, T> &x,
                          int visit, strip_result &sum, float (&z)[4])
{
    const uint64_t keys = x.operand(visit, SUMMED), values = x.operand(visit, SUMMED_VALUES),
                   queries = x.operand(visit, OTHER);
    char *rows = x.tile(visit, OTHER);
    const int first = x.first(visit);
    const power_factors<T> range = x.range(visit);
    strip_result scores, c;
    float parts[4] = {}, y[2];
    causal_operand<T> p;
    wgmma_hold(scores);
    wgmma_hold(c);
    wgmma_hold(sum);
    wgmma_begin();
    form_turned<T>(scores, queries, keys);
    wgmma_commit();
    form_straight<T>(c, queries, wgmma_tile(shared_address(x.state)));
    add_outer<T>(sum, keys, values);
    wgmma_commit();
    dot_vector(x, rows, parts);
    x.add_vector(z, visit);
    wgmma_wait<1>();
    wgmma_hold(scores);
    cut_triangle<true>(scores, x.strip);
    p.pack(scores, range.into);
    wgmma_begin();
    p.multiply_into(c, values);
    wgmma_commit();
    add_rows(p, parts);
    wgmma_wait<0>();
    wgmma_hold(c);
    wgmma_hold(sum);
    x.step();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + x.strip + (int)threadIdx.x % 32 / 4 + 8 * half;
        /* without keys y would be epsilon, whose inverse f16 has no room for */
        const bool exists = row < x.u.q_valid && x.u.kv_valid > 0;
        y[half] = exists ? range.back * (parts[2 * half] + parts[2 * half + 1]) + a.epsilon : 0.0F;
        if (a.denominators != nullptr && threadIdx.x % 4 == 0 && row < a.q_len)
            a.denominators[x.query_head * a.q_len + row] = y[half];
        y[half] = range.back * causal_inverse(y[half]);
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] *= y[i / 2];
    causal_result<T>(c, 1.0F).leave(causal_tensor<T>(a.out, x.b, x.h, a.q_len), rows, x.strip,
                                    first, a.q_len);
}

#endif

/* grid (slices, heads of queries): reads q, k and v, k and v twice where slices are joined, and
 * writes out; states of 17 KB per slice go from block to block */
template <typename T>
__global__ void __launch_bounds__(kCausalThreads, 1)
    causal_out_kernel(const __grid_constant__ causal_launch arguments)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    const linear_arguments &a = arguments.a;
    walk_slice<LINEAR_OUT, T>(a, shared, arguments.joined,
                              [&](const causal_slice<LINEAR_OUT, T> &x, int visit,
                                  strip_result &sum,
                                  float(&z)[4]) { visit_out(a, x, visit, sum, z); });
#else
    (void)arguments;
#endif
}

auto kernel_of(enum fb_dtype dtype)
{
    return dtype == FB_BF16 ? causal_out_kernel<__nv_bfloat16> : causal_out_kernel<__half>;
}

} // namespace

bool linear_cuda_causal_out_joins(enum fb_dtype dtype, const linear_arguments &a)
{
    return causal_joins(kernel_of(dtype), a, causal_squad_bytes<LINEAR_OUT>());
}

enum fb_status linear_cuda_causal_out(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                      cudaStream_t stream, struct fb_error *error)
{
    return launch_causal(kernel_of(dtype), {a, joined}, causal_squad_bytes<LINEAR_OUT>(), stream,
                         error);
}
