/*
 * safetensors files for the tests of the command line, without Python.
 *
 *   tensor_tool make FILE SPEC...      SPEC: name=TYPE[shape]:FILL, FILL one of
 *                                      normal   standard normal numbers (F16: finite halves)
 *                                      big      1e30          nan@7, inf@7   normal, but one
 *                                      3,4      these whole numbers (I64, I32)
 *   tensor_tool f32 IN OUT             q, k and v as F32, rounded where they are F64
 *   tensor_tool judge GOLDEN RESULT    what RESULT holds of out, dq, dk, dv against GOLDEN, by the
 *                                      rule of tests/golden/README.md
 *   tensor_tool same A B               the same tensors, bit for bit
 *   tensor_tool show FILE [KEY]        "name TYPE [shape]" per tensor, or one entry of the metadata
 *
 * Exit code 0: yes or done; 1: no; 2: usage or a file that cannot be read.
 */
#include "judge.h"
#include "random.h"
#include "safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 16, NAME_SIZE = 64 };

static int complain(const char *what)
{
    fprintf(stderr, "tensor_tool: %s\n", what);
    return 2;
}

/* ---- make ------------------------------------------------------------------------------------ */

static int parse_type(const char *name)
{
    for (int type = 0; type < FB_ST_TYPE_COUNT; type++) {
        if (strcmp(fb_safetensors_type_name((enum fb_safetensors_type)type), name) == 0)
            return type;
    }
    return -1;
}

static void put_real(const struct fb_safetensors_tensor *t, void *data, int64_t i, double value)
{
    const float narrow = (float)value;
    uint32_t bits;

    memcpy(&bits, &narrow, sizeof bits);
    if (t->type == FB_ST_F64)
        ((double *)data)[i] = value;
    else if (t->type == FB_ST_F32)
        ((float *)data)[i] = narrow;
    else if (t->type == FB_ST_BF16)
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
}

static void fill_real(const struct fb_safetensors_tensor *t, void *data, const char *fill)
{
    struct fb_random random;
    const char *at = strchr(fill, '@');

    fb_random_init(&random, 7, (uint64_t)(unsigned char)t->name[0]);
    for (int64_t i = 0; i < t->count; i++) {
        const double value = strcmp(fill, "big") == 0 ? 1e30 : fb_random_normal(&random);
        put_real(t, data, i, value);
        if (t->type == FB_ST_F16) /* any sign and fraction, exponents 2^-4 to 2^0 */
            ((uint16_t *)data)[i] = (uint16_t)(fb_random_below(&random, 0x10000) & 0x83ff) |
                                    (uint16_t)((11 + fb_random_below(&random, 5)) << 10);
    }
    if (at != NULL)
        put_real(t, data, strtoll(at + 1, NULL, 10),
                 strncmp(fill, "nan", 3) == 0 ? (double)NAN : (double)INFINITY);
}

static void fill_whole(const struct fb_safetensors_tensor *t, void *data, const char *fill)
{
    for (int64_t i = 0; i < t->count; i++) {
        char *end;
        const int64_t value = strtoll(fill, &end, 10);
        if (t->type == FB_ST_I64)
            ((int64_t *)data)[i] = value;
        else
            ((int32_t *)data)[i] = (int32_t)value;
        fill = *end == ',' ? end + 1 : end;
    }
}

/* "q=F32[1,2,9,8]:normal"; the tensor's data and name live in the arena. */
static bool parse_spec(const char *spec, struct fb_arena *arena, struct fb_safetensors_tensor *t)
{
    struct fb_error error;
    char *name = fb_arena_alloc(arena, NAME_SIZE, 1, &error);
    char type[8];
    char fill[32];
    char shape[NAME_SIZE] = "";

    if (name == NULL ||
        (sscanf(spec, "%63[^=]=%7[A-Z0-9][%63[0-9,]]:%31s", name, type, shape, fill) != 4))
        return false;
    const int found = parse_type(type);
    *t = (struct fb_safetensors_tensor){.name = name, .count = 1};
    for (char *next = shape; *next != '\0' && t->rank < FB_SAFETENSORS_RANK_MAX;) {
        t->shape[t->rank] = strtoll(next, &next, 10);
        t->count *= t->shape[t->rank++];
        next += *next == ',';
    }
    if (found < 0)
        return false;
    t->type = (enum fb_safetensors_type)found;
    t->bytes = (size_t)t->count * fb_safetensors_type_bytes(t->type);
    void *data = fb_arena_alloc(arena, t->bytes + 1, 1, &error);
    if (data == NULL)
        return false;
    t->data = data;
    if (t->type == FB_ST_I64 || t->type == FB_ST_I32)
        fill_whole(t, data, fill);
    else
        fill_real(t, data, fill);
    return true;
}

