/* The rules for one point of a sweep: see point_rules.h. */
#include "point_rules.h"

#include "checked.h"
#include "nn_precision.h"

/* No tensor of a case may pass this size, as in kernels/base/problem.c. */
#define TENSOR_BYTES_MAX (INT64_C(1) << 48)

static struct fb_mark mark_of(const struct fb_point_place *place, enum fb_factor_key key)
{
    const struct fb_yaml_node *node = place->nodes[key];
    return node != NULL ? node->mark : place->key_node->mark;
}

/* The largest factor of a product that overflows is the one to look at. */
static struct fb_mark product_mark(const struct fb_point_place *place, const struct fb_factors *f)
{
    static const enum fb_factor_key keys[] = {FB_FACTOR_BATCH,    FB_FACTOR_HEADS,
                                              FB_FACTOR_SEQ_LEN,  FB_FACTOR_KV_LEN,
                                              FB_FACTOR_HEAD_DIM, FB_FACTOR_VALUE_DIM};
    const struct fb_yaml_node *node = place->key_node;
    int64_t largest = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (place->nodes[keys[i]] != NULL && fb_factor_get(f, keys[i]) > largest) {
            largest = fb_factor_get(f, keys[i]);
            node = place->nodes[keys[i]];
        }
    }
    return node->mark;
}

static bool check_product(const struct fb_point_place *place, const struct fb_factors *f)
{
    int64_t len = f->seq_len > f->kv_len ? f->seq_len : f->kv_len;
    int64_t dim = f->head_dim > f->value_dim ? f->head_dim : f->value_dim;
    int64_t bytes;
    if (fb_checked_mul_i64(f->batch, f->heads, &bytes) && fb_checked_mul_i64(bytes, len, &bytes) &&
        fb_checked_mul_i64(bytes, dim, &bytes) &&
        fb_checked_mul_i64(bytes, (int64_t)fb_dtype_bytes(f->dtype), &bytes) &&
        bytes <= TENSOR_BYTES_MAX) {
        return true;
    }
    fb_diagnose(place->reader->diagnostics, product_mark(place, f),
                "sizes overflow: batch %lld x heads %lld x length %lld x dim %lld x %zu bytes is "
                "more than 2^48 bytes",
                (long long)f->batch, (long long)f->heads, (long long)len, (long long)dim,
                fb_dtype_bytes(f->dtype));
    return false;
}

/* Each value asks for something that the kind of the suite does not have. */
static bool check_kind(const struct fb_point_place *place, enum fb_suite_kind kind,
                       const struct fb_factors *f)
{
    const bool decode = kind == FB_SUITE_DECODE;
    const struct {
        bool broken;
        enum fb_factor_key key;
        const char *message;
    } rules[] = {
        {!decode && f->pass == FB_DECODE, FB_FACTOR_PASS,
         "pass: decode belongs to a suite of `kind: decode`"},
        {decode && f->pass != FB_DECODE, FB_FACTOR_PASS,
         "a suite of kind: decode has the one pass decode; leave pass out"},
        {decode && !f->causal, FB_FACTOR_CAUSAL, "decoding is causal by nature; leave causal out"},
        {decode && f->kv_len != f->seq_len, FB_FACTOR_KV_LEN,
         "decoding has one length, that of the state: seq_len; leave kv_len out"},
        {decode && f->lengths != FB_LENGTHS_FULL, FB_FACTOR_LENGTHS,
         "decoding has no padding; leave lengths out"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].broken) {
            fb_diagnose(place->reader->diagnostics, mark_of(place, rules[i].key), "%s",
                        rules[i].message);
            return false;
        }
    }
    return true;
}

/* Sizes belong to tasks and recipes; and these to suites of kind: training. */
static bool check_training(const struct fb_point_place *place, enum fb_suite_kind kind,
                           const struct fb_factors *f)
{
    static const enum fb_factor_key shared[] = {FB_FACTOR_MECHANISM, FB_FACTOR_VARIANT,
                                                FB_FACTOR_DEVICE,    FB_FACTOR_ISA,
                                                FB_FACTOR_THREADS,   FB_FACTOR_SEED};
    const bool training = kind == FB_SUITE_TRAINING;
    for (int key = 0; key < FB_FACTOR_COUNT; key++) {
        const struct fb_factor *factor = fb_factor_at((enum fb_factor_key)key);
        bool allowed = factor->training == training;
        for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
            allowed = allowed || shared[i] == (enum fb_factor_key)key;
        }
        if (place->nodes[key] == NULL || allowed) {
            continue;
        }
        fb_diagnose(place->reader->diagnostics, mark_of(place, (enum fb_factor_key)key),
                    training ? "a suite of kind: training has no %s: task and recipe decide it%s"
                             : "%s belongs to a suite of `kind: training`%s",
                    factor->name,
                    training && key == FB_FACTOR_BATCH ? "; batch_size asks for another batch"
                                                       : "");
        return false;
    }
    if (training && f->program != NULL) {
        fb_diagnose(place->reader->diagnostics, mark_of(place, FB_FACTOR_MECHANISM),
                    "an external program is timed, not trained: leave it out of a suite of kind: "
                    "training");
        return false;
    }
    return true;
}

static bool check_precision(const struct fb_point_place *place, const struct fb_factors *f)
{
    if (f->device == FB_CUDA || f->precision <= FB_NN_F32 + 1) {
        return true;
    }
    fb_diagnose(
        place->reader->diagnostics, mark_of(place, FB_FACTOR_PRECISION),
        "precision: %s is a GPU's; a processor trains in f32: leave precision out, or ask for "
        "device: cuda",
        fb_nn_precision_name((enum fb_nn_precision)(f->precision - 1)));
    return false;
}

static bool check_heads(const struct fb_point_place *place, const struct fb_factors *f)
{
    if (f->heads % f->kv_heads == 0) {
        return true;
    }
    fb_diagnose(place->reader->diagnostics, mark_of(place, FB_FACTOR_KV_HEADS),
                "kv_heads %lld does not divide heads %lld; zip: walks pairs of them",
                (long long)f->kv_heads, (long long)f->heads);
    return false;
}

static bool check_lengths(const struct fb_point_place *place, const struct fb_factors *f)
{
    if (f->lengths == FB_LENGTHS_FULL || f->batch <= FB_LENGTHS_BATCH_MAX) {
        return true;
    }
    fb_diagnose(place->reader->diagnostics, mark_of(place, FB_FACTOR_BATCH),
                "lengths: random draws a length for each of the batch's sequences; batch %lld is "
                "more than %d",
                (long long)f->batch, FB_LENGTHS_BATCH_MAX);
    return false;
}

bool fb_point_check(const struct fb_point_place *place, enum fb_suite_kind kind,
                    const struct fb_factors *point)
{
    return check_training(place, kind, point) && check_product(place, point) &&
           check_kind(place, kind, point) && check_heads(place, point) &&
           check_lengths(place, point) && check_precision(place, point);
}
