/* Factors of rows as text. See row_factor.h. */
#include "row_factor.h"

#include "quantity.h"

#include <stdio.h>
#include <string.h>

/* One line per factor: how to reach it and how to say it (%s is the value). */
static const struct {
    const char *name;   /* heading of a column */
    const char *column; /* of results.csv */
    const char *phrase;
} factors[FB_FACTOR_COUNT] = {
    [FB_FACTOR_RUN] = {"run", "run", "%s"},
    [FB_FACTOR_DEVICE] = {"device", "device", "%s"},
    [FB_FACTOR_DEVICE_NAME] = {"device name", "device_name", "%s"},
    [FB_FACTOR_ISA] = {"isa", "isa", "%s"},
    [FB_FACTOR_THREADS] = {"threads", "threads", "%s threads"},
    [FB_FACTOR_DTYPE] = {"dtype", "dtype", "%s"},
    [FB_FACTOR_LAYOUT] = {"layout", "layout", "%s"},
    [FB_FACTOR_PASS] = {"pass", "pass", "%s"},
    [FB_FACTOR_BATCH] = {"B", "batch", "B %s"},
    [FB_FACTOR_HEADS] = {"H", "heads", "H %s"},
    [FB_FACTOR_SEQ_LEN] = {"N", "seq_len", "N %s"},
    [FB_FACTOR_KV_LEN] = {"S", "kv_len", "S %s"},
    [FB_FACTOR_HEAD_DIM] = {"d", "head_dim", "d %s"},
    [FB_FACTOR_VALUE_DIM] = {"m", "value_dim", "m %s"},
    [FB_FACTOR_KV_HEADS] = {"Hkv", "kv_heads", "Hkv %s"},
    [FB_FACTOR_LENGTHS] = {"lengths", "lengths", "%s lengths"},
    [FB_FACTOR_PARAMS] = {"parameters", "params", "%s"},
    [FB_FACTOR_SEED] = {"seed", "seed", "seed %s"},
};

const char *fb_factor_name(enum fb_factor factor)
{
    return factors[factor].name;
}

/* {"features":256,"x":1} reads better as features=256 x=1. */
static void plain_params(const char *json, char *text)
{
    size_t length = 0;
    for (; *json && length + 1 < FB_FACTOR_TEXT_SIZE; json++) {
        if (strchr("{}\" ", *json)) {
            continue;
        }
        text[length++] = (char)(*json == ':' ? '=' : *json == ',' ? ' ' : *json);
    }
    text[length] = '\0';
}

void fb_factor_value(const struct fb_row *row, enum fb_factor factor, char *text)
{
    const struct fb_column *column = fb_column_find(factors[factor].column);
    const char *field = (const char *)row + column->offset;
    text[0] = '\0';
    if (factor == FB_FACTOR_PARAMS) {
        plain_params(field, text);
    } else if (column->type == FB_COLUMN_TEXT) {
        (void)snprintf(text, FB_FACTOR_TEXT_SIZE, "%s", field);
    } else {
        int64_t value;
        memcpy(&value, field, sizeof value);
        if (value == FB_ROW_NONE) {
            return;
        }
        if (factor == FB_FACTOR_SEQ_LEN || factor == FB_FACTOR_KV_LEN) {
            fb_quantity_count((double)value, text);
        } else {
            (void)snprintf(text, FB_FACTOR_TEXT_SIZE, "%lld", (long long)value);
        }
    }
}

void fb_factor_phrase(const struct fb_row *row, enum fb_factor factor, char *text)
{
    char value[FB_FACTOR_TEXT_SIZE];
    fb_factor_value(row, factor, value);
    const char *at = strstr(factors[factor].phrase, "%s");
    int before = (int)(at - factors[factor].phrase);
    const char *after = at + 2;
    if (factor == FB_FACTOR_THREADS && strcmp(value, "1") == 0) {
        after = " thread";
    }
    (void)snprintf(text, FB_FACTOR_TEXT_SIZE, "%.*s%.600s%s", before, factors[factor].phrase, value,
                   after);
    if (value[0] == '\0') {
        text[0] = '\0';
    }
}

void fb_factor_axis_phrase(const struct fb_row *row, enum fb_axis axis, char *text)
{
    char phrase[FB_FACTOR_TEXT_SIZE];
    size_t length = 0;
    text[0] = '\0';
    for (int f = 0; f < FB_FACTOR_COUNT && length < FB_FACTOR_TEXT_SIZE; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        if (fb_factor_is_axis(factor, axis) && !fb_factor_is_plain(row, factor)) {
            fb_factor_phrase(row, factor, phrase);
            length += (size_t)snprintf(text + length, FB_FACTOR_TEXT_SIZE - length, "%s%s",
                                       length > 0 ? ", " : "", phrase);
        }
    }
}

static bool repeats(int64_t value, int64_t other)
{
    return value == other || value == FB_ROW_NONE;
}

bool fb_factor_is_plain(const struct fb_row *row, enum fb_factor factor)
{
    switch (factor) {
    case FB_FACTOR_ISA: /* of processors only */
    case FB_FACTOR_THREADS:
        return strcmp(row->device, "cuda") == 0;
    case FB_FACTOR_KV_LEN:
        return repeats(row->kv_len, row->seq_len);
    case FB_FACTOR_VALUE_DIM:
        return repeats(row->value_dim, row->head_dim);
    case FB_FACTOR_KV_HEADS:
        return repeats(row->kv_heads, row->heads);
    case FB_FACTOR_LENGTHS:
        return row->lengths[0] == '\0' || strcmp(row->lengths, "full") == 0;
    default:
        return false;
    }
}

bool fb_factor_is_axis(enum fb_factor factor, enum fb_axis axis)
{
    switch (axis) {
    case FB_AXIS_SEQ_LEN:
        return factor == FB_FACTOR_SEQ_LEN || factor == FB_FACTOR_KV_LEN;
    case FB_AXIS_HEADS:
        return factor == FB_FACTOR_HEADS || factor == FB_FACTOR_KV_HEADS;
    case FB_AXIS_HEAD_DIM:
        return factor == FB_FACTOR_HEAD_DIM || factor == FB_FACTOR_VALUE_DIM;
    case FB_AXIS_THREADS:
        return factor == FB_FACTOR_THREADS;
    case FB_AXIS_ISA:
        return factor == FB_FACTOR_ISA;
    case FB_AXIS_HEADS_TIED:
    case FB_AXIS_HEAD_DIM_TIED:
        return factor == FB_FACTOR_HEADS || factor == FB_FACTOR_KV_HEADS ||
               factor == FB_FACTOR_HEAD_DIM || factor == FB_FACTOR_VALUE_DIM;
    case FB_AXIS_COUNT:
        break;
    }
    return false;
}

bool fb_factor_varies(const struct fb_series_set *set, enum fb_factor factor)
{
    if (fb_factor_is_axis(factor, set->axis)) {
        return false;
    }
    char first[FB_FACTOR_TEXT_SIZE], other[FB_FACTOR_TEXT_SIZE];
    for (size_t i = 0; i < set->count; i++) {
        const struct fb_row *a = set->items[i].key;
        fb_factor_value(a, factor, first);
        for (size_t j = i + 1; j < set->count; j++) {
            const struct fb_row *b = set->items[j].key;
            if (strcmp(a->mechanism, b->mechanism) != 0 || strcmp(a->variant, b->variant) != 0) {
                continue;
            }
            fb_factor_value(b, factor, other);
            if (strcmp(first, other) != 0) {
                return true;
            }
        }
    }
    return false;
}
