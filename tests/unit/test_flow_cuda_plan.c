/* The layout of fused Flow-Attention on a GPU: every token and column has its place. */
#include "flow.h"
#include "flow_cuda_plan.h"
#include "flow_cuda_wide_plan.h"
#include "flow_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static const int64_t lengths[] = {1, 2, 63, 64, 65, 1000, 4096, 100000, 1048576};
static const int64_t dims[] = {1, 8, 32, 33, 64, 80, 128, 200, 256};
/* A whole H100; one of which not even one cluster is left; none. */
static const struct fb_flow_cuda_room h100 = {true, 132, true, true},
                                      crowded = {true, 16, false, false},
                                      nothing = {false, 0, false, false};
enum { LENGTHS = sizeof lengths / sizeof lengths[0], DIMS = sizeof dims / sizeof dims[0] };

static void test_slices_cover_every_token_once(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++)
            for (int j = 0; j < LENGTHS; j++) {
                struct fb_problem problem;
                struct fb_flow_cuda_plan plan;
                fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
                problem.kv_len = lengths[j];
                fb_flow_cuda_plan_of(&problem, &plan);
                const int64_t longest = lengths[i] > lengths[j] ? lengths[i] : lengths[j];
                assert_true(plan.slices >= 1 && plan.slices <= FB_FLOW_CUDA_SLICES_MAX);
                assert_int_equal(plan.slice_len % FB_FLOW_CUDA_TILE, 0);
                assert_true(plan.slices * plan.slice_len >= longest);
                assert_true((plan.slices - 1) * plan.slice_len < longest);
            }
}

static void test_columns_hold_the_head(void **state)
{
    (void)state;
    for (int i = 0; i < DIMS; i++)
        for (int j = 0; j < DIMS; j++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 2, 3, 100, dims[i]);
            problem.v_dim = dims[j];
            fb_flow_cuda_plan_of(&problem, &plan);
            assert_true(plan.cols >= dims[i] && plan.cols < 2 * dims[i] + 32);
            assert_int_equal(plan.cols & (plan.cols - 1), 0);
            assert_true(plan.value_cols >= dims[j] && plan.value_cols < dims[j] + 32);
            assert_true(plan.splits * FB_FLOW_CUDA_SPLIT >= plan.value_cols);
            assert_true((plan.splits - 1) * FB_FLOW_CUDA_SPLIT < plan.value_cols);
            assert_int_equal(plan.chunk % 16, 0);
        }
}

/* Flow's promise: memory beside inputs and outputs that does not grow with the length, but for two
 * scalars of a token in the normal form, and a state of every 65536 tokens. */
static void test_scratch_grows_by_scalars_of_tokens(void **state)
{
    (void)state;
    enum { SHORT = 65536, LONG = 1 << 20 };
    struct fb_problem problem;
    struct fb_flow_cuda_plan plan, longer;
    fb_problem_init(&problem, &fb_flow, 8, 8, SHORT, 64);
    fb_flow_cuda_plan_of(&problem, &plan);
    problem.q_len = problem.kv_len = LONG;
    fb_flow_cuda_plan_of(&problem, &longer);
    const size_t scalars = (size_t)8 * 8 * (LONG - SHORT) * 2;
    const size_t states = (size_t)8 * 8 * (LONG / SHORT) * 64 * 64;
    assert_true(longer.forward_bytes <= plan.forward_bytes + (scalars + states) * sizeof(float));
    assert_int_equal(longer.saved_bytes, plan.saved_bytes);
    problem.causal = true;
    problem.qk_dim = 32; /* one block to a head */
    fb_flow_cuda_plan_of(&problem, &longer);
    assert_int_equal(longer.forward_bytes, 0);
    problem.qk_dim = 64; /* chunks: two scalars of a token, two vectors of 64, their parts of E */
    fb_flow_cuda_plan_of(&problem, &longer);
    assert_true(longer.causal_split);
    const size_t chunks = (size_t)longer.gradient_chunks,
                 segments = (size_t)longer.gradient_segments;
    assert_int_equal(longer.forward_bytes,
                     64 * (chunks * (2 * 64 + 2 * 64 + 1) + segments * 64 * 64) * sizeof(float));
    problem.dtype = FB_BF16; /* in clusters: what comes before the segment */
    fb_flow_cuda_plan_of(&problem, &longer);
    problem.q_len = problem.kv_len = SHORT;
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_int_equal(longer.forward_bytes, plan.forward_bytes);
}

