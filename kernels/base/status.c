/* Status names and error texts; see status.h. */
#include "status.h"

#include <stdio.h>
#include <string.h>

const char *fb_status_name(enum fb_status status)
{
    static const char *const names[FB_STATUS_COUNT] = {
        [FB_OK] = "ok",
        [FB_ERROR_USAGE] = "usage",
        [FB_ERROR_INPUT] = "input",
        [FB_ERROR_UNSUPPORTED] = "unsupported",
        [FB_ERROR_MEMORY] = "memory",
        [FB_ERROR_IO] = "io",
        [FB_ERROR_DEVICE] = "device",
        [FB_ERROR_TIMEOUT] = "timeout",
        [FB_ERROR_INTERRUPTED] = "interrupted",
        [FB_ERROR_CLAIM] = "claim",
        [FB_ERROR_INTERNAL] = "internal",
    };
    return (unsigned int)status < FB_STATUS_COUNT ? names[status] : "unknown";
}

enum fb_status fb_error_set(struct fb_error *error, enum fb_status code, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        error->code = code;
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return code;
}

enum fb_status fb_error_prefix(struct fb_error *error, const char *format, ...)
{
    if (error == NULL) {
        return FB_ERROR_INTERNAL;
    }
    char old[FB_ERROR_TEXT_SIZE];
    memcpy(old, error->text, sizeof old);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (used > sizeof error->text - 1) {
        used = sizeof error->text - 1;
    }
    const char *const parts[] = {": ", old};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const size_t room = sizeof error->text - 1 - used;
        const size_t want = strlen(parts[i]);
        const size_t take = want < room ? want : room;
        memcpy(error->text + used, parts[i], take);
        used += take;
    }
    error->text[used] = '\0';
    return error->code;
}
