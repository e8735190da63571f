/* Exit codes and the one way in which commands report a failure. */
#include "commands.h"

#include <stdio.h>
#include <string.h>

int fb_exit_code(enum fb_status status)
{
    static const int codes[FB_STATUS_COUNT] = {
        [FB_OK] = FB_EXIT_OK,
        [FB_ERROR_USAGE] = FB_EXIT_USAGE,
        [FB_ERROR_INPUT] = FB_EXIT_USAGE,
        [FB_ERROR_UNSUPPORTED] = FB_EXIT_USAGE,
        [FB_ERROR_MEMORY] = FB_EXIT_FAILED,
        [FB_ERROR_IO] = FB_EXIT_FAILED,
        [FB_ERROR_DEVICE] = FB_EXIT_FAILED,
        [FB_ERROR_TIMEOUT] = FB_EXIT_FAILED,
        [FB_ERROR_INTERRUPTED] = FB_EXIT_SIGINT,
        [FB_ERROR_CLAIM] = FB_EXIT_CLAIM,
        [FB_ERROR_INTERNAL] = FB_EXIT_FAILED,
    };
    return (unsigned)status < FB_STATUS_COUNT ? codes[status] : FB_EXIT_FAILED;
}

int fb_exit_report(const char *command, const struct fb_error *error)
{
    const char *text = error->text[0] != '\0' ? error->text : fb_status_name(error->code);
    size_t length = strlen(text);
    const char *end = length > 0 && text[length - 1] == '\n' ? "" : "\n";
    (void)fflush(stdout);
    if (strstr(text, ": error: ") != NULL) {
        (void)fprintf(stderr, "%s%s", text, end);
    } else {
        (void)fprintf(stderr, "flowbench %s: error: %s%s", command, text, end);
    }
    int code = fb_exit_code(error->code);
    return code == FB_EXIT_OK ? FB_EXIT_FAILED : code;
}
