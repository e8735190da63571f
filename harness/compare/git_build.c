/* Building a commit: see git_build.h. */
#include "git_build.h"

#include "external_command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- revisions --------------------------------------------------------------------------------
 */

enum fb_status fb_git_root(struct fb_arena *arena, const char **root, struct fb_error *error)
{
    char text[4096];
    int code;
    const char *const argv[] = {"git", "rev-parse", "--show-toplevel", NULL};
    enum fb_status status = fb_command_read(argv, NULL, text, sizeof text, &code, error);

    if (status != FB_OK)
        return status;
    if (code != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "this folder is in no git checkout: --ab-git builds commits of the "
                            "checkout that it is started in");
    *root = fb_arena_strdup(arena, text, error);
    return *root == NULL ? FB_ERROR_MEMORY : FB_OK;
}

static bool is_hash(const char *text)
{
    const size_t length = strlen(text);

    return length >= 4 && length < FB_GIT_SHA_SIZE &&
           strspn(text, "0123456789abcdefABCDEF") == length;
}

/* Changes to files that the commit has, where the commit is the one checked out. */
static enum fb_status check_clean(const char *root, const struct fb_git_commit *commit,
                                  struct fb_error *error)
{
    char head[FB_GIT_SHA_SIZE];
    char changed[512];
    int code;
    const char *const head_argv[] = {"git", "rev-parse", "HEAD", NULL};
    const char *const status_argv[] = {"git", "status", "--porcelain", "--untracked-files=no",
                                       NULL};

    if (is_hash(commit->revision))
        return FB_OK;
    enum fb_status status = fb_command_read(head_argv, root, head, sizeof head, &code, error);
    if (status != FB_OK || strcmp(head, commit->sha) != 0)
        return status;
    status = fb_command_read(status_argv, root, changed, sizeof changed, &code, error);
    if (status != FB_OK || changed[0] == '\0')
        return status;
    changed[strcspn(changed, "\n")] = '\0';
    return fb_error_set(
        error, FB_ERROR_USAGE,
        "'%s' is checked out with uncommitted changes (%s ...), which a commit does "
        "not hold: commit or stash them, or name the commit by its hash (%.12s) to "
        "compare without them",
        commit->revision, changed, commit->sha);
}

enum fb_status fb_git_resolve(const char *root, const char *revision, struct fb_git_commit *commit,
                              struct fb_error *error)
{
    char name[1024];
    int code;

    commit->revision = revision;
    if (revision[0] == '-' ||
        snprintf(name, sizeof name, "%s^{commit}", revision) >= (int)sizeof name)
        return fb_error_set(error, FB_ERROR_USAGE, "'%.60s' is no revision", revision);
    const char *const argv[] = {"git", "rev-parse", "--verify", "--quiet", name, NULL};
    enum fb_status status =
        fb_command_read(argv, root, commit->sha, sizeof commit->sha, &code, error);
    if (status != FB_OK)
        return status;
    if (code != 0 || !is_hash(commit->sha))
        return fb_error_set(error, FB_ERROR_USAGE,
                            "git knows no revision '%s' in '%s': `git log` shows some, `git fetch` "
                            "gets more (a shallow clone has few)",
                            revision, root);
    return check_clean(root, commit, error);
}

/* ---- the cache --------------------------------------------------------------------------------
 */

struct place {
    const char *dir, *src, *build, *log, *program, *relinked;
};

/* Creates the folder and those above it. */
static enum fb_status make_folders(const char *path, struct fb_error *error)
{
    char part[4096];

    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return fb_error_set(error, FB_ERROR_USAGE, "the path '%.200s...' is too long", path);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        const char kept = *at;
        *at = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return fb_error_set(error, FB_ERROR_IO,
                                "cannot create '%s': %s; XDG_CACHE_HOME names another place", part,
                                strerror(errno));
        *at = kept;
        if (kept == '\0')
            return FB_OK;
    }
}

