/*
 * Gradients of softmax over all keys or those up to the sink in one pass, bf16 or f16, heads of 64,
 * on Hopper: five products where two passes take seven, and every exponential once. A block owns
 * 128 keys, 64 queries pass at a time; what dq gets from a block is added up in f32 in memory, by
 * bulk reductions.
 *
 * The blocks of a head add to a tile of dq in the order of their keys, from the last, so that
 * results are the same bits on every call: a counter for each tile says whose turn it is. A block
 * begins with the first tile that sees its keys, so that of causal blocks the next one to a tile
 * comes when the one before has gone on. Blocks take their keys by number as they start, the last
 * keys first, so that those they wait for are under way or done.
 */
#include "window_cuda_joint.cuh"

#include <algorithm>

namespace
{

#if FB_HAVE_WGMMA

/* Tiles of queries and dout, logarithms and shares, by one thread. */
__device__ void bring(const joint_arguments &a, const joint_place &place)
{
    const block_place &x = place.block;
    const shared_place &s = place.shared;
    const uint32_t lse = shared_address(s.lse), shares = shared_address(s.shares);
    uint32_t i = 0;
    for (int head = 0; head < x.heads; head++)
        for (int n = 0; n < x.each; n++) {
            const uint32_t stage = i % kJointStages, full = s.full + 8 * stage;
            const uint32_t tile = s.tiles + stage * 2 * kTileBytes;
            const int h = (int)x.h + head, row = x.range.from + n * kPassing;
            const int64_t first =
                ((x.b * a.g.w.heads + h) * joint_tiles(a.g.w) + row / kPassing) * 2 * kPassing;
            barrier_wait(s.empty + 8 * stage, (i / kJointStages + 1) & 1U);
            expect_bytes(full, 2 * kTileBytes + 2 * kMarkBytes);
            copy_tile(tile, &a.q, row, h, (int)x.b, full);
            copy_tile(tile + kTileBytes, &a.dout, row, h, (int)x.b, full);
            copy_marks(lse + stage * kMarkBytes, a.marks + first, full);
            copy_marks(shares + stage * kMarkBytes, a.marks + first + kPassing, full);
            i++;
        }
}

template <typename T> __device__ void use(const window_gradient_view &a, const joint_place &place)
{
    const shared_place &s = place.shared;
    const int first = ((int)threadIdx.x / kGroupThreads - 1) * 64;
    fetch_own<T, true>(a, place.block, s, first);
    commit_copies();
    wait_copies<0>();
    publish_shared();
    asm volatile("bar.sync 1, 256;" ::: "memory");
    asm volatile("bar.arrive 2, 384;" ::: "memory"); /* the keys are there: dq's warpgroup */
    joint_group<T> group(a, place, first);
    uint32_t i = 0; /* one number tells all places: registers are scarce */
    for (int head = 0; head < place.block.heads; head++) {
        for (int n = 0; n < place.block.each; n++) {
            const int stage = (int)(i % kJointStages), slot = (int)(i % kSlots);
            barrier_wait(place.slot_empty + 8 * slot, (uint32_t)(i / kSlots + 1) & 1U);
            barrier_wait(s.full + 8 * stage, (uint32_t)(i / kJointStages) & 1U);
            group.add_tile(n, stage, slot, [&] {
                if (n > 0 && threadIdx.x % 32 == 0)
                    barrier_arrive(s.empty + 8 * ((stage + kJointStages - 1) % kJointStages));
            });
            i++;
        }
        group.finish();
        if (place.block.each > 0 && threadIdx.x % 32 == 0)
            barrier_arrive(s.empty + 8 * ((i - 1) % kJointStages));
    }
    if (i > 0) /* dq's warpgroup has read the keys for the last time */
        barrier_wait(place.slot_empty + 8 * ((i - 1) % kSlots), (i - 1) / kSlots & 1U);
    group.store(kJointKeys);
}

/* The last blocks of as many heads as are at hand together, then those before: a block begins to
 * add a little after the one whose turn is before it, and so blocks end, and their heirs begin. */
__device__ joint_place joint_place_of(const joint_arguments &a, int number)
{
    const int blocks = joint_blocks(a.g.w), heads = a.g.w.batch * (a.g.w.heads / a.g.w.group);
    const int before = number / (a.together * blocks) * a.together, rest = number - before * blocks;
    const int together = min(a.together, heads - before);
    joint_place place;
    place.number = blocks - 1 - rest / together;
    place.block = place_at<true>(a.g, kJointKeys, place.number, before + rest % together);
    return place;
}

__device__ void init_barriers(const joint_place &place)
{
    const shared_place &s = place.shared;
    const int i = threadIdx.x;
    if (i < kJointStages) {
        barrier_init(s.full + 8 * i, 1);
        barrier_init(s.empty + 8 * i, 8); /* warps */
    }
    if (i < kSlots) {
        barrier_init(place.slot_full + 8 * i, 2 * kGroupThreads);
        barrier_init(place.slot_empty + 8 * i, kGroupThreads);
    }
    if (i < kRooms) {
        barrier_init(place.room_full + 8 * i, kGroupThreads);
        barrier_init(place.room_empty + 8 * i, 1);
    }
}

#endif

/* grid (blocks of keys of all heads) */
template <typename T>
__global__ void __launch_bounds__(kJointThreads, 1)
    joint_kernel(const __grid_constant__ joint_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ __align__(8) unsigned long long barriers[2 * (kJointStages + kSlots + kRooms)];
    __shared__ __align__(16) float lse[kJointStages * kPassing], shares[kJointStages * kPassing];
    __shared__ int number;
    if (threadIdx.x == 0)
        number = atomicAdd(a.turns, 1);
    __syncthreads();
    joint_place place = joint_place_of(a, number);
    shared_place &s = place.shared;
    s = shared_of(dynamic, kJointKeys);
    s.full = shared_address(barriers);
    s.empty = s.full + 8 * kJointStages;
    s.lse = lse;
    s.shares = shares;
    place.slots = s.tiles + 2 * kJointStages * kTileBytes;
    place.rooms = place.slots + kSlots * kSlotBytes;
    place.slot_full = s.empty + 8 * kJointStages;
    place.slot_empty = place.slot_full + 8 * kSlots;
    place.room_full = place.slot_empty + 8 * kSlots;
    place.room_empty = place.room_full + 8 * kRooms;
    init_barriers(place);
    __syncthreads();
    const int group = __shfl_sync(0xffffffffU, (int)threadIdx.x / kGroupThreads, 0);
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        const int warp = (int)threadIdx.x / 32;
        if (threadIdx.x == 0)
            bring(a, place);
        else if (threadIdx.x % 32 == 0)
            send_rooms(a, place, warp - 1);
    } else if (group == 3) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 64;");
        asm volatile("bar.sync 2, 384;" ::: "memory");
        form_rooms<T>(place);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 208;");
        use<T>(a.g, place);
    }
