/* The causal form's gradients in bf16 or f16 with heads of 64. See linear_cuda_causal.cuh. */
#include "linear_cuda_causal.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* ---- dq -------------------------------------------------------------------------------------- */

/* From h and the sums of the panel's features up to each row, dq; and w. */
template <typename T>
__device__ void finish_dq(const linear_arguments &a, const causal_slice<LINEAR_DQ, T> &x, int visit,
                          strip_result &h, const strip_result &up_to)
{
    const int lane = thread_anew() % 32, g = lane / 4, t = lane % 4;
    const lane_places at(lane);
    const uint32_t strip = shared_address(x.tile(visit, OTHER)) + (uint32_t)(x.strip * kRowBytes);
    float w[2] = {}, scale[2];
    if constexpr (kNarrow<T>) {
        const float back = x.range(visit).back;
        const float *inverse = x.own->inverse[visit % 2] + x.strip + g;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                h[n][i] *= back * inverse[i / 2 * 8];
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t q[4];
        load_a(q, strip, at, step);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *c = h[2 * step + i / 2] + i % 2 * 2;
            w[i % 2] = fmaf(low_of<T>(q[i]), c[0], fmaf(high_of<T>(q[i]), c[1], w[i % 2]));
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = x.strip + g + 8 * half, row = x.first(visit) + own;
        w[half] = sum_of_four(w[half]);
        if (t == 0 && row < a.q_len)
            a.weights[x.query_head * a.q_len + row] = w[half];
        w[half] *= -x.own->inverse[visit % 2][own];
        /* the first query weighs one key, by 1 whatever it is, unless epsilon is added */
        scale[half] = row == 0 && a.epsilon == 0.0F ? 0.0F : 1.0F;
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t q[4];
        load_a(q, strip, at, step);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int n = 2 * step + i / 2, half = i % 2;
            const float2 before = *reinterpret_cast<const float2 *>(&x.own->vector[8 * n + 2 * t]);
            float &x0 = h[n][2 * half], &x1 = h[n][2 * half + 1];
            x0 = fmaf(w[half], before.x + up_to[n][2 * half], x0);
            x1 = fmaf(w[half], before.y + up_to[n][2 * half + 1], x1);
            x0 *= scale[half] * slope_at(a.map, low_of<T>(q[i]));
            x1 *= scale[half] * slope_at(a.map, high_of<T>(q[i]));
        }
    }
}

template <typename T>
__device__ void visit_dq(const linear_arguments &a, const causal_slice<LINEAR_DQ, T> &x, int visit,
                         strip_result &sum, float (&z)[4])
{
    const uint64_t keys = x.operand(visit, SUMMED), values = x.operand(visit, SUMMED_VALUES),
                   gradients = x.operand(visit, OTHER_VALUES);
    strip_result c, h;
    causal_operand<T> p;
    wgmma_hold(c);
    wgmma_hold(h);
    wgmma_hold(sum);
    wgmma_begin();
    form_turned<T>(c, gradients, values);
    wgmma_commit();
    form_turned<T>(h, gradients, wgmma_tile(shared_address(x.state)));
    add_outer<T>(sum, keys, values);
    wgmma_commit();
    x.add_vector(z, visit);
    wgmma_wait<1>();
    wgmma_hold(c);
    cut_triangle<true>(c, x.strip);
    p.pack(c, x.range(visit).into);
    clear(c);
    causal_operand<T> ones;
    ones.pack_triangle(x.strip);
    wgmma_hold(c);
    wgmma_begin();
    p.multiply_into(h, keys);
    ones.multiply_into(c, keys);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
    wgmma_hold(h);
    wgmma_hold(sum);
    finish_dq(a, x, visit, h, c);
    x.step();
    causal_result<T>(h, 1.0F).leave(causal_tensor<T>(a.dq, x.b, x.h, a.q_len),
                                    x.tile(visit, OTHER_VALUES), x.strip, x.first(visit), a.q_len);
}

/* ---- dk, dv ---------------------------------------------------------------------------------- */

/* r and the slope. */
template <typename T>
__device__ void finish_dk(const linear_arguments &a, const causal_slice<LINEAR_DK, T> &x, int visit,
                          strip_result &c, float back)
{
    const int lane = thread_anew() % 32, t = lane % 4;
    const lane_places at(lane);
    const uint32_t strip = shared_address(x.tile(visit, OTHER)) + (uint32_t)(x.strip * kRowBytes);
    const int left = x.u.kv_valid - x.first(visit) - x.strip - lane / 4;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t k[4];
        load_a(k, strip, at, step);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int n = 2 * step + i / 2, half = i % 2;
            const float scale = 8 * half < left ? back : 0.0F;
            const float2 after = *reinterpret_cast<const float2 *>(&x.own->vector[8 * n + 2 * t]);
            float &x0 = c[n][2 * half], &x1 = c[n][2 * half + 1];
            x0 = (x0 + after.x) * (scale * slope_at(a.map, low_of<T>(k[i])));
            x1 = (x1 + after.y) * (scale * slope_at(a.map, high_of<T>(k[i])));
        }
    }
}

