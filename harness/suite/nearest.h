/* "Did you mean": the known name that is nearest to a mistyped one. */
#ifndef FB_NEAREST_H
#define FB_NEAREST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours; upper and lower case are equal) that turn one
 * text into the other. Texts longer than 64 bytes are at an infinite distance (SIZE_MAX). */
size_t fb_edit_distance(const char *a, const char *b);

/* The nearest of the names, or NULL when none is near enough to be meant: a third of the letters.
 */
const char *fb_nearest_name(const char *text, const char *const *names, size_t count);

#endif
