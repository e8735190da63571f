/* Is the answer right? Written everywhere, finite, and what the float64 oracle says. */
#ifndef FB_MEASURE_CHECK_H
#define FB_MEASURE_CHECK_H

#include "measure.h"

/* Fills a dense f32 tensor with a signalling NaN that no arithmetic produces (results of arithmetic
 * are quiet), so that an element left unwritten is told from one computed as NaN. */
void fb_check_poison(const struct fb_tensor *out, int threads);

/* Every element written and finite, or the result becomes WRONG with the count and the place of the
 * first that is not. Returns whether all is well. */
bool fb_check_written(const struct fb_tensor *out, struct fb_measure_result *result);

/* XXH64 of a dense tensor's bytes as 16 hexadecimal digits. */
void fb_check_hash(const struct fb_tensor *out, char hash[FB_MEASURE_HASH_SIZE]);

/* Compares sampled rows with the mechanism's oracle and with softmax's: err_rel, err_max,
 * err_budget, softmax_distance; status WRONG when outside the budget. Costs about half a second of
 * one core, shared among `threads`: all rows where that is cheap, else all heads with fewer rows,
 * else fewer heads; first and last row and head always. `seed` chooses the others. */
enum fb_status fb_check_oracle(const struct fb_mechanism *mechanism,
                               const struct fb_problem *problem, const struct fb_call *call,
                               enum fb_pass pass, uint64_t seed, int threads,
                               struct fb_measure_result *result,
                               struct fb_error *error) FB_MUST_CHECK;

/* The choice of count out of 0 .. total-1, ascending and distinct, first and last among them.
 * count <= total. Public for its test. */
void fb_check_choose(int64_t *chosen, int64_t count, int64_t total, uint64_t seed, uint64_t stream);

#endif
