/*
 * SIGINT, SIGTERM and the end of a worker as something to wait for, instead of handlers: the
 * signals are blocked and read from a descriptor (signalfd), so that there is no race and no
 * global. Between begin and end the runner only sees them when it asks.
 */
#ifndef FB_INTERRUPTS_H
#define FB_INTERRUPTS_H

#include "status.h"

#include <signal.h>
#include <stdbool.h>

struct fb_interrupts {
    int fd;           /* readable when a signal waits */
    int first_signal; /* SIGINT or SIGTERM once one came, else 0 */
    int count;        /* how many of those */
    sigset_t mask_before;
    struct sigaction int_before, term_before, child_before;
};

enum fb_status fb_interrupts_begin(struct fb_interrupts *interrupts,
                                   struct fb_error *error) FB_MUST_CHECK;

/* Takes what has come so far, without waiting. */
void fb_interrupts_poll(struct fb_interrupts *interrupts);

/* Gives the signals back as they were; `count` and `first_signal` stay readable. */
void fb_interrupts_end(struct fb_interrupts *interrupts);

#endif