static int finish_write(const char *path, const struct fb_safetensors_tensor *tensors, size_t count)
{
    struct fb_error error;

    return fb_safetensors_write(path, tensors, count, NULL, 0, &error) == FB_OK
               ? 0
               : complain(error.text);
}

static int make(const char *path, char **specs, int count)
{
    struct fb_safetensors_tensor tensors[TENSORS_MAX] = {{0}};

    if (count > TENSORS_MAX)
        return complain("too many tensors");
    struct fb_arena arena;
    int code = 0;
    fb_arena_init(&arena, 0);
    for (int i = 0; i < count && code == 0; i++) {
        if (!parse_spec(specs[i], &arena, &tensors[i]))
            code = complain(specs[i]);
    }
    if (code == 0)
        code = finish_write(path, tensors, (size_t)count);
    fb_arena_free(&arena);
    return code;
}

/* ---- f32 ------------------------------------------------------------------------------------- */

static int as_f32(const struct fb_safetensors *file, const char *out)
{
    static const char *const names[] = {"q", "k", "v"};
    struct fb_safetensors_tensor tensors[3];
    struct fb_arena arena;
    struct fb_error error;
    int code = 0;

    fb_arena_init(&arena, 0);
    for (int i = 0; i < 3 && code == 0; i++) {
        const struct fb_safetensors_tensor *t;
        double *values;
        if (fb_safetensors_read_f64(file, names[i], &arena, &values, &t, &error) != FB_OK) {
            code = complain(error.text);
            break;
        }
        float *narrow = fb_arena_alloc(&arena, (size_t)t->count, sizeof *narrow, &error);
        for (int64_t e = 0; narrow != NULL && e < t->count; e++)
            narrow[e] = (float)values[e];
        tensors[i] = *t;
        tensors[i].type = FB_ST_F32;
        tensors[i].data = narrow;
    }
    if (code == 0)
        code = finish_write(out, tensors, 3);
    fb_arena_free(&arena);
    return code;
}

/* ---- judge, same, show ----------------------------------------------------------------------- */

static bool read_tensor(const struct fb_safetensors *file, const char *name, struct fb_arena *arena,
                        struct fb_tensor *tensor)
{
    const struct fb_safetensors_tensor *t;
    double *values;
    struct fb_error error;

    if (fb_safetensors_read_f64(file, name, arena, &values, &t, &error) != FB_OK || t->rank != 4) {
        (void)complain(error.text);
        return false;
    }
    *tensor = fb_tensor_dense(values, FB_F64, FB_BHND, t->shape[0], t->shape[1], t->shape[2],
                              t->shape[3]);
    return true;
}

static bool judge_one(const char *name, const struct fb_tensor *x, const struct fb_tensor *wanted,
                      double scale)
{
    struct fb_judgement judgement;
    char text[256];

    if (memcmp(x->shape, wanted->shape, sizeof x->shape) != 0) {
        printf("%s: another shape\n", name);
        return false;
    }
    fb_judge_init(&judgement,
                  fb_judge_budget(FB_F32, strcmp(name, "out") == 0 ? FB_FORWARD : FB_BACKWARD),
                  scale);
    for (int64_t b = 0; b < x->shape[0]; b++) {
        for (int64_t h = 0; h < x->shape[1]; h++)
            fb_judge_add_rows(&judgement, x, b, h, NULL, (size_t)x->shape[2],
                              (const double *)wanted->data + b * wanted->stride[0] +
                                  h * wanted->stride[1]);
    }
    fb_judge_scan_finite(&judgement, x);
    fb_judge_finish(&judgement);
    fb_judge_describe(&judgement, text, sizeof text);
    printf("%s: %s\n", name, text);
    return judgement.passed_golden;
}

