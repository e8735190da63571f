/*
 * The oracles: every mechanism and its gradients evaluated in float64, straight from its equations
 * (spec/attention.md sections 1 to 5; golden/README.md for Performer and local).
 * They share no code with the kernels: only attention.h and base/.
 *
 * An oracle computes chosen rows of one (batch, head), so that it stays usable at 65536 tokens:
 * softmax and local cost O(S (D+M)) and O(window (D+M)) for each row asked for; flow, linear and
 * Performer cost one pass over the head, linear in its length, whatever the number of rows. The
 * causal recurrences stop at the last row asked for. Flow competing over heads costs a pass over
 * every head of the batch element.
 *
 * Parameters are looked up by name; one that the mechanism does not have is at its published
 * default. With q_lengths and kv_lengths, L and S are the valid lengths of the batch element:
 * padding takes no part in anything, and its rows are 0; so are all rows when L or S is 0.
 */
#ifndef FB_ORACLE_H
#define FB_ORACLE_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether an oracle of this mechanism name exists. The registry's test demands one for each. */
bool fb_oracle_exists(const char *mechanism_name);

/* out[i][m], dense [rows_count][M]: row rows[i] of head (b, h), in float64.
 *   call     q, k and v are views of f32, bf16 or f16 with any strides; out is not read. constants
 * is what the mechanism's prepare wrote (Performer: f32 [features][D], row-major). rows strictly
 * ascending, within 0 .. q_len-1; rows_count >= 1. Allocates its own work space, at most O(S +
 * features (D + M) + D M) doubles, and a copy of the head where its dtype is not f32; flow
 * competing over heads H times as much. FB_ERROR_UNSUPPORTED: no oracle of that name, a tensor in
 * f64, what the mechanism cannot mean. FB_ERROR_USAGE: rows, b or h out of range. FB_ERROR_MEMORY:
 * no work space. */
enum fb_status fb_oracle_forward_rows(const struct fb_mechanism *mechanism,
                                      const struct fb_problem *problem, const struct fb_call *call,
                                      int64_t b, int64_t h, const int64_t *rows, size_t rows_count,
                                      double *out, struct fb_error *error) FB_MUST_CHECK;

/* out[M]: the token after `token` others, decoded. As one row of the causal forward pass (problem:
 * causal, q_len = kv_len > token, call: all tokens so far), but call->key_stabiliser takes the
 * place of Performer's maximum over the keys, which decoding cannot know. */
enum fb_status fb_oracle_decode_row(const struct fb_mechanism *mechanism,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    int64_t b, int64_t h, int64_t token, double *out,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Upper estimate of the work of one fb_oracle_forward_rows call (one head, rows_count rows), in
 * flop, an exponential counted as 20. Expect 1 to 4 Gflop/s on one core. Infinite for a mechanism
 * without an oracle. */
double fb_oracle_cost(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                      int64_t rows_count);

/* ---- gradients of sum(out * dout) ------------------------------------------------------------ */

/* Which rows of the gradients are wanted, and where they go. Rows are strictly ascending; either
 * count may be 0, not both. */
struct fb_oracle_gradients {
    const int64_t *q_rows; /* within 0 .. q_len-1 */
    size_t q_count;
    double *dq;             /* [q_count][D], of query head h */
    const int64_t *kv_rows; /* within 0 .. kv_len-1 */
    size_t kv_count;
    double *dk, *dv; /* [kv_count][D] and [kv_count][M], of the key-value head that serves h; with
                        grouped queries these are sums over the whole group */
    /* NULL, or [kv_count]: set for sources of flow whose conserved outgoing flow lies within
     * kink_width of the clamp. There the gradient jumps, and a rounding error of the flow decides
     * on which side a kernel stands: dk of such a row says nothing about the kernel. */
    bool *kv_kinks;
    double kink_width;
};

/* Gradients of head (b, h) with respect to q, k and v, in float64. As fb_oracle_forward_rows; call
 * has dout as well (any strides), which is not read where out is padding.
 *
 * What that costs, hence what can be checked at which size:
 *   flow, linear, Performer   dq, dk and dv of any rows: two passes over the head, linear in its
 *                             length (dk, dv: over every query head of the group; flow competing
 *                             over heads: over every head)
 *   local                     O(window (D+M)) per dq row, O(window^2 (D+M)) per dk and dv row
 *   softmax                   O(S (D+M)) per dq row; dk and dv need the normaliser of every row
 *                             that sees the key, O(L S (D+M)) in all, whatever the number of rows.
 *                             Where that is too much, ask for dq alone (kv_count 0) and check dk
 *                             and dv by fb_oracle_softmax_sums. */
enum fb_status fb_oracle_backward_rows(const struct fb_mechanism *mechanism,
                                       const struct fb_problem *problem, const struct fb_call *call,
                                       int64_t b, int64_t h,
                                       const struct fb_oracle_gradients *wanted,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Upper estimate of the work of one fb_oracle_backward_rows call, in the flop of fb_oracle_cost. */
double fb_oracle_backward_cost(const struct fb_mechanism *mechanism,
                               const struct fb_problem *problem, int64_t q_count, int64_t kv_count);

/* The identities of softmax gradients over the keys of key-value head kv_h: the weights of a row
 * sum to 1, so
 *   sum_j dv_j = sum over the group's rows of dout,    sum_j dk_j = 0.
 * dk_error and dv_error are the largest deviations of a component, divided by sqrt(S) max(scale,
 * max|dk| or max|dv|) with the scales of judge.h (errors of single rows are independent, so those
 * of a sum grow as the root): compare with the same budget as a row's. call->dk and dv are read
 * whole. O((group L + S) (D+M)). */
void fb_oracle_softmax_sums(const struct fb_problem *problem, const struct fb_call *call, int64_t b,
                            int64_t kv_h, double *dk_error, double *dv_error);

#ifdef __cplusplus
}
#endif
#endif
