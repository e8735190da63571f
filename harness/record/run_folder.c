/* Creating, naming and locking the folder of a run: see run_folder.h. */
#include "run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char out_option[] = "--out DIR";

void fb_utc_text(time_t when, char *text, size_t text_size)
{
    struct tm utc;

    gmtime_r(&when, &utc);
    strftime(text, text_size, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

enum fb_status fb_folder_sync(const char *path, struct fb_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    /* Some file systems cannot sync a directory and say EINVAL: then there is nothing to do. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) {
        int reason = errno;
        if (fd >= 0)
            close(fd);
        return fb_error_set(error, FB_ERROR_IO, "cannot sync the folder '%s': %s", path,
                            strerror(reason));
    }
    close(fd);
    return FB_OK;
}

static enum fb_status refuse_creation(const char *path, const char *option, struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_IO,
                        "cannot create the folder '%s': %s; choose another place with %s", path,
                        strerror(errno), option);
}

enum fb_status fb_folder_make_parents(char *path, const char *option, struct fb_error *error)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool failed = mkdir(path, 0777) != 0 && errno != EEXIST;
        enum fb_status status = failed ? refuse_creation(path, option, error) : FB_OK;
        *slash = '/';
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

static enum fb_status sync_parent(char *path, struct fb_error *error)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL)
        return fb_folder_sync(".", error);
    if (slash == path)
        return fb_folder_sync("/", error);
    *slash = '\0';
    enum fb_status status = fb_folder_sync(path, error);
    *slash = '/';
    return status;
}

/* ---- the lock -------------------------------------------------------------------------------- */

static enum fb_status refuse_locked(int fd, const char *path, struct fb_error *error)
{
    char owner[32] = "";
    ssize_t count = pread(fd, owner, sizeof owner - 1, 0);

    owner[count > 0 ? (size_t)count : 0] = '\0';
    owner[strcspn(owner, "\n")] = '\0';
    return fb_error_set(error, FB_ERROR_USAGE,
                        "another run lives in '%s' (process %s): wait for it or end it first", path,
                        owner[0] != '\0' ? owner : "unknown");
}

/* The lock dies with the process that holds it, however that dies. The file is removed when the run
 * ends, so a lock taken on a file that is no longer the one in the folder is taken again. */
static enum fb_status lock_folder(struct fb_run_folder *folder, struct fb_error *error)
{
    char name[4096];
    char owner[32];
    struct stat locked, named;

    if (snprintf(name, sizeof name, "%s/.lock", folder->path) >= (int)sizeof name)
        return fb_error_set(error, FB_ERROR_USAGE, "the path '%.200s...' is too long",
                            folder->path);
    for (;;) {
        int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            return fb_error_set(error, FB_ERROR_IO, "cannot write in the folder '%s': %s",
                                folder->path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            const bool taken = errno == EWOULDBLOCK;
            enum fb_status status = taken ? refuse_locked(fd, folder->path, error)
                                          : fb_error_set(error, FB_ERROR_IO, "cannot lock '%s': %s",
                                                         name, strerror(errno));
            close(fd);
            return status;
        }
        if (fstat(fd, &locked) == 0 && stat(name, &named) == 0 && locked.st_ino == named.st_ino &&
            locked.st_dev == named.st_dev) {
            folder->lock_fd = fd;
            break;
        }
        close(fd);
    }
    /* The number only serves the message of a second run; a full disk shows where it matters. */
    int length = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
    if (ftruncate(folder->lock_fd, 0) != 0 ||
        pwrite(folder->lock_fd, owner, (size_t)length, 0) != length)
        owner[0] = '\0';
    return FB_OK;
}

void fb_run_folder_close(struct fb_run_folder *folder)
{
    char name[4096];

    if (folder->lock_fd < 0)
        return;
    snprintf(name, sizeof name, "%s/.lock", folder->path);
    unlink(name);
    close(folder->lock_fd);
    folder->lock_fd = -1;
}

/* ---- creating -------------------------------------------------------------------------------- */

/* Fit for a path on every file system: [a-z0-9-], at most 48 characters. */
static void clean_name(const char *name, char *clean, size_t clean_size)
{
    size_t length = 0;

    for (const char *c = name; *c != '\0' && length + 1 < clean_size; c++) {
        const char lower = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        const bool plain = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
        if (plain || (length > 0 && clean[length - 1] != '-'))
            clean[length++] = plain ? lower : '-';
    }
    while (length > 0 && clean[length - 1] == '-')
        length--;
    clean[length] = '\0';
    if (length == 0)
        snprintf(clean, clean_size, "machine");
}

static void name_run(const char *machine, char *run_id, size_t run_id_size)
{
    char clean[49];
    char stamp[FB_UTC_SIZE];
    struct tm utc;
    const time_t now = time(NULL);

    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    clean_name(machine, clean, sizeof clean);
    snprintf(run_id, run_id_size, "%s-%s", stamp, clean);
}

enum fb_status fb_run_folder_create(const char *root, const char *suite, const char *machine,
                                    struct fb_arena *arena, struct fb_run_folder *folder,
                                    struct fb_error *error)
{
    enum { SAME_SECOND_MAX = 1000 };
    char base[FB_RUN_ID_SIZE - 8];

    *folder = (struct fb_run_folder){.lock_fd = -1};
    name_run(machine, base, sizeof base);
    for (int copy = 1; copy <= SAME_SECOND_MAX; copy++) {
        if (copy == 1)
            snprintf(folder->run_id, sizeof folder->run_id, "%s", base);
        else
            snprintf(folder->run_id, sizeof folder->run_id, "%s-%d", base, copy);
        char *path = fb_arena_printf(arena, error, "%s/%s/%s", root, suite, folder->run_id);
        if (path == NULL)
            return FB_ERROR_MEMORY;
        enum fb_status status = fb_folder_make_parents(path, out_option, error);
        if (status != FB_OK)
            return status;
        if (mkdir(path, 0777) == 0) {
            folder->path = path;
            status = lock_folder(folder, error);
            return status == FB_OK ? sync_parent(path, error) : status;
        }
        if (errno != EEXIST)
            return refuse_creation(path, out_option, error);
    }
    return fb_error_set(error, FB_ERROR_IO, "%d runs started in the same second in '%s/%s'",
                        SAME_SECOND_MAX, root, suite);
}

/* Whether the folder holds nothing but, perhaps, our lock. */
static enum fb_status check_empty(const char *path, struct fb_error *error)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool run_json = false;
    bool other = false;

    if (dir == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot read the folder '%s': %s", path,
                            strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, "run.json") == 0)
            run_json = true;
        else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strcmp(entry->d_name, ".lock") != 0)
            other = true;
    }
    closedir(dir);
    if (run_json)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' already holds a run: continue it with `./bench run --resume %s`, "
                            "or choose a new folder",
                            path, path);
    if (other)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--out '%s' is not empty and not the folder of a run: choose a new or "
                            "an empty folder",
                            path);
    return FB_OK;
}

