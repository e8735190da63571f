/*
 * Gradients of a correctness case. See kernel_case.h.
 */
#include "cuda_staged.h"
#include "judge.h"
#include "kernel_case.h"
#include "oracle.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void kernel_case_set_problem(struct kernel_case *c, const struct fb_mechanism *mechanism,
                             int64_t batch, int64_t heads, int64_t q_len, int64_t kv_len,
                             int64_t qk_dim, int64_t v_dim)
{
    c->mechanism = mechanism;
    fb_problem_init(&c->problem, mechanism, batch, heads, q_len, qk_dim);
    c->problem.kv_len = kv_len;
    c->problem.v_dim = v_dim;
}

bool kernel_case_set_parameter(struct kernel_case *c, const char *name, double value,
                               const char *choice)
{
    const int index = fb_param_index(c->mechanism, name);
    if (index < 0)
        return false;
    const struct fb_param *param = &c->mechanism->params[index];
    c->problem.params[index] = value;
    for (int i = 0; choice && param->choices && param->choices[i]; i++)
        if (strcmp(param->choices[i], choice) == 0)
            c->problem.params[index] = i;
    return true;
}

void kernel_case_shrink_parameters(struct kernel_case *c, size_t index)
{
    static const double windows[] = {16, 1, 128, 0, 7}, features[] = {32, 7, 64, 100, 1};
    (void)kernel_case_set_parameter(c, "window", windows[index % 5], NULL);
    (void)kernel_case_set_parameter(c, "features", features[index % 5], NULL);
}

bool kernel_case_is_affordable(const struct kernel_case *c, const struct fb_attention *attention)
{
    struct fb_sizes sizes;
    const size_t limit = (size_t)256 << 20;
    fb_attention_sizes(attention, &c->problem, 3, &sizes);
    return sizes.forward_scratch_bytes <= limit && sizes.backward_scratch_bytes <= limit &&
           sizes.saved_bytes <= limit;
}

void kernel_case_gradient_reference(struct kernel_case *c)
{
    const struct fb_problem *p = &c->problem;
    const struct fb_call call = {.q = c->q.view,
                                 .k = c->k.view,
                                 .v = c->v.view,
                                 .dout = c->dout.view,
                                 .constants = c->constants};
    const int64_t group = p->heads / p->kv_heads,
                  longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    int64_t *rows = kernel_allocate((size_t)longest * sizeof *rows);
    for (int64_t i = 0; i < longest; i++)
        rows[i] = i;
    const size_t q = (size_t)(p->batch * p->heads * p->q_len);
    const size_t kv = (size_t)(p->batch * p->kv_heads * p->kv_len);
    c->dq_reference = kernel_allocate(q * (size_t)p->qk_dim * sizeof(double));
    c->dk_reference = kernel_allocate(kv * (size_t)p->qk_dim * sizeof(double));
    c->dv_reference = kernel_allocate(kv * (size_t)p->v_dim * sizeof(double));
    c->kv_kinks = kernel_allocate(kv * sizeof *c->kv_kinks);
    memset(c->kv_kinks, 0, kv * sizeof *c->kv_kinks);
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            const int64_t at = b * p->heads + h, kv_at = b * p->kv_heads + h / group;
            struct fb_oracle_gradients wanted = {
                .q_rows = rows,
                .q_count = (size_t)p->q_len,
                .dq = c->dq_reference + at * p->q_len * p->qk_dim,
                .kv_rows = rows,
                .kv_count = h % group == 0 ? (size_t)p->kv_len : 0,
                .dk = c->dk_reference + kv_at * p->kv_len * p->qk_dim,
                .dv = c->dv_reference + kv_at * p->kv_len * p->v_dim,
                .kv_kinks = c->kv_kinks + kv_at * p->kv_len,
                .kink_width = fb_judge_kink_width(p->dtype),
            };
            struct fb_error error = {0};
            if (fb_oracle_backward_rows(c->mechanism, p, &call, b, h, &wanted, &error) != FB_OK)
                fail_msg("%s: %s", c->mechanism->name, error.text);
        }
    free(rows);
}

