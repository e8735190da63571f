/* Between the two sources of the plain form of Flow-Attention: a head's whole matrices. */
#ifndef FB_FLOW_PLAIN_H
#define FB_FLOW_PLAIN_H

#include "flow_options.h"

/* Everything forward computes for one head; a training forward saves all of it, as automatic
 * differentiation would. */
struct flow_plain_head {
    float *q, *k;                 /* [L][D], [S][D] phi */
    float *weighted;              /* [S][M] p v */
    float *incoming, *conserved;  /* [L] n / a; c, and once that is spent r = s alpha */
    float *outgoing, *flow;       /* [S] n / b, o before the clamp */
    float *competition;           /* [S] p */
    float *sum_q, *sum_k, *u, *w; /* normal: [D] sums + eps */
    float *product;               /* normal: [D][M]; causal: [L][D][M] */
    double *running;              /* [max(D M, D)] a sum in progress */
};

/* Where a head stands and its valid lengths. */
struct flow_plain_place {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct fb_flow_options options;
    int64_t batch, head, kv_head, sinks, sources;
};

/* Walks the rows of x once, forwards or backwards, keeping sum_t = sum of weight_u (x_u + eps1).
 * Then adds coefficient_t (sum_t + eps2) to out_t, or, with dot, puts (dot_t + eps3) . (sum_t +
 * eps2) into scalars_t. weight NULL means ones. sum is [dim] scratch. */
struct flow_plain_walk {
    int64_t rows, dim;
    bool reverse;
    const float *x, *weight;
    float x_eps, sum_eps, dot_eps; /* eps1, eps2, eps3 */
    const float *coefficient;
    float *out;
    const float *dot;
    float *scalars;
    double *sum;
};
void fb_flow_plain_walk(const struct flow_plain_walk *walk);

/* The gradients of one head whose forward stands in f. Heads that compete come in two steps, with
 * every head's dp between them. */
struct flow_plain_gradient {
    float *h, *t;                     /* [L][D] M g, [S][D] dM v; causal: the same per token */
    float *scaled;                    /* [L][M] r g */
    float *dproduct;                  /* [D][M] */
    float *dq, *dk;                   /* [L][D], [S][D] with respect to phi */
    float *s, *dr, *dc, *da;          /* [L] */
    float *dp, *dflow, *db, *scalars; /* [S], [max(L, S)] */
    float *du, *dw, *dsq, *dsk;       /* [D] */
    double *running;                  /* [max(D M, D)] */
};
size_t fb_flow_plain_gradient_carve(const struct fb_problem *problem, void *base,
                                    struct flow_plain_gradient *gradient);
void fb_flow_plain_pull(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g);
/* mean [S]: what do_j subtracts from dp_j when heads compete; NULL otherwise. add: dk and dv hold
 * other heads' gradients. */
void fb_flow_plain_push(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g, const float *mean, bool add);

#endif
