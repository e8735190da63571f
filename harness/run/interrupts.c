/* Signals by descriptor: see interrupts.h. */
#include "interrupts.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum fb_status fb_interrupts_begin(struct fb_interrupts *interrupts, struct fb_error *error)
{
    /* A shell starts background jobs with SIGINT ignored, and ignored signals never arrive; nor
     * would the end of a child, where SIGCHLD is ignored. */
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t mask;

    memset(interrupts, 0, sizeof *interrupts);
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &mask, &interrupts->mask_before) != 0)
        return fb_error_set(error, FB_ERROR_INTERNAL, "cannot block signals: %s", strerror(errno));
    sigaction(SIGINT, &standard, &interrupts->int_before);
    sigaction(SIGTERM, &standard, &interrupts->term_before);
    sigaction(SIGCHLD, &standard, &interrupts->child_before);
    interrupts->fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (interrupts->fd < 0) {
        const int reason = errno;
        sigprocmask(SIG_SETMASK, &interrupts->mask_before, NULL);
        return fb_error_set(error, FB_ERROR_IO, "cannot watch signals (signalfd): %s",
                            strerror(reason));
    }
    return FB_OK;
}

void fb_interrupts_poll(struct fb_interrupts *interrupts)
{
    struct signalfd_siginfo info;

    while (read(interrupts->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (interrupts->count++ == 0)
            interrupts->first_signal = (int)info.ssi_signo;
    }
}

void fb_interrupts_end(struct fb_interrupts *interrupts)
{
    if (interrupts->fd < 0)
        return;
    fb_interrupts_poll(interrupts);
    close(interrupts->fd);
    interrupts->fd = -1;
    sigaction(SIGINT, &interrupts->int_before, NULL);
    sigaction(SIGTERM, &interrupts->term_before, NULL);
    sigaction(SIGCHLD, &interrupts->child_before, NULL);
    sigprocmask(SIG_SETMASK, &interrupts->mask_before, NULL);
}
