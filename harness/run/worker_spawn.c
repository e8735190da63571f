/* Starting a worker: see worker_spawn.h. memfd_create and pipe2 are Linux; so are the cgroups and
 * /proc files that the rest of the room reads. */
#define _GNU_SOURCE
#include "worker_spawn.h"

#include "counter.h"
#include "pinning.h"
#include "under_asan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

/* Descriptors made here stay above those that the child's fixed ones (0 to 3) are put on. */
enum { LOWEST_FD = 10 };

/* ---- environment ----------------------------------------------------------------------------- */

static const char *const fixed[] = {"OMP_DYNAMIC=false", "OMP_MAX_ACTIVE_LEVELS=1"};

/* Unless the user binds threads himself. The worker binds them itself once its libraries are
 * loaded: had libgomp bound the first thread before, OpenBLAS (built on pthreads, as on Debian)
 * would see a machine of one processor and start no threads at all. */
static const char unbound[] = "OMP_PROC_BIND=false";

/* Whatever the caller's shell has set for threads must not leak into a measurement. */
static const char *const dropped[] = {
    "OMP_NUM_THREADS=",    "OMP_DYNAMIC=",      "OMP_PROC_BIND=",
    "OMP_PLACES=",         "OMP_THREAD_LIMIT=", "OMP_MAX_ACTIVE_LEVELS=",
    "OMP_NESTED=",         "OMP_SCHEDULE=",     "OMP_WAIT_POLICY=",
    "GOMP_CPU_AFFINITY=",  "GOMP_SPINCOUNT=",   "OPENBLAS_NUM_THREADS=",
    "OPENBLAS_CORETYPE=",  "GOTO_NUM_THREADS=", "OPENBLAS_MAIN_FREE=",
    "GOTOBLAS_MAIN_FREE=", "OPENBLAS_VERBOSE=", "OPENBLAS_DEFAULT_NUM_THREADS=",
    "KMP_AFFINITY=",       "KMP_BLOCKTIME=",    "OPENBLAS_BLOCK_FACTOR=",
    "VALGRIND_OPTS=",      "GLIBC_TUNABLES=",   "LD_BIND_NOW="};

/* What memcpy and memset do depends on the caches that glibc finds; a count shall not. Names that
 * a glibc does not know it ignores. */
static const char *const when_counting[] = {"LD_BIND_NOW=1",
                                            "GLIBC_TUNABLES=glibc.cpu.x86_data_cache_size=0x8000:"
                                            "glibc.cpu.x86_shared_cache_size=0x100000:"
                                            "glibc.cpu.x86_non_temporal_threshold=0xc0000:"
                                            "glibc.cpu.x86_rep_movsb_threshold=0x800:"
                                            "glibc.cpu.x86_rep_stosb_threshold=0x800"};

enum {
    FIXED_COUNT = sizeof fixed / sizeof fixed[0],
    DROPPED_COUNT = sizeof dropped / sizeof dropped[0],
    OWN_MAX = FIXED_COUNT + 8
};

struct environment {
    const char **entries; /* owned; the texts are not */
    char omp_threads[40], blas_threads[40], blas_core[64], gpu[128];
};

static bool is_dropped(const char *entry)
{
    for (size_t i = 0; i < DROPPED_COUNT; i++) {
        if (strncmp(entry, dropped[i], strlen(dropped[i])) == 0)
            return true;
    }
    return false;
}

static enum fb_status make_environment(const struct fb_worker_task *task,
                                       struct environment *environment, struct fb_error *error)
{
    static const char visible[] = "CUDA_VISIBLE_DEVICES=";
    size_t inherited = 0;
    size_t count = 0;