static void test_lengths_have_room_only_when_given(void **state)
{
    (void)state;
    static const int64_t some[] = {3, 5, 7};
    struct fb_problem problem;
    struct fb_flow_cuda_plan plan;
    fb_problem_init(&problem, &fb_flow, 3, 2, 8, 16);
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_int_equal(plan.lengths_bytes, 0);
    problem.q_lengths = problem.kv_lengths = some;
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_true(plan.lengths_bytes >= 2 * 3 * sizeof(int32_t));
    assert_int_equal(plan.lengths_bytes % FB_ALIGNMENT, 0);
}

/* bf16: clusters hold short heads, teams or pairs walk through longer ones; all tokens are covered.
 */
static void test_clusters_teams_and_pairs_cover_the_head(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
            fb_flow_cuda_plan_of(&problem, &plan);
            assert_int_equal(plan.cluster_ranks + plan.team_ranks, 0); /* f32 */
            problem.dtype = FB_BF16;
            fb_flow_cuda_plan_of(&problem, &plan);
            if (plan.pair_tiles > 0) {
                const int64_t tokens = (int64_t)2 * FB_FLOW_CUDA_PAIR_TOKENS * plan.pair_tiles;
                assert_int_equal(plan.cluster_ranks + plan.team_ranks, 0);
                assert_true(tokens >= lengths[i]);
                assert_true(plan.pair_keys >= 2 && plan.pair_keys <= plan.pair_tiles);
                assert_true(plan.pair_queries >= 0 && plan.pair_queries <= plan.pair_tiles);
                assert_true(plan.pair_keys + plan.pair_queries + FB_FLOW_CUDA_PAIR_RING <=
                            FB_FLOW_CUDA_PAIR_SLOTS);
                assert_true(plan.pairs >= 1 && plan.pairs <= heads);
                continue;
            }
            assert_int_equal(plan.pairs, 0);
            if (plan.team_ranks > 0) {
                const int64_t tokens = (int64_t)FB_FLOW_CUDA_TEAM_TOKENS * plan.team_tiles;
                assert_int_equal(plan.cluster_ranks, 0);
                assert_true(plan.team_ranks >= FB_FLOW_CUDA_TEAM_RANKS_MIN);
                assert_true(tokens * plan.team_ranks >= lengths[i]);
                assert_true(tokens * (plan.team_ranks - 1) < lengths[i]);
                assert_true(plan.teams >= 1 && plan.teams <= heads);
                assert_true(plan.team_kept <= FB_FLOW_CUDA_TEAM_KEPT);
                assert_true(plan.team_kept <= plan.team_tiles);
                continue;
            }
            assert_true(plan.cluster_ranks >= 1 && plan.cluster_ranks <= FB_FLOW_CUDA_RANKS_MAX);
            assert_int_equal(plan.cluster_ranks & (plan.cluster_ranks - 1), 0);
            assert_int_equal(plan.cluster_tokens % 128, 0);
            assert_true(plan.cluster_tokens <= FB_FLOW_CUDA_RESIDENT_MAX);
            assert_true((int64_t)plan.cluster_ranks * plan.cluster_tokens >= lengths[i]);
        }
}

/* What blocks of a team leave does not grow with the length, nor beyond what the device has room
 * for. */
static void test_teams_need_little_memory(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4) {
        struct fb_problem problem;
        struct fb_flow_cuda_plan plan;
        fb_problem_init(&problem, &fb_flow, 1, heads, 1 << 20, 64);
        problem.dtype = FB_BF16;
        fb_flow_cuda_plan_of(&problem, &plan);
        assert_true(plan.team_ranks > 0 && plan.teams * plan.team_ranks <= 264);
        assert_true(plan.forward_bytes <
                    (size_t)8 * (size_t)heads * ((1 << 20) + 65536) + ((size_t)8 << 20));
    }
}

