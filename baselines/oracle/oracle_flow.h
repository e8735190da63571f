/*
 * Flow-Attention in float64: what the forward oracle and its gradients share. Private to the oracle
 * room. Symbols as in spec/attention.md sections 1 and 2, with the options of section 3.
 */
#ifndef FB_ORACLE_FLOW_H
#define FB_ORACLE_FLOW_H

#include "oracle_head.h"

/* eps on both factors of the four inner products, and the floor of relu. */
#define FB_ORACLE_FLOW_EPS 1e-6

double fb_oracle_flow_sigmoid(double x);
/* y = phi(x), and y = phi'(x), of one token. */
void fb_oracle_flow_phi(const struct fb_oracle_head *head, const float *x, double *y);
void fb_oracle_flow_slope(const struct fb_oracle_head *head, const float *x, double *y);
/* (x + eps) . (y + eps) + extra eps */
double fb_oracle_flow_product(const struct fb_oracle_head *head, const double *x, const double *y);
double fb_oracle_flow_clamp(const struct fb_oracle_head *head, double x);

/* The normal form of one head. */
struct fb_oracle_flow {
    struct fb_oracle_head head;
    double *ksum, *qsum, *kb, *qa; /* [D] sum K, sum Q, sum K b, sum Q a */
    double *outgoing;              /* [S] conserved outgoing flow, before the clamp */
    double *c;                     /* [S] competition */
    double *kv;                    /* [D][M] sum K (x) C V */
    double *x;                     /* [D] one token's phi */
    double *v;                     /* [M] one token's v */
};

/* The heads that have to be looked at together: the task's head alone or, competing over heads,
 * all of the batch element; *mine is the index of the task's head. Every member is filled. */
enum fb_status fb_oracle_flow_normal(const struct fb_oracle_task *task, struct fb_arena *arena,
                                     struct fb_oracle_flow **heads, int64_t *head_count,
                                     int64_t *mine, struct fb_error *error);

/* Refuses causal problems that mean nothing: L != S, competition over heads. */
enum fb_status fb_oracle_flow_check(const struct fb_oracle_task *task, struct fb_error *error);

/* The causal form's competition, one token after another: C_t = t E_t / sum_{u<=t} E_u, through
 * logarithms so that flows without a clamp do not overflow. Zero before the first token. */
struct fb_oracle_flow_prefix {
    int64_t tokens;
    double log_sum;
};

/* log(E_t / sum_{u<=t} E_u) */
double fb_oracle_flow_log_share(struct fb_oracle_flow_prefix *prefix, double clamped);

#endif
