/*
 * Plain structs as JSON objects and back, driven by a table of their members. A real that is NaN or
 * infinite is null, as JSON has neither; null reads back as NaN.
 */
#ifndef FB_JSON_FIELDS_H
#define FB_JSON_FIELDS_H

#include "status.h"

#include <jansson.h>
#include <stddef.h>

enum fb_json_type {
    FB_JSON_TEXT,  /* char[size] */
    FB_JSON_INT,   /* int */
    FB_JSON_INT64, /* int64_t */
    FB_JSON_SIZE,  /* size_t */
    FB_JSON_REAL,  /* double */
    FB_JSON_BOOL   /* bool */
};

struct fb_json_field {
    const char *name;
    enum fb_json_type type;
    size_t offset, size;
};

/* A row of the table: FB_JSON_FIELD(struct fb_limits, FB_JSON_REAL, case_timeout_s). */
#define FB_JSON_FIELD(structure, type, member)                                                     \
    {                                                                                              \
#member, type, offsetof(structure, member), sizeof(((structure *)0)->member)               \
    }

/* A new object, or NULL when memory is short. */
json_t *fb_json_from_fields(const struct fb_json_field *fields, size_t count, const void *object);

/* Every member of the table must be present with its type, and a text must fit
 * (FB_ERROR_INPUT); other members are ignored. */
enum fb_status fb_json_to_fields(const struct fb_json_field *fields, size_t count,
                                 const json_t *json, void *object,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