    while (environ != NULL && environ[inherited] != NULL)
        inherited++;
    environment->entries = calloc(inherited + OWN_MAX + 1, sizeof *environment->entries);
    if (environment->entries == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's environment");
    for (size_t i = 0; i < inherited; i++) {
        if (task->gpu && strncmp(environ[i], visible, strlen(visible)) == 0)
            continue;
        if (!is_dropped(environ[i]) || fb_pinning_is_choice(environ[i]))
            environment->entries[count++] = environ[i];
    }
    for (size_t i = 0; i < FIXED_COUNT; i++)
        environment->entries[count++] = fixed[i];
    if (fb_pinning_users_choice() == NULL)
        environment->entries[count++] = unbound;
    snprintf(environment->omp_threads, sizeof environment->omp_threads, "OMP_NUM_THREADS=%d",
             task->threads);
    snprintf(environment->blas_threads, sizeof environment->blas_threads, "OPENBLAS_NUM_THREADS=%d",
             task->threads);
    environment->entries[count++] = environment->omp_threads;
    environment->entries[count++] = environment->blas_threads;
    if (task->idle_threads)
        environment->entries[count++] = "OMP_WAIT_POLICY=passive";
    if (task->openblas_core != NULL) {
        snprintf(environment->blas_core, sizeof environment->blas_core, "OPENBLAS_CORETYPE=%s",
                 task->openblas_core);
        environment->entries[count++] = environment->blas_core;
    }
    if (task->gpu) {
        snprintf(environment->gpu, sizeof environment->gpu, "%s%s", visible, task->gpu);
        environment->entries[count++] = environment->gpu;
    }
    if (task->counter != FB_COUNTER_NONE) {
        environment->entries[count++] = when_counting[0];
        environment->entries[count++] = when_counting[1];
    }
    environment->entries[count] = NULL;
    return FB_OK;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static int lift(int fd)
{
    if (fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
    int reason = errno;
    close(fd);
    errno = reason;
    return high;
}

static bool make_pipe(int *read_fd, int *write_fd)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *read_fd = lift(ends[0]);
    *write_fd = lift(ends[1]);
    return *read_fd >= 0 && *write_fd >= 0 && fcntl(*read_fd, F_SETFL, O_NONBLOCK) == 0;
}

/* Where callgrind writes. -1 when there is none to be had. */
static int make_count_file(void)
{
    return lift(memfd_create("flowbench-count", MFD_CLOEXEC));
}

/* The task as a file in memory: unlike a pipe it never blocks and never breaks. */
static int make_input(const json_t *input)
{
    char *text = json_dumps(input, JSON_COMPACT | JSON_REAL_PRECISION(17));
    int fd = text == NULL ? -1 : lift(memfd_create("flowbench-task", MFD_CLOEXEC));
    const size_t length = text == NULL ? 0 : strlen(text);

    if (fd >= 0 && (write(fd, text, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        fd = -1;
    }
    free(text);
    return fd;
}

struct child_ends {
    int input_fd, result_fd, tail_fd, count_fd; /* count_fd -1: callgrind does not count */
};

static void close_all(struct child_ends *ends)
{
    const int fds[] = {ends->input_fd, ends->result_fd, ends->tail_fd, ends->count_fd};

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

/* ---- child ----------------------------------------------------------------------------------- */

/* AddressSanitizer reserves terabytes of address space that such a limit would refuse. */
static void limit_memory(size_t memory_bytes)
{
    const rlim_t bytes = (rlim_t)fb_worker_memory_allowance(memory_bytes);
    struct rlimit limit;

    if (FB_UNDER_ASAN || memory_bytes == 0 || getrlimit(RLIMIT_DATA, &limit) != 0)
        return;
    if (limit.rlim_max == RLIM_INFINITY || bytes < limit.rlim_max)
        limit.rlim_max = bytes;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_DATA, &limit);
}

/* What this process itself has inherited without knowing must not reach the worker. */
static void close_others(int first)
{
    enum { LAST_USUAL = 1023 };

#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0)
        return;
#endif
    for (int fd = first; fd <= LAST_USUAL; fd++)
        close(fd);
}

/* What is executed: the worker itself, or valgrind with the worker. */
struct command {
    const char *path; /* NULL: this very program, by descriptor */
    const char *arguments[FB_COUNTER_ARGUMENTS_MAX + 2];
    char valgrind[FB_COUNTER_PATH_SIZE], self[FB_COUNTER_PATH_SIZE];
};

static enum fb_status make_command(const struct fb_worker_task *task, struct command *command,
                                   struct fb_error *error)
{
    size_t count = 0;

    command->path = task->program;
    if (task->counter != FB_COUNTER_VALGRIND) {
        command->arguments[count++] = "flowbench";
    } else {
        const ssize_t length = readlink("/proc/self/exe", command->self, sizeof command->self - 1);
        if (length < 0)
            return fb_error_set(error, FB_ERROR_IO, "cannot tell where this program is: %s",
                                strerror(errno));
        command->self[length] = '\0';
        if (!fb_counter_find_valgrind(command->valgrind))
            return fb_error_set(error, FB_ERROR_UNSUPPORTED, "no valgrind in PATH any more");
        count = fb_counter_arguments(task->program != NULL ? task->program : command->self,
                                     command->arguments);
        command->path = command->valgrind;
    }
    command->arguments[count++] = "worker";
    command->arguments[count] = NULL;
    return FB_OK;
}

/* Between fork and exec: only what is safe in the child of a process with threads. */
static void become_worker(const struct fb_worker_task *task, const struct command *command,
                          const struct child_ends *ends, const struct environment *environment,
                          pid_t runner)
{
    static const char message[] = "cannot start the worker program\n";
    const struct rlimit no_core = {0, 0};
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    char *const *arguments = (char *const *)command->arguments;
    sigset_t none;

    setsid();
    /* The runner may have died before the kernel knew that its death matters here. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != runner)
        _exit(127);
    sigaction(SIGINT, &standard, NULL);
    sigaction(SIGTERM, &standard, NULL);
    sigaction(SIGPIPE, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setrlimit(RLIMIT_CORE, &no_core);
    limit_memory(task->memory_bytes);
    fb_pinning_widen();
    if (dup2(ends->input_fd, 0) < 0 || dup2(ends->tail_fd, 1) < 0 || dup2(ends->tail_fd, 2) < 0 ||
        dup2(ends->result_fd, FB_WORKER_RESULT_FD) < 0 ||
        (ends->count_fd >= 0 && dup2(ends->count_fd, FB_COUNTER_FD) < 0))
        _exit(127);
    close_others(ends->count_fd >= 0 ? FB_COUNTER_FD + 1 : FB_WORKER_RESULT_FD + 1);
    if (command->path != NULL) {
        execve(command->path, arguments, (char *const *)environment->entries);
    } else {
        /* By descriptor: valgrind answers the open with the program it runs, but would execute
         * itself if given the path. */
        const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        if (self >= 0)
            fexecve(self, arguments, (char *const *)environment->entries);
    }
    if (write(2, message, sizeof message - 1) < 0)
        _exit(126);
    _exit(127);
}

/* ---- public ---------------------------------------------------------------------------------- */

size_t fb_worker_memory_allowance(size_t memory_bytes)
{
    return memory_bytes + memory_bytes / 4 + ((size_t)1 << 30);
}

enum fb_status fb_worker_spawn(const struct fb_worker_task *task, pid_t *pid,
                               struct fb_worker_pipes *pipes, struct fb_error *error)
{
    struct child_ends ends = {-1, -1, -1, -1};
    struct environment environment;
    struct command command;
    const bool counts = task->counter == FB_COUNTER_VALGRIND;
    const pid_t runner = getpid();

    *pipes = (struct fb_worker_pipes){-1, -1};
    enum fb_status status = make_command(task, &command, error);
    if (status == FB_OK)
        status = make_environment(task, &environment, error);
    if (status != FB_OK)
        return status;
    ends.input_fd = make_input(task->input);
    ends.count_fd = counts ? make_count_file() : -1;
    if (ends.input_fd < 0 || (counts && ends.count_fd < 0) ||
        !make_pipe(&pipes->result_fd, &ends.result_fd) ||
        !make_pipe(&pipes->tail_fd, &ends.tail_fd)) {
        status = fb_error_set(error, FB_ERROR_IO, "cannot prepare a worker process: %s",
                              strerror(errno));
    } else {
        fb_pinning_note_places();
        *pid = fork();
        if (*pid == 0)
            become_worker(task, &command, &ends, &environment, runner);
        if (*pid < 0)
            status = fb_error_set(error, FB_ERROR_IO, "cannot start a worker process: %s",
                                  strerror(errno));
    }
    close_all(&ends);
    free(environment.entries);
    if (status != FB_OK) {
        if (pipes->result_fd >= 0)
            close(pipes->result_fd);
        if (pipes->tail_fd >= 0)
            close(pipes->tail_fd);
    }
    return status;
}
