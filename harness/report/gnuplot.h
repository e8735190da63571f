/* Runs gnuplot as a child process, without a shell. */
#ifndef FB_GNUPLOT_H
#define FB_GNUPLOT_H

#include "status.h"

#include <stdio.h>

/* Draws: settings (a file written by fb_figure_write), then script, with fb_format set to "svg" or
 * "png" and fb_scripts to the folder of the scripts. FB_ERROR_UNSUPPORTED when gnuplot is not
 * installed (the text says how to get it), FB_ERROR_IO with gnuplot's own words when it fails. */
enum fb_status fb_gnuplot_draw(const char *settings, const char *scripts_dir, const char *script,
                               const char *format, struct fb_error *error) FB_MUST_CHECK;

/* The folder of the scripts: the source tree's plots/, else the installed one; NULL when neither
 * can be read. */
const char *fb_gnuplot_scripts_dir(void);

/* Writes text as a string of gnuplot's language. What means something to its lexer (quotes,
 * backslash, and the backquote, which runs commands) is written as octal escapes. */
void fb_gnuplot_write_text(FILE *file, const char *text);

#endif
