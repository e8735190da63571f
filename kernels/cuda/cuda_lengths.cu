/*
 * Lengths of the batch elements travel as arguments of a kernel: a copy from the host's pageable
 * memory would make the host wait for the stream.
 */
#include "cuda_launch.cuh"

namespace {

constexpr int kLengthsAtOnce = 256;

struct some_lengths {
    int32_t q[kLengthsAtOnce], kv[kLengthsAtOnce];
};

/* grid 1, block kLengthsAtOnce */
__global__ void put_lengths(const __grid_constant__ some_lengths from, int first, int count,
                            int batch, int32_t *lengths)
{
    const int i = (int)threadIdx.x;
    if (i < count) {
        lengths[first + i] = from.q[i];
        lengths[batch + first + i] = from.kv[i];
    }
}

} // namespace

enum fb_status fb_cuda_put_lengths(const struct fb_problem *p, int32_t *lengths,
                                     cudaStream_t stream, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (int64_t first = 0; first < p->batch && status == FB_OK; first += kLengthsAtOnce) {
        some_lengths some = {};
        const int64_t left = p->batch - first;
        const int count = (int)(left < kLengthsAtOnce ? left : kLengthsAtOnce);
        for (int i = 0; i < count; i++) {
            const int64_t q = p->q_lengths != nullptr ? p->q_lengths[first + i] : p->q_len;
            const int64_t kv = p->kv_lengths != nullptr ? p->kv_lengths[first + i] : p->kv_len;
            some.q[i] = (int32_t)q;
            some.kv[i] = (int32_t)kv;
        }
        put_lengths<<<1, kLengthsAtOnce, 0, stream>>>(some, (int)first, count, (int)p->batch,
                                                      lengths);
        status = fb_cuda_launched("put_lengths", error);
    }
    return status;
}
