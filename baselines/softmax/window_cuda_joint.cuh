/*
 * What the warpgroups of a block do in window_cuda_joint.cu: 128 keys stand, 64 queries pass.
 *
 *   two of them   64 keys each: scores, ds, their sums for dk and dv; they leave ds in a slot
 *   one           dq that the slot's ds makes of the block's keys, into a room of f32
 *   one           a thread brings tiles in, three send rooms off
 */
#ifndef FB_WINDOW_CUDA_JOINT_CUH
#define FB_WINDOW_CUDA_JOINT_CUH

#include "cuda_tensor_map.cuh"
#include "window_cuda_group_gradient.cuh"

constexpr int kJointThreads = 4 * kGroupThreads;
constexpr int kJointKeys = 128;
constexpr int kJointStages = 4;
constexpr int kSlots = 2; /* of ds */
constexpr int kRooms = 5; /* of dq */
constexpr int kSenders = 3;
constexpr int kSlotBytes = kJointKeys * kRowBytes;
constexpr int kRoomFloats = kPassing * 64;
constexpr int kMarkBytes = kPassing * (int)sizeof(float);
constexpr int kRoomBytes = kRoomFloats * (int)sizeof(float);
constexpr size_t kJointBytes = 2 * (size_t)(kJointKeys * kRowBytes) +
                               2 * (size_t)(kJointStages * kTileBytes) +
                               (size_t)(kSlots * kSlotBytes + kRooms * kRoomBytes) + 1024;

struct joint_arguments {
    CUtensorMap q, dout;
    window_gradient_view g;
    float *marks; /* [batch heads][tiles of queries][2][kPassing]: logarithms of sums, shares */
    float *sums;  /* [batch heads][tiles][kRoomFloats]: dq but for its factor, as a
                     warpgroup holds it */
    int together; /* heads whose blocks take turns at starting */
    int *turns;   /* the next block; then [batch heads][tiles]: blocks that have added theirs */
};

__host__ __device__ inline int joint_tiles(const window_arguments &a)
{
    return (a.q_len + kPassing - 1) / kPassing;
}

__host__ __device__ inline int joint_blocks(const window_arguments &a)
{
    return (a.kv_len + kJointKeys - 1) / kJointKeys;
}

#if FB_HAVE_WGMMA

struct joint_place {
    block_place block;
    shared_place shared;
    int number; /* of the block in its head */
    uint32_t slots, rooms;
    uint32_t slot_full, slot_empty, room_full, room_empty; /* barriers */
};

/* A warpgroup's keys. They stand in registers; for the values, too, or for a second copy of the
 * code, without masks, there are not enough. */
template <typename T> struct joint_group : group_gradient<T, true, true, false> {
    typedef group_gradient<T, true, true, false> base;
    const joint_place &place;
    uint32_t slot_row; /* where a lane stores of the slot */

    __device__ joint_group(const window_gradient_view &view, const joint_place &joint, int first)
        : base(view, joint.block, joint.shared, first), place(joint)
    {
        slot_row = place.slots + (uint32_t)(base::strip * kRowBytes) + lane_places().straight;
    }

    __device__ bool meets_all(int n) const
    {
        return base::meets_all(n) && base::group_first + 64 <= base::x.rows;
    }

    /* Rows beyond the keys are zeros, whose scores have weight. */
    __device__ void hide_rows()
    {
        const int row = base::strip + (int)threadIdx.x % 32 / 4;
#pragma unroll
        for (int m = 0; m < 8; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                base::s[m][i] = row + i / 2 * 8 < base::x.rows ? base::s[m][i] : -INFINITY;
    }

    __device__ void store_slot(const uint32_t (&p)[4][4], int slot) const
    {
        const uint32_t to = slot_row + (uint32_t)(slot * kSlotBytes);
#pragma unroll
        for (int step = 0; step < 4; step++)
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                             to ^ (uint32_t)(step << 5)),
                         "r"(p[step][0]), "r"(p[step][1]), "r"(p[step][2]), "r"(p[step][3])
                         : "memory");
    }

    template <typename Earlier>
    __device__ void add_tile(int n, int stage, int slot, bool masked, Earlier earlier)
    {
        const uint32_t tile = base::shared.tiles + (uint32_t)(stage * 2 * kTileBytes);
        base::multiply(stage);
        wgmma_wait<1>();
        wgmma_hold(base::s);
        earlier();
        if (masked) {
            base::mask(n);
            hide_rows();
        }
        base::weigh(stage);
        base::add(base::sum_2, base::s, wgmma_tile(tile + kTileBytes));
        wgmma_wait<1>();
        wgmma_hold(base::dp);
        base::differentiate(stage);
        uint32_t p[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
            weights_operand<T>(p[step], base::dp, step);
        store_slot(p, slot);
        wgmma_hold(base::sum_1);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_add<T>(base::sum_1, p[step], wgmma_tile(tile) + 128 * step);
        wgmma_commit();
        publish_shared();
        barrier_arrive(place.slot_full + 8 * slot);
    }

    template <typename Earlier>
    __device__ void add_tile(int n, int stage, int slot, Earlier earlier)
    {
        add_tile(n, stage, slot, !meets_all(n), earlier);
    }
};