template <typename T>
__device__ void visit_dk_dv(const linear_arguments &a, const causal_slice<LINEAR_DK, T> &x,
                            int visit, strip_result &sum, float (&z)[4])
{
    const uint64_t queries = x.operand(visit, SUMMED), gradients = x.operand(visit, SUMMED_VALUES),
                   keys = x.operand(visit, OTHER), values = x.operand(visit, OTHER_VALUES),
                   state = wgmma_tile(shared_address(x.state));
    const int first = x.first(visit);
    const power_factors<T> range = x.range(visit), grown(x.growth(visit));
    const float back = range.back * grown.back;
    strip_result c, y; /* y: dk, then dv */
    causal_operand<T> p;
    wgmma_hold(c);
    wgmma_hold(y);
    wgmma_begin();
    form_turned<T>(c, values, gradients);
    wgmma_commit();
    form_turned<T>(y, values, state);
    wgmma_commit();
    x.add_vector(z, visit);
    wgmma_wait<1>();
    wgmma_hold(c);
    const float *weights = x.own->weight[visit % 2] + thread_anew() % 4 * 2;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 w = *reinterpret_cast<const float2 *>(weights + 8 * n);
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] += i % 2 == 0 ? w.x : w.y;
    }
    cut_triangle<false>(c, x.strip);
    p.pack(c, range.into);
    wgmma_begin();
    p.multiply_into(y, queries);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(y);
    wgmma_hold(c);
    wgmma_begin();
    form_turned<T>(c, keys, queries);
    wgmma_commit();
    x.step(); /* the values are spent */
    finish_dk(a, x, visit, y, back);
    causal_result<T>(y, 1.0F).leave(causal_tensor<T>(a.dk, x.b, x.h, a.kv_len),
                                    x.tile(visit, OTHER_VALUES), x.strip, first, a.kv_len);
    wgmma_wait<0>();
    wgmma_hold(c);
    cut_triangle<false>(c, x.strip);
    p.pack(c, range.into);
    wgmma_hold(y);
    wgmma_hold(sum);
    wgmma_begin();
    form_straight<T>(y, keys, state);
    p.multiply_into(y, gradients);
    add_outer<T>(sum, queries, gradients);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(y);
    wgmma_hold(sum);
    x.step();
    causal_result<T>(y, back).leave(causal_tensor<T>(a.dv, x.b, x.h, a.kv_len),
                                    x.tile(visit, OTHER), x.strip, first, a.kv_len);
}

#endif

/* grid (slices, heads of queries): reads k, v, q and dout, k and v twice where slices are joined,
 * and writes dq and w */
template <typename T>
__global__ void __launch_bounds__(kCausalThreads, 1)
    causal_dq_kernel(const __grid_constant__ causal_launch arguments)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    const linear_arguments &a = arguments.a;
    walk_slice<LINEAR_DQ, T>(a, shared, arguments.joined,
                             [&](const causal_slice<LINEAR_DQ, T> &x, int visit, strip_result &sum,
                                 float(&z)[4]) { visit_dq(a, x, visit, sum, z); });
#else
    (void)arguments;
#endif
}

/* likewise: q and dout twice; writes dk and dv. A head of keys has one of queries. */
template <typename T>
__global__ void __launch_bounds__(kCausalThreads, 1)
    causal_dk_dv_kernel(const __grid_constant__ causal_launch arguments)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    const linear_arguments &a = arguments.a;
    walk_slice<LINEAR_DK, T>(a, shared, arguments.joined,
                             [&](const causal_slice<LINEAR_DK, T> &x, int visit, strip_result &sum,
                                 float(&z)[4]) { visit_dk_dv(a, x, visit, sum, z); });
#else
    (void)arguments;
#endif
}

auto dq_kernel_of(enum fb_dtype dtype)
{
    return dtype == FB_BF16 ? causal_dq_kernel<__nv_bfloat16> : causal_dq_kernel<__half>;
}

auto dk_dv_kernel_of(enum fb_dtype dtype)
{
    return dtype == FB_BF16 ? causal_dk_dv_kernel<__nv_bfloat16> : causal_dk_dv_kernel<__half>;
}

} // namespace

bool linear_cuda_causal_gradients_join(enum fb_dtype dtype, const linear_arguments &a)
{
    return causal_joins(dq_kernel_of(dtype), a, causal_squad_bytes<LINEAR_DQ>()) &&
           causal_joins(dk_dv_kernel_of(dtype), a, causal_squad_bytes<LINEAR_DK>());
}

enum fb_status linear_cuda_causal_dq(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                     cudaStream_t stream, struct fb_error *error)
{
    return launch_causal(dq_kernel_of(dtype), {a, joined}, causal_squad_bytes<LINEAR_DQ>(), stream,
                         error);
}

enum fb_status linear_cuda_causal_dk_dv(enum fb_dtype dtype, const linear_arguments &a, bool joined,
                                        cudaStream_t stream, struct fb_error *error)
{
    return launch_causal(dk_dv_kernel_of(dtype), {a, joined}, causal_squad_bytes<LINEAR_DK>(),
                         stream, error);
}