/* Runs one pass with a scratch buffer of its own. */
static bool run_pass(const struct kernel_case *c, const struct fb_attention *attention,
                     enum fb_pass pass, struct fb_call call, size_t scratch_bytes, int scratch_byte)
{
    struct fb_error error = {0};
    unsigned char *scratch = kernel_guarded_allocate(scratch_bytes, scratch_byte);
    call.scratch = scratch_bytes > 0 ? scratch : NULL;
    const enum fb_status status = pass == FB_FORWARD
                                      ? fb_staged_forward(attention, &c->problem, &call, &error)
                                      : fb_staged_backward(attention, &c->problem, &call, &error);
    if (status != FB_OK)
        kernel_report(c, attention, "training %s failed: %s: %s", fb_pass_name(pass),
                      fb_status_name(status), error.text);
    if (!kernel_guard_is_intact(scratch, scratch_bytes))
        kernel_report(c, attention, "%s on %d threads wrote behind the %zu bytes of scratch",
                      fb_pass_name(pass), call.threads, scratch_bytes);
    free(scratch);
    return status == FB_OK;
}

static void check_surroundings(const struct kernel_case *c, const struct fb_attention *attention,
                               const struct kernel_training *t)
{
    const struct {
        const char *name;
        const struct kernel_output *output;
    } outputs[] = {{"out", &t->out}, {"dq", &t->dq}, {"dk", &t->dk}, {"dv", &t->dv}};
    for (size_t i = 0; i < 4; i++) {
        const size_t overwritten = kernel_output_overwritten(outputs[i].output);
        if (overwritten > 0)
            kernel_report(c, attention, "overwrote %zu words around %s", overwritten,
                          outputs[i].name);
    }
}

static void init_gradients(const struct kernel_case *c, struct kernel_training *t)
{
    const struct fb_problem *p = &c->problem;
    kernel_output_init(c, &t->dq, p->heads, p->q_len, p->qk_dim);
    kernel_output_init(c, &t->dk, p->kv_heads, p->kv_len, p->qk_dim);
    kernel_output_init(c, &t->dv, p->kv_heads, p->kv_len, p->v_dim);
}

static void free_gradients(struct kernel_training *t)
{
    kernel_output_free(&t->dq);
    kernel_output_free(&t->dk);
    kernel_output_free(&t->dv);
}

bool kernel_case_train(const struct kernel_case *c, const struct fb_attention *attention,
                       int threads, int scratch_byte, struct kernel_training *training)
{
    struct kernel_training *t = training, again;
    const struct fb_problem *p = &c->problem;
    struct fb_sizes sizes;
    fb_attention_sizes(attention, p, threads, &sizes);
    unsigned char *saved = kernel_guarded_allocate(sizes.saved_bytes, scratch_byte);
    kernel_output_init(c, &t->out, p->heads, p->q_len, p->v_dim);
    init_gradients(c, t);
    init_gradients(c, &again);

    struct fb_call call = {.q = c->q.view,
                           .k = c->k.view,
                           .v = c->v.view,
                           .out = t->out.view,
                           .dout = c->dout.view,
                           .dq = t->dq.view,
                           .dk = t->dk.view,
                           .dv = t->dv.view,
                           .constants = c->constants,
                           /* not NULL, so that forward knows that it trains */
                           .saved = saved,
                           .threads = threads};
    bool done =
        run_pass(c, attention, FB_FORWARD, call, sizes.forward_scratch_bytes, scratch_byte) &&
        run_pass(c, attention, FB_BACKWARD, call, sizes.backward_scratch_bytes, scratch_byte);
    call.dq = again.dq.view;
    call.dk = again.dk.view;
    call.dv = again.dv.view;
    done = done &&
           run_pass(c, attention, FB_BACKWARD, call, sizes.backward_scratch_bytes, scratch_byte);
    if (!kernel_guard_is_intact(saved, sizes.saved_bytes))
        kernel_report(c, attention, "threads %d: wrote behind the %zu bytes of saved", threads,
                      sizes.saved_bytes);
    free(saved);
    check_surroundings(c, attention, t);
    if (done && (attention->deterministic || attention->backend == FB_CPU)) {
        kernel_case_compare(c, attention, &t->dq, &again.dq, "dq of a second backward");
        kernel_case_compare(c, attention, &t->dk, &again.dk, "dk of a second backward");
        kernel_case_compare(c, attention, &t->dv, &again.dv, "dv of a second backward");
    }
    free_gradients(&again);
    if (!done)
        kernel_training_free(t);
    return done;
}

