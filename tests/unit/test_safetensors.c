/*
 * The reader and writer of safetensors files: what goes in comes out, and a file that lies about
 * itself is refused with its name and the tensor's.
 */
#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    char path[128];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    strcpy(f->folder, "/tmp/test_safetensors.XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/a.safetensors", f->folder);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    const int failed = rmdir(f->folder); /* fails when a temporary file was left behind */
    free(f);
    return failed;
}

static void write_bytes(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* A file of the given header text and data_bytes bytes of data; length < 0: the true one. */
static void write_raw(const char *path, const char *header, size_t data_bytes, long long length)
{
    unsigned char bytes[4096] = {0};
    const size_t header_bytes = strlen(header);
    const unsigned long long said =
        length < 0 ? (unsigned long long)header_bytes : (unsigned long long)length;
    assert_true(8 + header_bytes + data_bytes <= sizeof bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(said >> (8 * i));
    memcpy(bytes + 8, header, header_bytes);
    write_bytes(path, bytes, 8 + header_bytes + data_bytes);
}

static void expect_refusal(const char *path, enum fb_status code, const char *part)
{
    struct fb_safetensors file;
    struct fb_error error = {0};
    const enum fb_status status = fb_safetensors_open(&file, path, &error);
    if (status == FB_OK)
        fb_safetensors_close(&file);
    assert_int_equal(status, code);
    if (!strstr(error.text, part) || !strstr(error.text, path))
        fail_msg("'%s' names not both '%s' and '%s'", error.text, path, part);
}

static void test_write_then_open_returns_the_same(void **state)
{
    const struct fixture *f = *state;
    const float single[3] = {1.5f, -2.0f, 3.25f};
    const double pair[2] = {0.1, -1e300};
    const int64_t integer = -42;
    const struct fb_safetensors_tensor tensors[] = {
        {.name = "f", .type = FB_ST_F32, .rank = 2, .shape = {1, 3}, .data = single},
        {.name = "d", .type = FB_ST_F64, .rank = 1, .shape = {2}, .data = pair},
        {.name = "i", .type = FB_ST_I64, .rank = 0, .data = &integer},
        {.name = "empty", .type = FB_ST_F32, .rank = 2, .shape = {0, 7}, .data = NULL},
    };
    const struct fb_safetensors_text metadata[] = {{"format", "x-1"}, {"note", "\"q\" \xc3\xbc\n"}};
    struct fb_error error;
    assert_int_equal(fb_safetensors_write(f->path, tensors, 4, metadata, 2, &error), FB_OK);

    struct fb_safetensors file;
    assert_int_equal(fb_safetensors_open(&file, f->path, &error), FB_OK);
    assert_int_equal(file.tensor_count, 4);
    assert_int_equal(file.metadata_count, 2);
    assert_string_equal(fb_safetensors_metadata_find(&file, "format"), "x-1");
    assert_string_equal(fb_safetensors_metadata_find(&file, "note"), "\"q\" \xc3\xbc\n");
    assert_null(fb_safetensors_metadata_find(&file, "absent"));
    assert_null(fb_safetensors_find(&file, "absent"));
    const struct fb_safetensors_tensor *t = fb_safetensors_find(&file, "f");
    assert_non_null(t);
    assert_int_equal(t->type, FB_ST_F32);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->count, 3);
    assert_memory_equal(t->data, single, sizeof single);
    t = fb_safetensors_find(&file, "i");
    assert_non_null(t);
    assert_int_equal(t->rank, 0);
    assert_int_equal(t->count, 1);
    assert_memory_equal(t->data, &integer, sizeof integer);
    t = fb_safetensors_find(&file, "empty");
    assert_non_null(t);
    assert_int_equal(t->count, 0);
    for (size_t i = 0; i < file.tensor_count; i++)
        assert_int_equal(
            (uintptr_t)file.tensors[i].data % fb_safetensors_type_bytes(file.tensors[i].type), 0);
    fb_safetensors_close(&file);
}

static void test_read_converts_exactly(void **state)
{
    const struct fixture *f = *state;
    const float single[2] = {0.1f, -1e-40f};
    const uint16_t half[6] = {0x3c00, 0xc100, 0x0001, 0x8000, 0x7bff, 0xfc00};
    const uint16_t brain[2] = {0x3f80, 0xc000};
    const double pair[1] = {0.1};
    const struct fb_safetensors_tensor tensors[] = {
        {.name = "f32", .type = FB_ST_F32, .rank = 1, .shape = {2}, .data = single},
        {.name = "f16", .type = FB_ST_F16, .rank = 1, .shape = {6}, .data = half},
        {.name = "bf16", .type = FB_ST_BF16, .rank = 1, .shape = {2}, .data = brain},
        {.name = "f64", .type = FB_ST_F64, .rank = 1, .shape = {1}, .data = pair},
    };
    struct fb_error error;
    assert_int_equal(fb_safetensors_write(f->path, tensors, 4, NULL, 0, &error), FB_OK);
    struct fb_safetensors file;
    assert_int_equal(fb_safetensors_open(&file, f->path, &error), FB_OK);
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    float *x = NULL;
    double *y = NULL;
    const struct fb_safetensors_tensor *t = NULL;
    assert_int_equal(fb_safetensors_read_f32(&file, "f32", &arena, &x, &t, &error), FB_OK);
    assert_memory_equal(x, single, sizeof single);
    assert_string_equal(t->name, "f32");
    assert_int_equal(fb_safetensors_read_f32(&file, "f16", &arena, &x, NULL, &error), FB_OK);
    const float half_values[6] = {1.0f, -2.5f, 0x1p-24f, -0.0f, 65504.0f, -INFINITY};
    assert_memory_equal(x, half_values, sizeof half_values);
    assert_int_equal(fb_safetensors_read_f64(&file, "bf16", &arena, &y, NULL, &error), FB_OK);
    assert_true(y[0] == 1.0 && y[1] == -2.0);
    assert_int_equal(fb_safetensors_read_f64(&file, "f64", &arena, &y, NULL, &error), FB_OK);
    assert_true(y[0] == 0.1);
    assert_int_equal(fb_safetensors_read_f32(&file, "f64", &arena, &x, NULL, &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "f64"));
    assert_int_equal(fb_safetensors_read_f32(&file, "none", &arena, &x, NULL, &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "none"));
    fb_arena_free(&arena);
    fb_safetensors_close(&file);
}

static void test_write_replaces_the_file_and_leaves_nothing_else(void **state)
{
    const struct fixture *f = *state;
    const uint8_t byte = 7;
    const struct fb_safetensors_tensor tensor = {
        .name = "b", .type = FB_ST_U8, .rank = 1, .shape = {1}, .data = &byte};
    struct fb_error error;
    write_bytes(f->path, "old", 3);
    assert_int_equal(fb_safetensors_write(f->path, &tensor, 1, NULL, 0, &error), FB_OK);
    struct fb_safetensors file;
    assert_int_equal(fb_safetensors_open(&file, f->path, &error), FB_OK);
    assert_int_equal(file.tensor_count, 1);
    fb_safetensors_close(&file); /* teardown's rmdir proves that no temporary file is left */
}

static void test_write_refused_keeps_the_old_file(void **state)
{
    const struct fixture *f = *state;
    const uint8_t byte = 7;
    struct fb_safetensors_tensor twins[2] = {
        {.name = "same", .type = FB_ST_U8, .rank = 1, .shape = {1}, .data = &byte},
        {.name = "same", .type = FB_ST_U8, .rank = 1, .shape = {1}, .data = &byte},
    };
    struct fb_error error;
    write_bytes(f->path, "old", 3);
    assert_int_equal(fb_safetensors_write(f->path, twins, 2, NULL, 0, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "same"));
    twins[0].shape[0] = -1;
    assert_int_equal(fb_safetensors_write(f->path, twins, 1, NULL, 0, &error), FB_ERROR_INPUT);
    twins[0] = (struct fb_safetensors_tensor){
        .name = "\xff", .type = FB_ST_U8, .rank = 1, .shape = {1}, .data = &byte};
    assert_int_equal(fb_safetensors_write(f->path, twins, 1, NULL, 0, &error), FB_ERROR_INPUT);
    assert_int_equal(fb_safetensors_write("/nonexistent/x", twins, 0, NULL, 0, &error),
                     FB_ERROR_IO);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_size, 3);
}

