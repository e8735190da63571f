/*
 * Where the threads of a worker run: each bound to a processor of its own, compactly: one thread
 * per core before a second one on the same core, neighbouring cores first, inside the processors
 * that this process was given. A user who has set OMP_PROC_BIND or one of its kin decides instead.
 */
#ifndef FB_PINNING_H
#define FB_PINNING_H

#include "status.h"

#include <hwloc.h>
#include <jansson.h>
#include <stdbool.h>

/* "OMP_PROC_BIND=spread": the first variable by which the user has decided, or NULL. */
const char *fb_pinning_users_choice(void);

/* Whether an entry of the environment is such a variable. */
bool fb_pinning_is_choice(const char *entry);

/* The processors (operating system's numbers) that threads 0, 1, … are bound to: at most `room` of
 * them, all of `allowed`. Returns how many. */
int fb_pinning_order(hwloc_topology_t topology, hwloc_const_bitmap_t allowed, int *processors,
                     int room);

/* Binds this process's OpenMP threads 0 .. threads-1, this one being 0. More threads than
 * processors are left to the kernel; so are all where the system does not know binding. */
enum fb_status fb_pinning_apply(int threads, struct fb_error *error) FB_MUST_CHECK;

/* Where the user's choice has made libgomp bind this process's first thread: notes all the places
 * that it knows. */
void fb_pinning_note_places(void);

/* In a child before exec, async-signal-safe: all the processors that fb_pinning_apply has used
 * here, or that were noted, instead of the one that the calling thread is bound to. Nothing
 * without. */
void fb_pinning_widen(void);

/* {"policy": "compact", "processors": [0, 1]} or {"policy": "user", "variable": "OMP_…"}. */
json_t *fb_pinning_to_json(void);

#endif
