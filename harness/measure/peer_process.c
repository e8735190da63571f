/* Starting, asking and ending an external program: see peer_process.h. MSG_NOSIGNAL and prctl are
 * Linux's. */
#define _GNU_SOURCE
#include "peer_process.h"

#include "peer_program.h"
#include "pinning.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* ---- finding --------------------------------------------------------------------------------- */

/* Beside the program that runs: of a tree that was installed or packed and then moved. */
static bool find_moved_adapter(const char *file, char path[FB_PEER_PATH_SIZE])
{
    char program[FB_PEER_PATH_SIZE / 2];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *end = strrchr(program, '/');
    if (end == NULL)
        return false;
    *end = '\0';
    (void)snprintf(path, FB_PEER_PATH_SIZE, "%s/../share/flowbench/external/%s", program, file);
    return access(path, R_OK) == 0;
}

static bool find_adapter(const char *file, char path[FB_PEER_PATH_SIZE])
{
    static const char *const dirs[] = {FLOWBENCH_SOURCE_DIR "/baselines/external",
                                       FLOWBENCH_DATA_DIR "/external"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, FB_PEER_PATH_SIZE, "%s/%s", dirs[i], file);
        if (access(path, R_OK) == 0)
            return true;
    }
    return find_moved_adapter(file, path);
}

static bool is_python(const char *path)
{
    const size_t length = strlen(path);
    return length > 3 && strcmp(path + length - 3, ".py") == 0;
}

enum fb_status fb_peer_find(const char *program, char path[FB_PEER_PATH_SIZE],
                            struct fb_error *error)
{
    const char *file = fb_peer_adapter_file(program);
    if (file != NULL)
        return find_adapter(file, path)
                   ? FB_OK
                   : fb_error_set(error, FB_ERROR_USAGE,
                                  "the adapter %s is neither in " FLOWBENCH_SOURCE_DIR
                                  "/baselines/external nor in " FLOWBENCH_DATA_DIR
                                  "/external nor in ../share/flowbench/external of the program's "
                                  "folder: install flowbench again",
                                  file);
    (void)snprintf(path, FB_PEER_PATH_SIZE, "%s", program);
    if (access(path, is_python(path) ? R_OK : X_OK) == 0)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_USAGE,
                        "the external program '%s' cannot be %s: %s; paths are relative to the "
                        "folder that flowbench runs in",
                        program, is_python(path) ? "read" : "executed", strerror(errno));
}

/* ---- starting -------------------------------------------------------------------------------- */

/* What serves the worker while it waits is no setting for the program that computes. */
static char **program_environment(void)
{
    size_t count = 0;
    size_t kept = 0;
    while (environ[count] != NULL)
        count++;
    char **entries = calloc(count + 1, sizeof *entries);
    for (size_t i = 0; entries != NULL && i < count; i++) {
        if (strncmp(environ[i], "OMP_WAIT_POLICY=", 16) != 0)
            entries[kept++] = environ[i];
    }
    return entries;
}

/* Between fork and exec. Reports the errno of an exec that fails through the pipe. */
static void become_program(const char *path, int socket_fd, int memory_fd, int failure_fd,
                           pid_t worker, char *const *environment)
{
    const char *python = getenv("FLOWBENCH_PYTHON");
    const char *name = !is_python(path) ? path : python != NULL && *python ? python : "python3";
    char *const arguments[] = {(char *)(uintptr_t)name,
                               is_python(path) ? (char *)(uintptr_t)path : NULL, NULL};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != worker)
        _exit(127);
    if (dup2(socket_fd, 0) >= 0 && dup2(socket_fd, 1) >= 0 &&
        dup2(memory_fd, FB_PEER_MEMORY_FD) >= 0) {
        environ = (char **)(uintptr_t)environment;
        fb_pinning_widen();
        execvp(name, arguments);
    }
    const int reason = errno;
    if (write(failure_fd, &reason, sizeof reason) < 0)
        _exit(126);
    _exit(127);
}

/* Descriptors that the child's fixed ones must not overwrite before they are copied. */
static bool lift(int *fd)
{
    const int high = fcntl(*fd, F_DUPFD_CLOEXEC, 10);
    (void)close(*fd);
    *fd = high;
    return high >= 0;
}

static void close_pair(const int fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
    }
}

