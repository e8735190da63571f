/* Sizes of fused Flow-Attention on a GPU: see flow_cuda_plan.h. */
#include "flow_cuda_plan.h"

#include "flow_cuda_wide_plan.h"
#include "flow_options.h"
#include "kernel_support.h"

#include <math.h>

/* Blocks that keep a large GPU busy: four on each of its 132 multiprocessors. A constant, so that
 * results are the same bits on every device. */
enum { BLOCKS_WANTED = 528, TEAM_PLACES = 264, PAIRS_AT_ONCE = 66, GRADIENT_BLOCKS = 264 };

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int columns_of(int64_t dim)
{
    int cols = 32;
    while (cols < dim)
        cols *= 2;
    return cols;
}

static void cut_slices(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const int64_t tiles = divide_up(longest, FB_FLOW_CUDA_TILE);
    int64_t wanted = divide_up(BLOCKS_WANTED, plan->heads);
    wanted = wanted < FB_FLOW_CUDA_SLICES_MAX ? wanted : FB_FLOW_CUDA_SLICES_MAX;
    wanted = wanted < tiles ? wanted : tiles;
    const int64_t per_slice = divide_up(tiles, wanted);
    plan->slices = (int)divide_up(tiles, per_slice);
    plan->slice_len = per_slice * FB_FLOW_CUDA_TILE;
}

/* f16 where it holds what is made of exponentials: E phi(k), which is exp(clamp) at most, or
 * causally p, which is exp(2 clamp), with room for values. */
static bool has_resident_dtype(const struct fb_problem *p)
{
    const float most = p->causal ? 2.0F : 11.0F;
    return p->dtype == FB_BF16 || (p->dtype == FB_F16 && fb_flow_options_of(p).clamp <= most);
}

/* The core module's options, heads of 64. */
static bool is_core(const struct fb_problem *p)
{
    const struct fb_flow_options options = fb_flow_options_of(p);
    return p->qk_dim == 64 && p->v_dim == 64 && p->q_lengths == NULL && p->kv_lengths == NULL &&
           options.phi == FB_FLOW_SIGMOID && options.competition == FB_FLOW_OVER_TOKENS &&
           !options.online && options.allocation && !(options.extra_eps > 0.0F);
}

/* A size of blocks: what a round of their clusters takes, and how many clusters of 1, 2, 4, 8 and
 * 16 blocks run at once, 0 for those that do not; those of four and more leave multiprocessors
 * idle. Measured on an H100; constants, so that results are the same bits on every device. */
enum { CLUSTER_SIZES = 5, BLOCK_SIZES = 2, RESIDENT_SIZES = 3 };
struct block_size {
    int tokens;
    double round_us;
    int at_once[CLUSTER_SIZES];
};

static const struct block_size resident_sizes[RESIDENT_SIZES] = {
    {128, 13.0, {132, 66, 30, 15, 7}},
    {256, 16.0, {132, 66, 30, 15, 7}},
    {512, 22.0, {132, 66, 30, 15, 7}},
};
static const struct block_size forward_sizes[BLOCK_SIZES] = {
    {128, 12.9, {264, 132, 62, 30, 0}},
    {256, 16.0, {132, 66, 30, 15, 7}},
};
static const struct block_size gradient_sizes[BLOCK_SIZES] = {
    {128, 18.4, {264, 132, 62, 30, 0}},
    {256, 22.0, {132, 66, 30, 15, 7}},
};

/* What the heads take by clusters of 1 << step blocks; infinite where they do not run. */
static double blocks_us(const struct block_size *size, int step, int64_t heads)
{
    const int at_once = step < CLUSTER_SIZES ? size->at_once[step] : 0;
    return at_once > 0 ? (double)divide_up(heads, at_once) * size->round_us : HUGE_VAL;
}

/* The best blocks for the heads, and what all take; without ranks where none serves. Two are tried
 * before one, which is no cluster: compute-sanitizer takes what it sends to itself for an error. */
