/* Student's t for whole degrees of freedom, exact to rounding (Abramowitz and Stegun 26.7.3-4). */
#ifndef FB_STUDENT_H
#define FB_STUDENT_H

/* P(T > t), freedom >= 1. */
double fb_student_tail(double t, long freedom);

/* The t >= 0 with P(T > t) = tail, 0 < tail <= 1/2. */
double fb_student_quantile(double tail, long freedom);

#endif
