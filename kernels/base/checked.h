/* Products and sums of sizes that report overflow instead of wrapping. */
#ifndef FB_CHECKED_H
#define FB_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False when the result does not fit; *result is then unspecified. */
static inline bool fb_checked_mul_i64(int64_t a, int64_t b, int64_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

static inline bool fb_checked_mul_size(size_t a, size_t b, size_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

static inline bool fb_checked_add_size(size_t a, size_t b, size_t *result)
{
    return !__builtin_add_overflow(a, b, result);
}

#endif
