/* What the gradients of Flow-Attention's normal form take from a strip of 16 tokens: phi, its
 * product with a matrix, and the scalars of its tokens (flow_cuda_gradient.cu tells what they
 * mean). bf16, heads of 64. */
#ifndef FB_FLOW_CUDA_GRADIENT_VISITS_CUH
#define FB_FLOW_CUDA_GRADIENT_VISITS_CUH

#include "flow_cuda_strip_values.cuh"

/* Scalars of the rows g (low) and g + 8 of a strip. */
struct sink_strip {
    strip_dots alpha, share, dr, dc;
};

struct source_strip {
    strip_dots p, dflow, beta, db, o;
};

/* The products of a strip with two vectors. */
struct strip_pairs {
    strip_dots first, second;
};

/* (x + eps) . (vector + eps) of every row, for two vectors that hold eps, on the tensor cores: all
 * of a product's even columns are the first, its odd ones the second, so that every lane gets both.
 */
__device__ inline strip_pairs dot_two(const uint32_t (&x)[4][4], const float *first,
                                      float first_eps, const float *second, float second_eps)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    const float *vector = lane / 4 % 2 == 0 ? first : second;
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const float2 low = *reinterpret_cast<const float2 *>(vector + 16 * step + 2 * t);
        const float2 high = *reinterpret_cast<const float2 *>(vector + 16 * step + 8 + 2 * t);
        multiply(step % 2 == 0 ? c : d, x[step], pack_bf16(low.x, low.y),
                 pack_bf16(high.x, high.y));
    }
    return {{c[0] + d[0] + first_eps, c[2] + d[2] + first_eps},
            {c[1] + d[1] + second_eps, c[3] + d[3] + second_eps}};
}

/* phi(q), also as operand a, h = g M^T and the scalars. sk and u hold eps. */
__device__ inline sink_strip visit_sink_strip(strip_values &phi, uint32_t (&packed)[4][4],
                                              strip_values &h, uint32_t q, uint32_t g,
                                              const float *sk, const float *u, const char *matrix,
                                              float ratio, bool low_valid, bool high_valid,
                                              const lane_places &at)
{
    sink_strip x;
    map_strip(phi, q, at);
    load_strip(packed, g, at);
    multiply_matrix<true>(h, packed, matrix, at);
    pack_strip(packed, phi);
    const strip_pairs dots = dot_two(packed, sk, eps_sum(sk), u, eps_sum(u));
    x.alpha.low = low_valid ? 1.0F / dots.first.low : 0.0F;
    x.alpha.high = high_valid ? 1.0F / dots.first.high : 0.0F;
    x.share.low = sigmoid_of(dots.second.low * ratio);
    x.share.high = sigmoid_of(dots.second.high * ratio);
    x.dr = dot_pair(phi, h);
    x.dc.low = ratio * x.alpha.low * x.dr.low * x.share.low * (1.0F - x.share.low);
    x.dc.high = ratio * x.alpha.high * x.dr.high * x.share.high * (1.0F - x.share.high);
    return x;
}

/* phi(k), o and p. w holds eps; o decides about the clamp and is f32 throughout. */
__device__ inline source_strip open_source_strip(strip_values &phi, uint32_t k, const float *w,
                                                 float scale, float clamp, bool low_valid,
                                                 bool high_valid, const lane_places &at)
{
    source_strip x;
    map_strip(phi, k, at);
    const float constant = eps_sum(w);
    x.o = dot_vector(phi, w);
    x.o.low += constant;
    x.o.high += constant;
    x.p.low = low_valid ? scale * __expf(fminf(fmaxf(x.o.low, -clamp), clamp)) : 0.0F;
    x.p.high = high_valid ? scale * __expf(fminf(fmaxf(x.o.high, -clamp), clamp)) : 0.0F;
    return x;
}

/* phi(k) as operand a, turned = v dM^T, beta, and the gradients of o and of 1 / beta. sq holds eps.
 */
__device__ inline void close_source_strip(source_strip &x, const strip_values &phi,
                                          uint32_t (&packed)[4][4], strip_values &turned,
                                          uint32_t v, const float *sq, const float *du,
                                          const char *matrix, float mean, float clamp,
                                          bool low_valid, bool high_valid, const lane_places &at)
{
    load_strip(packed, v, at);
    multiply_matrix<true>(turned, packed, matrix, at);
    const strip_dots dp = dot_pair(phi, turned);
    x.dflow.low = fabsf(x.o.low) <= clamp ? x.p.low * (dp.low - mean) : 0.0F;
    x.dflow.high = fabsf(x.o.high) <= clamp ? x.p.high * (dp.high - mean) : 0.0F;
    pack_strip(packed, phi);
    const strip_pairs dots = dot_two(packed, sq, eps_sum(sq), du, 0.0F);
    x.beta.low = low_valid ? 1.0F / dots.first.low : 0.0F;
    x.beta.high = high_valid ? 1.0F / dots.first.high : 0.0F;
    x.db.low = -x.beta.low * x.beta.low * dots.second.low;
    x.db.high = -x.beta.high * x.beta.high * dots.second.high;
}

#endif
