/*
 * How fused Flow-Attention is laid out on a GPU: everything that follows from the problem alone, so
 * that it is known, and tested, without a device; and by which of these ways a device computes it.
 *
 * Tokens come in tiles of FB_FLOW_CUDA_TILE, tiles in slices, of which every head has the same
 * number; a block takes a slice. Columns are head dimensions rounded up to a power of two from 32,
 * columns of values to 32; a block takes 64 of the latter.
 */
#ifndef FB_FLOW_CUDA_PLAN_H
#define FB_FLOW_CUDA_PLAN_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FB_FLOW_CUDA_TILE = 64,
    FB_FLOW_CUDA_SPLIT = 64,   /* columns of values per block */
    FB_FLOW_CUDA_SEGMENT = 16, /* chunks between two states that a causal forward saves */
    FB_FLOW_CUDA_SLICES_MAX = 64,
    FB_FLOW_CUDA_RANKS_MAX = 16,     /* blocks of a cluster */
    FB_FLOW_CUDA_RESIDENT_MAX = 512, /* tokens whose q, k and v fit into one block's memory */
    FB_FLOW_CUDA_TEAM_TOKENS = 128,  /* of a tile of a team's block */
    FB_FLOW_CUDA_TEAM_KEPT = 4,      /* tiles that a block can keep */
    FB_FLOW_CUDA_TEAM_RANKS_MIN = 4, /* blocks of a team */
    FB_FLOW_CUDA_TEAM_COUNTERS = 32, /* words per team, so that no two share a line */
    FB_FLOW_CUDA_TEAM_PART = 4484,   /* floats per block: three pairs of sums, G, Z, three unused */
    FB_FLOW_CUDA_TEAM_STATE = 2048,  /* words per team: scale G as bf16 */
    FB_FLOW_CUDA_PAIR_TOKENS = 256,  /* of a tile of a pair's block */
    FB_FLOW_CUDA_PAIR_SLOTS = 6,     /* tiles that such a block has room for */
    FB_FLOW_CUDA_PAIR_RING = 2,      /* of them: for tiles that come and go */
    FB_FLOW_CUDA_PAIR_TILES_MOST = 64,
    /* Strips: tokens of a block of 8 warps, two to a multiprocessor, and the most of them to a
     * head; of 16 warps twice the tokens, alone, and twice as many. */
    FB_FLOW_CUDA_STRIP_TOKENS = 128,
    FB_FLOW_CUDA_STRIP_RANKS = 8,
    FB_FLOW_CUDA_CAUSAL_SQUADS_MAX = 2, /* of eight warps in a block, causal form */
    FB_FLOW_CUDA_CAUSAL_RANKS_MAX = 8,  /* squads of a cluster */
    FB_FLOW_CUDA_CAUSAL_TOKENS = 256,   /* that each of them holds at a time */
    FB_FLOW_CUDA_SIDES_TOKENS = 64,     /* of a team, causal gradient in clusters */
    FB_FLOW_CUDA_SIDES_TEAMS = 2,       /* of a block, likewise */
    FB_FLOW_CUDA_SAVED_VECTORS = 4,     /* sums before a chunk that a causal forward call saves */
    FB_FLOW_CUDA_SAVED_STATE = 2560,    /* words of M that it saves: 16-bit numbers and factors */
    FB_FLOW_CUDA_SCALARS = 4,           /* per head: scale, peak, two unused */
    FB_FLOW_CUDA_GRADIENT_VECTORS = 8,  /* per chunk: four sums before it, four after it */
    FB_FLOW_CUDA_GRADIENT_SCALARS = 9,  /* per token, at a time */
    FB_FLOW_CUDA_GRADIENT_SEGMENT = 64, /* chunks between two states that are kept, at most */
    FB_FLOW_CUDA_SPLIT_VECTORS = 2,     /* per chunk, causal forward in f32 */
    FB_FLOW_CUDA_SPLIT_SCALARS = 2,     /* per token, likewise */
    FB_FLOW_CUDA_SLOT_VECTORS = 6,      /* per slice of the normal gradient */
    FB_FLOW_CUDA_VECTORS = 4            /* per head: sums of phi(k) and phi(q), u, w */
};

/* Blocks that hold a head in their shared memory. */
struct fb_flow_blocks {
    int ranks;  /* of the head's cluster, a power of two; 0: none */
    int tokens; /* of a block */
};

