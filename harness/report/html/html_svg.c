/* gnuplot's SVG inside a page. See html_svg.h. */
#include "html_svg.h"

#include "html_out.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a picture may hold; anything else, a script or a style above all, is left out. */
static const char *const elements[] = {"g",    "defs",    "path",     "use",  "text",  "tspan",
                                       "rect", "polygon", "polyline", "line", "circle"};
static const char *const attributes[] = {"d",
                                         "x",
                                         "y",
                                         "x1",
                                         "y1",
                                         "x2",
                                         "y2",
                                         "dx",
                                         "dy",
                                         "cx",
                                         "cy",
                                         "r",
                                         "rx",
                                         "ry",
                                         "width",
                                         "height",
                                         "points",
                                         "transform",
                                         "fill",
                                         "stroke",
                                         "color",
                                         "font-size",
                                         "font-weight",
                                         "opacity",
                                         "fill-opacity",
                                         "stroke-opacity",
                                         "stroke-width",
                                         "stroke-dasharray",
                                         "stroke-linecap",
                                         "stroke-linejoin",
                                         "text-anchor",
                                         "id",
                                         "xlink:href"};
/* Elements that only name or describe: their text goes, too. */
static const char *const silent[] = {"title", "desc", "filter", "style", "script", "metadata"};

/* The colours of plots/ and of the palette; the style sheet gives each a light and a dark form. */
static const struct {
    int red, green, blue;
    const char *name;
} colors[] = {
    {213, 94, 0, "vermilion"}, {0, 114, 178, "blue"},    {0, 158, 115, "green"},
    {204, 121, 167, "purple"}, {230, 159, 0, "orange"},  {86, 180, 233, "sky"},
    {0, 0, 0, "ink"},          {32, 32, 32, "ink"},      {64, 64, 64, "axis"},
    {80, 80, 80, "faint"},     {128, 128, 128, "mid"},   {228, 228, 228, "grid"},
    {242, 242, 242, "grid"},   {255, 255, 255, "paper"},
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

struct span {
    const char *start;
    size_t length;
};

static bool span_is(struct span span, const char *text)
{
    return strlen(text) == span.length && strncmp(span.start, text, span.length) == 0;
}

static bool is_listed(struct span span, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (span_is(span, list[i])) {
            return true;
        }
    }
    return false;
}

/* "rgb( 64,  64,  64)", "#FFFFFF", "black", "white". */
static bool parse_color(const char *value, int *rgb)
{
    unsigned hex;
    char rest;
    if (sscanf(value, "rgb( %d , %d , %d %c", &rgb[0], &rgb[1], &rgb[2], &rest) == 4) {
        return rest == ')';
    }
    if (strlen(value) == 7 && sscanf(value, "#%6x", &hex) == 1) {
        rgb[0] = (int)(hex >> 16);
        rgb[1] = (int)(hex >> 8 & 0xFF);
        rgb[2] = (int)(hex & 0xFF);
        return true;
    }
    rgb[0] = rgb[1] = rgb[2] = strcmp(value, "white") == 0 ? 255 : 0;
    return strcmp(value, "white") == 0 || strcmp(value, "black") == 0;
}

static void write_color(FILE *out, const char *value)
{
    int rgb[3];
    for (size_t i = 0; parse_color(value, rgb) && i < COUNT(colors); i++) {
        if (rgb[0] == colors[i].red && rgb[1] == colors[i].green && rgb[2] == colors[i].blue) {
            fb_html_printf(out, "var(--fig-%s)", colors[i].name);
            return;
        }
    }
    fb_html_text(out, value);
}

/* Only what points into this picture. */
static void write_attribute(FILE *out, int number, struct span name, const char *value)
{
    /* gnuplot repeats the defaults in every group. */
    if ((span_is(name, "stroke-linecap") && strcmp(value, "butt") == 0) ||
        (span_is(name, "stroke-linejoin") && strcmp(value, "miter") == 0)) {
        return;
    }
    /* Only gnuplot's symbols (gpDot, gpPt1, ...) are pointed to; other names are of no use here. */
    if (span_is(name, "id") && strncmp(value, "gp", 2) != 0) {
        return;
    }
    bool is_color = span_is(name, "fill") || span_is(name, "stroke") || span_is(name, "color");
    if (span_is(name, "xlink:href")) {
        if (value[0] == '#') {
            fb_html_printf(out, " href=\"#f%d-%s\"", number, value + 1);
        }
        return;
    }
    (void)fprintf(out, " %.*s=\"", (int)name.length, name.start);
    if (is_color) {
        write_color(out, value);
    } else if (span_is(name, "id")) {
        fb_html_printf(out, "f%d-%s", number, value);
    } else {
        fb_html_text(out, value);
    }
    (void)fputc('"', out);
}