static struct fb_flow_blocks choose_blocks(const struct fb_problem *p, int64_t heads,
                                           const struct block_size *sizes, int count,
                                           double *best_us)
{
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    struct fb_flow_blocks best = {0, 0};
    *best_us = HUGE_VAL;
    for (int i = 0; i < count; i++) {
        int least = 0;
        while (least < CLUSTER_SIZES && ((int64_t)sizes[i].tokens << least) < longest)
            least++;
        for (int step = least > 0 ? least : 1; step >= least; step--) {
            const double us = blocks_us(&sizes[i], step, heads);
            if (us < *best_us) {
                *best_us = us;
                best = (struct fb_flow_blocks){1 << step, sizes[i].tokens};
            }
        }
    }
    return best;
}

/*
 * A team's head is cut into equal parts for its blocks, all teams that fit the device work at the
 * same time. What a round of heads takes, as measured on an H100: its tiles, more if the queries
 * and keys of all heads at work do not fit the L2 cache, and what the blocks exchange. Returns us.
 */
static double choose_team(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const double tile_us = 9.1, uncached = 1.2, exchange_us = 13.5, launch_us = 3.0;
    const double cached_bytes = 34e6;
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    double best_us = 0.0;
    for (int ranks = FB_FLOW_CUDA_TEAM_RANKS_MIN; ranks <= TEAM_PLACES; ranks++) {
        const int64_t room = TEAM_PLACES / ranks;
        const int64_t teams = plan->heads < room ? plan->heads : room;
        const int64_t tiles = divide_up(longest, (int64_t)FB_FLOW_CUDA_TEAM_TOKENS * ranks);
        const double bytes = (double)teams * (double)(p->q_len + p->kv_len) * 2 * 64;
        const double slower = bytes > cached_bytes ? uncached : 1.0;
        const double round_us = (double)tiles * tile_us * slower + exchange_us;
        const double us = (double)divide_up(plan->heads, teams) * round_us + launch_us;
        if (plan->team_ranks == 0 || us < best_us) {
            best_us = us;
            plan->team_ranks = ranks;
            plan->team_tiles = (int)tiles;
            plan->teams = teams;
        }
    }
    plan->team_kept = plan->team_tiles <= FB_FLOW_CUDA_TEAM_KEPT ? plan->team_tiles : 0;
    return best_us;
}

/* The faster of the two. Returns us. */
static double choose_resident(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const double team_us = choose_team(p, plan);
    double cluster_us = 0.0;
    const struct fb_flow_blocks cluster =
        choose_blocks(p, plan->heads, resident_sizes, RESIDENT_SIZES, &cluster_us);
    if (cluster.ranks == 0 || team_us < cluster_us)
        return team_us;
    plan->cluster_ranks = cluster.ranks;
    plan->cluster_tokens = cluster.tokens;
    plan->team_ranks = plan->team_tiles = plan->team_kept = 0;
    return cluster_us;
}

/*
 * Two blocks to a head where they are faster than what takes us. What tiles take as measured on an
 * H100 with all pairs at work, those that stay in shared memory and the others. Two tiles at least:
 * the places of keys take sums in the end. Returns us.
 */
static double choose_pairs(const struct fb_problem *p, struct fb_flow_cuda_plan *plan, double us)
{
    const double kept_us = 9.3, tile_us = 10.8;
    const int64_t room = FB_FLOW_CUDA_PAIR_SLOTS - FB_FLOW_CUDA_PAIR_RING;
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const int64_t tiles = divide_up(longest, (int64_t)2 * FB_FLOW_CUDA_PAIR_TOKENS);
    const int64_t keys = tiles < room ? tiles : room;
    const int64_t queries = tiles < room - keys ? tiles : room - keys;
    const double round_us = kept_us * (double)keys + tile_us * (double)(tiles - keys);
    const double pairs_us = (double)divide_up(plan->heads, PAIRS_AT_ONCE) * round_us;
    if (tiles < 2 || tiles > FB_FLOW_CUDA_PAIR_TILES_MOST || pairs_us >= us)
        return us;
    plan->pair_tiles = (int)tiles;
    plan->pair_keys = (int)keys;
    plan->pair_queries = (int)queries;
    plan->pairs = plan->heads < PAIRS_AT_ONCE ? plan->heads : PAIRS_AT_ONCE;
    plan->cluster_ranks = plan->cluster_tokens = 0;
    plan->team_ranks = plan->team_tiles = plan->team_kept = 0;
    return pairs_us;
}

