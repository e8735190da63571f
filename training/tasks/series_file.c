/* The .ts reader: see series_file.h. */
#include "series_file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX ((int64_t)1 << 31)

struct reader {
    const char *path;
    struct fb_series_set *set;
    const struct fb_series_set *classes_of;
    struct fb_arena *arena;
    struct fb_error *error;
    int64_t line, capacity;
    char **labels; /* of every series, until classes are known */
    int64_t declared_dimensions;
};

static enum fb_status bad(const struct reader *r, const char *text)
{
    return fb_error_set(r->error, FB_ERROR_INPUT, "%s:%" PRId64 ": %s", r->path, r->line, text);
}

static char *next_line(char **at)
{
    char *line = *at;
    if (*line == '\0')
        return NULL;
    char *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end)
        *end = '\0';
    const size_t length = strlen(line);
    if (length > 0 && line[length - 1] == '\r')
        line[length - 1] = '\0';
    return line;
}

/* What follows "@name " of a header line, or NULL. */
static const char *header_value(const char *line, const char *name)
{
    const size_t length = strlen(name);
    if (strncasecmp(line + 1, name, length) != 0 ||
        (line[1 + length] != ' ' && line[1 + length] != '\t'))
        return NULL;
    return line + 1 + length + strspn(line + 1 + length, " \t");
}

static enum fb_status read_header(struct reader *r, const char *line)
{
    const char *value = header_value(line, "timeStamps");
    if (value && strncasecmp(value, "true", 4) == 0)
        return bad(r, "series with time stamps of their own are not supported: convert the file to "
                      "evenly spaced values");
    value = header_value(line, "classLabel");
    if (value && strncasecmp(value, "false", 5) == 0)
        return bad(r, "the file has no class labels: it is no classification task");
    value = header_value(line, "dimensions");
    if (value)
        r->declared_dimensions = strtoll(value, NULL, 10);
    return FB_OK;
}

/* The header's columns before "@data"; *at ends behind it. */
static enum fb_status read_headers(struct reader *r, char **at)
{
    for (char *line = next_line(at); line; line = next_line(at)) {
        r->line++;
        if (strncasecmp(line, "@data", 5) == 0)
            return FB_OK;
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (line[0] != '@')
            return bad(r, "expected a comment '#', a header line '@name value' or '@data': is this "
                          "a .ts file?");
        const enum fb_status status = read_header(r, line);
        if (status != FB_OK)
            return status;
    }
    return bad(r, "the file ends before '@data': it is truncated, or no .ts file");
}

static int64_t count_char(const char *text, char c)
{
    int64_t count = 0;
    for (; *text; text++)
        count += *text == c;
    return count;
}

/* One dimension's values into a column of values [length, dimensions]; missing ones as NaN. */
static enum fb_status read_dimension(struct reader *r, char *text, float *values, int64_t length,
                                     int64_t dimensions)
{
    for (int64_t t = 0; t < length; t++) {
        char *end = text;
        float value;
        if (*text == '?') {
            value = NAN;
            end = text + 1;
        } else {
            value = strtof(text, &end);
        }
        if (end == text || (*end != ',' && *end != '\0') || isinf(value))
            return bad(r, "a value is no finite number and not '?'");
        values[t * dimensions] = value;
        text = *end == ',' ? end + 1 : end;
    }
    return FB_OK;
}

/* Straight lines across what is missing in a column; false when nothing is there. */
static bool interpolate(float *values, int64_t length, int64_t stride)
{
    int64_t last = -1;
    for (int64_t t = 0; t < length; t++) {
        if (isnan(values[t * stride]))
            continue;
        for (int64_t u = last + 1; u < t; u++) {
            const float here = values[t * stride], before = last < 0 ? here : values[last * stride];
            const float part = last < 0 ? 0.0F : (float)(u - last) / (float)(t - last);
            values[u * stride] = before + part * (here - before);
        }
        last = t;
    }
    for (int64_t u = last + 1; last >= 0 && u < length; u++)
        values[u * stride] = values[last * stride];
    return last >= 0;
}

static enum fb_status grow(struct reader *r)
{
    if (r->set->count < r->capacity)
        return FB_OK;
    const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : 256;
    struct fb_series *series = fb_arena_alloc(r->arena, (size_t)capacity, sizeof *series, r->error);
    char **labels =
        series ? fb_arena_alloc(r->arena, (size_t)capacity, sizeof *labels, r->error) : NULL;
    if (!labels)
        return FB_ERROR_MEMORY;
    if (r->set->count > 0) {
        assert(r->set->series && r->labels);
        memcpy(series, r->set->series, (size_t)r->set->count * sizeof *series);
        memcpy(labels, r->labels, (size_t)r->set->count * sizeof *labels);
    }
    r->set->series = series;
    r->labels = labels;
    r->capacity = capacity;
    return FB_OK;
}

static enum fb_status check_dimensions(struct reader *r, int64_t dimensions)
{
    if (dimensions < 1)
        return bad(r, "a series needs at least one dimension and a label, separated by ':'");
    if (r->set->count == 0)
        r->set->dimensions = dimensions;
    if (dimensions != r->set->dimensions ||
        (r->declared_dimensions > 0 && dimensions != r->declared_dimensions))
        return fb_error_set(r->error, FB_ERROR_INPUT,
                            "%s:%" PRId64 ": the series has %" PRId64 " dimensions, not %" PRId64
                            ": the file is truncated or damaged",
                            r->path, r->line, dimensions,
                            r->declared_dimensions > 0 ? r->declared_dimensions
                                                       : r->set->dimensions);
    return FB_OK;
}

