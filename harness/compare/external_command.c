/* Other programs: see external_command.h. */
#include "external_command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NO_FOLDER = 125, EXIT_NO_PROGRAM = 127 };

/* Between fork and exec. */
static void become(const char *const *argv, const char *folder, int out_fd, int error_fd,
                   pid_t parent)
{
    const int in_fd = open("/dev/null", O_RDONLY);

    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
        _exit(EXIT_NO_FOLDER);
    if (in_fd < 0 || dup2(in_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(error_fd, 2) < 0)
        _exit(EXIT_NO_FOLDER);
    if (folder != NULL && chdir(folder) != 0)
        _exit(EXIT_NO_FOLDER);
    execvp(argv[0], (char *const *)argv);
    _exit(EXIT_NO_PROGRAM);
}

static enum fb_status start(const char *const *argv, const char *folder, int out_fd, int error_fd,
                            pid_t *pid, struct fb_error *error)
{
    const pid_t parent = getpid();

    *pid = fork();
    if (*pid == 0)
        become(argv, folder, out_fd, error_fd, parent);
    return *pid < 0
               ? fb_error_set(error, FB_ERROR_IO, "cannot start %s: %s", argv[0], strerror(errno))
               : FB_OK;
}

static enum fb_status await(pid_t pid, const char *name, int *exit_code, struct fb_error *error)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return fb_error_set(error, FB_ERROR_IO, "lost sight of %s: %s", name, strerror(errno));
    }
    *exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (*exit_code == EXIT_NO_PROGRAM)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED, "no %s in PATH: install it", name);
    return FB_OK;
}

enum fb_status fb_command_run(const char *const *argv, const char *folder, const char *log_path,
                              int *exit_code, struct fb_error *error)
{
    pid_t pid;
    const int fd = open(log_path == NULL ? "/dev/null" : log_path,
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    if (fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", log_path, strerror(errno));
    enum fb_status status = start(argv, folder, fd, fd, &pid, error);
    close(fd);
    return status == FB_OK ? await(pid, argv[0], exit_code, error) : status;
}

enum fb_status fb_command_read(const char *const *argv, const char *folder, char *text,
                               size_t text_size, int *exit_code, struct fb_error *error)
{
    int ends[2];
    pid_t pid;
    size_t length = 0;
    char beyond[256];

    const int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null_fd < 0 || pipe(ends) != 0) {
        if (null_fd >= 0)
            close(null_fd);
        return fb_error_set(error, FB_ERROR_IO, "cannot start %s: %s", argv[0], strerror(errno));
    }
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    enum fb_status status = start(argv, folder, ends[1], null_fd, &pid, error);
    close(ends[1]);
    close(null_fd);
    while (status == FB_OK) {
        const bool full = length + 1 >= text_size;
        const ssize_t got = read(ends[0], full ? beyond : text + length,
                                 full ? sizeof beyond : text_size - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += full ? 0 : (size_t)got;
    }
    close(ends[0]);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
        length--;
    text[length] = '\0';
    return status == FB_OK ? await(pid, argv[0], exit_code, error) : status;
}
