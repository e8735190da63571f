/* Escaping and formatting. See html_out.h. */
#include "html_out.h"

#include "quantity.h"
#include "utf8.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* Controls, and what reorders or hides the text around it. */
static bool is_unprintable(uint32_t code)
{
    return (code < 0x20 && code != '\t' && code != '\n') || (code >= 0x7F && code <= 0x9F) ||
           code == 0x061C || (code >= 0x200E && code <= 0x200F) ||
           (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) ||
           code == 0xFEFF || (code >= 0xFDD0 && code <= 0xFDEF) || (code & 0xFFFE) == 0xFFFE;
}

static const char *entity_of(uint32_t code)
{
    switch (code) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static void write_text(FILE *out, const char *text, size_t left, bool escape)
{
    while (left > 0) {
        uint32_t code = 0;
        size_t length = fb_utf8_decode(text, left, &code);
        const char *entity = escape && length > 0 ? entity_of(code) : NULL;
        if (length == 0 || is_unprintable(code)) {
            (void)fputs(REPLACEMENT, out);
            length = length > 0 ? length : 1;
        } else if (entity) {
            (void)fputs(entity, out);
        } else {
            (void)fwrite(text, 1, length, out);
        }
        text += length;
        left -= length;
    }
}

void fb_html_text(FILE *out, const char *text)
{
    write_text(out, text, strlen(text), true);
}

void fb_html_clean(FILE *out, const char *text, size_t length)
{
    write_text(out, text, length, false);
}

/* One conversion, from its '%'; returns what follows it. */
static const char *convert(FILE *out, const char *format, va_list *arguments)
{
    int precision = -1;
    format++;
    if (*format == '.') {
        assert(isdigit((unsigned char)format[1]));
        precision = format[1] - '0';
        format += 2;
    }
    if (strncmp(format, "zu", 2) == 0) {
        (void)fprintf(out, "%zu", va_arg(*arguments, size_t));
        return format + 2;
    }
    if (strncmp(format, "lld", 3) == 0) {
        (void)fprintf(out, "%lld", va_arg(*arguments, long long));
        return format + 3;
    }
    switch (*format) {
    case 's':
        fb_html_text(out, va_arg(*arguments, const char *));
        break;
    case 'd':
        (void)fprintf(out, "%d", va_arg(*arguments, int));
        break;
    case 'f':
        (void)fprintf(out, "%.*f", precision, va_arg(*arguments, double));
        break;
    case 'g':
        (void)fprintf(out, "%.*g", precision, va_arg(*arguments, double));
        break;
    default:
        assert(*format == '%');
        (void)fputc('%', out);
    }
    return format + 1;
}

void fb_html_printf(FILE *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    while (*format) {
        size_t plain = strcspn(format, "%");
        (void)fwrite(format, 1, plain, out);
        format += plain;
        if (*format == '%') {
            format = convert(out, format, &arguments);
        }
    }
    va_end(arguments);
}

char *fb_html_time(double seconds, char *text)
{
    if (seconds == 0) {
        (void)snprintf(text, FB_QUANTITY_SIZE, "0");
        return text;
    }
    fb_quantity_time(seconds, text);
    char *unit = strstr(text, " us");
    if (unit) {
        (void)snprintf(unit, FB_QUANTITY_SIZE - (size_t)(unit - text), " \xc2\xb5s");
    }
    return text;
}

char *fb_html_time_range(double low_s, double high_s, char *text)
{
    char low[FB_QUANTITY_SIZE], high[FB_QUANTITY_SIZE];
    fb_html_time(low_s, low);
    fb_html_time(high_s, high);
    char *low_unit = strchr(low, ' ');
    const char *high_unit = strchr(high, ' ');
    if (low_unit && high_unit && strcmp(low_unit, high_unit) == 0) {
        *low_unit = '\0';
    }
    (void)snprintf(text, 2 * FB_QUANTITY_SIZE, "%.30s\xe2\x80\x93%.30s", low, high);
    return text;
}

void fb_html_utc(FILE *out, const char *text)
{
    if (strlen(text) == 20 && text[10] == 'T' && text[19] == 'Z') {
        fb_html_printf(out, "<time datetime=\"%s\">", text);
        write_text(out, text, 10, true);
        (void)fputc(' ', out);
        write_text(out, text + 11, 5, true);
        (void)fputs(" UTC</time>", out);
    } else {
        fb_html_text(out, text);
    }
}

void fb_html_shell_word(FILE *out, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_@%+=:,./-";
    if (text[0] != '\0' && text[strspn(text, plain)] == '\0') {
        fb_html_text(out, text);
        return;
    }
    fb_html_text(out, "'");
    while (*text) {
        size_t length = strcspn(text, "'");
        write_text(out, text, length, true);
        text += length;
        if (*text == '\'') {
            fb_html_text(out, "'\\''");
            text++;
        }
    }
    fb_html_text(out, "'");
}
