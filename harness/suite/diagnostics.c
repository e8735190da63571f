/* Error blocks with the source line and a caret. */
#include "diagnostics.h"

#include "utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The part of a source line that is shown, in code points, and how much of it may precede the
 * caret. TAIL_SIZE bytes of the error text stay free for "... and N more". */
enum {
    SHOWN_COLUMNS = 96,
    SHOWN_BEFORE = 64,
    MESSAGE_SIZE = 400,
    LINE_SIZE = 400,
    BLOCK_SIZE = 1400,
    TAIL_SIZE = 40
};

void fb_diagnostics_init(struct fb_diagnostics *diagnostics, struct fb_error *error)
{
    *diagnostics = (struct fb_diagnostics){.error = error};
    error->code = FB_OK;
    error->text[0] = '\0';
}

static bool is_continuation(char byte)
{
    return ((unsigned char)byte & 0xC0U) == 0x80U;
}

/* Replaces what is no UTF-8 (a cut end, too) and what a terminal would obey. */
static void make_printable(char *text)
{
    size_t length = strlen(text);
    for (size_t at = 0; at < length;) {
        uint32_t code = 0;
        size_t bytes = fb_utf8_decode(text + at, length - at, &code);
        if (bytes == 0 || code < 0x20U || code == 0x7FU || (code >= 0x80U && code < 0xA0U)) {
            bytes = bytes == 0 ? 1 : bytes;
            memset(text + at, '?', bytes);
        }
        at += bytes;
    }
}

/* First byte of a line (from 0); a line ends with LF, CR LF or CR. */
static size_t line_start(const struct fb_source *source, size_t line)
{
    size_t at = 0;
    while (line > 0 && at < source->length) {
        char c = source->text[at++];
        if (c == '\r' && at < source->length && source->text[at] == '\n') {
            at++;
        }
        line -= (c == '\n' || c == '\r') ? 1 : 0;
    }
    return at;
}

/* Copies the shown part of the mark's line and returns the caret's column within it. */
static size_t copy_line(struct fb_mark mark, char *line, size_t line_size)
{
    const struct fb_source *source = mark.source;
    size_t at = line_start(source, mark.line);
    size_t skip = mark.column > SHOWN_BEFORE + 16 ? mark.column - SHOWN_BEFORE : 0;
    size_t column = 0;
    size_t used = 0;
    for (; at < source->length; at++) {
        char c = source->text[at];
        if (c == '\n' || c == '\r') {
            break;
        }
        column += is_continuation(c) ? 0 : 1;
        if (column <= skip) {
            continue;
        }
        if (column > skip + SHOWN_COLUMNS || used + 2 > line_size) {
            break;
        }
        line[used++] = c == '\t' ? ' ' : c == '\0' ? '?' : c;
    }
    line[used] = '\0';
    make_printable(line);
    return mark.column - skip;
}

/* Appends a whole block, or counts it as unshown. The first one is shown even if it must be cut. */
static void append_block(struct fb_diagnostics *diagnostics, const char *block)
{
    size_t length = strlen(block);
    size_t room = FB_ERROR_TEXT_SIZE - 1 - diagnostics->used;
    diagnostics->count++;
    if (diagnostics->unshown > 0 || (diagnostics->used > 0 && length + TAIL_SIZE > room)) {
        diagnostics->unshown++;
        return;
    }
    if (length > room - TAIL_SIZE) {
        length = room - TAIL_SIZE;
    }
    memcpy(diagnostics->error->text + diagnostics->used, block, length);
    diagnostics->used += length;
    diagnostics->error->text[diagnostics->used] = '\0';
}

void fb_diagnose(struct fb_diagnostics *diagnostics, struct fb_mark mark, const char *format, ...)
{
    char message[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    make_printable(message);

    char line[LINE_SIZE];
    size_t caret = copy_line(mark, line, sizeof line);
    char block[BLOCK_SIZE];
    int used = snprintf(block, sizeof block, "%s%.300s:%zu:%zu: error: %s",
                        diagnostics->used > 0 ? "\n" : "", mark.source->name, mark.line + 1,
                        mark.column + 1, message);
    if (line[0] != '\0' && used > 0) {
        (void)snprintf(block + used, sizeof block - (size_t)used, "\n    %s\n    %*s^", line,
                       (int)caret, "");
    }
    append_block(diagnostics, block);
}

void fb_diagnose_file(struct fb_diagnostics *diagnostics, const char *name, const char *format, ...)
{
    char message[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    make_printable(message);
    char block[BLOCK_SIZE];
    (void)snprintf(block, sizeof block, "%s%.500s: error: %s", diagnostics->used > 0 ? "\n" : "",
                   name, message);
    append_block(diagnostics, block);
}

void fb_diagnose_memory(struct fb_diagnostics *diagnostics, const struct fb_error *error)
{
    if (!diagnostics->out_of_memory) {
        diagnostics->out_of_memory = true;
        (void)fb_error_set(diagnostics->error, FB_ERROR_MEMORY, "%s", error->text);
        diagnostics->used = strlen(diagnostics->error->text);
    }
}

bool fb_diagnostics_failed(const struct fb_diagnostics *diagnostics)
{
    return diagnostics->count > 0 || diagnostics->out_of_memory;
}

enum fb_status fb_diagnostics_finish(struct fb_diagnostics *diagnostics)
{
    if (!fb_diagnostics_failed(diagnostics)) {
        return FB_OK;
    }
    if (diagnostics->out_of_memory) {
        return diagnostics->error->code = FB_ERROR_MEMORY;
    }
    if (diagnostics->unshown > 0) {
        (void)snprintf(diagnostics->error->text + diagnostics->used,
                       FB_ERROR_TEXT_SIZE - diagnostics->used, "\n... and %zu more",
                       diagnostics->unshown);
    }
    return diagnostics->error->code = FB_ERROR_USAGE;
}
