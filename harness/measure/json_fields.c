/* Structs as JSON objects: see json_fields.h. */
#include "json_fields.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static json_t *value_of(const struct fb_json_field *field, const void *object)
{
    const void *member = (const char *)object + field->offset;
    switch (field->type) {
    case FB_JSON_TEXT:
        return json_string(member);
    case FB_JSON_INT:
        return json_integer(*(const int *)member);
    case FB_JSON_INT64:
        return json_integer(*(const int64_t *)member);
    case FB_JSON_SIZE:
        return json_integer((json_int_t) * (const size_t *)member);
    case FB_JSON_REAL: {
        const double value = *(const double *)member;
        return isfinite(value) ? json_real(value) : json_null();
    }
    case FB_JSON_BOOL:
        return json_boolean(*(const bool *)member);
    }
    return NULL;
}

json_t *fb_json_from_fields(const struct fb_json_field *fields, size_t count, const void *object)
{
    json_t *json = json_object();
    for (size_t i = 0; json && i < count; i++) {
        if (json_object_set_new(json, fields[i].name, value_of(&fields[i], object)) != 0) {
            json_decref(json);
            return NULL;
        }
    }
    return json;
}

/* False when the value does not have the member's type or does not fit. */
static bool read_value(const struct fb_json_field *field, const json_t *value, void *object)
{
    void *member = (char *)object + field->offset;
    const json_int_t integer = json_integer_value(value);
    switch (field->type) {
    case FB_JSON_TEXT:
        if (!json_is_string(value) || json_string_length(value) >= field->size)
            return false;
        memcpy(member, json_string_value(value), json_string_length(value) + 1);
        return true;
    case FB_JSON_INT:
        *(int *)member = (int)integer;
        return json_is_integer(value) && integer >= INT_MIN && integer <= INT_MAX;
    case FB_JSON_INT64:
        *(int64_t *)member = integer;
        return json_is_integer(value);
    case FB_JSON_SIZE:
        *(size_t *)member = (size_t)integer;
        return json_is_integer(value) && integer >= 0;
    case FB_JSON_REAL:
        *(double *)member = json_is_null(value) ? (double)NAN : json_number_value(value);
        return json_is_null(value) || json_is_number(value);
    case FB_JSON_BOOL:
        *(bool *)member = json_is_true(value);
        return json_is_boolean(value);
    }
    return false;
}

enum fb_status fb_json_to_fields(const struct fb_json_field *fields, size_t count,
                                 const json_t *json, void *object, struct fb_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(json, fields[i].name);
        if (!value)
            return fb_error_set(error, FB_ERROR_INPUT, "JSON member \"%s\" is missing",
                                fields[i].name);
        if (!read_value(&fields[i], value, object))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "JSON member \"%s\" has the wrong type or does not fit",
                                fields[i].name);
    }
    return FB_OK;
}
