/* The names of data types, passes, backends, layouts and instruction sets; see attention.h. */
#include "attention.h"

#include <string.h>

static const char *const dtype_names[FB_DTYPE_COUNT] = {"f32", "f64", "bf16", "f16"};
static const size_t dtype_bytes[FB_DTYPE_COUNT] = {4, 8, 2, 2};
static const char *const pass_names[FB_PASS_COUNT] = {"forward", "backward", "both", "decode"};
static const char *const backend_names[FB_BACKEND_COUNT] = {"cpu", "cuda"};
static const char *const layout_names[FB_LAYOUT_COUNT] = {"BHND", "BNHD"};
static const char *const isa_names[FB_ISA_COUNT] = {"any", "scalar", "neon", "avx2", "avx512"};

static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static const char *name_at(const char *const *names, int count, int index)
{
    return index >= 0 && index < count ? names[index] : "unknown";
}

size_t fb_dtype_bytes(enum fb_dtype dtype)
{
    return dtype_bytes[dtype];
}

const char *fb_dtype_name(enum fb_dtype dtype)
{
    return name_at(dtype_names, FB_DTYPE_COUNT, (int)dtype);
}

const char *fb_pass_name(enum fb_pass pass)
{
    return name_at(pass_names, FB_PASS_COUNT, (int)pass);
}

const char *fb_backend_name(enum fb_backend backend)
{
    return name_at(backend_names, FB_BACKEND_COUNT, (int)backend);
}

const char *fb_layout_name(enum fb_layout layout)
{
    return name_at(layout_names, FB_LAYOUT_COUNT, (int)layout);
}

const char *fb_isa_name(enum fb_isa isa)
{
    return name_at(isa_names, FB_ISA_COUNT, (int)isa);
}

int fb_dtype_parse(const char *name)
{
    return find_name(dtype_names, FB_DTYPE_COUNT, name);
}

int fb_pass_parse(const char *name)
{
    return find_name(pass_names, FB_PASS_COUNT, name);
}

int fb_backend_parse(const char *name)
{
    return find_name(backend_names, FB_BACKEND_COUNT, name);
}

int fb_layout_parse(const char *name)
{
    return find_name(layout_names, FB_LAYOUT_COUNT, name);
}

int fb_isa_parse(const char *name)
{
    return find_name(isa_names, FB_ISA_COUNT, name);
}