static void test_open_every_truncation_is_refused(void **state)
{
    const struct fixture *f = *state;
    const float values[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    const struct fb_safetensors_tensor tensor = {
        .name = "t", .type = FB_ST_F32, .rank = 1, .shape = {4}, .data = values};
    struct fb_error error;
    assert_int_equal(fb_safetensors_write(f->path, &tensor, 1, NULL, 0, &error), FB_OK);
    unsigned char bytes[512];
    FILE *file = fopen(f->path, "rb");
    assert_non_null(file);
    const size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_in_range(count, 24, sizeof bytes - 1);
    for (size_t cut = 0; cut < count; cut++) {
        write_bytes(f->path, bytes, cut);
        struct fb_safetensors opened;
        assert_int_equal(fb_safetensors_open(&opened, f->path, &error), FB_ERROR_INPUT);
    }
    write_bytes(f->path, bytes, count - 1);
    expect_refusal(f->path, FB_ERROR_INPUT, "'t'");
    bytes[count] = 0;
    write_bytes(f->path, bytes, count + 1);
    expect_refusal(f->path, FB_ERROR_INPUT, "after the last tensor");
}

static void test_open_every_changed_header_byte_is_survived(void **state)
{
    const struct fixture *f = *state;
    const char *header = "{\"__metadata__\":{\"a\":\"b\"},\"t\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                         "\"data_offsets\":[0,24]},\"u\":{\"dtype\":\"U8\",\"shape\":[4],"
                         "\"data_offsets\":[24,28]}}";
    for (size_t at = 0; at < strlen(header); at++) {
        for (const char *c = "\"0913-{}[]:,. eE\\\x01\xff"; *c; c++) {
            char text[512];
            strcpy(text, header);
            text[at] = *c;
            write_raw(f->path, text, 28, -1);
            struct fb_safetensors file;
            struct fb_error error;
            if (fb_safetensors_open(&file, f->path, &error) != FB_OK)
                continue;
            /* accepted: then every byte it offers must be readable */
            unsigned sum = 0;
            for (size_t i = 0; i < file.tensor_count; i++)
                for (size_t b = 0; b < file.tensors[i].bytes; b++)
                    sum += ((const unsigned char *)file.tensors[i].data)[b];
            assert_int_equal(sum, 0);
            fb_safetensors_close(&file);
        }
    }
}

static void test_open_lying_headers_are_refused(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *header;
        size_t data_bytes;
        long long length;
        const char *part;
    } cases[] = {
        {"{}", 0, 3, "truncated"},
        {"{}", 0, 0x7fffffffffffffffLL, "more than the limit"},
        {"{}", 0, 100000001LL, "more than the limit"},
        {"{}", 4, -1, "belong to none"},
        {"", 0, -1, "not valid JSON"},
        {"[]", 0, -1, "not a JSON object"},
        {"{\"t\":1}", 0, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, -1, "F31"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, -1, "duplicate"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, -1,
         "limit of 8"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         -1, "overflows"},
        {"{\"t\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
         -1, "overflows"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4,
         -1, "not valid JSON"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[\"0\",4]}}", 4, -1, "'t'"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, -1, "outside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, -1, "outside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, -1, "truncated"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, -1, "need 4"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, -1, "'u' overlaps"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, -1, "overlaps"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, -1, "hole"},
        {"{\"__metadata__\":3}", 0, -1, "__metadata__"},
        {"{\"__metadata__\":{\"a\":3}}", 0, -1, "'a'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_raw(f->path, cases[i].header, cases[i].data_bytes, cases[i].length);
        expect_refusal(f->path, FB_ERROR_INPUT, cases[i].part);
    }
}

static void test_open_header_padded_with_spaces_is_accepted(void **state)
{
    const struct fixture *f = *state;
    write_raw(f->path, "{\"t\":{\"shape\":[1],\"data_offsets\":[0,1],\"dtype\":\"U8\"}}    ", 1,
              -1);
    struct fb_safetensors file;
    struct fb_error error;
    assert_int_equal(fb_safetensors_open(&file, f->path, &error), FB_OK);
    assert_int_equal(file.tensor_count, 1);
    fb_safetensors_close(&file);
}

static void test_open_what_is_no_file_is_refused(void **state)
{
    const struct fixture *f = *state;
    expect_refusal(f->path, FB_ERROR_IO, "cannot open");
    expect_refusal(f->folder, FB_ERROR_INPUT, "not a regular file");
    assert_int_equal(mkfifo(f->path, 0600), 0);
    expect_refusal(f->path, FB_ERROR_INPUT, "not a regular file");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_write_then_open_returns_the_same),
        TEST(test_read_converts_exactly),
        TEST(test_write_replaces_the_file_and_leaves_nothing_else),
        TEST(test_write_refused_keeps_the_old_file),
        TEST(test_open_every_truncation_is_refused),
        TEST(test_open_every_changed_header_byte_is_survived),
        TEST(test_open_lying_headers_are_refused),
        TEST(test_open_header_padded_with_spaces_is_accepted),
        TEST(test_open_what_is_no_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
