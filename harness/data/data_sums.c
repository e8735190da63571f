/* SHA-256 sums of files, and those on record: see data_sets.h. */
#include "data_sets.h"
#include "external_command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RECORD "recorded.sha256"

static bool is_sum(const char *text)
{
    return strspn(text, "0123456789abcdef") >= FB_DATA_SUM_SIZE - 1;
}

enum fb_status fb_data_sum(const char *path, char sum[FB_DATA_SUM_SIZE], struct fb_error *error)
{
    const char *const argv[] = {"sha256sum", "-b", "--", path, NULL};
    char text[FB_DATA_PATH_SIZE + FB_DATA_SUM_SIZE + 8];
    int code = 0;
    const enum fb_status status = fb_command_read(argv, NULL, text, sizeof text, &code, error);
    if (status != FB_OK)
        return status;
    const char *found = text[0] == '\\' ? text + 1 : text; /* so it marks names with odd signs */
    if (code != 0 || !is_sum(found))
        return fb_error_set(error, FB_ERROR_IO, "sha256sum cannot read '%s'", path);
    memcpy(sum, found, FB_DATA_SUM_SIZE - 1);
    sum[FB_DATA_SUM_SIZE - 1] = '\0';
    return FB_OK;
}

/* "SUM  NAME", as sha256sum writes it. */
static bool parse_record(const char *line, const char *name, char sum[FB_DATA_SUM_SIZE])
{
    const size_t length = strcspn(line, "\n");
    if (!is_sum(line) || length != FB_DATA_SUM_SIZE - 1 + 2 + strlen(name) ||
        strncmp(line + FB_DATA_SUM_SIZE + 1, name, strlen(name)) != 0)
        return false;
    memcpy(sum, line, FB_DATA_SUM_SIZE - 1);
    sum[FB_DATA_SUM_SIZE - 1] = '\0';
    return true;
}

bool fb_data_sum_recorded(const char *data_dir, const char *name, char sum[FB_DATA_SUM_SIZE])
{
    char line[FB_DATA_PATH_SIZE], path[FB_DATA_PATH_SIZE];
    bool found = false;
    (void)snprintf(path, sizeof path, "%s/" RECORD, data_dir);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file))
        found = parse_record(line, name, sum);
    (void)fclose(file);
    return found;
}

enum fb_status fb_data_sum_record(const char *data_dir, const char *name, const char *sum,
                                  struct fb_error *error)
{
    char line[FB_DATA_PATH_SIZE], old[FB_DATA_SUM_SIZE];
    char path[FB_DATA_PATH_SIZE], part[FB_DATA_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/" RECORD, data_dir);
    (void)snprintf(part, sizeof part, "%s/" RECORD ".part", data_dir);
    FILE *from = fopen(path, "re"), *to = fopen(part, "we");
    while (to && from && fgets(line, sizeof line, from))
        if (!parse_record(line, name, old))
            (void)fputs(line, to);
    if (from)
        (void)fclose(from);
    bool written = to && fprintf(to, "%s  %s\n", sum, name) > 0;
    written = (!to || fclose(to) == 0) && written;
    if (!written || rename(part, path) != 0)
        return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    return FB_OK;
}
