/*
 * Between the sources of fused Flow-Attention on a GPU. The launchers queue everything on the
 * call's stream and return; the problem and the call have been checked.
 */
#ifndef FB_FLOW_CUDA_H
#define FB_FLOW_CUDA_H

#include "attention.h"
#include "flow_cuda_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The normal form spread over the whole device: every problem. */
enum fb_status fb_flow_cuda_wide(const struct fb_problem *problem, const struct fb_call *call,
                                 const struct fb_flow_cuda_plan *plan,
                                 struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_wide_gradient(const struct fb_problem *problem,
                                          const struct fb_call *call,
                                          const struct fb_flow_cuda_plan *plan,
                                          struct fb_error *error) FB_MUST_CHECK;
/* What follows from the device alone, without a context. What fits is asked for one by one, of the
 * clusters, or the team, that the plan has, on Hopper. */
void fb_flow_cuda_read_room(struct fb_flow_cuda_room *room);
bool fb_flow_cuda_cluster_fits(const struct fb_problem *problem,
                               const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_strips_fit(const struct fb_problem *problem,
                             const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_team_fits(const struct fb_problem *problem, const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_pair_fits(const struct fb_problem *problem, const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_causal_cluster_fits(const struct fb_problem *problem,
                                      const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_cluster_gradient_fits(const struct fb_problem *problem,
                                        const struct fb_flow_cuda_plan *plan);
bool fb_flow_cuda_causal_sides_fit(const struct fb_problem *problem,
                                   const struct fb_flow_cuda_plan *plan);
/* The normal form with q, k and v resident in a cluster's shared memory: Hopper, and the problems
 * that the plan has a cluster for, with rows of 16-byte chunks. */
enum fb_status fb_flow_cuda_cluster(const struct fb_problem *problem, const struct fb_call *call,
                                    const struct fb_flow_cuda_plan *plan,
                                    struct fb_error *error) FB_MUST_CHECK;
/* Likewise, 16 tokens to a warp: the problems that the plan has forward_strips for. */
enum fb_status fb_flow_cuda_strips(const struct fb_problem *problem, const struct fb_call *call,
                                   const struct fb_flow_cuda_plan *plan,
                                   struct fb_error *error) FB_MUST_CHECK;
/* The normal form of longer heads, a team of blocks to one: Hopper, and the problems that the plan
 * has teams for, with rows of 16-byte chunks. */
enum fb_status fb_flow_cuda_team(const struct fb_problem *problem, const struct fb_call *call,
                                 const struct fb_flow_cuda_plan *plan,
                                 struct fb_error *error) FB_MUST_CHECK;
/* The normal form of many heads, two blocks to one: Hopper, and the problems that the plan has
 * pairs for, with rows of 16-byte chunks. */
enum fb_status fb_flow_cuda_pair(const struct fb_problem *problem, const struct fb_call *call,
                                 const struct fb_flow_cuda_plan *plan,
                                 struct fb_error *error) FB_MUST_CHECK;
/* Likewise the causal form, a segment of the head at a time. */
enum fb_status fb_flow_cuda_causal_cluster(const struct fb_problem *problem,
                                           const struct fb_call *call,
                                           const struct fb_flow_cuda_plan *plan,
                                           struct fb_error *error) FB_MUST_CHECK;
/* Likewise in f32, spread over the device: the problems that the plan has causal_split for. */
enum fb_status fb_flow_cuda_causal_split(const struct fb_problem *problem,
                                         const struct fb_call *call,
                                         const struct fb_flow_cuda_plan *plan,
                                         struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_causal_split_gradient(const struct fb_problem *problem,
                                                  const struct fb_call *call,
                                                  const struct fb_flow_cuda_plan *plan,
                                                  struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_causal(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error) FB_MUST_CHECK;
/* The normal form's gradient for problems that the plan has strips for; whole: rows consist of
 * 16-byte chunks, which is faster. */
enum fb_status fb_flow_cuda_gradient(const struct fb_problem *problem, const struct fb_call *call,
                                     const struct fb_flow_cuda_plan *plan, bool whole,
                                     struct fb_error *error) FB_MUST_CHECK;
/* The same in one launch, with q, k, v and dout resident in a cluster's shared memory: Hopper, and
 * the problems that the plan has a cluster for. */
enum fb_status fb_flow_cuda_cluster_gradient(const struct fb_problem *problem,
                                             const struct fb_call *call,
                                             const struct fb_flow_cuda_plan *plan, bool whole,
                                             struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_causal_gradient(const struct fb_problem *problem,
                                            const struct fb_call *call,
                                            const struct fb_flow_cuda_plan *plan, bool strips,
                                            struct fb_error *error) FB_MUST_CHECK;
/* Likewise in clusters: Hopper, and the problems that the plan has sides for, given what the
 * forward call has saved. Forward calls by clusters save it themselves, others with the second
 * function, which takes their scratch memory. whole: rows consist of 16-byte chunks, which is
 * faster. */
enum fb_status fb_flow_cuda_causal_sides(const struct fb_problem *problem,
                                         const struct fb_call *call,
                                         const struct fb_flow_cuda_plan *plan, bool whole,
                                         struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_causal_save(const struct fb_problem *problem,
                                        const struct fb_call *call,
                                        const struct fb_flow_cuda_plan *plan, bool whole,
                                        struct fb_error *error) FB_MUST_CHECK;
/* Any number of tokens against the state: decoding and prefilling. */
enum fb_status fb_flow_cuda_continue(const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