static void choose_forward(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    double strips_us = 0.0;
    const double us = choose_pairs(p, plan, choose_resident(p, plan));
    const struct fb_flow_blocks strips =
        choose_blocks(p, plan->heads, forward_sizes, BLOCK_SIZES, &strips_us);
    if (strips.ranks > 0 && strips_us <= us)
        plan->forward_strips = strips;
}

static size_t team_bytes(const struct fb_flow_cuda_plan *plan)
{
    const int64_t words = FB_FLOW_CUDA_TEAM_COUNTERS + FB_FLOW_CUDA_TEAM_STATE +
                          (int64_t)plan->team_ranks * FB_FLOW_CUDA_TEAM_PART;
    return plan->team_ranks == 0 ? 0 : (size_t)(plan->teams * words) * sizeof(float);
}

/* Causal: the largest cluster of which there are enough at once, measured on an H100: a cluster
 * lies within a group of its multiprocessors, and some are left over. Of two at least (blocks send
 * to one another). */
static void choose_causal_cluster(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    static const struct {
        int blocks;
        int64_t at_once; /* one on a multiprocessor */
    } sizes[] = {{8, 15}, {4, 30}, {2, 66}};
    const int64_t tokens = FB_FLOW_CUDA_CAUSAL_TOKENS;
    size_t size = 0;
    while (sizes[size].blocks > 2 &&
           (plan->heads > sizes[size].at_once || sizes[size].blocks / 2 * tokens >= p->q_len))
        size++;
    const int blocks = sizes[size].blocks;
    const bool two_squads = plan->heads <= sizes[size].at_once && blocks * tokens < p->q_len &&
                            2 * blocks <= FB_FLOW_CUDA_CAUSAL_RANKS_MAX;
    plan->causal_blocks = blocks;
    plan->causal_squads = two_squads ? 2 : 1;
    plan->causal_ranks = blocks * plan->causal_squads;
    plan->causal_segments = divide_up(p->q_len, plan->causal_ranks * tokens);
}

static size_t wide_bytes(const struct fb_problem *p, const struct fb_flow_cuda_plan *base,
                         bool backward)
{
    struct fb_flow_wide_plan plan;
    struct fb_flow_wide_buffers buffers;
    fb_flow_wide_plan_of(p, base, &plan);
    fb_flow_wide_buffers_of(p, &plan, backward, NULL, &buffers);
    return buffers.bytes;
}

static size_t floats(int64_t count)
{
    return (size_t)count * sizeof(float);
}

/* Strips: what slices and heads leave. */
static int64_t strips_count(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const int64_t units = p->batch * p->kv_heads, cols = plan->cols;
    plan->gradient_part_count =
        FB_FLOW_CUDA_SLOT_VECTORS * cols + cols * plan->value_cols + cols * cols;
    return units * (plan->slices * plan->gradient_part_count + plan->gradient_part_count + 2);
}

/* Causal: vectors and normalisers of every chunk, scalars of every token, two matrices of every
 * segment; with grouped queries the terms of dk that wait for the others. */
static int64_t causal_gradient_count(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const int64_t units = p->batch * p->kv_heads, cols = plan->cols;
    plan->gradient_chunks = divide_up(p->q_len, plan->gradient_rows);
    const int64_t blocks = units < GRADIENT_BLOCKS ? GRADIENT_BLOCKS / units : 1; /* of a head */
    const int64_t wanted = divide_up(plan->gradient_chunks, blocks);
    const int64_t most = FB_FLOW_CUDA_GRADIENT_SEGMENT;
    plan->gradient_segment = (int)(wanted < 2 ? 2 : wanted > most ? most : wanted);
    plan->gradient_segments = divide_up(plan->gradient_chunks, plan->gradient_segment);
    const int64_t tokens = plan->gradient_chunks * plan->gradient_rows;
    int64_t count = plan->gradient_chunks * (FB_FLOW_CUDA_GRADIENT_VECTORS * cols + 2) +
                    tokens * FB_FLOW_CUDA_GRADIENT_SCALARS +
                    plan->gradient_segments * 2 * cols * plan->value_cols;
    if (p->heads > p->kv_heads)
        count += tokens * cols;
    if (p->dtype != FB_F32 && !fb_flow_options_of(p).allocation)
        count += tokens * cols;
    return units * count;
}

/* Forward in f32: what the scans go over, a chunk's vectors and a token's scalars, and a matrix of
 * every segment. */