static int judge(const struct fb_safetensors *golden, const struct fb_safetensors *result)
{
    static const char *const names[] = {"out", "dq", "dk", "dv"};
    struct fb_arena arena;
    struct fb_tensor v;
    struct fb_tensor dout;
    bool fine;

    fb_arena_init(&arena, 0);
    fine = read_tensor(golden, "v", &arena, &v) && read_tensor(golden, "dout", &arena, &dout);
    for (int i = 0; i < 4 && fine; i++) {
        const double scales[] = {
            fb_judge_max_abs(&v), fb_judge_max_abs(&v) * fb_judge_max_abs(&dout),
            fb_judge_max_abs(&v) * fb_judge_max_abs(&dout), fb_judge_max_abs(&dout)};
        struct fb_tensor x;
        struct fb_tensor wanted;
        if (i > 0 && fb_safetensors_find(result, names[i]) == NULL)
            continue;
        fine = read_tensor(result, names[i], &arena, &x) &&
               read_tensor(golden, names[i], &arena, &wanted) &&
               judge_one(names[i], &x, &wanted, scales[i]);
    }
    fb_arena_free(&arena);
    return fine ? 0 : 1;
}

static int same(const struct fb_safetensors *a, const struct fb_safetensors *b)
{
    if (a->tensor_count != b->tensor_count)
        return 1;
    for (size_t i = 0; i < a->tensor_count; i++) {
        const struct fb_safetensors_tensor *x = &a->tensors[i];
        const struct fb_safetensors_tensor *y = fb_safetensors_find(b, x->name);
        if (y == NULL || y->type != x->type || y->bytes != x->bytes || y->rank != x->rank ||
            memcmp(y->shape, x->shape, sizeof x->shape) != 0 ||
            (x->bytes > 0 && memcmp(y->data, x->data, x->bytes) != 0))
            return 1;
    }
    return 0;
}

static int show(const struct fb_safetensors *file, const char *key)
{
    if (key != NULL) {
        const char *value = fb_safetensors_metadata_find(file, key);
        printf("%s\n", value != NULL ? value : "");
        return value != NULL ? 0 : 1;
    }
    for (size_t i = 0; i < file->tensor_count; i++) {
        const struct fb_safetensors_tensor *t = &file->tensors[i];
        printf("%s %s [", t->name, fb_safetensors_type_name(t->type));
        for (int d = 0; d < t->rank; d++)
            printf("%s%" PRId64, d > 0 ? ", " : "", t->shape[d]);
        puts("]");
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct fb_safetensors first;
    struct fb_safetensors second;
    struct fb_error error;
    int code = 2;

    if (argc < 3)
        return complain("usage: tensor_tool make|f32|judge|same|show FILE...");
    const char *verb = argv[1];
    if (strcmp(verb, "make") == 0)
        return make(argv[2], argv + 3, argc - 3);
    if (fb_safetensors_open(&first, argv[2], &error) != FB_OK)
        return complain(error.text);
    if (strcmp(verb, "show") == 0) {
        code = show(&first, argc > 3 ? argv[3] : NULL);
    } else if (argc > 3 && strcmp(verb, "f32") == 0) {
        code = as_f32(&first, argv[3]);
    } else if (argc > 3 && fb_safetensors_open(&second, argv[3], &error) == FB_OK) {
        code = strcmp(verb, "judge") == 0  ? judge(&first, &second)
               : strcmp(verb, "same") == 0 ? same(&first, &second)
                                           : complain("no such verb");
        fb_safetensors_close(&second);
    } else {
        code = complain("two files are needed, or the second cannot be read");
    }
    fb_safetensors_close(&first);
    return code;
}
