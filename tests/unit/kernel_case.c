/*
 * See kernel_case.h. The failure count is the one mutable global of the test programs: cmocka runs
 * tests one after another.
 */
#include "kernel_case.h"

#include "cpu_features.h"
#include "cuda_device.h"
#include "cuda_staged.h"
#include "judge.h"
#include "oracle.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64, FAILURES_SHOWN = 40, SCRATCH_GUARD_BYTES = 256, GUARD_BYTE = 0xa5 };

static size_t failure_count;

void kernel_report(const struct kernel_case *c, const struct fb_attention *attention,
                   const char *format, ...)
{
    if (++failure_count > FAILURES_SHOWN)
        return;
    const struct fb_problem *p = &c->problem;
    printf("FAIL %s/%s %s %s B%" PRId64 " H%" PRId64 "/%" PRId64 " L%" PRId64 " S%" PRId64
           " D%" PRId64 " M%" PRId64 " causal %d layout %d lengths %d/%d scale %g seed %lu params",
           c->mechanism->name, attention->variant, fb_isa_name(attention->isa),
           fb_dtype_name(p->dtype), p->batch, p->heads, p->kv_heads, p->q_len, p->kv_len, p->qk_dim,
           p->v_dim, p->causal, (int)c->layout, p->q_lengths != NULL, p->kv_lengths != NULL,
           (double)c->scale, c->seed);
    for (int i = 0; i < c->mechanism->param_count; i++)
        printf(" %g", p->params[i]);
    fputs(": ", stdout);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void kernel_expect_no_failures(void)
{
    const size_t count = failure_count;
    failure_count = 0;
    if (count > 0)
        fail_msg("%zu failures", count);
}

bool kernel_is_foreign(const struct fb_attention *attention)
{
    return attention->backend == FB_CPU && !fb_cpu_has(attention->isa);
}

bool kernel_is_runnable(const struct fb_attention *attention)
{
    /* KERNEL_CASE_DEVICE=cuda: only those; on a machine with a GPU the others need no second run */
    const char *only = getenv("KERNEL_CASE_DEVICE");
    if (only != NULL && strcmp(only, fb_backend_name(attention->backend)) != 0)
        return false;
    if (attention->backend == FB_CUDA)
        return fb_cuda_is_present();
    return !kernel_is_foreign(attention);
}

bool kernel_has_dtype(const struct fb_attention *attention, enum fb_dtype dtype)
{
    struct fb_problem problem;
    struct fb_error why = {0};
    fb_problem_init(&problem, attention->mechanism, 2, 4, 16, 8);
    problem.dtype = dtype;
    return fb_attention_supports(attention, &problem, FB_FORWARD, &why) == FB_OK;
}

bool kernel_case_is_served(const struct kernel_case *c, const struct fb_attention *attention,
                           enum fb_pass pass)
{
    struct fb_error why = {0};
    /* the one variant that is not ours wants rows at multiples of 16 bytes, and says so */
    if (c->layout == LAYOUT_PADDED && strcmp(attention->variant, "cudnn") == 0)
        return false;
    return attention->mechanism == c->mechanism && kernel_is_runnable(attention) &&
           fb_attention_supports(attention, &c->problem, pass, &why) == FB_OK;
}

void *kernel_allocate(size_t bytes)
{
    void *memory = NULL;
    /* exactly the bytes asked for: the address sanitizer then sees an overrun by one */
    if (posix_memalign(&memory, FB_ALIGNMENT, bytes > 0 ? bytes : 1) != 0)
        fail_msg("no memory for %zu bytes", bytes);
    return memory;
}

/* The view of a layout over data; *count gets the elements from the first to the last. */
static struct fb_tensor make_view(enum kernel_layout layout, enum fb_dtype dtype, int64_t batch,
                                  int64_t heads, int64_t tokens, int64_t dim, size_t *count)
{
    struct fb_tensor view = fb_tensor_dense(NULL, dtype, layout == LAYOUT_BNHD ? FB_BNHD : FB_BHND,
                                            batch, heads, tokens, dim);
    if (layout == LAYOUT_PADDED) {
        view.stride[2] = dim + 3;
        view.stride[1] = tokens * view.stride[2] + 5;
        view.stride[0] = heads * view.stride[1] + 7;
    }
    *count = (size_t)((batch - 1) * view.stride[0] + (heads - 1) * view.stride[1] +
                      (tokens - 1) * view.stride[2] + dim);
    return view;
}

static void draw_tensor(struct kernel_tensor *tensor, enum kernel_layout layout, int64_t heads,
                        int64_t tokens, int64_t dim, const struct kernel_case *c, float scale,
                        const int64_t *lengths, uint64_t stream)
{
    const int64_t batch = c->problem.batch;
    const enum fb_dtype dtype = c->problem.dtype;
    tensor->view = make_view(layout, dtype, batch, heads, tokens, dim, &tensor->count);
    tensor->max = 0.0;
    tensor->buffer = kernel_allocate(tensor->count * fb_dtype_bytes(dtype));
    memset(tensor->buffer, 0xff, tensor->count * fb_dtype_bytes(dtype));
    tensor->view.data = tensor->buffer;
    struct fb_random random;
    fb_random_init(&random, c->seed, stream);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t t = 0; t < (lengths ? lengths[b] : tokens); t++)
                for (int64_t d = 0; d < dim; d++) {
                    const float x = scale * (float)fb_random_normal(&random);
                    unsigned char *row = fb_tensor_row(&tensor->view, b, h, t);
                    fb_dtype_narrow(dtype, &x, 1, row + (size_t)d * fb_dtype_bytes(dtype));
                    tensor->max =
                        fmax(tensor->max, fabs(fb_tensor_value(&tensor->view, b, h, t, d)));
                }
}