static int64_t causal_split_count(const struct fb_flow_cuda_plan *plan)
{
    return plan->gradient_chunks * (FB_FLOW_CUDA_SPLIT_VECTORS * plan->cols + 1 +
                                    FB_FLOW_CUDA_SPLIT_SCALARS * plan->gradient_rows) +
           plan->gradient_segments * plan->cols * plan->value_cols;
}

/* Measured on an H100 and an H200: what a cluster's teams take for a segment, how many teams run at
 * once, and what strips take for all tokens, which they share out over the device. */
static void choose_sides(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    const double segment_us = 17.0, strips_us = 100.0, strips_token_us = 0.0038;
    double best = strips_us + strips_token_us * (double)plan->heads * (double)p->q_len;
    for (int ranks = 4; ranks <= FB_FLOW_CUDA_RANKS_MAX; ranks *= 2) {
        const int64_t step = (int64_t)ranks * FB_FLOW_CUDA_SIDES_TOKENS;
        const int64_t segments = divide_up(p->q_len, step);
        const int64_t rounds = divide_up(plan->heads * ranks, ranks > 4 ? 240 : 264);
        const double us = segment_us * (double)rounds * (double)segments;
        if (us < best) {
            best = us;
            plan->sides_ranks = ranks;
            plan->sides_segments = segments;
        }
    }
}

/* What comes before each chunk of a head: vectors, and the sum of E; M before each segment but the
 * first. Each begins at a multiple of four words. */
static int64_t sides_saved(const struct fb_problem *p, const struct fb_flow_cuda_plan *plan)
{
    const int64_t chunks = divide_up(p->q_len, FB_FLOW_CUDA_SIDES_TOKENS);
    return chunks * FB_FLOW_CUDA_SAVED_VECTORS * plan->cols + divide_up(chunks, 4) * 4 +
           (plan->sides_segments - 1) * FB_FLOW_CUDA_SAVED_STATE;
}

static void take_causal(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    plan->forward_bytes = plan->lengths_bytes;
    if (plan->causal_ranks > 0)
        plan->forward_bytes += floats(plan->heads * 2 * p->qk_dim * p->v_dim);
    plan->backward_bytes = plan->lengths_bytes + floats(causal_gradient_count(p, plan));
    if (plan->causal_split)
        plan->forward_bytes = floats(plan->heads * causal_split_count(plan));
    if (!plan->strips)
        return;
    choose_sides(p, plan);
    if (plan->sides_ranks == 0)
        return;
    plan->sides_saved = sides_saved(p, plan);
    plan->saved_bytes = floats(plan->heads * plan->sides_saved);
    if (plan->sides_segments > 1) /* a state is carried */
        plan->sides_bytes = (size_t)(plan->heads * plan->cols * plan->value_cols) * sizeof(double);
}

static void take_normal(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    double us = 0.0;
    if (plan->strips)
        plan->gradient_strips = choose_blocks(p, plan->heads, gradient_sizes, BLOCK_SIZES, &us);
    plan->saved_bytes = floats(plan->heads * plan->totals_count);
    plan->forward_bytes = wide_bytes(p, plan, false);
    if (team_bytes(plan) > plan->forward_bytes)
        plan->forward_bytes = team_bytes(plan);
    plan->backward_bytes = plan->strips ? floats(strips_count(p, plan)) : wide_bytes(p, plan, true);
}

