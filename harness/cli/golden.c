/*
 * Reading golden files and checking variants against them. See golden.h.
 */
#include "golden.h"

#include "cuda_staged.h"
#include "dtype.h"
#include "oracle.h"
#include "registry.h"
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading -------------------------------------------------------------------------------- */

static enum fb_status read_parameter(struct fb_golden *g, const char *name, const char *text,
                                     struct fb_error *error)
{
    const int index = fb_param_index(g->mechanism, name);
    if (index < 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: metadata '%s' is no parameter of mechanism '%s'", g->path, name,
                            g->mechanism->name);
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0')
        return fb_error_set(error, FB_ERROR_INPUT, "%s: metadata '%s' is '%.40s', not a number",
                            g->path, name, text);
    g->problem.params[index] = value;
    return FB_OK;
}

static enum fb_status read_metadata(struct fb_golden *g, const struct fb_safetensors *file,
                                    struct fb_error *error)
{
    const char *mechanism = fb_safetensors_metadata_find(file, "mechanism");
    const char *causal = fb_safetensors_metadata_find(file, "causal");
    if (!mechanism || !causal)
        return fb_error_set(error, FB_ERROR_INPUT, "%s: the metadata lack 'mechanism' or 'causal'",
                            g->path);
    g->mechanism = fb_mechanism_find(mechanism);
    if (!g->mechanism)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: there is no mechanism '%.40s'; see: flowbench list mechanisms",
                            g->path, mechanism);
    if (strcmp(causal, "true") != 0 && strcmp(causal, "false") != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: metadata 'causal' is '%.40s', not true or false", g->path, causal);
    fb_problem_init(&g->problem, g->mechanism, 1, 1, 1, 1);
    g->problem.causal = strcmp(causal, "true") == 0;
    for (size_t i = 0; i < file->metadata_count; i++) {
        const struct fb_safetensors_text *entry = &file->metadata[i];
        if (strcmp(entry->key, "format") == 0 || strcmp(entry->key, "mechanism") == 0 ||
            strcmp(entry->key, "causal") == 0)
            continue;
        const enum fb_status status = read_parameter(g, entry->key, entry->value, error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

static enum fb_status read_tensor(const struct fb_safetensors *file, const char *name,
                                  enum fb_dtype dtype, struct fb_arena *arena,
                                  struct fb_tensor *tensor, struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = NULL;
    float *single = NULL;
    double *wide = NULL;
    const enum fb_status status =
        dtype == FB_F64 ? fb_safetensors_read_f64(file, name, arena, &wide, &t, error)
                        : fb_safetensors_read_f32(file, name, arena, &single, &t, error);
    if (status != FB_OK)
        return status;
    if (t->rank != 4)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' has %d dimensions; expected 4: batch, head, token, "
                            "component",
                            file->path, name, t->rank);
    *tensor = fb_tensor_dense(dtype == FB_F64 ? (void *)wide : (void *)single, dtype, FB_BHND,
                              t->shape[0], t->shape[1], t->shape[2], t->shape[3]);
    return FB_OK;
}

static enum fb_status check_shape(const struct fb_golden *g, const char *name,
                                  const struct fb_tensor *tensor, int64_t heads, int64_t tokens,
                                  int64_t dim, struct fb_error *error)
{
    const int64_t wanted[4] = {g->problem.batch, heads, tokens, dim};
    for (int i = 0; i < 4; i++)
        if (tensor->shape[i] != wanted[i])
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: tensor '%s' has size %" PRId64
                                " in dimension %d; q, k and v imply %" PRId64,
                                g->path, name, tensor->shape[i], i, wanted[i]);
    return FB_OK;
}

static enum fb_status check_shapes(struct fb_golden *g, struct fb_error *error)
{
    struct fb_problem *p = &g->problem;
    p->batch = g->q.shape[0];
    p->heads = g->q.shape[1];
    p->kv_heads = g->k.shape[1];
    p->q_len = g->q.shape[2];
    p->kv_len = g->k.shape[2];
    p->qk_dim = g->q.shape[3];
    p->v_dim = g->v.shape[3];
    const struct {
        const char *name;
        const struct fb_tensor *tensor;
        int64_t heads, tokens, dim;
    } tensors[] = {
        {"k", &g->k, p->kv_heads, p->kv_len, p->qk_dim},
        {"v", &g->v, p->kv_heads, p->kv_len, p->v_dim},
        {"dout", &g->dout, p->heads, p->q_len, p->v_dim},
        {"out", &g->out, p->heads, p->q_len, p->v_dim},
        {"dq", &g->dq, p->heads, p->q_len, p->qk_dim},
        {"dk", &g->dk, p->kv_heads, p->kv_len, p->qk_dim},
        {"dv", &g->dv, p->kv_heads, p->kv_len, p->v_dim},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        const enum fb_status status =
            check_shape(g, tensors[i].name, tensors[i].tensor, tensors[i].heads, tensors[i].tokens,
                        tensors[i].dim, error);
        if (status != FB_OK)
            return status;
    }
    /* a file may hold no problem that its mechanism refuses: it could check nothing */
    struct fb_error why = {0};
    if (fb_problem_check(p, g->mechanism, &why) != FB_OK)
        return fb_error_set(error, FB_ERROR_INPUT, "%s: %s", g->path, why.text);
    return FB_OK;
}

/* The file's projection takes the place of what prepare would draw. */
static enum fb_status read_constants(struct fb_golden *g, const struct fb_safetensors *file,
                                     struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_mechanism *mechanism = g->mechanism;
    const size_t bytes = mechanism->constants_bytes ? mechanism->constants_bytes(&g->problem) : 0;
    if (bytes == 0)
        return FB_OK;
    float *values = NULL;
    const struct fb_safetensors_tensor *t = NULL;
    const enum fb_status status =
        fb_safetensors_read_f32(file, "projection", arena, &values, &t, error);
    if (status != FB_OK)
        return status;
    if ((size_t)t->count * sizeof(float) != bytes || t->rank != 2 ||
        t->shape[1] != g->problem.qk_dim)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor 'projection' has %" PRId64
                            " elements; [features, D] of this problem are %zu",
                            g->path, t->count, bytes / sizeof(float));
    g->constants = values;
    return FB_OK;
}

