/*
 * Fused Flow-Attention on the CPU, normal form: the two phases of competition over heads, the
 * option of the released long-range code. See flow_cpu.c.
 */
#include "flow_normal.h"

void fb_flow_score_sources(const struct flow_task *t)
{
    const struct fb_problem *p = t->run->problem;
    float *scores = t->run->scores + (t->batch * p->heads + t->head) * p->kv_len;
    float *o = t->worker->scalar[0];
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        fb_flow_outgoing(t, fb_flow_source_rows(t, i, rows, false), rows, o);
        for (int64_t j = 0; j < rows; j++) {
            scores[i + j] = o[j];
        }
    }
}

/* One head of each batch element does it for all. */
void fb_flow_share_sources(const struct flow_task *t)
{
    const struct fb_problem *p = t->run->problem;
    const float clamp = t->run->options.clamp;
    if (t->head != 0) {
        return;
    }
    float *scores = t->run->scores + t->batch * p->heads * p->kv_len;
    for (int64_t j = t->first; j < t->last; j++) {
        float peak = -INFINITY, sum = 0.0F;
        for (int64_t h = 0; h < p->heads; h++) {
            float *o = &scores[h * p->kv_len + j];
            *o = fminf(fmaxf(*o, -clamp), clamp);
            peak = fmaxf(peak, *o);
        }
        for (int64_t h = 0; h < p->heads; h++) {
            float *o = &scores[h * p->kv_len + j];
            *o = expf(*o - peak);
            sum += *o;
        }
        for (int64_t h = 0; h < p->heads; h++) {
            scores[h * p->kv_len + j] /= sum;
        }
    }
}
