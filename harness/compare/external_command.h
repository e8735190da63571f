/* Running another program to its end: git, cmake. */
#ifndef FB_EXTERNAL_COMMAND_H
#define FB_EXTERNAL_COMMAND_H

#include "status.h"

#include <stddef.h>

/* Runs argv (found in PATH, ended by NULL) in the folder (NULL: here) with an empty standard input.
 * What it prints is added to the file log_path; NULL: thrown away. *exit_code gets its exit code,
 * 128 + the signal where one killed it. It dies with this process. FB_ERROR_UNSUPPORTED when there
 * is no such program, FB_ERROR_IO when it cannot be started. */
enum fb_status fb_command_run(const char *const *argv, const char *folder, const char *log_path,
                              int *exit_code, struct fb_error *error) FB_MUST_CHECK;

/* The same for what it writes to standard output, line ends at the end removed; cut to fit. Its
 * standard error is thrown away. */
enum fb_status fb_command_read(const char *const *argv, const char *folder, char *text,
                               size_t text_size, int *exit_code,
                               struct fb_error *error) FB_MUST_CHECK;

#endif
