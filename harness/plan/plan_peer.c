/* Cases that an external program computes: see docs/external-protocol.md. */
#include "plan_case.h"

/* What the protocol has no words for. */
static enum fb_status peer_supports(const struct fb_problem *problem, enum fb_pass pass,
                                    struct fb_error *why)
{
    (void)pass;
    if (problem->q_lengths == NULL && problem->kv_lengths == NULL) {
        return FB_OK;
    }
    return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                        "external programs take sequences of full length, no padding");
}

/* A program keeps its workspace to itself. */
static void peer_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    (void)problem;
    (void)threads;
    *sizes = (struct fb_sizes){0};
}

/* Present so that the pass exists; the worker asks the program instead. */
static enum fb_status peer_call(const struct fb_problem *problem, const struct fb_call *call,
                                struct fb_error *error)
{
    (void)problem;
    (void)call;
    return fb_error_set(error, FB_ERROR_INTERNAL, "an external program was called as a kernel");
}

enum fb_status fb_peer_attention(struct fb_case *item, struct fb_arena *arena,
                                 struct fb_error *error)
{
    struct fb_attention *attention = fb_arena_alloc(arena, 1, sizeof *attention, error);
    if (attention == NULL) {
        return FB_ERROR_MEMORY;
    }
    *attention = (struct fb_attention){
        .mechanism = item->mechanism,
        .variant = item->variant,
        .backend = item->device,
        .isa = FB_ISA_ANY, /* it chooses its instructions itself */
        .deterministic = false,
        .supports = peer_supports,
        .sizes = peer_sizes,
        .forward = peer_call,
        .backward = peer_call,
    };
    item->attention = attention;
    return FB_OK;
}
