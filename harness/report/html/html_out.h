/*
 * Writing HTML so that no text of a run can become markup. Formats are trusted markup written in
 * these sources; every %s in them is a foreign text and escaped.
 */
#ifndef FB_HTML_OUT_H
#define FB_HTML_OUT_H

#include "status.h"

#include <stdio.h>

/* Escapes text for an element's content or a quoted attribute. What is no UTF-8, control characters
 * other than tab and line feed, and characters that turn the direction of writing become U+FFFD. */
void fb_html_text(FILE *out, const char *text);

/* For text that is escaped already: only what cannot be shown is replaced. */
void fb_html_clean(FILE *out, const char *text, size_t length);

/* A printf of %s (escaped), %d, %zu, %lld, %.<n>f, %.<n>g and %%. */
void fb_html_printf(FILE *out, const char *format, ...) FB_PRINTF(2, 3);

/* Seconds as people read them: "1.23 ms", with a micro sign. text has FB_QUANTITY_SIZE bytes. */
char *fb_html_time(double seconds, char *text);

/* "1.20-1.25 ms" with an en dash; the unit of the lower end only where it differs. text has
 * 2 * FB_QUANTITY_SIZE bytes. */
char *fb_html_time_range(double low_s, double high_s, char *text);

/* "2026-11-24T03:15:00Z" as a time element: "2026-11-24 03:15 UTC"; any other text as it is. */
void fb_html_utc(FILE *out, const char *text);

/* Writes text as one word of a POSIX shell, escaped for HTML: quoted only where it has to be. */
void fb_html_shell_word(FILE *out, const char *text);

#endif