/* Of 64 heads of 64: 1 % of the tensors and 24 D M bytes per head. */
static void test_forward_stays_within_its_memory(void **state)
{
    (void)state;
    static const enum fb_dtype dtypes[] = {FB_F32, FB_BF16};
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int64_t length = 256; length <= 16384; length *= 2) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 8, 8, length, 64);
            problem.dtype = dtypes[d];
            fb_flow_cuda_plan_of(&problem, &plan);
            const size_t tensors = (size_t)4 * 64 * 64 * (size_t)length * fb_dtype_bytes(dtypes[d]);
            assert_true(plan.forward_bytes <= tensors / 100 + (size_t)24 * 64 * 64 * 64);
        }
}

static void expect_strips(const struct fb_flow_blocks *strips, int64_t length)
{
    assert_int_equal(strips->ranks & (strips->ranks - 1), 0);
    assert_true(strips->ranks <= FB_FLOW_CUDA_RANKS_MAX);
    assert_true(strips->tokens == FB_FLOW_CUDA_STRIP_TOKENS ||
                strips->tokens == 2 * FB_FLOW_CUDA_STRIP_TOKENS);
    if (strips->tokens == FB_FLOW_CUDA_STRIP_TOKENS)
        assert_true(strips->ranks <= FB_FLOW_CUDA_STRIP_RANKS);
    assert_true((int64_t)strips->ranks * strips->tokens >= length);
}

static void test_strips_cover_the_head_or_are_not_used(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++)
            for (int j = 0; j < LENGTHS; j++) {
                struct fb_problem problem;
                struct fb_flow_cuda_plan plan;
                fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
                problem.kv_len = lengths[j];
                fb_flow_cuda_plan_of(&problem, &plan);
                assert_int_equal(plan.forward_strips.ranks, 0); /* f32 */
                assert_int_equal(plan.gradient_strips.ranks, 0);
                problem.dtype = FB_BF16;
                fb_flow_cuda_plan_of(&problem, &plan);
                const int64_t longest = lengths[i] > lengths[j] ? lengths[i] : lengths[j];
                assert_true(plan.forward_strips.ranks > 0 || longest > 256);
                assert_int_equal(plan.gradient_strips.ranks > 0, longest <= 4096);
                if (plan.forward_strips.ranks > 0)
                    expect_strips(&plan.forward_strips, longest);
                if (plan.gradient_strips.ranks > 0)
                    expect_strips(&plan.gradient_strips, longest);
            }
}

/* f16 has the kernels of bf16 in the normal form, as long as it holds the exponentials. */
static void test_f16_is_served_as_bf16(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan, narrow;
            fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
            problem.dtype = FB_BF16;
            fb_flow_cuda_plan_of(&problem, &plan);
            problem.dtype = FB_F16;
            fb_flow_cuda_plan_of(&problem, &narrow);
            assert_true(narrow.resident && narrow.strips);
            assert_int_equal(narrow.pair_tiles, plan.pair_tiles);
            assert_int_equal(narrow.team_ranks, plan.team_ranks);
            assert_int_equal(narrow.cluster_ranks, plan.cluster_ranks);
            assert_int_equal(narrow.forward_strips.ranks, plan.forward_strips.ranks);
            assert_int_equal(narrow.gradient_strips.ranks, plan.gradient_strips.ranks);
            problem.params[FB_FLOW_PARAM_CLAMP] = 10.0;
            fb_flow_cuda_plan_of(&problem, &narrow);
            assert_true(narrow.resident);
            problem.params[FB_FLOW_PARAM_CLAMP] = 12.0;
            fb_flow_cuda_plan_of(&problem, &narrow);
            assert_false(narrow.resident);
            assert_int_equal(narrow.gradient_strips.ranks, 0);
        }
}

/* Both passes of 64 heads of 64, in scratch memory: 1 % of the tensors and 24 D M bytes per head,
 * while clusters hold a head. A device without them asks for what the other forms need. */
