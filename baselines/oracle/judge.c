/*
 * Budgets and errors of results, judged against float64. See judge.h.
 */
#include "judge.h"

#include "dtype.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/*
 * Where the budgets come from. u is the unit roundoff of the dtype, half the distance from 1 to the
 * next number; all kernels accumulate in f32 or better.
 *
 * f32, u = 2^-24 = 6.0e-8. A sum of n terms in blocks of at most 256 has an error of about
 *   sqrt(256) u, at worst (256 + n/256) u, relative to the sum of magnitudes; an output is a
 *   quotient of two such sums under an exponential of a third, with v of mixed signs costing
 *   another factor of a few: 10 sqrt(256) u = 9.6e-6. The golden rule fixes 1e-5, and 5e-5 for
 *   gradients, which pass through the chain twice and carry products of three such factors.
 * f64, u = 2^-53: the same multiples of u, 168 u = 1.9e-14 and 840 u = 9.3e-14, rounded up to
 *   1e-12 and 5e-12 because the reference itself has errors of that kind.
 * bf16, u = 2^-8 = 3.9e-3, and f16, u = 2^-11 = 4.9e-4, judged on their own rounded inputs. The
 *   result is rounded once, which costs up to u. The weight (or feature, or state) that enters a
 *   product may have been rounded, too: over many keys that averages out, in a row dominated by one
 *   key it is another u. Hence 2 u; gradients five times that, as in f32.
 */
static const struct {
    double forward, gradients;
} budgets[FB_DTYPE_COUNT] = {
    [FB_F32] = {1e-5, 5e-5},
    [FB_F64] = {1e-12, 5e-12},
    [FB_BF16] = {2.0 / 256.0, 10.0 / 256.0},
    [FB_F16] = {2.0 / 2048.0, 10.0 / 2048.0},
};

double fb_judge_budget(enum fb_dtype dtype, enum fb_pass pass)
{
    const bool gradients = pass == FB_BACKWARD || pass == FB_BOTH;
    return gradients ? budgets[dtype].gradients : budgets[dtype].forward;
}

/* A kernel computes the flow from rounded inputs. In f32 it is a quotient of two long sums, as the
 * forward budget has it; a kernel for 16-bit numbers may evaluate phi no better than they are. */
double fb_judge_kink_width(enum fb_dtype dtype)
{
    return dtype == FB_BF16 || dtype == FB_F16 ? fb_dtype_roundoff(dtype) : budgets[dtype].forward;
}

static double element(const struct fb_tensor *x, int64_t b, int64_t h, int64_t row, int64_t c)
{
    return fb_tensor_value(x, b, h, row, c);
}

double fb_judge_max_abs(const struct fb_tensor *tensor)
{
    double max = 0.0;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t h = 0; h < tensor->shape[1]; h++)
            for (int64_t row = 0; row < tensor->shape[2]; row++)
                for (int64_t c = 0; c < tensor->shape[3]; c++) {
                    const double x = fabs(element(tensor, b, h, row, c));
                    if (!isfinite(x))
                        return x;
                    max = x > max ? x : max;
                }
    return max;
}

void fb_judge_init(struct fb_judgement *judgement, double budget, double scale)
{
    *judgement = (struct fb_judgement){
        .err_rel = (double)NAN,
        .err_max = (double)NAN,
        .budget = budget,
        .scale = scale,
        .finite = true,
        .worst_b = -1,
        .worst_h = -1,
        .worst_row = -1,
        .worst_component = -1,
    };
}

static void note_worst(struct fb_judgement *j, int64_t b, int64_t h, int64_t row, int64_t c,
                       double value, double reference)
{
    j->worst_b = b;
    j->worst_h = h;
    j->worst_row = row;
    j->worst_component = c;
    j->worst_value = value;
    j->worst_reference = reference;
}

