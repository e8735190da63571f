/*
 * flowbench as it was at a commit: checked out into a worktree of its own, built with CMake as a
 * release, and kept in a cache for the next comparison.
 *
 *     CACHE/flowbench/builds/<commit>-<compiler and flags of the environment>/
 *         build.log     what git, cmake and the compiler said
 *         build/        of CMake
 *         flowbench     the program; flowbench-relinked with --layout
 *         src/          the worktree, only while building
 */
#ifndef FB_GIT_BUILD_H
#define FB_GIT_BUILD_H

#include "arena.h"
#include "status.h"

#include <stdbool.h>

enum { FB_GIT_SHA_SIZE = 65 };

struct fb_git_commit {
    const char *revision; /* as named by the user */
    char sha[FB_GIT_SHA_SIZE];
};

/* The root of the checkout around the working folder. FB_ERROR_USAGE when there is none. */
enum fb_status fb_git_root(struct fb_arena *arena, const char **root,
                           struct fb_error *error) FB_MUST_CHECK;

/* The commit of a revision. FB_ERROR_USAGE when it is unknown or no flowbench, and when it names
 * the commit that is checked out while files differ from it: those changes would not be measured. A
 * hash says that this is meant. */
enum fb_status fb_git_resolve(const char *root, const char *revision, struct fb_git_commit *commit,
                              struct fb_error *error) FB_MUST_CHECK;

struct fb_git_programs {
    const char *program;
    const char *relinked; /* with its objects in another order; NULL unless asked for */
};

/* Builds unless the cache has it. `say` is told what takes long, a line at a time; NULL: nobody is.
 * A failed build is FB_ERROR_USAGE: the text names the log, which is kept. */
enum fb_status fb_git_build(const char *root, const struct fb_git_commit *commit, bool relink,
                            void (*say)(void *context, const char *text), void *context,
                            struct fb_arena *arena, struct fb_git_programs *programs,
                            struct fb_error *error) FB_MUST_CHECK;

#endif
