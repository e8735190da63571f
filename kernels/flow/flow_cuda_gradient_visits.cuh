/* What the gradients of Flow-Attention's normal form take from a strip of 16 tokens: phi, its
 * product with a matrix, and the scalars of its tokens (flow_cuda_gradient.cu tells what they
 * mean). bf16 or f16, heads of 64. */
#ifndef FB_FLOW_CUDA_GRADIENT_VISITS_CUH
#define FB_FLOW_CUDA_GRADIENT_VISITS_CUH

#include "flow_cuda_strip_values.cuh"

#include <cmath>

/* What operands of f16 are multiplied by, a power of two, and what undoes it. */
struct operand_factors {
    float into, back;
};

/* Of M; of r, where alpha is about a sixteenth of 1 / S; of dM, whose terms of both signs add up to
 * a sixty-fourth of sqrt(L) / S times dout. */
struct gradient_ranges {
    operand_factors state, share, matrix;
};

/* Numbers of this size come to lie between 2^bits and 2^(bits + 1). */
static inline operand_factors operand_factors_of(double size, int bits)
{
    const int exponent = bits - std::ilogb(size);
    return {(float)std::ldexp(1.0, exponent), (float)std::ldexp(1.0, -exponent)};
}

static inline gradient_ranges gradient_ranges_of(double q_len, double kv_len)
{
    return {operand_factors_of(kv_len, kStateBits), operand_factors_of(1.0 / kv_len, 2),
            operand_factors_of(std::sqrt(q_len) / kv_len, 3)};
}

/* The ranges where the type's is narrow. */
template <typename T> struct gradient_factors {
    static constexpr operand_factors state = {1.0F, 1.0F}, share = state, matrix = state;
    __device__ explicit gradient_factors(const gradient_ranges &)
    {
    }
};
template <> struct gradient_factors<__half> {
    const operand_factors &state, &share, &matrix;
    __device__ explicit gradient_factors(const gradient_ranges &a)
        : state(a.state), share(a.share), matrix(a.matrix)
    {
    }
};

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

/* The warp's rows of a tile, from `first` on, to memory, those that are valid; whole: every row
 * starts on 16 bytes. */
template <bool Whole>
__device__ void leave_strip(const head_rows<__nv_bfloat16> &out, const char *tile, int first,
                            int valid)
{
    const int lane = threadIdx.x % 32;
    if constexpr (Whole) {
        write_strip(out, tile, first, valid);
    } else {
#pragma unroll 1
        for (int row = first + lane / 8; row < min(first + 16, valid); row += 4)
            write_entries(out.data + row * out.stride + 8 * (lane % 8),
                          *reinterpret_cast<const uint4 *>(tile + chunk_offset(row, lane % 8)));
    }
}

/* As vector_range, for a vector of both signs. */
template <typename T> __device__ vector_factors<T> signed_range(const float *vector)
{
    if constexpr (kNarrow<T>) {
        const int lane = threadIdx.x % 32;
        float sum = fabsf(vector[lane]) + fabsf(vector[lane + 32]);
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            sum += __shfl_xor_sync(0xffffffffU, sum, step);
        return vector_factors<T>(sum);
    }
    return vector_factors<T>(0.0F);
}

/* (x + eps) . (vector + eps) of every row, for two vectors that hold eps, on the tensor cores: all
 * of a product's even columns are the first, its odd ones the second, so that every lane gets both.
 */
template <typename T>
__device__ strip_pairs dot_two(const uint32_t (&x)[4][4], const float *first, float first_eps,
                               const vector_factors<T> &one, const float *second, float second_eps,
                               const vector_factors<T> &two)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    const float *vector = lane / 4 % 2 == 0 ? first : second;
    const float into = lane / 4 % 2 == 0 ? one.into : two.into;
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const float2 low = *reinterpret_cast<const float2 *>(vector + 16 * step + 2 * t);
        const float2 high = *reinterpret_cast<const float2 *>(vector + 16 * step + 8 + 2 * t);
        multiply<T>(step % 2 == 0 ? c : d, x[step], pack_pair<T>(low.x * into, low.y * into),
                    pack_pair<T>(high.x * into, high.y * into));
    }
    return {{(c[0] + d[0]) * one.back + first_eps, (c[2] + d[2]) * one.back + first_eps},
            {(c[1] + d[1]) * two.back + second_eps, (c[3] + d[3]) * two.back + second_eps}};
}