static enum fb_status read_tensors(struct fb_golden *g, const struct fb_safetensors *file,
                                   struct fb_arena *arena, struct fb_error *error)
{
    const struct {
        const char *name;
        enum fb_dtype dtype;
        struct fb_tensor *tensor;
    } wanted[] = {
        {"q", FB_F32, &g->q},       {"k", FB_F32, &g->k},     {"v", FB_F32, &g->v},
        {"dout", FB_F32, &g->dout}, {"out", FB_F64, &g->out}, {"dq", FB_F64, &g->dq},
        {"dk", FB_F64, &g->dk},     {"dv", FB_F64, &g->dv},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const enum fb_status status =
            read_tensor(file, wanted[i].name, wanted[i].dtype, arena, wanted[i].tensor, error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

static enum fb_status read_attention(struct fb_golden *g, const struct fb_safetensors *file,
                                     struct fb_arena *arena, struct fb_error *error)
{
    enum fb_status status = read_metadata(g, file, error);
    if (status == FB_OK)
        status = read_tensors(g, file, arena, error);
    if (status == FB_OK)
        status = check_shapes(g, error);
    if (status == FB_OK)
        status = read_constants(g, file, arena, error);
    return status;
}

enum fb_status fb_golden_read(struct fb_golden *golden, const char *path, struct fb_arena *arena,
                              struct fb_error *error)
{
    *golden = (struct fb_golden){.path = path};
    struct fb_safetensors file;
    enum fb_status status = fb_safetensors_open(&file, path, error);
    if (status != FB_OK)
        return status;
    const char *format = fb_safetensors_metadata_find(&file, "format");
    if (format && strcmp(format, "training-golden-1") == 0)
        golden->training = true;
    else if (format && strcmp(format, "attention-golden-1") == 0)
        status = read_attention(golden, &file, arena, error);
    else
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "%s: metadata 'format' is '%.40s'; known are attention-golden-1 and "
                              "training-golden-1",
                              path, format ? format : "(absent)");
    fb_safetensors_close(&file);
    return status;
}

/* ---- rounding ------------------------------------------------------------------------------- */

static enum fb_status round_input(struct fb_tensor *tensor, enum fb_dtype dtype,
                                  struct fb_arena *arena, struct fb_error *error)
{
    const int64_t count = fb_tensor_count(tensor);
    void *values = fb_arena_alloc(arena, (size_t)count, fb_dtype_bytes(dtype), error);
    if (!values)
        return FB_ERROR_MEMORY;
    fb_dtype_narrow(dtype, tensor->data, count, values);
    tensor->data = values;
    tensor->dtype = dtype;
    return FB_OK;
}

/* All rows of one query head; the first head of a group also stands for its keys. */
static enum fb_status refer_head(struct fb_golden *g, const struct fb_call *call,
                                 const int64_t *rows, int64_t b, int64_t h, struct fb_error *error)
{
    const struct fb_problem *p = &g->problem;
    const int64_t group = p->heads / p->kv_heads, kv_head = h / group;
    const bool keys = h % group == 0;
    const struct fb_oracle_gradients wanted = {
        .q_rows = rows,
        .q_count = (size_t)p->q_len,
        .dq = fb_tensor_row(&g->dq, b, h, 0),
        .kv_rows = rows,
        .kv_count = keys ? (size_t)p->kv_len : 0,
        .dk = fb_tensor_row(&g->dk, b, kv_head, 0),
        .dv = fb_tensor_row(&g->dv, b, kv_head, 0),
        .kv_kinks = g->kv_kinks + (b * p->kv_heads + kv_head) * p->kv_len,
        .kink_width = fb_judge_kink_width(p->dtype),
    };
    const enum fb_status status =
        fb_oracle_forward_rows(g->mechanism, p, call, b, h, rows, (size_t)p->q_len,
                               fb_tensor_row(&g->out, b, h, 0), error);
    return status == FB_OK ? fb_oracle_backward_rows(g->mechanism, p, call, b, h, &wanted, error)
                           : status;
}

enum fb_status fb_golden_round(struct fb_golden *golden, enum fb_dtype dtype,
                               struct fb_arena *arena, struct fb_error *error)
{
    struct fb_problem *p = &golden->problem;
    struct fb_tensor *const inputs[] = {&golden->q, &golden->k, &golden->v, &golden->dout};
    enum fb_status status = FB_OK;
    if (golden->training || dtype == p->dtype)
        return FB_OK;
    for (size_t i = 0; status == FB_OK && i < sizeof inputs / sizeof inputs[0]; i++)
        status = round_input(inputs[i], dtype, arena, error);
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    int64_t *rows = fb_arena_alloc(arena, (size_t)longest, sizeof *rows, error);
    golden->kv_kinks =
        fb_arena_alloc(arena, (size_t)(p->batch * p->kv_heads * p->kv_len), sizeof(bool), error);
    if (status != FB_OK || !rows || !golden->kv_kinks)
        return status == FB_OK ? FB_ERROR_MEMORY : status;
    for (int64_t i = 0; i < longest; i++)
        rows[i] = i;
    p->dtype = dtype;
    const struct fb_call call = {.q = golden->q,
                                 .k = golden->k,
                                 .v = golden->v,
                                 .dout = golden->dout,
                                 .constants = golden->constants};
    for (int64_t i = 0; status == FB_OK && i < p->batch * p->heads; i++)
        status = refer_head(golden, &call, rows, i / p->heads, i % p->heads, error);
    return status;
}

/* ---- checking ------------------------------------------------------------------------------- */

/* A dense tensor of the reference's shape whose bytes are all ones: NaN in every dtype. */
static enum fb_status poisoned_like(const struct fb_tensor *reference, enum fb_dtype dtype,
                                    struct fb_arena *arena, struct fb_tensor *tensor,
                                    struct fb_error *error)
{
    const int64_t *shape = reference->shape;
    const size_t count = (size_t)fb_tensor_count(reference);
    const size_t bytes = fb_dtype_bytes(dtype);
    void *values = fb_arena_alloc(arena, count, bytes, error);
    if (!values)
        return FB_ERROR_MEMORY;
    memset(values, 0xff, count * bytes);
    *tensor = fb_tensor_dense(values, dtype, FB_BHND, shape[0], shape[1], shape[2], shape[3]);
    return FB_OK;
}

static enum fb_status poisoned_bytes(size_t bytes, struct fb_arena *arena, void **buffer,
                                     struct fb_error *error)
{
    *buffer = NULL;
    if (bytes == 0)
        return FB_OK;
    *buffer = fb_arena_alloc(arena, bytes, 1, error);
    if (!*buffer)
        return FB_ERROR_MEMORY;
    memset(*buffer, 0xff, bytes);
    return FB_OK;
}

/* kinks: NULL, or which rows to leave out. */
static void judge_tensor(struct fb_judgement *judgement, enum fb_pass pass, double scale,
                         const struct fb_tensor *x, const struct fb_tensor *reference,
                         const bool *kinks)
{
    const int64_t heads = reference->shape[1], tokens = reference->shape[2];
    fb_judge_init(judgement, fb_judge_budget(x->dtype, pass), scale);
    for (int64_t b = 0; b < reference->shape[0]; b++)
        for (int64_t h = 0; h < heads; h++)
            fb_judge_add_rows_off_kinks(judgement, kinks ? kinks + (b * heads + h) * tokens : NULL,
                                        x, b, h, NULL, (size_t)tokens,
                                        (const double *)fb_tensor_row(reference, b, h, 0));
    fb_judge_scan_finite(judgement, x);
    fb_judge_finish(judgement);
}

static enum fb_status prepare_call(const struct fb_golden *g, const struct fb_sizes *sizes,
                                   bool gradients, int threads, struct fb_arena *arena,
                                   struct fb_call *call, struct fb_error *error)
{
    *call = (struct fb_call){
        .q = g->q, .k = g->k, .v = g->v, .constants = g->constants, .threads = threads};
    size_t scratch_bytes = sizes->forward_scratch_bytes;
    if (gradients && sizes->backward_scratch_bytes > scratch_bytes)
        scratch_bytes = sizes->backward_scratch_bytes;
    enum fb_status status = poisoned_bytes(scratch_bytes, arena, &call->scratch, error);
    if (status == FB_OK)
        status = poisoned_like(&g->out, g->problem.dtype, arena, &call->out, error);
    if (status != FB_OK || !gradients)
        return status;
    call->dout = g->dout;
    status = poisoned_bytes(sizes->saved_bytes, arena, &call->saved, error);
    if (status == FB_OK)
        status = poisoned_like(&g->dq, g->problem.dtype, arena, &call->dq, error);
    if (status == FB_OK)
        status = poisoned_like(&g->dk, g->problem.dtype, arena, &call->dk, error);
    if (status == FB_OK)
        status = poisoned_like(&g->dv, g->problem.dtype, arena, &call->dv, error);
    return status;
}

static enum fb_status run_and_judge(const struct fb_golden *g, const struct fb_attention *attention,
                                    struct fb_call *call, struct fb_golden_check *check,
                                    struct fb_error *error)
{
    const double v_max = fb_judge_max_abs(&g->v), dout_max = fb_judge_max_abs(&g->dout);
    enum fb_status status = fb_staged_forward(attention, &g->problem, call, error);
    if (status != FB_OK)
        return status;
    judge_tensor(&check->out, FB_FORWARD, v_max, &call->out, &g->out, NULL);
    check->passed = check->out.passed_golden;
    if (!check->has_gradients)
        return FB_OK;
    status = fb_staged_backward(attention, &g->problem, call, error);
    if (status != FB_OK)
        return status;
    judge_tensor(&check->dq, FB_BACKWARD, dout_max * v_max, &call->dq, &g->dq, NULL);
    judge_tensor(&check->dk, FB_BACKWARD, dout_max * v_max, &call->dk, &g->dk, g->kv_kinks);
    judge_tensor(&check->dv, FB_BACKWARD, dout_max, &call->dv, &g->dv, NULL);
    check->passed = check->passed && check->dq.passed_golden && check->dk.passed_golden &&
                    check->dv.passed_golden;
    return FB_OK;
}

enum fb_status fb_golden_check_variant(const struct fb_golden *golden,
                                       const struct fb_attention *attention, int threads,
                                       struct fb_golden_check *check, struct fb_error *error)
{
    *check = (struct fb_golden_check){.has_gradients = false};
    enum fb_status status = fb_attention_supports(attention, &golden->problem, FB_FORWARD, error);
    if (status != FB_OK)
        return status;
    check->has_gradients = fb_attention_supports(attention, &golden->problem, FB_BOTH,
                                                 &check->why_no_gradients) == FB_OK;
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    struct fb_sizes sizes;
    struct fb_call call;
    fb_attention_sizes(attention, &golden->problem, threads, &sizes);
    status = prepare_call(golden, &sizes, check->has_gradients, threads, &arena, &call, error);
    if (status == FB_OK)
        status = run_and_judge(golden, attention, &call, check, error);
    fb_arena_free(&arena);
    return status;
}