static bool make_channels(int ends[2], int failure[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 && lift(&ends[0]) &&
           lift(&ends[1]) && pipe2(failure, O_CLOEXEC) == 0 && lift(&failure[0]) &&
           lift(&failure[1]);
}

/* 0, or why the program could not be executed. */
static int exec_failure(int failure_fd)
{
    int reason = 0;
    ssize_t count;
    do {
        count = read(failure_fd, &reason, sizeof reason);
    } while (count < 0 && errno == EINTR);
    return count == (ssize_t)sizeof reason ? reason : 0;
}

enum fb_status fb_peer_start(const char *path, int memory_fd, struct fb_peer_process *process,
                             struct fb_error *error)
{
    int ends[2] = {-1, -1};
    int failure[2] = {-1, -1};
    const pid_t worker = getpid();
    char **environment = program_environment();
    *process = (struct fb_peer_process){.socket_fd = -1, .line = malloc(FB_PEER_LINE_MAX)};
    enum fb_status status = FB_OK;
    if (environment == NULL || process->line == NULL || !make_channels(ends, failure))
        status = fb_error_set(error, FB_ERROR_IO, "cannot prepare an external program: %s",
                              strerror(errno));
    if (status == FB_OK) {
        fb_pinning_note_places();
        process->pid = fork();
        if (process->pid == 0)
            become_program(path, ends[1], memory_fd, failure[1], worker, environment);
        if (process->pid < 0) {
            process->pid = 0;
            status = fb_error_set(error, FB_ERROR_IO, "cannot start an external program: %s",
                                  strerror(errno));
        }
    }
    if (status == FB_OK) {
        (void)close(failure[1]);
        failure[1] = -1;
        const int reason = exec_failure(failure[0]);
        if (reason != 0)
            status = fb_error_set(
                error, FB_ERROR_USAGE, "'%s' cannot be started: %s%s", path, strerror(reason),
                is_python(path) ? "; set FLOWBENCH_PYTHON to the Python to run it with" : "");
    }
    process->socket_fd = ends[0];
    ends[0] = -1;
    close_pair(ends);
    close_pair(failure);
    free(environment);
    return status;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool send_line(int fd, json_t *document)
{
    char *text = document != NULL ? json_dumps(document, JSON_COMPACT) : NULL;
    size_t length = text != NULL ? strlen(text) : 0;
    size_t done = 0;
    if (text != NULL)
        text[length++] = '\n'; /* in place of the NUL */
    while (done < length) {
        const ssize_t count = send(fd, text + done, length - done, MSG_NOSIGNAL);
        if (count < 0 && errno != EINTR)
            break;
        done += count > 0 ? (size_t)count : 0;
    }
    free(text);
    return length > 0 && done == length;
}

/* The next line, without its end, in process->line; FB_ERROR_IO when the program has ended. */
static enum fb_status receive_line(struct fb_peer_process *process, size_t *length,
                                   struct fb_error *error)
{
    process->used = 0;
    for (;;) {
        const ssize_t count = recv(process->socket_fd, process->line + process->used,
                                   FB_PEER_LINE_MAX - process->used, 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return FB_ERROR_IO;
        const char *end = memchr(process->line + process->used, '\n', (size_t)count);
        process->used += (size_t)count;
        if (end != NULL) {
            *length = (size_t)(end - process->line);
            if (*length + 1 == process->used)
                return FB_OK;
            return fb_error_set(error, FB_ERROR_INPUT,
                                "the program answers one request with more than one line");
        }
        if (process->used == FB_PEER_LINE_MAX)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "the program's answer is longer than %d bytes", FB_PEER_LINE_MAX);
    }
}

/* Waits up to `patience_s` for the end, then kills. Returns the wait status. */
static int reap(struct fb_peer_process *process, double patience_s)
{
    const struct timespec nap = {0, 5000000};
    const double deadline_s = now_s() + patience_s;
    int wait_status = 0;
    pid_t ended = 0;
    while (process->pid > 0 && ended == 0 && now_s() < deadline_s) {
        ended = waitpid(process->pid, &wait_status, WNOHANG);
        if (ended == 0)
            (void)nanosleep(&nap, NULL);
    }
    if (process->pid > 0 && ended == 0) {
        (void)kill(process->pid, SIGKILL);
        while (waitpid(process->pid, &wait_status, 0) < 0 && errno == EINTR)
            continue;
    }
    process->pid = 0;
    return wait_status;
}

/* The program no longer listens or speaks. */
static enum fb_status explain_end(struct fb_peer_process *process,
                                  enum fb_measure_status *row_status, struct fb_error *error)
{
    const int wait_status = reap(process, 1.0);
    *row_status = FB_MEASURE_ERROR;
    if (WIFSIGNALED(wait_status)) {
        *row_status = FB_MEASURE_CRASH;
        return fb_error_set(error, FB_ERROR_DEVICE,
                            "the external program was killed by signal %d (%s)",
                            WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    }
    return fb_error_set(error, FB_ERROR_DEVICE,
                        "the external program ended with exit code %d instead of an answer",
                        WEXITSTATUS(wait_status));
}

enum fb_status fb_peer_ask(struct fb_peer_process *process, enum fb_peer_request request,
                           json_t *document, const struct fb_peer_tensors *tensors,
                           struct fb_peer_answer *answer, double *wall_s,
                           enum fb_measure_status *row_status, struct fb_error *error)
{
    static const enum fb_measure_status statuses[] = {[FB_PEER_DONE] = FB_MEASURE_OK,
                                                      [FB_PEER_SKIP] = FB_MEASURE_SKIPPED,
                                                      [FB_PEER_OOM] = FB_MEASURE_OOM,
                                                      [FB_PEER_FAILED] = FB_MEASURE_ERROR};
    size_t length = 0;
    const double start_s = now_s();
    *row_status = FB_MEASURE_ERROR;
    const bool sent = send_line(process->socket_fd, document);
    json_decref(document);
    enum fb_status status = sent ? receive_line(process, &length, error) : FB_ERROR_IO;
    *wall_s = now_s() - start_s;
    if (status == FB_ERROR_IO)
        return explain_end(process, row_status, error);
    if (status == FB_OK)
        status = fb_peer_parse(request, process->line, length, tensors, answer, error);
    if (status != FB_OK)
        return status;
    *row_status = statuses[answer->verdict];
    if (answer->verdict != FB_PEER_DONE)
        return fb_error_set(error, FB_ERROR_DEVICE, "%s", answer->text);
    /* Its clock may count less than ours, which includes the way there and back; never more. */
    const double device_s = isnan(answer->device_time_s) ? 0.0 : answer->device_time_s;
    if (request == FB_PEER_CALL && answer->time_s + device_s > *wall_s)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the program claims %.6g s for what took %.6g s with the way there and "
                            "back",
                            answer->time_s + device_s, *wall_s);
    return FB_OK;
}

void fb_peer_end(struct fb_peer_process *process)
{
    if (process->socket_fd >= 0)
        (void)shutdown(process->socket_fd, SHUT_WR);
    (void)reap(process, 2.0);
    if (process->socket_fd >= 0)
        (void)close(process->socket_fd);
    free(process->line);
    *process = (struct fb_peer_process){.socket_fd = -1};
}
