/*
 * ListOps (Nangia & Bowman 2018, in the form of the Long Range Arena, Tay et al. 2021): nested
 * operators over digits, whose value is the class. A tree is its string of tokens in prefix order,
 * one per digit, operator and closing bracket; two trees are equal when their tokens are.
 */
#ifndef FB_LISTOPS_TREE_H
#define FB_LISTOPS_TREE_H

#include "random.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Token ids; 0 is padding and the id after the last one stands for what the vocabulary lacks. */
enum {
    FB_LISTOPS_DIGIT = 1, /* 1 .. 10 are the digits 0 .. 9 */
    FB_LISTOPS_MIN = 11,
    FB_LISTOPS_MAX,
    FB_LISTOPS_MED, /* of an even count: the mean of the middle two, rounded down */
    FB_LISTOPS_SM,  /* the sum modulo 10 */
    FB_LISTOPS_CLOSE,
    FB_LISTOPS_VOCABULARY = 17
};

enum {
    FB_LISTOPS_DEPTH_MAX = 10,
    FB_LISTOPS_ARGUMENTS_MAX = 10,
    FB_LISTOPS_LENGTH_MIN = 501,
    FB_LISTOPS_LENGTH_MAX = 1999,
    FB_LISTOPS_TEXT_SIZE = 8 * (FB_LISTOPS_LENGTH_MAX + 1) /* of any drawn tree as text, with NUL */
};

/* Draws one tree by the benchmark's rules, of a kind with one in twelve inside the limits of
 * length. Returns its length, or 0 when it is outside of them. tokens: LENGTH_MAX bytes. */
int fb_listops_draw(struct fb_random *random, uint8_t *tokens);

/* The value 0 .. 9; false when the tokens are no tree of the stated limits of arguments and of
 * depth. */
bool fb_listops_evaluate(const uint8_t *tokens, int length, int *value);

/* The tree as the benchmark's files write it, nested to the left in parentheses; text:
 * FB_LISTOPS_TEXT_SIZE bytes. Returns the length of the text. */
size_t fb_listops_write(const uint8_t *tokens, int length, char *text);

/* Tokens of such a text (`bytes` long, no NUL needed); parentheses are skipped, as the benchmark's
 * own reader does. Returns the number of tokens, or -1 with *at the offset of what is none or does
 * not fit into `limit`. */
int fb_listops_tokenise(const char *text, size_t bytes, uint8_t *tokens, int limit, size_t *at);

#endif
