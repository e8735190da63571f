/* gnuplot as a child process. See gnuplot.h. */
#include "gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { TAIL_SIZE = 600 };

const char *fb_gnuplot_scripts_dir(void)
{
    static const char *const dirs[] = {FLOWBENCH_SOURCE_DIR "/plots", FLOWBENCH_DATA_DIR "/plots"};
    static const char *const probes[] = {FLOWBENCH_SOURCE_DIR "/plots/common.gp",
                                         FLOWBENCH_DATA_DIR "/plots/common.gp"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        if (access(probes[i], R_OK) == 0) {
            return dirs[i];
        }
    }
    return NULL;
}

/* Starts gnuplot with its stderr in a pipe; returns 0 or an errno. */
static int start(char *const *argv, pid_t *child, int *read_fd)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return errno;
    }
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    posix_spawn_file_actions_t actions;
    int code = posix_spawn_file_actions_init(&actions);
    if (code == 0) {
        code = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        code = code ? code
                    : posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
                                                       O_WRONLY, 0);
        code = code ? code : posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
        code = code ? code : posix_spawn_file_actions_addclose(&actions, ends[1]);
        code = code ? code : posix_spawnp(child, argv[0], &actions, NULL, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    (void)close(ends[1]);
    if (code != 0) {
        (void)close(ends[0]);
        return code;
    }
    *read_fd = ends[0];
    return 0;
}

/* Everything the child says is read, the last TAIL_SIZE bytes are kept. */
static void read_tail(int fd, char *tail)
{
    char chunk[512];
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        size_t count = (size_t)got,
               over = length + count > TAIL_SIZE ? length + count - TAIL_SIZE : 0;
        over = over > length ? length : over;
        memmove(tail, tail + over, length - over);
        length -= over;
        count = count > TAIL_SIZE - length ? TAIL_SIZE - length : count;
        memcpy(tail + length, chunk, count);
        length += count;
    }
    while (length > 0 && (tail[length - 1] == '\n' || tail[length - 1] == ' ')) {
        length--;
    }
    tail[length] = '\0';
}

enum fb_status fb_gnuplot_draw(const char *settings, const char *scripts_dir, const char *script,
                               const char *format, struct fb_error *error)
{
    char setup[4200], path[4200], tail[TAIL_SIZE + 1];
    if (strchr(scripts_dir, '\'') || strlen(scripts_dir) + strlen(script) > 4096) {
        return fb_error_set(error, FB_ERROR_IO,
                            "the folder of the gnuplot scripts has an unusable name: %s",
                            scripts_dir);
    }
    (void)snprintf(setup, sizeof setup, "fb_format = '%s'; fb_scripts = '%s'", format, scripts_dir);
    (void)snprintf(path, sizeof path, "%s/%s", scripts_dir, script);
    char program[] = "gnuplot", defaults[] = "-d", expression[] = "-e", first[4200];
    (void)snprintf(first, sizeof first, "%s", settings);
    char *argv[] = {program, defaults, expression, setup, first, path, NULL};
    pid_t child = 0;
    int fd = -1, code = start(argv, &child, &fd);
    if (code == ENOENT) {
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "gnuplot is not installed: install it (Debian, Ubuntu: apt install "
                            "gnuplot-nox), then run `flowbench plot RUN`");
    }
    if (code != 0) {
        return fb_error_set(error, FB_ERROR_IO, "gnuplot could not be started: %s", strerror(code));
    }
    read_tail(fd, tail);
    (void)close(fd);
    int state = 0;
    while (waitpid(child, &state, 0) < 0) {
        if (errno != EINTR) {
            return fb_error_set(error, FB_ERROR_IO, "gnuplot was lost: %s", strerror(errno));
        }
    }
    bool fine = WIFEXITED(state) && WEXITSTATUS(state) == 0;
    return fine ? FB_OK
                : fb_error_set(error, FB_ERROR_IO, "gnuplot failed on %s: %s", path,
                               tail[0] ? tail : "it gave no reason");
}

void fb_gnuplot_write_text(FILE *file, const char *text)
{
    (void)fputc('"', file);
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < ' ') {
            (void)fputc(' ', file);
        } else if (strchr("\"'\\`$@", byte)) {
            (void)fprintf(file, "\\%03o", (unsigned)byte);
        } else {
            (void)fputc(byte, file);
        }
    }
    (void)fputc('"', file);
}