/* Two builds are one only if the same compiler was asked for with the same flags. */
static uint64_t environment_hash(void)
{
    static const char *const names[] = {"CC", "CFLAGS", "LDFLAGS", "CMAKE_TOOLCHAIN_FILE"};
    uint64_t hash = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        hash = XXH64(value == NULL ? "" : value, value == NULL ? 0 : strlen(value), hash + i + 1);
    }
    return hash;
}

static enum fb_status find_place(const struct fb_git_commit *commit, struct fb_arena *arena,
                                 struct place *place, struct fb_error *error)
{
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    const char *above = cache != NULL && cache[0] == '/' ? cache
                        : home != NULL && home[0] == '/'
                            ? fb_arena_printf(arena, error, "%s/.cache", home)
                            : "/tmp";

    if (above == NULL)
        return FB_ERROR_MEMORY;
    place->dir = fb_arena_printf(arena, error, "%s/flowbench/builds/%s-%016" PRIx64, above,
                                 commit->sha, environment_hash());
    if (place->dir == NULL)
        return FB_ERROR_MEMORY;
    place->src = fb_arena_printf(arena, error, "%s/src", place->dir);
    place->build = fb_arena_printf(arena, error, "%s/build", place->dir);
    place->log = fb_arena_printf(arena, error, "%s/build.log", place->dir);
    place->program = fb_arena_printf(arena, error, "%s/flowbench", place->dir);
    place->relinked = fb_arena_printf(arena, error, "%s/flowbench-relinked", place->dir);
    if (place->src == NULL || place->build == NULL || place->log == NULL ||
        place->program == NULL || place->relinked == NULL)
        return FB_ERROR_MEMORY;
    return make_folders(place->dir, error);
}

/* ---- building ---------------------------------------------------------------------------------
 */

static enum fb_status run_logged(const char *const *argv, const char *folder,
                                 const struct place *place, const struct fb_git_commit *commit,
                                 const char *what, struct fb_error *error)
{
    int code;
    const enum fb_status status = fb_command_run(argv, folder, place->log, &code, error);

    if (status == FB_OK && code != 0)
        return fb_error_set(error, FB_ERROR_USAGE, "%s '%s' (%.12s) failed: see %s", what,
                            commit->revision, commit->sha, place->log);
    return status;
}

static enum fb_status check_out(const char *root, const struct place *place,
                                const struct fb_git_commit *commit, struct fb_error *error)
{
    /* --force: also where an interrupted build has left its worktree registered. */
    const char *const argv[] = {"git",      "worktree", "add",       "--force", "--force",
                                "--detach", place->src, commit->sha, NULL};
    const char *const remove_argv[] = {"rm", "-rf", "--", place->src, NULL};
    int code;
    enum fb_status status = fb_command_run(remove_argv, NULL, place->log, &code, error);

    return status == FB_OK ? run_logged(argv, root, place, commit, "checking out", error) : status;
}

static void remove_checkout(const char *root, const struct place *place)
{
    const char *const argv[] = {"git", "worktree", "remove", "--force", place->src, NULL};
    int code;

    if (fb_command_run(argv, root, place->log, &code, NULL) != FB_OK)
        return; /* the next build of this commit removes it */
}

static bool has_ninja(void)
{
    const char *const argv[] = {"ninja", "--version", NULL};
    int code;

    return fb_command_run(argv, NULL, NULL, &code, NULL) == FB_OK && code == 0;
}

/* seed "": the order of the sources. */
static enum fb_status configure(const struct place *place, const struct fb_git_commit *commit,
                                const char *seed, struct fb_error *error)
{
    char seed_argument[64];
    const char *const generator = has_ninja() ? "Ninja" : "Unix Makefiles";

    (void)snprintf(seed_argument, sizeof seed_argument, "-DFLOWBENCH_LINK_SEED=%s", seed);
    const char *const argv[] = {"cmake",
                                "-S",
                                place->src,
                                "-B",
                                place->build,
                                "-G",
                                generator,
                                "-DCMAKE_BUILD_TYPE=Release",
                                "-DFLOWBENCH_TESTS=OFF",
                                seed_argument,
                                NULL};
    return run_logged(argv, NULL, place, commit, "configuring", error);
}