#endif
}

/* The marks of every row, and nobody's turn yet; grid (tiles of queries, heads) */
template <typename T>
__global__ void __launch_bounds__(4 * kPassing)
    begin_kernel(const __grid_constant__ joint_arguments a)
{
#if FB_HAVE_WGMMA
    block_place x;
    x.b = (int)blockIdx.y / a.g.w.heads;
    x.h = (int)blockIdx.y % a.g.w.heads;
    x.first = (int)blockIdx.x * kPassing;
    x.rows = min(kPassing, a.g.w.q_len - x.first);
    const int row = (int)threadIdx.x / 4, tile = (int)(blockIdx.y * gridDim.x + blockIdx.x);
    const float share = share_of<T>(a.g, x, row);
    float *marks = a.marks + (int64_t)tile * 2 * kPassing;
    if (threadIdx.x % 4 == 0) {
        const int64_t at = (int64_t)blockIdx.y * a.g.w.q_len + x.first + row;
        marks[row] = row < x.rows ? a.g.lse[at] - gradient_powers<T>::weight : INFINITY;
        marks[kPassing + row] = share * gradient_powers<T>::slope_of_weight;
    }
    if (threadIdx.x == 0)
        a.turns[1 + tile] = 0;
    if (threadIdx.x == 1 && tile == 0)
        a.turns[0] = 0;
#endif
}

/* dq from its sums; grid (tiles of queries, heads) */
template <typename T>
__global__ void __launch_bounds__(kGroupThreads)
    end_kernel(const __grid_constant__ joint_arguments a)
{
    __shared__ __align__(1024) char tile[kTileBytes];
    const window_head head = window_head_of(a.g.w, blockIdx.y);
    const int first = (int)blockIdx.x * kPassing, strip = (int)threadIdx.x / 32 * 16;
    const int valid = a.g.w.q_len - first;
    const float *sums = a.sums + ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * kRoomFloats;
    const int row = strip + (int)threadIdx.x % 32 / 4;
    const float factor = a.g.slope * gradient_powers<T>::back_slope;
    const float factors[2] = {factor, factor};
    float c[8][4];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float4 x =
            *reinterpret_cast<const float4 *>(sums + 4 * (n * kGroupThreads + threadIdx.x));
        c[n][0] = row < valid ? x.x : 0.0F;
        c[n][1] = row < valid ? x.y : 0.0F;
        c[n][2] = row + 8 < valid ? x.z : 0.0F;
        c[n][3] = row + 8 < valid ? x.w : 0.0F;
    }
    store_strip<T>(tile, c, factors, rows_of<T>(a.g.dq, head.b, head.h, first), strip,
                   min(kPassing, valid), lane_places());
}

template <typename T>
enum fb_status run(const joint_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const char *name = "softmax gradients in one pass";
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)joint_kernel<T>, kJointBytes, name, error);
    if (status != FB_OK)
        return status;
    const unsigned heads = (unsigned)(a.g.w.batch * a.g.w.heads);
    const unsigned blocks = (unsigned)joint_blocks(a.g.w);
    const dim3 tiles((unsigned)joint_tiles(a.g.w), heads);
    begin_kernel<T><<<tiles, 4 * kPassing, 0, stream>>>(a);
    joint_kernel<T>
        <<<blocks *(heads / (unsigned)a.g.w.group), kJointThreads, kJointBytes, stream>>>(a);
    end_kernel<T><<<tiles, kGroupThreads, 0, stream>>>(a);
    return fb_cuda_launched(name, error);
}

} // namespace

enum fb_status window_cuda_joint_gradient(const struct fb_call *call,
                                          const window_gradient_view &view,
                                          const struct fb_window_cuda_gradient_buffers &buffers,
                                          cudaStream_t stream, struct fb_error *error)
{
    const char *name = "softmax gradients in one pass";
    joint_arguments a = {};
    int processors = 1;
    a.g = view;
    a.marks = buffers.marks;
    a.sums = buffers.sums;
    a.turns = buffers.turns;
    enum fb_status status = fb_cuda_status(
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), name, error);
    a.together = std::max(1, processors / joint_blocks(view.w));
    if (status == FB_OK)
        status = fb_cuda_map_rows(call->q, &a.q, name, error, kPassing);
    if (status == FB_OK)
        status = fb_cuda_map_rows(call->dout, &a.dout, name, error, kPassing);
    if (status != FB_OK)
        return status;
    return call->q.dtype == FB_BF16 ? run<__nv_bfloat16>(a, stream, error)
                                    : run<__half>(a, stream, error);
}