static void test_both_passes_stay_within_their_memory(void **state)
{
    (void)state;
    static const enum fb_dtype dtypes[] = {FB_BF16, FB_F16};
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int64_t length = 256; length <= 8192; length *= 2) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 8, 8, length, 64);
            problem.dtype = dtypes[d];
            fb_flow_cuda_plan_of(&problem, &plan);
            const size_t backward = fb_flow_cuda_plan_backward_bytes(&plan, &h100);
            const size_t tensors = (size_t)8 * 64 * 64 * (size_t)length * 2;
            const size_t goal = tensors / 100 + (size_t)24 * 64 * 64 * 64;
            assert_int_equal(fb_flow_cuda_plan_backward_bytes(&plan, &nothing),
                             plan.backward_bytes);
            if (length > 4096)
                assert_int_equal(backward, plan.backward_bytes);
            else
                assert_true(plan.forward_bytes + backward <= goal);
        }
}

/* Where sides serve, their teams and segments cover the head, a forward call saves the sums before
 * every chunk and the state before every segment, and scratch memory holds one state, as that of
 * the forward call does; few long heads are left to strips. */
static void test_sides_cover_the_head_or_are_not_used(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
            problem.causal = true;
            fb_flow_cuda_plan_of(&problem, &plan);
            assert_int_equal(plan.sides_ranks, 0); /* f32 */
            problem.dtype = FB_BF16;
            fb_flow_cuda_plan_of(&problem, &plan);
            if (heads == 1 && lengths[i] >= 100000)
                assert_int_equal(plan.sides_ranks, 0);
            if (heads >= 64 && lengths[i] >= 1000)
                assert_true(plan.sides_ranks > 0);
            if (plan.sides_ranks == 0)
                continue;
            assert_true(plan.sides_ranks >= 4 && plan.sides_ranks <= FB_FLOW_CUDA_RANKS_MAX);
            assert_int_equal(plan.sides_ranks & (plan.sides_ranks - 1), 0);
            const int64_t step = (int64_t)plan.sides_ranks * FB_FLOW_CUDA_SIDES_TOKENS;
            assert_true(step * plan.sides_segments >= lengths[i]);
            assert_true(step * (plan.sides_segments - 1) < lengths[i]);
            const int64_t chunks = (lengths[i] + 63) / 64;
            const int64_t least = chunks * (4 * 64 + 1) + (plan.sides_segments - 1) * 64 * 64 / 2;
            assert_true(plan.sides_saved >= least);
            assert_int_equal(plan.sides_saved % 4, 0);
            assert_int_equal(plan.saved_bytes, heads * plan.sides_saved * 4);
            const size_t carried = (size_t)(heads * 64 * 64 * 8);
            assert_true(plan.forward_bytes >= carried);
            assert_int_equal(plan.sides_bytes, plan.sides_segments > 1 ? carried : 0);
            /* 8 % of eight tensors, and half a state of a head in f32 */
            assert_true(plan.saved_bytes + plan.sides_bytes <=
                        (size_t)(heads * (lengths[i] * 82 + 64 * 64 * 4 / 2)) + carried);
        }
}

/* Of the bf16 tensors that a backward call reads and writes: 8 % for the causal form, whose chunks
 * and tokens leave sums and scalars, a twentieth for the scalars of the normal form. */
static void test_gradients_need_little_memory(void **state)
{
    (void)state;
    const int64_t tensor = 8 * 8 * ((int64_t)1 << 20) * 64 * 2;
    struct fb_problem problem;
    struct fb_flow_cuda_plan plan;
    fb_problem_init(&problem, &fb_flow, 8, 8, 1 << 20, 64);
    problem.dtype = FB_BF16;
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_true(plan.backward_bytes < (size_t)tensor * 8 / 20);
    problem.causal = true;
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_true(plan.backward_bytes < (size_t)tensor * 8 * 8 / 100);
    assert_true(plan.gradient_segment * plan.gradient_segments >= plan.gradient_chunks);
    problem.dtype = FB_F32; /* as many bytes of tensors twice as large */
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_true(plan.backward_bytes < (size_t)tensor * 8 * 8 / 100);
}