/* Builds and moves the program to its final name in one step: what is there is whole. */
static enum fb_status make(const struct place *place, const struct fb_git_commit *commit,
                           const char *target, struct fb_arena *arena, struct fb_error *error)
{
    const char *const argv[] = {"cmake",     "--build",    place->build, "--target",
                                "flowbench", "--parallel", NULL};
    const char *made = fb_arena_printf(arena, error, "%s/flowbench", place->build);
    const char *copy = fb_arena_printf(arena, error, "%s.new", target);

    if (made == NULL || copy == NULL)
        return FB_ERROR_MEMORY;
    const char *const copy_argv[] = {"cp", "--", made, copy, NULL};
    enum fb_status status = run_logged(argv, NULL, place, commit, "building", error);
    if (status == FB_OK)
        status = run_logged(copy_argv, NULL, place, commit, "building", error);
    if (status == FB_OK && rename(copy, target) != 0)
        status = fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", target, strerror(errno));
    return status;
}

/* A revision from before FLOWBENCH_LINK_SEED links as ever, and its A' would be A. */
static enum fb_status check_relinked(const struct place *place, const struct fb_git_commit *commit,
                                     struct fb_error *error)
{
    const char *const argv[] = {"cmp", "-s", "--", place->program, place->relinked, NULL};
    int code;
    const enum fb_status status = fb_command_run(argv, NULL, NULL, &code, error);

    if (status != FB_OK || code != 0)
        return status;
    (void)unlink(place->relinked);
    return fb_error_set(error, FB_ERROR_USAGE,
                        "'%s' (%.12s) links its objects in one order only: --layout needs a "
                        "revision that knows FLOWBENCH_LINK_SEED",
                        commit->revision, commit->sha);
}

static bool is_there(const char *path)
{
    return access(path, X_OK) == 0;
}

static enum fb_status build_at(const char *root, const struct place *place,
                               const struct fb_git_commit *commit, bool relink,
                               struct fb_arena *arena, struct fb_error *error)
{
    enum fb_status status = check_out(root, place, commit, error);

    if (status != FB_OK)
        return status;
    status = configure(place, commit, "", error);
    if (status == FB_OK)
        status = make(place, commit, place->program, arena, error);
    if (status == FB_OK && relink) {
        status = configure(place, commit, "1", error);
        if (status == FB_OK)
            status = make(place, commit, place->relinked, arena, error);
        if (status == FB_OK)
            status = check_relinked(place, commit, error);
    }
    remove_checkout(root, place);
    return status;
}

/* Whoever builds the same commit at the same time waits. */
static int lock_place(const struct place *place)
{
    const int fd = open(place->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

enum fb_status fb_git_build(const char *root, const struct fb_git_commit *commit, bool relink,
                            void (*say)(void *context, const char *text), void *context,
                            struct fb_arena *arena, struct fb_git_programs *programs,
                            struct fb_error *error)
{
    struct place place;
    char text[256];
    enum fb_status status = find_place(commit, arena, &place, error);

    if (status != FB_OK)
        return status;
    const int lock_fd = lock_place(&place);
    if (lock_fd < 0)
        return fb_error_set(error, FB_ERROR_IO, "cannot lock '%s': %s", place.dir, strerror(errno));
    if (!is_there(place.program) || (relink && !is_there(place.relinked))) {
        (void)snprintf(text, sizeof text, "building %s (%.12s)", commit->revision, commit->sha);
        if (say != NULL)
            say(context, text);
        status = build_at(root, &place, commit, relink, arena, error);
    }
    close(lock_fd);
    programs->program = place.program;
    programs->relinked = relink ? place.relinked : NULL;
    return status;
}
