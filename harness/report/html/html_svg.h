/*
 * A picture of gnuplot's svg terminal made fit to stand inside a page: only drawing elements and
 * their attributes stay, names are unique to the picture, the colours of the plots become the
 * page's own (so that they follow its dark mode), fonts are the page's.
 */
#ifndef FB_HTML_SVG_H
#define FB_HTML_SVG_H

#include "status.h"

#include <stdio.h>

struct fb_html_svg {
    const char *svg;          /* what gnuplot wrote */
    int number;               /* of the picture in the page, from 1: names begin with it */
    const char *title, *desc; /* for those who do not see it */
    const char *path;         /* for messages */
};

/* FB_ERROR_IO when it is no SVG, or no whole one: then what out holds is of no use. */
enum fb_status fb_html_svg_write(FILE *out, const struct fb_html_svg *picture,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
