/* The pictures of a report: drawn by gnuplot in a folder of their own, then put into the page. */
#ifndef FB_HTML_FIGURES_H
#define FB_HTML_FIGURES_H

#include "html_page.h"

/* Writes the section, or nothing when the rows fill no picture. A gnuplot that is missing or fails
 * costs the pictures, not the report: the page says so in their place, and *why_missing (in the
 * page's arena) says it to the caller; "" when all were drawn. */
enum fb_status fb_html_figures(const struct fb_html_page *page, const char **why_missing,
                               struct fb_error *error) FB_MUST_CHECK;

/* A new, empty folder for pictures, in the arena; NULL with the error filled. */
const char *fb_html_temporary_folder(struct fb_arena *arena, struct fb_error *error);

#endif
