/* Reading and checking the tensors of `flowbench apply`: see apply_input.h. */
#include "apply_input.h"

#include "dtype.h"
#include "nearest.h"
#include "safetensors.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { SHAPE_SIZE = 24 * FB_SAFETENSORS_RANK_MAX };
enum { Q, K, V, DOUT, REAL_COUNT };

static const char *const real_names[REAL_COUNT] = {"q", "k", "v", "dout"};
static const char *const dimension_names[4] = {"batch", "heads", "tokens", "dim"};

/* What the reader works on. */
struct reader {
    const struct fb_apply_request *request;
    const struct fb_safetensors *file;
    struct fb_safetensors_tensor real[REAL_COUNT]; /* name NULL: not there */
    struct fb_arena *arena;
    struct fb_apply_input *input;
};

/* "[1, 2, 9, 8]" */
static const char *describe_shape(const struct fb_safetensors_tensor *tensor, char *text,
                                  size_t text_size)
{
    size_t used = (size_t)snprintf(text, text_size, "[");

    for (int i = 0; i < tensor->rank && used < text_size; i++)
        used += (size_t)snprintf(text + used, text_size - used, "%s%" PRId64, i > 0 ? ", " : "",
                                 tensor->shape[i]);
    if (used < text_size)
        (void)snprintf(text + used, text_size - used, "]");
    return text;
}

/* ---- names and shapes ------------------------------------------------------------------------ */

static enum fb_status find_tensors(struct reader *reader, struct fb_error *error)
{
    for (int i = 0; i < REAL_COUNT; i++) {
        const struct fb_safetensors_tensor *t = fb_safetensors_find(reader->file, real_names[i]);
        char shape[SHAPE_SIZE];
        if (t == NULL && i != DOUT)
            return fb_error_set(
                error, FB_ERROR_INPUT,
                "%s: there is no tensor '%s'; needed are q [B,H,L,D], k [B,Hkv,S,D] "
                "and v [B,Hkv,S,M]",
                reader->file->path, real_names[i]);
        if (t == NULL || (i == DOUT && !reader->request->gradients))
            continue;
        if (t->rank != 4)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: tensor '%s' has shape %s, %d dimension%s; 4 are needed: "
                                "[batch, heads, tokens, dim]",
                                reader->file->path, t->name, describe_shape(t, shape, sizeof shape),
                                t->rank, t->rank == 1 ? "" : "s");
        for (int d = 0; d < 4; d++) {
            const int64_t limit = d == 3 ? FB_HEAD_DIM_MAX : INT64_MAX;
            if (t->shape[d] < 1 || t->shape[d] > limit)
                return fb_error_set(error, FB_ERROR_INPUT,
                                    "%s: tensor '%s' has shape %s: dimension %d (%s) must be "
                                    "between 1 and %" PRId64,
                                    reader->file->path, t->name,
                                    describe_shape(t, shape, sizeof shape), d, dimension_names[d],
                                    limit);
        }
        reader->real[i] = *t;
    }
    return FB_OK;
}

static enum fb_status check_fit(const struct reader *reader, struct fb_error *error)
{
    static const struct {
        int tensor, dimension, like, like_dimension;
    } needs[] = {{K, 0, Q, 0},    {K, 3, Q, 3},    {V, 0, Q, 0},    {V, 1, K, 1},   {V, 2, K, 2},
                 {DOUT, 0, Q, 0}, {DOUT, 1, Q, 1}, {DOUT, 2, Q, 2}, {DOUT, 3, V, 3}};
    char shape[SHAPE_SIZE];
    char like_shape[SHAPE_SIZE];

    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        const struct fb_safetensors_tensor *t = &reader->real[needs[i].tensor];
        const struct fb_safetensors_tensor *like = &reader->real[needs[i].like];
        if (t->name == NULL || t->shape[needs[i].dimension] == like->shape[needs[i].like_dimension])
            continue;
        return fb_error_set(
            error, FB_ERROR_INPUT,
            "%s: tensor '%s' has shape %s: dimension %d (%s) must be %" PRId64 ", as in %s %s",
            reader->file->path, t->name, describe_shape(t, shape, sizeof shape), needs[i].dimension,
            dimension_names[needs[i].dimension], like->shape[needs[i].like_dimension], like->name,
            describe_shape(like, like_shape, sizeof like_shape));
    }
    const int64_t heads = reader->real[Q].shape[1];
    const int64_t kv_heads = reader->real[K].shape[1];
    if (heads % kv_heads != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor 'k' has shape %s: its %" PRId64
                            " heads must divide the %" PRId64 " heads of q %s",
                            reader->file->path,
                            describe_shape(&reader->real[K], shape, sizeof shape), kv_heads, heads,
                            describe_shape(&reader->real[Q], like_shape, sizeof like_shape));
    return FB_OK;
}

