/* Whether another flowbench measures on this machine: an advisory lock that all users share. */
#ifndef FB_HOST_LOCK_H
#define FB_HOST_LOCK_H

#include <stdbool.h>

/* Takes the lock for as long as the descriptor is open. -1 when it cannot be had: *taken tells
 * whether that is because another flowbench holds it. */
int fb_host_lock_take(bool *taken);

#endif