/* A strip times the transpose of a matrix, by a warp. */
template <typename T> struct turned_product {
    const char *matrix;
    const lane_places &at;
    __device__ void operator()(strip_values &y, const uint32_t (&a)[4][4]) const
    {
#pragma unroll
        for (int n = 0; n < 8; n++)
            y[n][0] = y[n][1] = y[n][2] = y[n][3] = 0.0F;
        multiply_matrix<true, T>(y, a, matrix, at);
    }
};

/* phi(q), also as operand a, h = g M^T, which `multiply` forms, and the scalars. sk and u hold eps.
 * h is left in the range of the matrix, which `back` undoes. */
template <typename T, typename Multiply>
__device__ sink_strip visit_sink_strip(strip_values &phi, uint32_t (&packed)[4][4], strip_values &h,
                                       uint32_t q, uint32_t g, const float *sk, const float *u,
                                       const Multiply &multiply, float ratio, float back,
                                       bool low_valid, bool high_valid, const lane_places &at)
{
    sink_strip x;
    map_strip<T>(phi, q, at);
    load_strip(packed, g, at);
    multiply(h, packed);
    pack_strip<T>(packed, phi);
    const float sk_eps = eps_sum(sk), u_eps = eps_sum(u);
    const strip_pairs dots =
        dot_two<T>(packed, sk, sk_eps, vector_factors<T>(sk_eps * (1.0F / kEps)), u, u_eps,
                   vector_factors<T>(u_eps * (1.0F / kEps)));
    x.alpha.low = low_valid ? 1.0F / dots.first.low : 0.0F;
    x.alpha.high = high_valid ? 1.0F / dots.first.high : 0.0F;
    x.share.low = sigmoid_of<T>(dots.second.low * ratio);
    x.share.high = sigmoid_of<T>(dots.second.high * ratio);
    x.dr = dot_pair(phi, h);
    x.dr.low *= back;
    x.dr.high *= back;
    x.dc.low = ratio * x.alpha.low * x.dr.low * x.share.low * (1.0F - x.share.low);
    x.dc.high = ratio * x.alpha.high * x.dr.high * x.share.high * (1.0F - x.share.high);
    return x;
}

/* phi(k), o and p. w holds eps; o decides about the clamp and is f32 throughout. */
template <typename T>
__device__ source_strip open_source_strip(strip_values &phi, uint32_t k, const float *w,
                                          float scale, float clamp, bool low_valid, bool high_valid,
                                          const lane_places &at)
{
    source_strip x;
    map_strip<T>(phi, k, at);
    const float constant = eps_sum(w);
    x.o = dot_vector(phi, w);
    x.o.low += constant;
    x.o.high += constant;
    x.p.low = low_valid ? scale * __expf(fminf(fmaxf(x.o.low, -clamp), clamp)) : 0.0F;
    x.p.high = high_valid ? scale * __expf(fminf(fmaxf(x.o.high, -clamp), clamp)) : 0.0F;
    return x;
}

/* phi(k) as operand a, turned = v dM^T, which `multiply` forms, beta, and the gradients of o and of
 * 1 / beta. sq holds eps. turned is left in the range of the matrix, which `back` undoes. */
template <typename T, typename Multiply>
__device__ void close_source_strip(source_strip &x, const strip_values &phi,
                                   uint32_t (&packed)[4][4], strip_values &turned, uint32_t v,
                                   const float *sq, const float *du, const Multiply &multiply,
                                   float back, float mean, float clamp, bool low_valid,
                                   bool high_valid, const lane_places &at)
{
    load_strip(packed, v, at);
    multiply(turned, packed);
    const strip_dots dp = dot_pair(phi, turned);
    x.dflow.low = fabsf(x.o.low) <= clamp ? x.p.low * (dp.low * back - mean) : 0.0F;
    x.dflow.high = fabsf(x.o.high) <= clamp ? x.p.high * (dp.high * back - mean) : 0.0F;
    pack_strip<T>(packed, phi);
    const float sq_eps = eps_sum(sq);
    const strip_pairs dots =
        dot_two<T>(packed, sq, sq_eps, vector_factors<T>(sq_eps * (1.0F / kEps)), du, 0.0F,
                   signed_range<T>(du));
    x.beta.low = low_valid ? 1.0F / dots.first.low : 0.0F;
    x.beta.high = high_valid ? 1.0F / dots.first.high : 0.0F;
    x.db.low = -x.beta.low * x.beta.low * dots.second.low;
    x.db.high = -x.beta.high * x.beta.high * dots.second.high;
}

#endif
