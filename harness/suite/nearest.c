/* Optimal string alignment distance: Levenshtein's with swaps of neighbours. */
#include "nearest.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

enum { LENGTH_MAX = 64 };

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int folded(const char *text, size_t index)
{
    return tolower((unsigned char)text[index]);
}

size_t fb_edit_distance(const char *a, const char *b)
{
    size_t a_length = strlen(a);
    size_t b_length = strlen(b);
    if (a_length > LENGTH_MAX || b_length > LENGTH_MAX) {
        return SIZE_MAX;
    }
    size_t rows[3][LENGTH_MAX + 1] = {{0}};
    size_t *before = rows[0];
    size_t *above = rows[1];
    size_t *row = rows[2];
    for (size_t j = 0; j <= b_length; j++) {
        above[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t replace = folded(a, i - 1) == folded(b, j - 1) ? 0 : 1;
            row[j] = min_size(min_size(above[j] + 1, row[j - 1] + 1), above[j - 1] + replace);
            if (i > 1 && j > 1 && folded(a, i - 1) == folded(b, j - 2) &&
                folded(a, i - 2) == folded(b, j - 1)) {
                row[j] = min_size(row[j], before[j - 2] + 1);
            }
        }
        size_t *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_length];
}

const char *fb_nearest_name(const char *text, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(names[i]);
        size_t allowed = length < 4 ? 1 : (length + 2) / 3;
        size_t distance = fb_edit_distance(text, names[i]);
        if (length < 4 && folded(text, 0) != folded(names[i], 0)) {
            continue; /* "gpu" does not mean "cpu" */
        }
        if (distance <= allowed && distance < length && distance < best_distance) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
