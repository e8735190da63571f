/* One measurement at a time: see host_lock.h. */
#define _GNU_SOURCE
#include "host_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

int fb_host_lock_take(bool *taken)
{
    static const char path[] = "/tmp/flowbench.lock";
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

    *taken = false;
    /* In a sticky folder the kernel may refuse to "create" a file that another user owns. */
    if (fd < 0)
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    *taken = errno == EWOULDBLOCK;
    close(fd);
    return -1;
}