void fb_flow_cuda_plan_of(const struct fb_problem *p, struct fb_flow_cuda_plan *plan)
{
    *plan = (struct fb_flow_cuda_plan){.heads = p->batch * p->heads};
    plan->cols = columns_of(p->qk_dim);
    plan->value_cols = (int)divide_up(p->v_dim, 32) * 32;
    plan->splits = (int)divide_up(plan->value_cols, FB_FLOW_CUDA_SPLIT);
    cut_slices(p, plan);
    plan->resident = has_resident_dtype(p) && is_core(p);
    plan->causal_split = p->causal && p->dtype == FB_F32 && p->heads == p->kv_heads && is_core(p);
    if (plan->resident && p->causal)
        choose_causal_cluster(p, plan);
    else if (plan->resident)
        choose_forward(p, plan);
    plan->chunk = plan->cols > 128 ? 16 : plan->cols > 64 ? 32 : 64; /* by shared memory */
    plan->segments = divide_up(p->q_len, (int64_t)FB_FLOW_CUDA_SEGMENT * plan->chunk);
    plan->totals_count = (int64_t)FB_FLOW_CUDA_VECTORS * plan->cols + FB_FLOW_CUDA_SCALARS +
                         (int64_t)plan->cols * plan->value_cols;
    plan->state_count = (int64_t)2 * FB_FLOW_CUDA_VECTORS * plan->cols + FB_FLOW_CUDA_SCALARS +
                        (int64_t)2 * plan->cols * FB_FLOW_CUDA_SPLIT;
    const bool padded = p->q_lengths != NULL || p->kv_lengths != NULL;
    const size_t lengths = 2 * (size_t)p->batch * sizeof(int32_t);
    plan->lengths_bytes = padded ? (lengths + FB_ALIGNMENT - 1) / FB_ALIGNMENT * FB_ALIGNMENT : 0;
    plan->decode_bytes = floats(plan->heads * plan->splits * plan->state_count);
    plan->gradient_rows = plan->cols > 64 || plan->value_cols > 64 ? 32 : 64;
    plan->strips = plan->resident && p->heads == p->kv_heads;
    if (p->causal)
        take_causal(p, plan);
    else
        take_normal(p, plan);
}

enum fb_flow_cuda_way fb_flow_cuda_plan_forward(const struct fb_flow_cuda_plan *plan)
{
    if (plan->causal_split)
        return FB_FLOW_CUDA_CHUNKS;
    if (plan->forward_strips.ranks > 0)
        return FB_FLOW_CUDA_STRIPS;
    if (plan->pair_tiles > 0)
        return FB_FLOW_CUDA_PAIRS;
    if (plan->team_ranks > 0)
        return FB_FLOW_CUDA_TEAMS;
    return plan->cluster_ranks + plan->causal_ranks > 0 ? FB_FLOW_CUDA_CLUSTERS
                                                        : FB_FLOW_CUDA_GENERAL;
}

enum fb_flow_cuda_way fb_flow_cuda_forward_way(const struct fb_flow_cuda_plan *plan,
                                               const struct fb_flow_cuda_room *room, bool whole)
{
    const enum fb_flow_cuda_way way = fb_flow_cuda_plan_forward(plan);
    return whole && room->hopper && (room->forward || way == FB_FLOW_CUDA_CHUNKS)
               ? way
               : FB_FLOW_CUDA_GENERAL;
}

bool fb_flow_cuda_plan_has_gradient_clusters(const struct fb_flow_cuda_plan *plan)
{
    return plan->sides_ranks + plan->gradient_strips.ranks > 0;
}

/* Multiprocessors of Hopper lie in eight groups at most, and so many blocks, one on each, within
 * one of them. What runs in any case asks no driver: sizes are told before there is a context. */
static bool clusters_are_sure(const struct fb_flow_cuda_plan *plan,
                              const struct fb_flow_cuda_room *room)
{
    const int blocks = plan->sides_ranks > 0 ? plan->sides_ranks / FB_FLOW_CUDA_SIDES_TEAMS
                                             : plan->gradient_strips.ranks;
    return room->hopper && blocks > 0 && room->multiprocessors > 8 * (blocks - 1);
}

enum fb_flow_cuda_way fb_flow_cuda_backward_way(const struct fb_flow_cuda_plan *plan,
                                                const struct fb_flow_cuda_room *room, bool whole)
{
    if (fb_flow_cuda_plan_has_gradient_clusters(plan) && room->hopper &&
        (room->backward || clusters_are_sure(plan, room)))
        return FB_FLOW_CUDA_CLUSTERS;
    return plan->causal_split && whole && room->hopper ? FB_FLOW_CUDA_CHUNKS : FB_FLOW_CUDA_GENERAL;
}

size_t fb_flow_cuda_plan_backward_bytes(const struct fb_flow_cuda_plan *plan,
                                        const struct fb_flow_cuda_room *room)
{
    const size_t clusters = plan->sides_ranks > 0 ? plan->sides_bytes : 0;
    if (clusters_are_sure(plan, room))
        return clusters;
    return room->hopper && clusters > plan->backward_bytes ? clusters : plan->backward_bytes;
}
