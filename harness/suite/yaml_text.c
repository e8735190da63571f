/* What a suite's bytes may be: UTF-8 without control characters (YAML 1.1, 5.1, and stricter: the
 * line ends of other alphabets would make line numbers ambiguous). */
#include "utf8.h"
#include "yaml_tree.h"

#include <stdint.h>
#include <string.h>

static bool is_allowed(uint32_t code)
{
    if (code < 0x20U) {
        return code == '\t' || code == '\n' || code == '\r';
    }
    return code != 0x7FU && !(code >= 0x80U && code < 0xA0U) && code != 0x2028U &&
           code != 0x2029U && code != 0xFEFFU && code != 0xFFFEU && code != 0xFFFFU;
}

bool fb_yaml_check_text(const struct fb_source *source, struct fb_diagnostics *diagnostics)
{
    const char *text = source->text;
    struct fb_mark mark = {.source = source};
    size_t at = 0;
    if (source->length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        at = 3;
    }
    while (at < source->length) {
        uint32_t code = 0;
        size_t bytes = fb_utf8_decode(text + at, source->length - at, &code);
        if (bytes == 0) {
            fb_diagnose(diagnostics, mark, "byte 0x%02X is not UTF-8: is this a suite file?",
                        (unsigned)(unsigned char)text[at]);
            return false;
        }
        if (!is_allowed(code)) {
            fb_diagnose(diagnostics, mark,
                        "control character U+%04X is not allowed: is this a suite file?",
                        (unsigned)code);
            return false;
        }
        bool pair = code == '\r' && at + 1 < source->length && text[at + 1] == '\n';
        if (code == '\n' || (code == '\r' && !pair)) {
            mark.line++;
            mark.column = 0;
        } else if (!pair) {
            mark.column++;
        }
        at += bytes;
    }
    return true;
}
