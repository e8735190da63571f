/* What a fit must know beside the trainer's state to go on: the note that travels with a
 * checkpoint.
 */
#ifndef FB_FIT_NOTE_H
#define FB_FIT_NOTE_H

#include "fit.h"

struct fb_fit_state {
    int trial; /* at hand */
    double train_s, elapsed_s;
    double rate_s; /* in the rate_steps that the speed is told from */
    int64_t rate_steps;
    double loss_sum; /* since the last evaluation */
    int64_t loss_steps;
    struct fb_fit_point *points;
    size_t points_count, points_room;
    /* the best evaluation of all trials so far; step -1: none yet */
    int selected_trial;
    int64_t selected_step;
    double selected_value;
    double selected_test;   /* its score on the test split, and which examples it got right: made at
                               the evaluation if that is of the test split, else at the end */
    double last_test;       /* after the last step of the selected trial, once that is over */
    unsigned char *correct; /* NULL: not kept */
    int64_t correct_count;
};

/* As text in the arena; NULL with the error filled. */
const char *fb_fit_note_write(const struct fb_fit_state *state, struct fb_arena *arena,
                              struct fb_error *error);

/* Into a state whose arrays have their room. FB_ERROR_INPUT when it is none of ours. */
enum fb_status fb_fit_note_read(const char *note, const char *path, struct fb_fit_state *state,
                                struct fb_error *error) FB_MUST_CHECK;

#endif