/* Slices of every kind cover the head's tokens, and none is empty. */
static void test_wide_slices_cover_every_token_once(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++)
            for (int j = 0; j < DIMS; j++) {
                struct fb_problem problem;
                struct fb_flow_cuda_plan base;
                struct fb_flow_wide_plan plan;
                fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], dims[j]);
                fb_flow_cuda_plan_of(&problem, &base);
                fb_flow_wide_plan_of(&problem, &base, &plan);
                const int64_t len = lengths[i], panel = FB_FLOW_CUDA_TILE;
                assert_true((int64_t)plan.slices * plan.slice_len >= len);
                assert_true((int64_t)plan.panel_slices * plan.slice_panels * panel >= len);
                assert_true((int64_t)(plan.panel_slices - 1) * plan.slice_panels * panel < len);
                assert_true((int64_t)plan.result_slices * plan.result_panels * panel >= len);
                assert_true((int64_t)(plan.result_slices - 1) * plan.result_panels * panel < len);
            }
}

static void test_causal_clusters_cover_the_head(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan plan;
            fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
            problem.causal = true;
            fb_flow_cuda_plan_of(&problem, &plan);
            assert_int_equal(plan.causal_ranks, 0); /* f32 */
            problem.dtype = FB_BF16;
            fb_flow_cuda_plan_of(&problem, &plan);
            assert_int_equal(plan.cluster_ranks, 0);
            assert_true(plan.causal_ranks >= 2 &&
                        plan.causal_ranks <= FB_FLOW_CUDA_CAUSAL_RANKS_MAX);
            assert_int_equal(plan.causal_ranks & (plan.causal_ranks - 1), 0);
            assert_int_equal(plan.causal_blocks * plan.causal_squads, plan.causal_ranks);
            assert_true(plan.causal_blocks >= 2 &&
                        plan.causal_squads <= FB_FLOW_CUDA_CAUSAL_SQUADS_MAX);
            const int64_t step = (int64_t)plan.causal_ranks * FB_FLOW_CUDA_CAUSAL_TOKENS;
            assert_true(step * plan.causal_segments >= lengths[i]);
            assert_true(step * (plan.causal_segments - 1) < lengths[i]);
        }
}

/* Causal f16 is laid out as bf16 where p fits beside the values. */
static void test_causal_f16_is_laid_out_as_bf16(void **state)
{
    (void)state;
    for (int64_t heads = 1; heads <= 1024; heads *= 4)
        for (int i = 0; i < LENGTHS; i++) {
            struct fb_problem problem;
            struct fb_flow_cuda_plan bf16, f16;
            fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
            problem.causal = true;
            problem.dtype = FB_BF16;
            fb_flow_cuda_plan_of(&problem, &bf16);
            problem.dtype = FB_F16;
            fb_flow_cuda_plan_of(&problem, &f16);
            assert_int_equal(f16.causal_ranks, bf16.causal_ranks);
            assert_int_equal(f16.causal_segments, bf16.causal_segments);
            assert_int_equal(f16.sides_ranks, bf16.sides_ranks);
            assert_int_equal(f16.forward_bytes, bf16.forward_bytes);
            assert_int_equal(f16.backward_bytes, bf16.backward_bytes);
            assert_true(f16.strips);
            problem.params[FB_FLOW_PARAM_CLAMP] = 5.0;
            fb_flow_cuda_plan_of(&problem, &f16);
            assert_false(f16.strips || f16.causal_ranks + f16.sides_ranks > 0);
        }
}

/* Who has no room for a cluster gets the general way, and memory for it; an H100 gets what the plan
 * has, and no memory that it does not need. Memory serves whatever the driver says of the room. */