void kernel_case_init(struct kernel_case *c)
{
    const struct fb_problem *p = &c->problem;
    struct fb_error error = {0};
    if (fb_problem_check(p, c->mechanism, &error) != FB_OK)
        fail_msg("%s: %s", c->mechanism->name, error.text);
    draw_tensor(&c->q, c->layout, p->heads, p->q_len, p->qk_dim, c, c->scale, p->q_lengths, 1);
    draw_tensor(&c->k, c->layout, p->kv_heads, p->kv_len, p->qk_dim, c, c->scale, p->kv_lengths, 2);
    draw_tensor(&c->v, c->layout, p->kv_heads, p->kv_len, p->v_dim, c, 1.0f, p->kv_lengths, 3);
    draw_tensor(&c->dout, c->layout, p->heads, p->q_len, p->v_dim, c, 1.0f, p->q_lengths, 4);
    c->constants = NULL;
    c->rows = NULL;
    c->reference = c->dq_reference = c->dk_reference = c->dv_reference = NULL;
    c->kv_kinks = NULL;
    if (c->mechanism->constants_bytes && c->mechanism->constants_bytes(p) > 0) {
        c->constants = kernel_allocate(c->mechanism->constants_bytes(p));
        if (c->mechanism->prepare(p, c->seed, c->constants, &error) != FB_OK)
            fail_msg("%s: prepare: %s", c->mechanism->name, error.text);
    }
}

void kernel_case_raise(struct kernel_tensor *x, int64_t from, int64_t to, int64_t component,
                       float by)
{
    const struct fb_tensor *t = &x->view;
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t h = 0; h < t->shape[1]; h++)
            for (int64_t token = from; token < to; token++) {
                const float y = (float)fb_tensor_value(t, b, h, token, component) + by;
                unsigned char *row = fb_tensor_row(t, b, h, token);
                fb_dtype_narrow(t->dtype, &y, 1,
                                row + (size_t)component * fb_dtype_bytes(t->dtype));
                x->max = fmax(x->max, fabs(fb_tensor_value(t, b, h, token, component)));
            }
}

static void choose_rows(struct kernel_case *c, size_t rows_max)
{
    const int64_t len = c->problem.q_len;
    c->rows = kernel_allocate((size_t)len * sizeof *c->rows);
    c->rows_count = 0;
    const bool all = rows_max == 0 || (int64_t)rows_max >= len;
    /* an odd step meets every residue of the kernels' block sizes */
    const int64_t step = all ? 1 : (len / (int64_t)rows_max) | 1;
    for (int64_t row = 0; row < len; row++)
        if (row % step == 0 || row == len - 1 || (!all && row < 2))
            c->rows[c->rows_count++] = row;
}

