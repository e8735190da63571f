/*
 * Judging a result against its float64 reference.
 *
 *   err_rel = ||x - ref||_2 / ||ref||_2                   over every element added
 *   err_max = max|x - ref| / max(max|ref|, scale)         the rule of golden/README.md
 *
 * scale is the size that the answer could have had: max|v| for out, max|dout| for dv,
 * max|dout| max|v| for dq and dk. It keeps a reference that is zero by cancellation (the gradient
 * of a softmax over one key) from making every rounding error infinite.
 *
 * Use: fb_judge_init, fb_judge_add_rows for each (b, h) checked, fb_judge_scan_finite over the
 * whole output (poisoned with NaN before the call, so that an element never written is found), then
 * fb_judge_finish.
 */
#ifndef FB_JUDGE_H
#define FB_JUDGE_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fb_judgement {
    /* valid after fb_judge_finish */
    double err_rel, err_max;
    double budget;
    bool finite;        /* no NaN and no infinity was met */
    bool passed;        /* finite, something was checked, err_rel and err_max within budget */
    bool passed_golden; /* finite, something was checked, err_max within budget */
    int64_t elements;   /* compared with the reference */
    int64_t kinks;      /* rows left out: see oracle.h */

    /* where the error is largest, or where the first non-finite element stands; -1 when none */
    int64_t worst_b, worst_h, worst_row, worst_component;
    double worst_value, worst_reference;

    /* running sums */
    double scale, diff_max, ref_max, diff_squares, ref_squares;
};

/* Largest admissible error of a pass (FB_FORWARD or FB_DECODE; FB_BACKWARD or FB_BOTH: the
 * gradients). Derived in judge.c. */
double fb_judge_budget(enum fb_dtype dtype, enum fb_pass pass);

/* How far from flow's clamp a source may be for its gradient to be undecided: what kv_kinks of
 * oracle.h is asked with. The clamp stands at 1, in units of the flow. */
double fb_judge_kink_width(enum fb_dtype dtype);

/* max|x| over the tensor (any dtype): the scale of a judgement. Not finite if an element is not.
 */
double fb_judge_max_abs(const struct fb_tensor *tensor);

void fb_judge_init(struct fb_judgement *judgement, double budget, double scale);

/* Compares rows rows[0 .. rows_count-1] of head (b, h) of x (any dtype and strides) with
 * reference [rows_count][x.shape[3]]. rows NULL means rows 0 .. rows_count-1. */
void fb_judge_add_rows(struct fb_judgement *judgement, const struct fb_tensor *x, int64_t b,
                       int64_t h, const int64_t *rows, size_t rows_count, const double *reference);

/* As fb_judge_add_rows, but row r is left out and counted in `kinks` where kinks[r] is set
 * (kv_kinks of oracle.h). kinks NULL means none. */
void fb_judge_add_rows_off_kinks(struct fb_judgement *judgement, const bool *kinks,
                                 const struct fb_tensor *x, int64_t b, int64_t h,
                                 const int64_t *rows, size_t rows_count, const double *reference);

/* Looks at every element of x: one that is not finite makes the judgement fail. */
void fb_judge_scan_finite(struct fb_judgement *judgement, const struct fb_tensor *x);

/* Computes the errors and the verdicts. */
void fb_judge_finish(struct fb_judgement *judgement);

/* One line that says what is wrong and where ("err_max 3.1e-04 exceeds 1.0e-05 at b 0 h 1 row 17
 * component 3: 0.51 instead of 0.52"), or "err_rel 2.1e-07 err_max 1.0e-07" when all is well. */
void fb_judge_describe(const struct fb_judgement *judgement, char *text, size_t text_size);

#ifdef __cplusplus
}
#endif
#endif
