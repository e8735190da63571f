/* Numbers with their units, as people read them: "1.23 ms", "64K", "1.5 MiB". */
#ifndef FB_QUANTITY_H
#define FB_QUANTITY_H

#include <stddef.h>

enum { FB_QUANTITY_SIZE = 32 };

/* Each writes at most FB_QUANTITY_SIZE bytes into text and returns it; NaN is "-". */
char *fb_quantity_time(double seconds, char *text);
char *fb_quantity_bytes(double bytes, char *text);
/* Counts of tokens in binary thousands: "256", "4K", "4.1K". */
char *fb_quantity_count(double count, char *text);
/* Counts of instructions in thousands: "940 k", "2.84 M". */
char *fb_quantity_instructions(double count, char *text);
/* Three significant digits, without an exponent where one can be avoided. */
char *fb_quantity_ratio(double value, char *text);
/* "2.1e-07" */
char *fb_quantity_small(double value, char *text);

#endif
