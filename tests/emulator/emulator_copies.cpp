/*
 * Copies that take their time: cp.async, the copy engine, and messages to other blocks. When they
 * happen is a setting, within what PTX allows: sources of a copy are read, and its target is
 * written, between its start and the wait for it.
 */
#include "emulator.h"

namespace emulator
{

/* ---- messages ---- */

static std::vector<Message> network;

bool network_is_empty()
{
    return network.empty();
}

void forget_messages()
{
    network.clear();
}

static const TensorMap &tensor_map_of(const void *map, Site site)
{
    static_assert(sizeof(TensorMap) <= 128 && alignof(TensorMap) <= 64, "the driver's is as large");
    const TensorMap &m = *static_cast<const TensorMap *>(map);
    if (m.mark != kTensorMapMark)
        fail(site, "this is no tensor map");
    return m;
}

/* Row r of a box, or none where the tensor has ended. */
static char *row_of(const TensorMap &map, const int at[4], int r)
{
    const int64_t i[4] = {at[0], at[1] + r, at[2], at[3]};
    char *row = map.data;
    for (int d = 1; d < 4; d++) {
        if (i[d] < 0 || (uint64_t)i[d] >= map.sizes[d])
            return nullptr;
        row += i[d] * (int64_t)map.strides[d - 1];
    }
    return i[0] == 0 ? row : nullptr;
}

/* The place of piece k of row r, both of 16 and 128 bytes, in a box that is swizzled. */
static uint32_t piece_of(uint32_t box, int r, int k)
{
    return swizzled((box & 0xffffff) + (uint32_t)(128 * r + 16 * k));
}

static void put(Block *block, uint32_t to, const void *from, int bytes, bool asynchronous,
                const Message &m)
{
    char *at = shared_at(block, to, bytes, m.site);
    memcpy(at, from, (size_t)bytes);
    race_access(at, bytes, true, asynchronous, m.race, m.site);
}

static void deliver_tensor(const Message &m)
{
    const TensorMap &map = tensor_map_of(m.from, m.site);
    static const char zeros[16] = {};
    if (map.box[1] >= 8 && m.to % 1024 != 0)
        fail(m.site, "a box is swizzled by the bits of its address: 0x%x is no multiple of 1024",
             m.to);
    for (int r = 0; r < (int)map.box[1]; r++) {
        const char *row = row_of(map, m.at, r);
        for (int k = 0; k < 8; k++)
            put(m.to_block, piece_of(m.to, r, k), row != nullptr ? row + 16 * k : zeros, 16, true,
                m);
    }
    count_bytes(m.to_block, m.barrier, (int)map.box[1] * 128, races_on ? &m.race : nullptr, m.site);
}

static void deliver(const Message &m)
{
    const RaceOperation *race = races_on ? &m.race : nullptr;
    if (m.to_block->live == 0)
        fail(m.site, "something sent from here comes to block %d of the cluster, which has ended",
             m.to_block->rank);
    switch (m.kind) {
    case Message::Kind::arrival:
        count_arrival(m.to_block, m.barrier, race, m.site);
        return;
    case Message::Kind::words:
        put(m.to_block, m.to, m.words, m.bytes, false, m);
        break;
    case Message::Kind::bulk:
        for (int i = 0; i < m.bytes; i += 16)
            put(m.to_block, m.to + (uint32_t)i, static_cast<const char *>(m.from) + i, 16, true, m);
        break;
    case Message::Kind::tensor:
        deliver_tensor(m);
        return;
    }
    count_bytes(m.to_block, m.barrier, m.bytes, race, m.site);
}

void deliver_one()
{
    const size_t i = draw() % network.size();
    const Message m = std::move(network[i]);
    network[i] = std::move(network.back());
    network.pop_back();
    deliver(m);
}

static void post(Message &&m)
{
    if (races_on)
        m.race = race_send(current->warp->race);
    if (settings.network == Network::at_once)
        deliver(m);
    else
        network.push_back(std::move(m));
    yield_sometimes();
}

void send_async(uint32_t to, uint32_t barrier, int words, uint32_t x, uint32_t y, uint32_t z,
                uint32_t w, Site site)
{
    Block *const block = block_of(to, site);
    if (to >> 24 == 0)
        fail(site, "st.async to 0x%x, which is no address of the cluster: mapa is missing", to);
    if (block_of(barrier, site) != block)
        fail(site, "st.async to one block and a barrier of another");
    post(
        {Message::Kind::words, block, to, barrier, 4 * words, {x, y, z, w}, nullptr, {}, {}, site});
}

void mbarrier_arrive_remote(uint32_t barrier, Site site)
{
    post({Message::Kind::arrival,
          block_of(barrier, site),
          0,
          barrier,
          0,
          {},
          nullptr,
          {},
          {},
          site});
}

void tensor_load(uint32_t to, const void *map, int x, int y, int z, int w, uint32_t barrier,
                 Site site)
{
    post({Message::Kind::tensor,
          block_of(to, site),
          to,
          barrier,
          0,
          {},
          map,
          {x, y, z, w},
          {},
          site});
}

static void check_bulk(const void *memory, uint32_t shared, int bytes, Site site)
{
    if ((uintptr_t)memory % 16 != 0 || shared % 16 != 0 || bytes % 16 != 0 || bytes <= 0)
        fail(site, "bulk copies move units of 16 bytes that are aligned: %d bytes, 0x%x and %p",
             bytes, shared, memory);
}

void bulk_load(uint32_t to, const void *from, int bytes, uint32_t barrier, Site site)
{
    check_bulk(from, to, bytes, site);
    post({Message::Kind::bulk, block_of(to, site), to, barrier, bytes, {}, from, {}, {}, site});
}

/* ---- cp.async ---- */

static void copy_now(const Copy &c)
{
    char *to = shared_at(current->block, c.to, c.bytes, c.site);
    if ((uintptr_t)c.from % (uintptr_t)c.bytes != 0 && c.valid_bytes > 0)
        fail(c.site, "cp.async of %d bytes from %p, which is not aligned", c.bytes, c.from);
    if (c.valid_bytes < 0 || c.valid_bytes > c.bytes)
        fail(c.site, "cp.async of %d bytes, %d of them valid", c.bytes, c.valid_bytes);
    memset(to, 0, (size_t)c.bytes);
    if (c.valid_bytes > 0)
        memcpy(to, c.from, (size_t)c.valid_bytes);
    race_access(to, c.bytes, true, false, current->warp->race, current->lane, c.site);
}

void copy_async(uint32_t to, const void *from, int bytes, int valid_bytes, Site site)
{
    const Copy c = {to, from, bytes, valid_bytes, site};
    if (settings.defer == Defer::issued || (settings.defer == Defer::random && draw_one_of(2))) {
        copy_now(c);
        return;
    }
    race_access(shared_at(current->block, to, bytes, site), bytes, true, false, current->warp->race,
                current->lane, site);
    current->copies.items.push_back(c);
}

void copy_commit()
{
    current->copies.commit();
}

void copy_wait(int pending)
{
    current->copies.wait(pending, copy_now);
}

void copy_arrive(uint32_t barrier, Site site)
{
    copy_commit();
    copy_wait(0);
    count_arrival(current->block, barrier, nullptr, site);
}

/* ---- the copy engine, from shared memory ---- */

static void look_at(const Store &s, const char *piece)
{
    race_access(piece, 16, false, true, current->warp->race, current->lane, s.site);
}

template <typename Visit> static void visit_pieces(const Store &s, Visit &&visit)
{
    Block *const block = current->block;
    if (s.map == nullptr) {
        for (int i = 0; i < s.bytes; i += 16)
            visit(shared_at(block, s.from + (uint32_t)i, 16, s.site),
                  static_cast<char *>(s.to) + i);
        return;
    }
    const TensorMap &map = tensor_map_of(s.map, s.site);
    for (int r = 0; r < (int)map.box[1]; r++) {
        char *row = row_of(map, s.at, r);
        for (int k = 0; k < 8 && row != nullptr; k++)
            visit(shared_at(block, piece_of(s.from, r, k), 16, s.site), row + 16 * k);
    }
}

static void store_now(const Store &s)
{
    visit_pieces(s, [&](const char *from, char *to) {
        look_at(s, from);
        if (!s.adds) {
            memcpy(to, from, 16);
            return;
        }
        float sums[4], terms[4];
        memcpy(sums, to, 16);
        memcpy(terms, from, 16);
        for (int i = 0; i < 4; i++)
            sums[i] += terms[i];
        memcpy(to, sums, 16);
    });
}

static void issue(const Store &s)
{
    if (settings.defer == Defer::issued || (settings.defer == Defer::random && draw_one_of(2))) {
        store_now(s);
        return;
    }
    if (races_on)
        visit_pieces(s, [&](const char *from, char *) { look_at(s, from); });
    current->stores.items.push_back(s);
}

void bulk_store(void *to, uint32_t from, int bytes, bool adds, Site site)
{
    check_bulk(to, from, bytes, site);
    issue({nullptr, {}, to, from, bytes, adds, site});
}

void tensor_store(const void *map, int x, int y, int z, int w, uint32_t from, Site site)
{
    issue({map, {x, y, z, w}, nullptr, from, 0, false, site});
}

void bulk_commit()
{
    current->stores.commit();
}

void bulk_wait(int pending)
{
    current->stores.wait(pending, store_now);
}

/* What a thread has not waited for happens all the same. */
void finish_copies(Fiber *fiber)
{
    fiber->copies.commit();
    fiber->copies.wait(0, copy_now);
    fiber->stores.commit();
    fiber->stores.wait(0, store_now);
}

} // namespace emulator