/* A mistyped optional tensor must not be passed over in silence. */
static void tell_unused(const struct reader *reader)
{
    const struct fb_apply_request *request = reader->request;
    /* inputs, and what an earlier result or a golden file holds beside them */
    static const char *const silent[] = {"q", "k", "v", "out", "dq", "dk", "dv"};
    const char *const optional[] = {"q_lengths", "kv_lengths", "dout", "projection"};
    const size_t optional_count = sizeof optional / sizeof optional[0];

    for (size_t i = 0; i < reader->file->tensor_count; i++) {
        const char *name = reader->file->tensors[i].name;
        bool used = false;
        for (size_t known = 0; known < sizeof silent / sizeof silent[0]; known++)
            used = used || strcmp(name, silent[known]) == 0;
        for (size_t o = 0; o < optional_count; o++)
            used = used || strcmp(name, optional[o]) == 0;
        if (strcmp(name, "projection") == 0)
            used = request->mechanism->constants_bytes != NULL;
        if (used)
            continue;
        const char *near = fb_nearest_name(name, optional, optional_count);
        if (near != NULL && fb_safetensors_find(reader->file, near) != NULL)
            near = NULL;
        fprintf(request->notices, "flowbench apply: notice: tensor '%.60s' is not used%s%s%s\n",
                name, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                near != NULL ? "'?" : "");
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

int64_t fb_apply_count_nonfinite(const struct fb_tensor *tensor, int64_t first[4])
{
    const int64_t count = fb_tensor_count(tensor);
    int64_t found = 0;

    for (int64_t i = 0; i < count; i++) {
        int64_t at[4], rest = i;
        for (int d = 3; d >= 0; d--) {
            at[d] = rest % tensor->shape[d];
            rest /= tensor->shape[d];
        }
        if (!isfinite(fb_tensor_value(tensor, at[0], at[1], at[2], at[3])) && found++ == 0)
            memcpy(first, at, sizeof at);
    }
    return found;
}

/* The view is of four dimensions, the last ones those of the tensor in the file. */
static enum fb_status check_finite(const struct reader *reader,
                                   const struct fb_safetensors_tensor *t,
                                   const struct fb_tensor *view, struct fb_error *error)
{
    int64_t first[4] = {0};
    const int64_t count = fb_apply_count_nonfinite(view, first);
    struct fb_safetensors_tensor place = {.rank = t->rank};
    char where[SHAPE_SIZE];

    if (count == 0 || reader->request->allow_nonfinite)
        return FB_OK;
    memcpy(place.shape, first + 4 - t->rank, (size_t)t->rank * sizeof first[0]);
    const double value = fb_tensor_value(view, first[0], first[1], first[2], first[3]);
    return fb_error_set(error, FB_ERROR_INPUT,
                        "%s: tensor '%s' (%s) holds %" PRId64
                        " value%s NaN or infinite in %s, the first (%g) at %s; correct the input, "
                        "or let them through with --allow-nonfinite",
                        reader->file->path, t->name, fb_safetensors_type_name(t->type), count,
                        count == 1 ? " that is" : "s that are", fb_dtype_name(view->dtype), value,
                        describe_shape(&place, where, sizeof where));
}

/* Rounded to nearest; what is beyond f32 becomes infinite. */
static enum fb_status read_narrowed(const struct reader *reader, const char *name, float **values,
                                    struct fb_error *error)
{
    const struct fb_safetensors_tensor *t;
    struct fb_arena wide_arena;
    double *wide;

    fb_arena_init(&wide_arena, 0);
    enum fb_status status =
        fb_safetensors_read_f64(reader->file, name, &wide_arena, &wide, &t, error);
    if (status == FB_OK) {
        *values = fb_arena_alloc(reader->arena, (size_t)t->count + 1, sizeof **values, error);
        status = *values != NULL ? FB_OK : FB_ERROR_MEMORY;
    }
    for (int64_t i = 0; status == FB_OK && i < t->count; i++) {
        const bool beyond = fabs(wide[i]) > (double)FLT_MAX && isfinite(wide[i]);
        (*values)[i] = beyond ? copysignf(INFINITY, wide[i] < 0.0 ? -1.0F : 1.0F) : (float)wide[i];
    }
    fb_arena_free(&wide_arena);
    return status;
}

/* The numbers of a tensor in f32; the notice says what becomes of them in dtype. */
static enum fb_status read_values(const struct reader *reader,
                                  const struct fb_safetensors_tensor *t, enum fb_dtype dtype,
                                  float **values, struct fb_error *error)
{
    static const enum fb_safetensors_type types[FB_DTYPE_COUNT] = {FB_ST_F32, FB_ST_F64, FB_ST_BF16,
                                                                   FB_ST_F16};
    const char *type = fb_safetensors_type_name(t->type);
    const bool widened = dtype == FB_F32 && t->type != FB_ST_F64;
    const enum fb_status status =
        t->type == FB_ST_F64
            ? read_narrowed(reader, t->name, values, error)
            : fb_safetensors_read_f32(reader->file, t->name, reader->arena, values, NULL, error);

    if (status == FB_OK && t->type != types[dtype])
        fprintf(reader->request->notices,
                "flowbench apply: notice: tensor '%s' is %s: %s%s, computed in %s\n", t->name, type,
                widened ? "widened" : "rounded to ", widened ? "" : fb_dtype_name(dtype),
                fb_dtype_name(dtype));
    return status;
}

static enum fb_status read_reals(struct reader *reader, struct fb_error *error)
{
    struct fb_tensor *const targets[REAL_COUNT] = {&reader->input->q, &reader->input->k,
                                                   &reader->input->v, &reader->input->dout};

    for (int i = 0; i < REAL_COUNT; i++) {
        const struct fb_safetensors_tensor *t = &reader->real[i];
        const enum fb_dtype dtype = reader->request->dtype;
        float *values;
        if (t->name == NULL)
            continue;
        enum fb_status status = read_values(reader, t, dtype, &values, error);
        if (status != FB_OK)
            return status;
        void *narrow =
            fb_arena_alloc(reader->arena, (size_t)t->count, fb_dtype_bytes(dtype), error);
        if (narrow == NULL)
            return FB_ERROR_MEMORY;
        fb_dtype_narrow(dtype, values, t->count, narrow);
        *targets[i] = fb_tensor_dense(narrow, dtype, FB_BHND, t->shape[0], t->shape[1], t->shape[2],
                                      t->shape[3]);
        status = check_finite(reader, t, targets[i], error);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

static enum fb_status read_lengths(const struct reader *reader, const char *name,
                                   const int64_t **lengths, struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = fb_safetensors_find(reader->file, name);
    const int64_t batch = reader->real[Q].shape[0];
    char shape[SHAPE_SIZE];

    *lengths = NULL;
    if (t == NULL)
        return FB_OK;
    if (t->rank != 1 || t->shape[0] != batch)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' has shape %s; it must be [%" PRId64
                            "], one length per batch entry of q",
                            reader->file->path, name, describe_shape(t, shape, sizeof shape),
                            batch);
    if (t->type != FB_ST_I64 && t->type != FB_ST_I32)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' has type %s; expected I64 or "
                            "I32",
                            reader->file->path, name, fb_safetensors_type_name(t->type));
    int64_t *values = fb_arena_alloc(reader->arena, (size_t)batch, sizeof *values, error);
    if (values == NULL)
        return FB_ERROR_MEMORY;
    for (int64_t b = 0; b < batch; b++) {
        int32_t narrow;
        if (t->type == FB_ST_I64) {
            memcpy(&values[b], (const char *)t->data + b * 8, sizeof values[b]);
        } else {
            memcpy(&narrow, (const char *)t->data + b * 4, sizeof narrow);
            values[b] = narrow;
        }
    }
    *lengths = values;
    return FB_OK;
}

/* ---- constants ------------------------------------------------------------------------------- */

/* The file's projection decides the number of features, unless --param names another. */
static enum fb_status take_projection_shape(const struct reader *reader,
                                            const struct fb_safetensors_tensor *t,
                                            struct fb_error *error)
{
    struct fb_problem *problem = &reader->input->problem;
    const int at = fb_param_index(reader->request->mechanism, "features");
    char shape[SHAPE_SIZE];

    if (t->rank != 2 || t->shape[0] < 1 || t->shape[1] != problem->qk_dim)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor 'projection' has shape %s; it must be [features, %" PRId64
                            "], the last as in q",
                            reader->file->path, describe_shape(t, shape, sizeof shape),
                            problem->qk_dim);
    if (at < 0)
        return FB_OK;
    if (reader->request->params_given[at] && problem->params[at] != (double)t->shape[0])
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor 'projection' has %" PRId64 " features, --param features "
                            "says %g; leave the option out, or the tensor",
                            reader->file->path, t->shape[0], problem->params[at]);
    problem->params[at] = (double)t->shape[0];
    return FB_OK;
}

static enum fb_status read_projection(const struct reader *reader,
                                      const struct fb_safetensors_tensor *t, size_t bytes,
                                      struct fb_error *error)
{
    float *values;

    if (t->count < 0 || (size_t)t->count != bytes / sizeof *values)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor 'projection' has %" PRId64 " numbers; %s with these "
                            "parameters needs %zu",
                            reader->file->path, t->count, reader->request->mechanism->name,
                            bytes / sizeof *values);
    const enum fb_status status = read_values(reader, t, FB_F32, &values, error);
    if (status != FB_OK)
        return status;
    const struct fb_tensor view =
        fb_tensor_dense(values, FB_F32, FB_BHND, 1, 1, t->shape[0], t->shape[1]);
    reader->input->constants = values;
    return check_finite(reader, t, &view, error);
}