/* "a/b/" and "a/b" are one folder. */
static char *trimmed(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    char *copy = fb_arena_strdup(arena, path, error);
    size_t length = copy == NULL ? 0 : strlen(copy);

    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = '\0';
    return copy;
}

enum fb_status fb_run_folder_take(const char *path, const char *machine, struct fb_arena *arena,
                                  struct fb_run_folder *folder, struct fb_error *error)
{
    *folder = (struct fb_run_folder){.lock_fd = -1};
    if (path[0] == '\0')
        return fb_error_set(error, FB_ERROR_USAGE, "--out needs the path of a folder");
    char *copy = trimmed(path, arena, error);
    if (copy == NULL)
        return FB_ERROR_MEMORY;
    enum fb_status status = fb_folder_make_parents(copy, out_option, error);
    if (status != FB_OK)
        return status;
    if (mkdir(copy, 0777) != 0 && errno != EEXIST)
        return refuse_creation(copy, out_option, error);
    /* Looked at before locking too, so that a refused folder is left without a trace. */
    status = check_empty(copy, error);
    if (status != FB_OK)
        return status;
    folder->path = copy;
    name_run(machine, folder->run_id, sizeof folder->run_id);
    status = lock_folder(folder, error);
    if (status == FB_OK) {
        status = check_empty(copy, error);
        if (status != FB_OK)
            fb_run_folder_close(folder);
    }
    return status == FB_OK ? sync_parent(copy, error) : status;
}

enum fb_status fb_run_folder_open(const char *path, struct fb_arena *arena,
                                  struct fb_run_folder *folder, struct fb_error *error)
{
    struct stat info;

    *folder = (struct fb_run_folder){.lock_fd = -1};
    char *copy = trimmed(path, arena, error);
    char *json = copy == NULL ? NULL : fb_arena_printf(arena, error, "%s/run.json", copy);
    if (json == NULL)
        return FB_ERROR_MEMORY;
    if (stat(copy, &info) != 0 || !S_ISDIR(info.st_mode))
        return fb_error_set(error, FB_ERROR_USAGE, "--resume '%s': %s", path,
                            errno == 0 || stat(copy, &info) == 0 ? "not a folder"
                                                                 : strerror(errno));
    if (stat(json, &info) != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--resume '%s': not the folder of a run: it has no run.json", path);
    folder->path = copy;
    return lock_folder(folder, error);
}
