/* Numbers with their units. See quantity.h. */
#include "quantity.h"

#include <math.h>
#include <stdio.h>

/* Three significant digits: 1.23, 12.3, 123. */
static void print_scaled(double value, const char *unit, char *text)
{
    int decimals = fabs(value) < 9.995 ? 2 : fabs(value) < 99.95 ? 1 : 0;
    (void)snprintf(text, FB_QUANTITY_SIZE, "%.*f%s", decimals, value, unit);
}

static char *not_a_number(char *text)
{
    (void)snprintf(text, FB_QUANTITY_SIZE, "-");
    return text;
}

char *fb_quantity_time(double seconds, char *text)
{
    if (isnan(seconds)) {
        return not_a_number(text);
    }
    if (seconds < 0.9995e-6) {
        print_scaled(seconds * 1e9, " ns", text);
    } else if (seconds < 0.9995e-3) {
        print_scaled(seconds * 1e6, " us", text);
    } else if (seconds < 0.9995) {
        print_scaled(seconds * 1e3, " ms", text);
    } else {
        print_scaled(seconds, " s", text);
    }
    return text;
}

/* value / 1024^k with at most one decimal, none when it is whole. */
static void print_binary(double value, const char *const *units, size_t units_count, char *text)
{
    size_t unit = 0;
    while (unit + 1 < units_count && fabs(value) >= 1024) {
        value /= 1024;
        unit++;
    }
    int decimals = fabs(value - round(value)) < 0.05 || fabs(value) >= 99.95 ? 0 : 1;
    (void)snprintf(text, FB_QUANTITY_SIZE, "%.*f%s", decimals, value, units[unit]);
}

char *fb_quantity_bytes(double bytes, char *text)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    if (isnan(bytes)) {
        return not_a_number(text);
    }
    print_binary(bytes, units, sizeof units / sizeof units[0], text);
    return text;
}

char *fb_quantity_count(double count, char *text)
{
    static const char *const units[] = {"", "K", "M", "G"};
    if (isnan(count)) {
        return not_a_number(text);
    }
    if (count < 1024) {
        (void)snprintf(text, FB_QUANTITY_SIZE, "%.0f", count);
    } else {
        print_binary(count, units, sizeof units / sizeof units[0], text);
    }
    return text;
}

char *fb_quantity_instructions(double count, char *text)
{
    if (isnan(count)) {
        return not_a_number(text);
    }
    if (count < 0.9995e6) {
        print_scaled(count * 1e-3, " k", text);
    } else if (count < 0.9995e9) {
        print_scaled(count * 1e-6, " M", text);
    } else {
        print_scaled(count * 1e-9, " G", text);
    }
    return text;
}

char *fb_quantity_ratio(double value, char *text)
{
    if (isnan(value)) {
        return not_a_number(text);
    }
    print_scaled(value, "", text);
    return text;
}

char *fb_quantity_small(double value, char *text)
{
    if (isnan(value)) {
        return not_a_number(text);
    }
    (void)snprintf(text, FB_QUANTITY_SIZE, "%.1e", value);
    return text;
}