void fb_judge_add_rows(struct fb_judgement *judgement, const struct fb_tensor *x, int64_t b,
                       int64_t h, const int64_t *rows, size_t rows_count, const double *reference)
{
    struct fb_judgement *j = judgement;
    const int64_t dim = x->shape[3];
    for (size_t r = 0; r < rows_count; r++) {
        const int64_t row = rows ? rows[r] : (int64_t)r;
        for (int64_t c = 0; c < dim; c++) {
            const double value = element(x, b, h, row, c);
            const double wanted = reference[(int64_t)r * dim + c];
            const double diff = fabs(value - wanted);
            j->elements++;
            /* the reference too: a NaN there must not hide behind comparisons that are false */
            if (!isfinite(diff)) {
                if (j->finite)
                    note_worst(j, b, h, row, c, value, wanted);
                j->finite = false;
                continue;
            }
            j->diff_squares += diff * diff;
            j->ref_squares += wanted * wanted;
            j->ref_max = fmax(j->ref_max, fabs(wanted));
            if (j->finite && (diff > j->diff_max || j->worst_row < 0))
                note_worst(j, b, h, row, c, value, wanted);
            j->diff_max = fmax(j->diff_max, diff);
        }
    }
}

void fb_judge_add_rows_off_kinks(struct fb_judgement *judgement, const bool *kinks,
                                 const struct fb_tensor *x, int64_t b, int64_t h,
                                 const int64_t *rows, size_t rows_count, const double *reference)
{
    if (!kinks) {
        fb_judge_add_rows(judgement, x, b, h, rows, rows_count, reference);
        return;
    }
    for (size_t r = 0; r < rows_count; r++) {
        const int64_t row = rows ? rows[r] : (int64_t)r;
        if (kinks[r])
            judgement->kinks++;
        else
            fb_judge_add_rows(judgement, x, b, h, &row, 1, reference + (int64_t)r * x->shape[3]);
    }
}

void fb_judge_scan_finite(struct fb_judgement *judgement, const struct fb_tensor *x)
{
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t h = 0; h < x->shape[1]; h++)
            for (int64_t row = 0; row < x->shape[2]; row++)
                for (int64_t c = 0; c < x->shape[3]; c++) {
                    const double value = element(x, b, h, row, c);
                    if (isfinite(value))
                        continue;
                    if (judgement->finite)
                        note_worst(judgement, b, h, row, c, value, (double)NAN);
                    judgement->finite = false;
                    return;
                }
}

/* 0/0 is a perfect answer to a reference of zero; anything else against zero is infinitely wrong.
 */
static double quotient(double error, double size)
{
    return error == 0.0 ? 0.0 : error / size;
}

void fb_judge_finish(struct fb_judgement *judgement)
{
    struct fb_judgement *j = judgement;
    if (!j->finite) {
        j->err_rel = (double)NAN;
        j->err_max = (double)NAN;
    } else if (j->elements > 0) {
        j->err_rel = quotient(sqrt(j->diff_squares), sqrt(j->ref_squares));
        j->err_max = quotient(j->diff_max, fmax(j->ref_max, j->scale));
    } else if (j->kinks > 0) { /* of one token alone nothing is left to judge */
        j->err_rel = 0.0;
        j->err_max = 0.0;
    }
    j->passed_golden = j->finite && (j->elements > 0 || j->kinks > 0) && j->err_max <= j->budget;
    j->passed = j->passed_golden && j->err_rel <= j->budget;
}

void fb_judge_describe(const struct fb_judgement *judgement, char *text, size_t text_size)
{
    const struct fb_judgement *j = judgement;
    char place[192];
    snprintf(place, sizeof place,
             "at b %" PRId64 " h %" PRId64 " row %" PRId64 " component %" PRId64
             ": %.9g instead of %.9g",
             j->worst_b, j->worst_h, j->worst_row, j->worst_component, j->worst_value,
             j->worst_reference);
    if (!j->finite)
        snprintf(text, text_size, "not finite, or never written, %s", place);
    else if (j->elements == 0)
        snprintf(text, text_size, "nothing was compared with the reference");
    else if (!j->passed_golden)
        snprintf(text, text_size, "err_max %.2e exceeds %.1e %s", j->err_max, j->budget, place);
    else if (!j->passed)
        snprintf(text, text_size, "err_rel %.2e exceeds %.1e, worst %s", j->err_rel, j->budget,
                 place);
    else
        snprintf(text, text_size, "err_rel %.2e err_max %.2e", j->err_rel, j->err_max);
    if (j->kinks > 0) {
        const size_t used = strlen(text);
        snprintf(text + used, text_size - used, ", %" PRId64 " tokens at the clamp's kink left out",
                 j->kinks);
    }
}