struct fb_flow_cuda_plan {
    int64_t heads; /* batch times heads */
    int cols;      /* of queries and keys */
    int value_cols;
    int splits;         /* of value_cols */
    bool resident;      /* kernels of 16 bits and heads of 64 serve where tensors allow it */
    int slices;         /* of a head, normal form */
    int64_t slice_len;  /* tokens, a multiple of the tile */
    int chunk;          /* tokens per step of the causal form */
    int cluster_ranks;  /* blocks that hold a head in their shared memory; 0: they cannot */
    int cluster_tokens; /* of each of them */
    int team_ranks;     /* blocks that share a longer head; 0: no teams serve */
    int team_tiles;     /* of each of them, FB_FLOW_CUDA_TEAM_TOKENS each */
    int team_kept;      /* of its tiles: whose keys stay in shared memory */
    int64_t teams;      /* at most, at a time */
    int pair_tiles;     /* of each of two blocks that share a head; 0: no pairs serve */
    int pair_keys;      /* of its tiles: whose keys stay in shared memory */
    int pair_queries;   /* likewise queries */
    int64_t pairs;      /* at a time, no more than heads */
    int causal_blocks;  /* of a cluster that holds a segment of a head, causal form */
    int causal_squads;  /* of each of them */
    int causal_ranks;   /* of all of them; 0: they cannot */
    int64_t causal_segments;
    int64_t segments;     /* of a head, causal form */
    int64_t totals_count; /* floats per head: vectors, scalars, the product G [cols][value_cols] */
    int64_t state_count;  /* floats per head and split: vectors, their errors, z, M, its errors */
    bool strips;          /* gradients by strips, of slices: as many heads of keys as of queries */
    struct fb_flow_blocks forward_strips;  /* normal form, 16 bits, heads of 64 */
    struct fb_flow_blocks gradient_strips; /* likewise its gradient, of as many heads of keys */
    int gradient_rows;                     /* tokens of a chunk, causal gradient */
    int64_t gradient_part_count;           /* floats that a slice leaves, strips */
    int64_t gradient_chunks;               /* of a head, causal gradient */
    int gradient_segment;                  /* chunks of a segment, whose states are kept */
    int64_t gradient_segments;
    int sides_ranks;        /* teams of a cluster, causal gradient; 0: strips are faster */
    int64_t sides_segments; /* of a head */
    int64_t sides_saved;    /* words of a head that its forward call saves for them */
    bool causal_split;      /* f32, heads of 64, the core module's options: by warpgroups */
    size_t sides_bytes;     /* all that a backward call needs of memory where they serve */
    size_t lengths_bytes;   /* of both lengths per batch element; 0 without lengths */
    size_t forward_bytes, backward_bytes, saved_bytes, decode_bytes;
};

/* The problem must be one that the variant supports. */
void fb_flow_cuda_plan_of(const struct fb_problem *problem, struct fb_flow_cuda_plan *plan);

/* What a plan meets on a device; all false and zero without one. */
struct fb_flow_cuda_room {
    bool hopper;
    int multiprocessors;
    bool forward,
        backward; /* it has room for one cluster, or team, that the plan has for the pass */
};

/* How a pass is computed. */
enum fb_flow_cuda_way {
    FB_FLOW_CUDA_GENERAL,  /* every problem, on every device */
    FB_FLOW_CUDA_STRIPS,   /* in clusters: forward_strips */
    FB_FLOW_CUDA_CLUSTERS, /* likewise: cluster_ranks, causal_ranks, gradient_strips, sides_ranks */
    FB_FLOW_CUDA_PAIRS,
    FB_FLOW_CUDA_TEAMS,
    FB_FLOW_CUDA_CHUNKS /* causal_split */
};

/* What the plan would have, and what it is on a device; whole: rows are 16-byte chunks. */
enum fb_flow_cuda_way fb_flow_cuda_plan_forward(const struct fb_flow_cuda_plan *plan);
enum fb_flow_cuda_way fb_flow_cuda_forward_way(const struct fb_flow_cuda_plan *plan,
                                               const struct fb_flow_cuda_room *room, bool whole);
/* Clusters of a backward call serve whatever its tensors. */
bool fb_flow_cuda_plan_has_gradient_clusters(const struct fb_flow_cuda_plan *plan);
enum fb_flow_cuda_way fb_flow_cuda_backward_way(const struct fb_flow_cuda_plan *plan,
                                                const struct fb_flow_cuda_room *room, bool whole);

/* Scratch memory of a backward call. Clusters need less than the general way, for which there has
 * to be room unless they are sure to run; whether they do is not asked here. */
size_t fb_flow_cuda_plan_backward_bytes(const struct fb_flow_cuda_plan *plan,
                                        const struct fb_flow_cuda_room *room);

#ifdef __cplusplus
}
#endif
#endif
