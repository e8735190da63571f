/* UTF-8 decoding (RFC 3629). */
#include "utf8.h"

size_t fb_utf8_decode(const char *text, size_t length, uint32_t *code)
{
    const unsigned char *bytes = (const unsigned char *)text;
    unsigned char lead = bytes[0];
    if (lead < 0x80U) {
        *code = lead;
        return 1;
    }
    size_t need = lead >= 0xF0U && lead <= 0xF4U   ? 4
                  : lead >= 0xE0U && lead <= 0xEFU ? 3
                  : lead >= 0xC2U && lead <= 0xDFU ? 2
                                                   : 0;
    if (need == 0 || need > length) {
        return 0;
    }
    static const uint32_t smallest[] = {0, 0, 0x80U, 0x800U, 0x10000U};
    uint32_t value = lead & (0xFFU >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if ((bytes[i] & 0xC0U) != 0x80U) {
            return 0;
        }
        value = (value << 6) | (bytes[i] & 0x3FU);
    }
    if (value < smallest[need] || value > 0x10FFFFU || (value >= 0xD800U && value <= 0xDFFFU)) {
        return 0;
    }
    *code = value;
    return need;
}