void kernel_training_free(struct kernel_training *training)
{
    kernel_output_free(&training->out);
    free_gradients(training);
}

static struct fb_judgement judge_rows(const struct fb_tensor *x, const double *reference,
                                      const bool *kinks, double budget, double scale)
{
    const int64_t tokens = x->shape[2];
    struct fb_judgement judgement;
    fb_judge_init(&judgement, budget, scale);
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t h = 0; h < x->shape[1]; h++) {
            const int64_t at = (b * x->shape[1] + h) * tokens;
            fb_judge_add_rows_off_kinks(&judgement, kinks ? kinks + at : NULL, x, b, h, NULL,
                                        (size_t)tokens, reference + at * x->shape[3]);
        }
    fb_judge_scan_finite(&judgement, x);
    fb_judge_finish(&judgement);
    return judgement;
}

static void judge_gradient(const struct kernel_case *c, const struct fb_attention *attention,
                           const char *name, const struct fb_tensor *x, const double *reference,
                           const bool *kinks, double scale, double factor)
{
    const double budget = factor * fb_judge_budget(x->dtype, FB_BACKWARD);
    struct fb_judgement judgement = judge_rows(x, reference, kinks, budget, scale);
    const int64_t rows = x->shape[0] * x->shape[1] * x->shape[2];
    /* few tokens (a single source gives all that comes in, which is 1) may all lie at a kink */
    if (2 * judgement.kinks > rows)
        judgement = judge_rows(x, reference, NULL, budget, scale);
    kernel_check_padding(c, attention, x, name[1] == 'q', name);
    char text[512];
    fb_judge_describe(&judgement, text, sizeof text);
    /* The golden rule's scale is far above most gradients, which fall with the length. Digits
     * relative to itself are asked for, too, unless the gradient is zero, or an eps, because
     * everything cancels: one token, one component, a window of one. */
    const struct fb_problem *p = &c->problem;
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const bool cancels = p->q_len == 1 || p->kv_len == 1 || p->qk_dim == 1 ||
                         judgement.ref_max < 1e-3 * scale / (double)longest;
    const double rounding = fb_judge_budget(x->dtype, FB_FORWARD);
    const bool right = cancels ? judgement.passed_golden && judgement.err_max < rounding * factor
                               : judgement.passed;
    if (!right)
        kernel_report(c, attention, "%s %s (err_rel %.2e err_max %.2e)", name, text,
                      judgement.err_rel, judgement.err_max);
    else if (getenv("KERNEL_CASE_VERBOSE"))
        printf("%s/%s %s L%" PRId64 " D%" PRId64 " causal %d: %s %s\n", c->mechanism->name,
               attention->variant, fb_isa_name(attention->isa), p->q_len, p->qk_dim, p->causal,
               name, text);
}

void kernel_case_judge_training(const struct kernel_case *c, const struct fb_attention *attention,
                                const struct kernel_training *training, double factor)
{
    const double dout = c->dout.max, both = c->dout.max * c->v.max;
    if (c->reference)
        kernel_case_judge(c, attention, &training->out,
                          factor * fb_judge_budget(c->problem.dtype, FB_FORWARD));
    judge_gradient(c, attention, "dq", &training->dq.view, c->dq_reference, NULL, both, factor);
    judge_gradient(c, attention, "dk", &training->dk.view, c->dk_reference, c->kv_kinks, both,
                   factor);
    judge_gradient(c, attention, "dv", &training->dv.view, c->dv_reference, NULL, dout, factor);
}

void kernel_case_compare_training(const struct kernel_case *c, const struct fb_attention *attention,
                                  const struct kernel_training *a, const struct kernel_training *b,
                                  const char *what)
{
    kernel_case_compare(c, attention, &a->out, &b->out, what);
    kernel_case_compare(c, attention, &a->dq, &b->dq, what);
    kernel_case_compare(c, attention, &a->dk, &b->dk, what);
    kernel_case_compare(c, attention, &a->dv, &b->dv, what);
}