void kernel_case_reference(struct kernel_case *c, size_t rows_max)
{
    const struct fb_problem *p = &c->problem;
    const struct fb_call call = {
        .q = c->q.view, .k = c->k.view, .v = c->v.view, .constants = c->constants};
    choose_rows(c, rows_max);
    const size_t head_count = c->rows_count * (size_t)p->v_dim;
    c->reference = kernel_allocate((size_t)(p->batch * p->heads) * head_count * sizeof(double));
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            struct fb_error error = {0};
            double *out = c->reference + (size_t)(b * p->heads + h) * head_count;
            if (fb_oracle_forward_rows(c->mechanism, p, &call, b, h, c->rows, c->rows_count, out,
                                       &error) != FB_OK)
                fail_msg("%s: %s", c->mechanism->name, error.text);
        }
}

void kernel_case_free(struct kernel_case *c)
{
    free(c->q.buffer);
    free(c->k.buffer);
    free(c->v.buffer);
    free(c->dout.buffer);
    free(c->constants);
    free(c->rows);
    free(c->reference);
    free(c->dq_reference);
    free(c->dk_reference);
    free(c->dv_reference);
    free(c->kv_kinks);
}

size_t kernel_output_overwritten(const struct kernel_output *output)
{
    const struct fb_tensor *t = &output->view;
    const size_t bytes = fb_dtype_bytes(t->dtype);
    unsigned char *inside = calloc(output->count, 1);
    assert_non_null(inside);
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t h = 0; h < t->shape[1]; h++)
            for (int64_t n = 0; n < t->shape[2]; n++)
                memset(inside + ((unsigned char *)fb_tensor_row(t, b, h, n) - output->buffer) /
                                    (ptrdiff_t)bytes,
                       1, (size_t)t->shape[3]);
    size_t overwritten = 0;
    for (size_t i = 0; i < output->count; i++) {
        static const unsigned char untouched[8] = {255, 255, 255, 255, 255, 255, 255, 255};
        overwritten += !inside[i] && memcmp(output->buffer + i * bytes, untouched, bytes) != 0;
    }
    free(inside);
    return overwritten;
}

void *kernel_guarded_allocate(size_t bytes, int fill_byte)
{
    unsigned char *buffer = kernel_allocate(bytes + SCRATCH_GUARD_BYTES);
    memset(buffer, fill_byte, bytes);
    memset(buffer + bytes, GUARD_BYTE, SCRATCH_GUARD_BYTES);
    return buffer;
}

bool kernel_guard_is_intact(const void *buffer, size_t bytes)
{
    const unsigned char *guard = (const unsigned char *)buffer + bytes;
    for (int i = 0; i < SCRATCH_GUARD_BYTES; i++)
        if (guard[i] != GUARD_BYTE)
            return false;
    return true;
}

void kernel_output_init(const struct kernel_case *c, struct kernel_output *output, int64_t heads,
                        int64_t tokens, int64_t dim)
{
    size_t count;
    const enum fb_dtype dtype = c->problem.dtype;
    const size_t bytes = fb_dtype_bytes(dtype);
    output->view = make_view(c->layout, dtype, c->problem.batch, heads, tokens, dim, &count);
    output->count = count + (size_t)2 * GUARD;
    output->buffer = kernel_allocate(output->count * bytes);
    memset(output->buffer, 0xff, output->count * bytes);
    output->view.data = output->buffer + GUARD * bytes;
}

