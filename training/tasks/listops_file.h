/*
 * ListOps as files: `Source<TAB>Target` lines under a header, as the Long Range Arena writes them;
 * reading them, and the distinct trees that such files are made of.
 */
#ifndef FB_LISTOPS_FILE_H
#define FB_LISTOPS_FILE_H

#include "arena.h"
#include "listops_tree.h"

struct fb_listops_examples {
    int64_t count;
    const int64_t *starts; /* [count + 1], into tokens */
    const uint8_t *tokens;
    const uint8_t *targets;
};

/* Reads a file into the arena. Every tree is evaluated: one that is none, is longer than
 * FB_LISTOPS_LENGTH_MAX or has another value than its target is an error naming the line. */
enum fb_status fb_listops_read(struct fb_listops_examples *examples, const char *path,
                               struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* Streams of the random numbers that draw `count` distinct trees, in a random order; all follow
 * from the seed. Tree i is drawn again by fb_listops_redraw. NULL with the error filled. */
uint64_t *fb_listops_choose(int64_t count, uint64_t seed, struct fb_arena *arena,
                            struct fb_error *error);
/* tokens: FB_LISTOPS_LENGTH_MAX bytes. Returns the length. */
int fb_listops_redraw(uint64_t seed, uint64_t stream, uint8_t *tokens);

#endif
