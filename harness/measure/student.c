/* See student.h. */
#include "student.h"

#include <assert.h>
#include <math.h>

enum { FREEDOM_MAX = 1000, STEPS = 200 };
static const double half_pi = 1.57079632679489661923;

/* P(|T| <= t) as the finite sum of powers of cos(atan(t / sqrt(freedom))). */
static double inside(double t, long freedom)
{
    const double angle = atan(t / sqrt((double)freedom));
    const double cosine = cos(angle);
    const long first = freedom % 2 == 1 ? 1 : 0;
    double term = first == 1 ? cosine : 1.0, sum = 0.0;

    for (long power = first; power <= freedom - 2; power += 2) {
        sum += term;
        term *= cosine * cosine * (double)(power + 1) / (double)(power + 2);
    }
    return first == 1 ? (angle + sin(angle) * sum) / half_pi : sin(angle) * sum;
}

double fb_student_tail(double t, long freedom)
{
    assert(freedom >= 1);
    /* Beyond a thousand it is the normal distribution to three digits of the tail. */
    if (freedom > FREEDOM_MAX)
        return 0.5 * erfc(t / sqrt(2.0));
    const double half = (1.0 - inside(fabs(t), freedom)) / 2.0;
    return t >= 0.0 ? half : 1.0 - half;
}

double fb_student_quantile(double tail, long freedom)
{
    double low = 0.0, high = 1.0;

    assert(tail > 0.0 && tail <= 0.5);
    while (fb_student_tail(high, freedom) > tail && high < 1e12)
        high *= 2.0;
    for (int i = 0; i < STEPS && high - low > 1e-12 * high; i++) {
        const double middle = (low + high) / 2.0;
        if (fb_student_tail(middle, freedom) > tail)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2.0;
}