static void test_devices_without_room_get_the_general_way(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++)
        for (int64_t heads = 1; heads <= 1024; heads *= 4)
            for (int i = 0; i < LENGTHS; i++) {
                struct fb_problem problem;
                struct fb_flow_cuda_plan plan;
                fb_problem_init(&problem, &fb_flow, 1, heads, lengths[i], 64);
                problem.causal = causal != 0;
                problem.dtype = FB_BF16;
                fb_flow_cuda_plan_of(&problem, &plan);
                const bool clusters = fb_flow_cuda_plan_has_gradient_clusters(&plan);
                assert_int_equal(fb_flow_cuda_forward_way(&plan, &h100, true),
                                 fb_flow_cuda_plan_forward(&plan));
                assert_int_not_equal(fb_flow_cuda_plan_forward(&plan), FB_FLOW_CUDA_GENERAL);
                assert_int_equal(fb_flow_cuda_forward_way(&plan, &h100, false),
                                 FB_FLOW_CUDA_GENERAL);
                assert_int_equal(fb_flow_cuda_forward_way(&plan, &crowded, true),
                                 FB_FLOW_CUDA_GENERAL);
                assert_int_equal(fb_flow_cuda_backward_way(&plan, &h100, false),
                                 clusters ? FB_FLOW_CUDA_CLUSTERS : FB_FLOW_CUDA_GENERAL);
                assert_int_equal(fb_flow_cuda_backward_way(&plan, &nothing, true),
                                 FB_FLOW_CUDA_GENERAL);
                for (int count = 1; count <= 144; count++)
                    for (int fits = 0; fits < 2; fits++) {
                        const struct fb_flow_cuda_room room = {true, count, false, fits != 0};
                        const bool general =
                            fb_flow_cuda_backward_way(&plan, &room, true) == FB_FLOW_CUDA_GENERAL;
                        const size_t bytes = fb_flow_cuda_plan_backward_bytes(&plan, &room);
                        assert_true(general || clusters);
                        assert_true(bytes >= (general ? plan.backward_bytes : plan.sides_bytes));
                        assert_true(!fits || general != clusters);
                    }
            }
}

/* f32 takes chunks of all heads at once, which are no clusters. */
static void test_chunks_ask_for_no_room(void **state)
{
    (void)state;
    struct fb_problem problem;
    struct fb_flow_cuda_plan plan;
    fb_problem_init(&problem, &fb_flow, 2, 4, 1000, 64);
    problem.causal = true;
    fb_flow_cuda_plan_of(&problem, &plan);
    assert_int_equal(fb_flow_cuda_forward_way(&plan, &crowded, true), FB_FLOW_CUDA_CHUNKS);
    assert_int_equal(fb_flow_cuda_backward_way(&plan, &crowded, true), FB_FLOW_CUDA_CHUNKS);
    assert_int_equal(fb_flow_cuda_backward_way(&plan, &crowded, false), FB_FLOW_CUDA_GENERAL);
    assert_int_equal(fb_flow_cuda_forward_way(&plan, &nothing, true), FB_FLOW_CUDA_GENERAL);
    assert_int_equal(fb_flow_cuda_plan_backward_bytes(&plan, &crowded), plan.backward_bytes);
}

/* Both forms: bf16, heads of 64, as many heads of keys as of queries. */
static void test_strips_serve_both_forms(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        struct fb_problem problem;
        struct fb_flow_cuda_plan plan;
        fb_problem_init(&problem, &fb_flow, 2, 4, 1000, 64);
        problem.causal = causal != 0;
        fb_flow_cuda_plan_of(&problem, &plan);
        assert_false(plan.strips);
        assert_int_equal(plan.causal_split, causal != 0); /* f32 */
        problem.dtype = FB_BF16;
        fb_flow_cuda_plan_of(&problem, &plan);
        assert_true(plan.strips);
        assert_false(plan.causal_split);
        problem.kv_heads = 2;
        fb_flow_cuda_plan_of(&problem, &plan);
        assert_false(plan.strips);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices_cover_every_token_once),
        cmocka_unit_test(test_columns_hold_the_head),
        cmocka_unit_test(test_scratch_grows_by_scalars_of_tokens),
        cmocka_unit_test(test_lengths_have_room_only_when_given),
        cmocka_unit_test(test_clusters_teams_and_pairs_cover_the_head),
        cmocka_unit_test(test_teams_need_little_memory),
        cmocka_unit_test(test_forward_stays_within_its_memory),
        cmocka_unit_test(test_strips_cover_the_head_or_are_not_used),
        cmocka_unit_test(test_causal_clusters_cover_the_head),
        cmocka_unit_test(test_causal_f16_is_laid_out_as_bf16),
        cmocka_unit_test(test_strips_serve_both_forms),
        cmocka_unit_test(test_devices_without_room_get_the_general_way),
        cmocka_unit_test(test_chunks_ask_for_no_room),
        cmocka_unit_test(test_f16_is_served_as_bf16),
        cmocka_unit_test(test_both_passes_stay_within_their_memory),
        cmocka_unit_test(test_sides_cover_the_head_or_are_not_used),
        cmocka_unit_test(test_gradients_need_little_memory),
        cmocka_unit_test(test_wide_slices_cover_every_token_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