static enum fb_status read_values(struct reader *r, char *line, int64_t dimensions,
                                  struct fb_series *series)
{
    float *values = NULL;
    for (int64_t d = 0; d < dimensions; d++) {
        char *end = strchr(line, ':');
        *end = '\0';
        const int64_t length = count_char(line, ',') + 1;
        if (d == 0) {
            series->length = length;
            values =
                fb_arena_alloc(r->arena, (size_t)(length * dimensions), sizeof *values, r->error);
            if (!values)
                return FB_ERROR_MEMORY;
        }
        if (length != series->length)
            return bad(r, "the dimensions of a series differ in length");
        const enum fb_status status = read_dimension(r, line, values + d, length, dimensions);
        if (status != FB_OK)
            return status;
        if (!interpolate(values + d, length, dimensions))
            return bad(r, "a dimension has no value at all");
        line = end + 1;
    }
    series->values = values;
    assert(r->labels); /* grow has made room */
    r->labels[r->set->count] = fb_arena_strdup(r->arena, line, r->error);
    if (!r->labels[r->set->count])
        return FB_ERROR_MEMORY;
    return *line == '\0' ? bad(r, "the label is missing: the file is truncated") : FB_OK;
}

static enum fb_status read_series(struct reader *r, char *line)
{
    const int64_t dimensions = count_char(line, ':');
    enum fb_status status = check_dimensions(r, dimensions);
    if (status == FB_OK)
        status = grow(r);
    if (status != FB_OK)
        return status;
    struct fb_series *series = &r->set->series[r->set->count];
    status = read_values(r, line, dimensions, series);
    if (status != FB_OK)
        return status;
    r->set->longest = series->length > r->set->longest ? series->length : r->set->longest;
    r->set->count++;
    return FB_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum fb_status own_classes(struct reader *r)
{
    const size_t count = (size_t)r->set->count;
    const char **sorted = fb_arena_alloc(r->arena, count, sizeof *sorted, r->error);
    if (!sorted)
        return FB_ERROR_MEMORY;
    assert(r->labels); /* parse has refused a file without series */
    memcpy(sorted, r->labels, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_text);
    int32_t distinct = 0;
    for (size_t i = 0; i < count; i++)
        if (distinct == 0 || strcmp(sorted[i], sorted[distinct - 1]) != 0)
            sorted[distinct++] = sorted[i];
    r->set->classes = sorted;
    r->set->class_count = distinct;
    return FB_OK;
}

static enum fb_status label_series(struct reader *r)
{
    if (r->classes_of) {
        r->set->classes = r->classes_of->classes;
        r->set->class_count = r->classes_of->class_count;
    } else {
        const enum fb_status status = own_classes(r);
        if (status != FB_OK)
            return status;
    }
    assert(r->labels && r->set->classes);
    for (int64_t i = 0; i < r->set->count; i++) {
        const char **found = bsearch(&r->labels[i], r->set->classes, (size_t)r->set->class_count,
                                     sizeof *r->set->classes, by_text);
        if (!found)
            return fb_error_set(r->error, FB_ERROR_INPUT,
                                "%s: series %" PRId64 " is of class '%.40s', which the training "
                                "split has not: the two files do not belong together",
                                r->path, i + 1, r->labels[i]);
        r->set->series[i].label = (int32_t)(found - r->set->classes);
    }
    return FB_OK;
}

static enum fb_status parse(struct reader *r, char *text)
{
    enum fb_status status = read_headers(r, &text);
    if (status != FB_OK)
        return status;
    for (char *line = next_line(&text); line; line = next_line(&text)) {
        r->line++;
        if (line[0] == '\0' || line[0] == '#')
            continue;
        status = read_series(r, line);
        if (status != FB_OK)
            return status;
    }
    if (r->set->count == 0)
        return bad(r, "there is no series behind '@data': the file is truncated");
    if (r->classes_of && r->set->dimensions != r->classes_of->dimensions)
        return fb_error_set(r->error, FB_ERROR_INPUT,
                            "%s: its series have %" PRId64 " dimensions, those of the training "
                            "split %" PRId64 ": the two files do not belong together",
                            r->path, r->set->dimensions, r->classes_of->dimensions);
    return label_series(r);
}

/* The whole file, ended by a NUL; NULL with the error set. */
static char *read_text(const char *path, struct fb_error *error)
{
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path,
                     file ? "it is not a regular file" : strerror(errno));
    } else if (info.st_size > FILE_BYTES_MAX) {
        fb_error_set(error, FB_ERROR_INPUT, "'%s' is larger than 2 GiB, the limit of a data file",
                     path);
    } else {
        char *text = malloc((size_t)info.st_size + 1);
        const size_t got = text ? fread(text, 1, (size_t)info.st_size, file) : 0;
        if (text && memchr(text, '\0', got) == NULL) {
            text[got] = '\0';
            fclose(file);
            return text;
        }
        fb_error_set(error, text ? FB_ERROR_INPUT : FB_ERROR_MEMORY,
                     text ? "'%s' holds a NUL byte: it is no .ts file" : "no memory for '%s'",
                     path);
        free(text);
    }
    if (file)
        fclose(file);
    return NULL;
}

enum fb_status fb_series_read(struct fb_series_set *set, const char *path,
                              const struct fb_series_set *classes_of, struct fb_arena *arena,
                              struct fb_error *error)
{
    struct reader r = {
        .path = path, .set = set, .classes_of = classes_of, .arena = arena, .error = error};
    *set = (struct fb_series_set){0};
    struct fb_error own = {FB_OK, ""};
    if (!error)
        r.error = &own;
    char *text = read_text(path, r.error);
    if (!text)
        return r.error->code;
    const enum fb_status status = parse(&r, text);
    free(text);
    return status;
}
