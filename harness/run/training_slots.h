/*
 * Places for the workers of cases that are trained at once. Cases on a GPU are dealt over the GPUs
 * that this process sees; on a processor there are no more than it has room for threads.
 */
#ifndef FB_TRAINING_SLOTS_H
#define FB_TRAINING_SLOTS_H

#include "plan.h"
#include "worker_process.h"

struct fb_training_slot {
    struct fb_worker *worker; /* NULL: the place is free */
    size_t case_index;
    json_t *input; /* owned while the worker lives */
    char gpu[64];  /* that cases on a GPU get here; "": whichever this process has */
};

struct fb_training_slots {
    struct fb_training_slot slots[FB_WORKERS_MAX];
    size_t count, busy;
    enum fb_backend device; /* of the busy ones */
};

/* parallel: 1 .. FB_WORKERS_MAX. */
void fb_training_slots_init(struct fb_training_slots *slots, size_t parallel);

/* A place where the case can start now, or NULL: one must end first. */
struct fb_training_slot *fb_training_slots_room(struct fb_training_slots *slots,
                                                const struct fb_case *item);

/* Starts the case in its place; takes the reference to the task's input. */
enum fb_status fb_training_slots_start(struct fb_training_slots *slots,
                                       struct fb_training_slot *slot, const struct fb_case *item,
                                       size_t case_index, json_t *input,
                                       const struct fb_worker_task *task,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Waits for the end of one (busy must not be 0); returns the index of its case. */
size_t fb_training_slots_wait(struct fb_training_slots *slots, struct fb_interrupts *interrupts,
                              struct fb_worker_outcome *outcome);

/* Kills what is left. */
void fb_training_slots_abandon(struct fb_training_slots *slots);

#endif