/* From behind the element's name; returns what follows the '>', NULL when there is none. With out
 * NULL the tag is only passed over. */
static const char *copy_attributes(FILE *out, int number, const char *at)
{
    char *value = NULL;
    for (;;) {
        at += strspn(at, " \t\r\n");
        if (*at == '\0' || *at == '>' || (*at == '/' && at[1] == '>')) {
            break;
        }
        struct span name = {at, strcspn(at, " \t\r\n=/>")};
        at += name.length;
        at += strspn(at, " \t\r\n");
        if (*at != '=' || name.length == 0) {
            at += name.length == 0;
            continue;
        }
        at += 1 + strspn(at + 1, " \t\r\n");
        const char quote[2] = {*at, '\0'};
        if (*at != '"' && *at != '\'') {
            return NULL;
        }
        size_t length = strcspn(at + 1, quote);
        if (at[1 + length] == '\0') {
            return NULL;
        }
        if (out && is_listed(name, attributes, COUNT(attributes))) {
            value = strndup(at + 1, length);
            if (!value) {
                return NULL;
            }
            write_attribute(out, number, name, value);
            free(value);
        }
        at += length + 2;
    }
    bool closed = *at == '/';
    at += closed;
    if (*at != '>') {
        return NULL;
    }
    if (out) {
        (void)fputs(closed ? "/>" : ">", out);
    }
    return at + 1;
}

/* "<g ...>" with nothing inside: gnuplot writes one for each change of style. */
static const char *skip_empty_group(const char *tag)
{
    const char *end = strchr(tag, '>');
    if (strncmp(tag, "<g ", 3) != 0 || !end || end[-1] == '/') {
        return NULL;
    }
    end += 1 + strspn(end + 1, " \t\r\n");
    return strncmp(end, "</g>", 4) == 0 ? end + 4 : NULL;
}

/* One tag of the picture; returns what follows it, NULL when the file is cut or no SVG. */
static const char *copy_tag(FILE *out, int number, const char *tag)
{
    const char *after = skip_empty_group(tag);
    if (after) {
        return after;
    }
    bool closing = tag[1] == '/';
    struct span name = {tag + 1 + closing, strcspn(tag + 1 + closing, " \t\r\n/>")};
    if (is_listed(name, silent, COUNT(silent))) {
        char end[16];
        (void)snprintf(end, sizeof end, "</%.*s>", (int)name.length, name.start);
        after = strstr(tag, end);
        return after ? after + strlen(end) : NULL;
    }
    bool wanted = is_listed(name, elements, COUNT(elements));
    if (wanted) {
        (void)fprintf(out, "<%s%.*s", closing ? "/" : "", (int)name.length, name.start);
    }
    return copy_attributes(wanted ? out : NULL, number, name.start + name.length);
}

static enum fb_status copy_content(FILE *out, const struct fb_html_svg *picture, const char *at,
                                   struct fb_error *error)
{
    while (at && *at) {
        if (strncmp(at, "</svg>", 6) == 0) {
            return FB_OK;
        }
        if (*at == '<') {
            at = copy_tag(out, picture->number, at);
        } else if (isspace((unsigned char)*at)) {
            (void)fputc(*at == '\n' ? '\n' : ' ', out);
            at += strspn(at, " \t\r\n");
        } else {
            size_t length = strcspn(at, "< \t\r\n");
            fb_html_clean(out, at, length);
            at += length;
        }
    }
    return fb_error_set(error, FB_ERROR_IO, "%s: not a whole SVG picture", picture->path);
}

enum fb_status fb_html_svg_write(FILE *out, const struct fb_html_svg *picture,
                                 struct fb_error *error)
{
    const char *tag = strstr(picture->svg, "<svg");
    const char *box = tag ? strstr(tag, "viewBox=\"0 0 ") : NULL;
    const char *body = tag ? strchr(tag, '>') : NULL;
    int width = 0, height = 0;
    if (!box || !body || box > body || sscanf(box, "viewBox=\"0 0 %d %d\"", &width, &height) != 2) {
        return fb_error_set(error, FB_ERROR_IO, "%s: not an SVG picture of gnuplot", picture->path);
    }
    fb_html_printf(out,
                   "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" "
                   "aria-labelledby=\"f%d-title f%d-desc\">"
                   "<title id=\"f%d-title\">%s</title><desc id=\"f%d-desc\">%s</desc>",
                   width, height, width, height, picture->number, picture->number, picture->number,
                   picture->title, picture->number, picture->desc);
    enum fb_status status = copy_content(out, picture, body + 1, error);
    (void)fputs("</svg>\n", out);
    return status;
}