/* dq of the passing tiles, one after the other. */
template <typename T> __device__ void form_rooms(const joint_place &place)
{
    const int count = place.block.each * place.block.heads;
    const uint64_t keys = wgmma_tile(place.shared.own_address);
    const uint32_t to = place.rooms + 16 * (threadIdx.x % kGroupThreads);
    for (int i = 0; i < count; i++) {
        const int slot = i % kSlots, room = i % kRooms;
        const uint64_t slopes = wgmma_tile(place.slots + (uint32_t)(slot * kSlotBytes));
        float c[8][4];
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                c[n][j] = 0.0F;
        barrier_wait(place.slot_full + 8 * slot, (uint32_t)(i / kSlots) & 1U);
        wgmma_hold(c);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < kJointKeys / 16; step++)
            wgmma_add_turned<T>(c, slopes + 128 * step, keys + 128 * step);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(c);
        barrier_arrive(place.slot_empty + 8 * slot);
        barrier_wait(place.room_empty + 8 * room, (uint32_t)(i / kRooms + 1) & 1U);
#pragma unroll
        for (int n = 0; n < 8; n++)
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(
                             to + (uint32_t)(room * kRoomBytes + n * 16 * kGroupThreads)),
                         "f"(c[n][0]), "f"(c[n][1]), "f"(c[n][2]), "f"(c[n][3])
                         : "memory");
        publish_shared();
        barrier_arrive(place.room_full + 8 * room);
    }
}

__device__ inline void expect_bytes(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* A tile, by one thread; its bytes count on the barrier. */
__device__ inline void copy_tile(uint32_t tile, const CUtensorMap *map, int row, int h, int b,
                                 uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(tile),
                 "l"(map), "r"(0), "r"(row), "r"(h), "r"(b), "r"(barrier)
                 : "memory");
}

__device__ inline void copy_marks(uint32_t to, const float *from, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];" ::"r"(to),
                 "l"(from), "n"(kMarkBytes), "r"(barrier)
                 : "memory");
}

__device__ inline int turn_of(const int *turn)
{
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(turn) : "memory");
    return value;
}

/* A room joins what the blocks before have added. */
__device__ inline void send_room(uint32_t room, float *sums, bool is_first)
{
    if (is_first)
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(sums),
                     "r"(room), "n"(kRoomBytes)
                     : "memory");
    else
        asm volatile(
            "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                sums),
            "r"(room), "n"(kRoomBytes)
            : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* The last block whose keys a tile of queries sees: the first to add to it. */
__device__ inline int last_block_of(const window_arguments &a, int tile)
{
    const int last = joint_blocks(a) - 1;
    return a.ahead == 0 ? min(last, tile * kPassing / kJointKeys) : last;
}

/* Every third room, when it is full, by one thread. */
__device__ inline void send_rooms(const joint_arguments &a, const joint_place &place, int sender)
{
    const block_place &x = place.block;
    const int tiles = joint_tiles(a.g.w), count = x.each * x.heads;
    for (int i = sender; i < count; i += kSenders) {
        const int room = i % kRooms, head = i / x.each, n = i % x.each;
        const int64_t tile = (x.b * a.g.w.heads + x.h + head) * tiles + x.range.from / kPassing + n;
        const int order = last_block_of(a.g.w, x.range.from / kPassing + n) - place.number;
        int *turn = a.turns + 1 + tile;
        while (turn_of(turn) != order)
            ;
        /* what the block before has added is there for copies of this one, which go another way */
        asm volatile("fence.proxy.async.global;" ::: "memory");
        barrier_wait(place.room_full + 8 * room, (uint32_t)(i / kRooms) & 1U);
        send_room(place.rooms + (uint32_t)(room * kRoomBytes), a.sums + tile * kRoomFloats,
                  order == 0);
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        barrier_arrive(place.room_empty + 8 * room);
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
        asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(turn), "r"(order + 1) : "memory");
    }
}

#endif
#endif