static enum fb_status draw_constants(const struct reader *reader, size_t bytes,
                                     struct fb_error *error)
{
    float *values = fb_arena_alloc(reader->arena, bytes, 1, error);

    if (values == NULL)
        return FB_ERROR_MEMORY;
    reader->input->constants = values;
    reader->input->constants_drawn = true;
    return reader->request->mechanism->prepare(&reader->input->problem, reader->request->seed,
                                               values, error);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static enum fb_status make_problem(const struct reader *reader,
                                   const struct fb_safetensors_tensor *projection,
                                   struct fb_error *error)
{
    const struct fb_apply_request *request = reader->request;
    const struct fb_safetensors_tensor *real = reader->real;
    struct fb_problem *problem = &reader->input->problem;

    *problem = (struct fb_problem){
        .batch = real[Q].shape[0],
        .heads = real[Q].shape[1],
        .kv_heads = real[K].shape[1],
        .q_len = real[Q].shape[2],
        .kv_len = real[K].shape[2],
        .qk_dim = real[Q].shape[3],
        .v_dim = real[V].shape[3],
        .dtype = request->dtype,
        .causal = request->causal,
    };
    memcpy(problem->params, request->params, sizeof problem->params);
    enum fb_status status = read_lengths(reader, "q_lengths", &problem->q_lengths, error);
    if (status == FB_OK)
        status = read_lengths(reader, "kv_lengths", &problem->kv_lengths, error);
    if (status == FB_OK && projection != NULL)
        status = take_projection_shape(reader, projection, error);
    if (status != FB_OK)
        return status;
    status = fb_problem_check(problem, request->mechanism, error);
    return status == FB_OK ? FB_OK : fb_error_prefix(error, "%s", reader->file->path);
}

static enum fb_status read_all(struct reader *reader, struct fb_error *error)
{
    const struct fb_mechanism *mechanism = reader->request->mechanism;
    const struct fb_safetensors_tensor *projection =
        mechanism->constants_bytes != NULL ? fb_safetensors_find(reader->file, "projection") : NULL;
    enum fb_status status = find_tensors(reader, error);

