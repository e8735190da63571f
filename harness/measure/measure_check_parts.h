/* What the checks of output and gradients share. Private to measure_check*.c. */
#ifndef FB_MEASURE_CHECK_PARTS_H
#define FB_MEASURE_CHECK_PARTS_H

#include "judge.h"
#include "measure_check.h"

/* How much is compared: `heads` of the batch's heads, `rows` rows of each. */
struct fb_check_extent {
    int64_t heads, rows;
};

/* All of it where that is cheap, else a part worth about half a second of one core. cost_of: the
 * flop of so many rows of one head, linear in their number. */
struct fb_check_extent fb_check_plan(double (*cost_of)(const void *context, int64_t rows),
                                     const void *context, int64_t heads, int64_t rows_most);

/* Takes a tensor's errors into the result if they are the worst so far, relative to their budget;
 * outside the budget the result becomes WRONG, with the complaint (NULL: what the judgement says)
 * as its reason. */
void fb_check_note(const char *name, const struct fb_judgement *judgement, const char *complaint,
                   struct fb_measure_result *result);

/* dq, dk and dv of the request against the oracle's. */
enum fb_status fb_check_gradients(const struct fb_check_request *request,
                                  struct fb_measure_result *result,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
