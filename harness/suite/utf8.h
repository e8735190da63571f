/* UTF-8, strictly: no overlong forms, no surrogates. */
#ifndef FB_UTF8_H
#define FB_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes one code point of a text of at least one byte; returns its bytes, 0 for no UTF-8. */
size_t fb_utf8_decode(const char *text, size_t length, uint32_t *code);

#endif
