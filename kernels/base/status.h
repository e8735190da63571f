/*
 * Status codes and error texts.
 *
 * Every function that can fail returns enum fb_status and, when it fails, fills the caller's
 * struct fb_error. The text names the value, the limit and the next step, ready to print after
 * "error: ". Passing NULL for the error is allowed everywhere.
 */
#ifndef FB_STATUS_H
#define FB_STATUS_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FB_MUST_CHECK                      __attribute__((warn_unused_result))
#define FB_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#else
#define FB_MUST_CHECK
#define FB_PRINTF(format_index, first_arg)
#endif

enum fb_status {
    FB_OK = 0,
    FB_ERROR_USAGE,       /* the command line or the suite is wrong */
    FB_ERROR_INPUT,       /* a file or a value from outside is malformed */
    FB_ERROR_UNSUPPORTED, /* a valid request that this variant does not serve */
    FB_ERROR_MEMORY,      /* an allocation failed or a limit would be passed */
    FB_ERROR_IO,          /* the operating system refused a file operation */
    FB_ERROR_DEVICE,      /* a device is absent or failed */
    FB_ERROR_TIMEOUT,
    FB_ERROR_INTERRUPTED, /* SIGINT or SIGTERM */
    FB_ERROR_CLAIM,       /* a measured claim does not hold */
    FB_ERROR_INTERNAL,    /* our bug */
    FB_STATUS_COUNT
};

enum { FB_ERROR_TEXT_SIZE = 1024 };

struct fb_error {
    enum fb_status code;
    char text[FB_ERROR_TEXT_SIZE];
};

/* "ok", "usage", "input", ... ; never NULL. */
const char *fb_status_name(enum fb_status status);

/* Writes code and text into error (NULL: ignored) and returns code, so that a failing function can
 * end with `return fb_error_set(error, FB_ERROR_INPUT, "...")`. A text that is too long is cut. */
enum fb_status fb_error_set(struct fb_error *error, enum fb_status code, const char *format, ...)
    FB_PRINTF(3, 4);

/* Puts "prefix: " before the text that error already holds; returns error's code. */
enum fb_status fb_error_prefix(struct fb_error *error, const char *format, ...) FB_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