bool kernel_case_run(const struct kernel_case *c, const struct fb_attention *attention, int threads,
                     int scratch_byte, struct kernel_output *output)
{
    struct fb_sizes sizes;
    fb_attention_sizes(attention, &c->problem, threads, &sizes);
    const size_t scratch_bytes = sizes.forward_scratch_bytes;
    void *scratch = kernel_guarded_allocate(scratch_bytes, scratch_byte);
    kernel_output_init(c, output, c->problem.heads, c->problem.q_len, c->problem.v_dim);

    const struct fb_call call = {.q = c->q.view,
                                 .k = c->k.view,
                                 .v = c->v.view,
                                 .out = output->view,
                                 .constants = c->constants,
                                 .scratch = scratch_bytes > 0 ? scratch : NULL,
                                 .threads = threads};
    struct fb_error error = {0};
    const enum fb_status status = fb_staged_forward(attention, &c->problem, &call, &error);
    if (status != FB_OK)
        kernel_report(c, attention, "forward failed: %s: %s", fb_status_name(status), error.text);
    if (!kernel_guard_is_intact(scratch, scratch_bytes))
        kernel_report(c, attention, "threads %d: wrote behind the %zu bytes of scratch", threads,
                      scratch_bytes);
    free(scratch);
    const size_t overwritten = kernel_output_overwritten(output);
    if (overwritten > 0)
        kernel_report(c, attention, "threads %d: overwrote %zu words around the output", threads,
                      overwritten);
    if (status != FB_OK)
        kernel_output_free(output);
    return status == FB_OK;
}

void kernel_output_free(struct kernel_output *output)
{
    free(output->buffer);
    output->buffer = NULL;
}

void kernel_check_padding(const struct kernel_case *c, const struct fb_attention *attention,
                          const struct fb_tensor *x, bool queries, const char *name)
{
    const struct fb_problem *p = &c->problem;
    size_t wrong = 0;
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t sinks = p->q_lengths ? p->q_lengths[b] : p->q_len;
        const int64_t sources = p->kv_lengths ? p->kv_lengths[b] : p->kv_len;
        const int64_t valid = sinks == 0 || sources == 0 ? 0 : queries ? sinks : sources;
        for (int64_t h = 0; h < x->shape[1]; h++)
            for (int64_t t = valid; t < x->shape[2]; t++)
                for (int64_t d = 0; d < x->shape[3]; d++)
                    wrong += !(fb_tensor_value(x, b, h, t, d) == 0.0);
    }
    if (wrong > 0)
        kernel_report(c, attention, "%zu elements of padding in %s are not zero", wrong, name);
}

void kernel_case_judge(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double budget)
{
    const struct fb_problem *p = &c->problem;
    const size_t head_count = c->rows_count * (size_t)p->v_dim;
    struct fb_judgement judgement;
    fb_judge_init(&judgement, budget, c->v.max);
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            fb_judge_add_rows(&judgement, &output->view, b, h, c->rows, c->rows_count,
                              c->reference + (size_t)(b * p->heads + h) * head_count);
    fb_judge_scan_finite(&judgement, &output->view);
    fb_judge_finish(&judgement);
    kernel_check_padding(c, attention, &output->view, true, "out");
    char text[512];
    fb_judge_describe(&judgement, text, sizeof text);
    if (!judgement.passed)
        kernel_report(c, attention, "%s (err_rel %.2e err_max %.2e)", text, judgement.err_rel,
                      judgement.err_max);
    else if (getenv("KERNEL_CASE_VERBOSE"))
        printf("%s/%s %s L%" PRId64 " D%" PRId64 " causal %d: %s\n", c->mechanism->name,
               attention->variant, fb_isa_name(attention->isa), p->q_len, p->qk_dim, p->causal,
               text);
}

void kernel_case_bound(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double bound)
{
    const double largest = fb_judge_max_abs(&output->view);
    const double limit = bound * c->v.max;
    if (!(largest <= limit))
        kernel_report(c, attention, "an element of size %g; no answer passes %g", largest, limit);
}

void kernel_case_compare(const struct kernel_case *c, const struct fb_attention *attention,
                         const struct kernel_output *a, const struct kernel_output *b,
                         const char *what)
{
    const size_t bytes = fb_dtype_bytes(a->view.dtype);
    size_t different = 0;
    for (size_t i = 0; i < a->count; i++)
        different += memcmp(a->buffer + i * bytes, b->buffer + i * bytes, bytes) != 0;
    if (different > 0)
        kernel_report(c, attention, "%s: %zu elements differ", what, different);
}
