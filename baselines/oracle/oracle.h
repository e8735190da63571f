/*
 * The oracles: every mechanism evaluated in float64, straight from its equations
 * (spec/attention.md sections 1, 2 and 5; golden/README.md for Performer and local).
 * They share no code with the kernels: only attention.h and base/.
 *
 * An oracle computes chosen rows of one (batch, head), so that it stays usable at 65536 tokens:
 * softmax and local cost O(S (D+M)) and O(window (D+M)) for each row asked for; flow, linear and
 * Performer cost one pass over the head, linear in its length, whatever the number of rows. The
 * causal recurrences stop at the last row asked for.
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
 *   call     q, k and v are f32 views with any strides; out is not read. constants is what the
 *            mechanism's prepare wrote (Performer: f32 [features][D], row-major).
 *   rows     strictly ascending, within 0 .. L-1; rows_count >= 1.
 * Allocates its own work space, at most O(S + features (D + M) + D M) doubles.
 * Rows beyond q_lengths[b], and all rows where kv_lengths[b] is 0, are 0.
 * FB_ERROR_UNSUPPORTED: no oracle of that name, a parameter that it does not know, or a tensor that
 * is not f32.
 * FB_ERROR_USAGE: rows, b or h out of range. FB_ERROR_MEMORY: no work space. */
enum fb_status fb_oracle_forward_rows(const struct fb_mechanism *mechanism,
                                      const struct fb_problem *problem, const struct fb_call *call,
                                      int64_t b, int64_t h, const int64_t *rows, size_t rows_count,
                                      double *out, struct fb_error *error) FB_MUST_CHECK;

/* Upper estimate of the work of one fb_oracle_forward_rows call (one head, rows_count rows), in
 * flop, an exponential counted as 20. Expect 1 to 4 Gflop/s on one core. Infinite for a mechanism
 * without an oracle, or with a parameter unknown to it. */
double fb_oracle_cost(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                      int64_t rows_count);

#ifdef __cplusplus
}
#endif
#endif