    if (status == FB_OK)
        status = check_fit(reader, error);
    if (status == FB_OK)
        status = make_problem(reader, projection, error);
    if (status != FB_OK)
        return status;
    tell_unused(reader);
    status = read_reals(reader, error);
    const size_t bytes = mechanism->constants_bytes != NULL
                             ? mechanism->constants_bytes(&reader->input->problem)
                             : 0;
    if (status == FB_OK && projection != NULL)
        status = read_projection(reader, projection, bytes, error);
    else if (status == FB_OK && bytes > 0)
        status = draw_constants(reader, bytes, error);
    return status;
}

enum fb_status fb_apply_input_read(const struct fb_apply_request *request, struct fb_arena *arena,
                                   struct fb_apply_input *input, struct fb_error *error)
{
    struct fb_safetensors file;
    struct reader reader = {.request = request, .file = &file, .arena = arena, .input = input};

    memset(input, 0, sizeof *input);
    enum fb_status status = fb_safetensors_open(&file, request->path, error);
    if (status == FB_ERROR_IO && error != NULL)
        status = error->code = FB_ERROR_INPUT; /* a path that cannot be read is the user's */
    if (status != FB_OK)
        return status;
    status = read_all(&reader, error);
    fb_safetensors_close(&file);
    return status;
}
