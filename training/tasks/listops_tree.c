/* Drawing, writing, reading and evaluating trees: see listops_tree.h. */
#include "listops_tree.h"

#include <assert.h>
#include <string.h>

/* Operators are drawn at depths 1 .. DEPTH_MAX - 1 with this probability. */
#define OPERATOR_SHARE 0.25
enum { OPERATOR_COUNT = 4 };

static const char *const operators[OPERATOR_COUNT] = {"[MIN", "[MAX", "[MED", "[SM"};

struct drawing {
    struct fb_random *random;
    uint8_t *tokens;
    int length;
};

/* False when the tree has become longer than any that is kept. */
static bool push(struct drawing *d, int token)
{
    if (d->length == FB_LISTOPS_LENGTH_MAX)
        return false;
    d->tokens[d->length++] = (uint8_t)token;
    return true;
}

/* The recursion ends at FB_LISTOPS_DEPTH_MAX. NOLINTNEXTLINE(misc-no-recursion) */
static bool draw_node(struct drawing *d, int depth)
{
    const bool leaf =
        depth == FB_LISTOPS_DEPTH_MAX || fb_random_uniform(d->random) > OPERATOR_SHARE;
    if (leaf)
        return push(d, FB_LISTOPS_DIGIT + (int)fb_random_below(d->random, 10));
    const int arguments = 2 + (int)fb_random_below(d->random, FB_LISTOPS_ARGUMENTS_MAX - 1);
    const int at = d->length;
    if (!push(d, FB_LISTOPS_MIN))
        return false;
    for (int i = 0; i < arguments; i++)
        if (!draw_node(d, depth + 1))
            return false;
    d->tokens[at] = (uint8_t)(FB_LISTOPS_MIN + (int)fb_random_below(d->random, OPERATOR_COUNT));
    return push(d, FB_LISTOPS_CLOSE);
}

int fb_listops_draw(struct fb_random *random, uint8_t *tokens)
{
    struct drawing d = {.random = random};
    d.tokens = tokens;
    return draw_node(&d, 1) && d.length >= FB_LISTOPS_LENGTH_MIN ? d.length : 0;
}

/* ---- value --------------------------------------------------------------------------------- */

struct level {
    int operator, count;
    uint8_t values[FB_LISTOPS_ARGUMENTS_MAX];
};

static int median(uint8_t *values, int count)
{
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            const uint8_t value = values[j];
            values[j] = values[j - 1];
            values[j - 1] = value;
        }
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static int apply(struct level *level)
{
    int least = 9, most = 0, sum = 0;
    for (int i = 0; i < level->count; i++) {
        const int value = level->values[i];
        least = value < least ? value : least;
        most = value > most ? value : most;
        sum += value;
    }
    switch (level->operator) {
    case FB_LISTOPS_MIN:
        return least;
    case FB_LISTOPS_MAX:
        return most;
    case FB_LISTOPS_MED:
        return median(level->values, level->count);
    default:
        return sum % 10;
    }
}

bool fb_listops_evaluate(const uint8_t *tokens, int length, int *value)
{
    struct level levels[FB_LISTOPS_DEPTH_MAX];
    int depth = 0;
    for (int i = 0; i < length; i++) {
        int result;
        if (tokens[i] >= FB_LISTOPS_MIN && tokens[i] < FB_LISTOPS_CLOSE) {
            if (depth == FB_LISTOPS_DEPTH_MAX)
                return false;
            levels[depth].operator= tokens[i];
            levels[depth++].count = 0;
            continue;
        }
        if (tokens[i] == FB_LISTOPS_CLOSE) {
            if (depth == 0 || levels[depth - 1].count == 0)
                return false;
            result = apply(&levels[--depth]);
        } else if (tokens[i] >= FB_LISTOPS_DIGIT && tokens[i] < FB_LISTOPS_MIN) {
            result = tokens[i] - FB_LISTOPS_DIGIT;
        } else {
            return false;
        }
        if (depth == 0) {
            *value = result;
            return i == length - 1;
        }
        if (levels[depth - 1].count == FB_LISTOPS_ARGUMENTS_MAX)
            return false;
        levels[depth - 1].values[levels[depth - 1].count++] = (uint8_t)result;
    }
    return false;
}

/* ---- text ---------------------------------------------------------------------------------- */

/* How many arguments the operator at each position has. */
static void count_arguments(const uint8_t *tokens, int length, uint8_t *counts)
{
    int open[FB_LISTOPS_DEPTH_MAX + 1] = {0}, depth = 0;
    for (int i = 0; i < length; i++) {
        if (tokens[i] == FB_LISTOPS_CLOSE) {
            depth--;
            continue;
        }
        if (depth > 0)
            counts[open[depth]]++;
        if (tokens[i] >= FB_LISTOPS_MIN) {
            assert(depth < FB_LISTOPS_DEPTH_MAX);
            open[++depth] = i;
            counts[i] = 0;
        }
    }
}

static char *put(char *to, const char *word)
{
    while (*word)
        *to++ = *word++;
    return to;
}

size_t fb_listops_write(const uint8_t *tokens, int length, char *text)
{
    uint8_t counts[FB_LISTOPS_LENGTH_MAX + 1];
    char *to = text;
    int depth = 0;
    assert(length <= FB_LISTOPS_LENGTH_MAX);
    count_arguments(tokens, length, counts);
    for (int i = 0; i < length; i++) {
        const int token = tokens[i];
        if (token == FB_LISTOPS_CLOSE) {
            to = put(to, "] )");
            depth--;
        } else if (token >= FB_LISTOPS_MIN) {
            for (int n = 0; n <= counts[i]; n++)
                to = put(to, "( ");
            to = put(to, operators[token - FB_LISTOPS_MIN]);
            *to++ = ' ';
            depth++;
            continue;
        } else {
            *to++ = (char)('0' + token - FB_LISTOPS_DIGIT);
        }
        if (depth > 0) /* every argument closes one parenthesis of its operator */
            to = put(to, " ) ");
    }
    *to = '\0';
    return (size_t)(to - text);
}

static bool blank(char c)
{
    return c == ' ' || c == '(' || c == ')' || c == '\r';
}

static int token_of(const char *word, size_t length)
{
    if (length == 1 && word[0] >= '0' && word[0] <= '9')
        return FB_LISTOPS_DIGIT + word[0] - '0';
    if (length == 1 && word[0] == ']')
        return FB_LISTOPS_CLOSE;
    for (int i = 0; i < OPERATOR_COUNT; i++)
        if (strlen(operators[i]) == length && memcmp(operators[i], word, length) == 0)
            return FB_LISTOPS_MIN + i;
    return 0;
}

int fb_listops_tokenise(const char *text, size_t bytes, uint8_t *tokens, int limit, size_t *at)
{
    int count = 0;
    size_t i = 0;
    for (;;) {
        while (i < bytes && blank(text[i]))
            i++;
        *at = i;
        if (i == bytes)
            return count;
        size_t end = i;
        while (end < bytes && !blank(text[end]))
            end++;
        const int token = token_of(text + i, end - i);
        if (token == 0 || count == limit)
            return -1;
        tokens[count++] = (uint8_t)token;
        i = end;
    }
}
