/* flowbench compare: verdicts between two runs, two programs or two commits. docs/comparing.md. */
#include "commands.h"

#include "compare_live.h"
#include "compare_options.h"
#include "compare_output.h"
#include "compare_stored.h"
#include "git_build.h"

#include <stdint.h>
#include <string.h>

static int compare_stored(const struct fb_compare_options *options, struct fb_arena *arena)
{
    struct fb_stored_run base;
    struct fb_stored_run fresh;
    struct fb_comparison comparison;
    struct fb_error error;

    if (fb_stored_run_read(options->base, arena, &base, &error) != FB_OK ||
        fb_stored_run_read(options->fresh, arena, &fresh, &error) != FB_OK ||
        fb_compare_stored(&base, &fresh, arena, &comparison, &error) != FB_OK)
        return fb_exit_report("compare", &error);
    return fb_compare_output_write(&comparison, options, arena);
}

static void say(void *context, const char *text)
{
    const struct fb_compare_options *options = context;

    if (!options->shared.quiet)
        (void)fprintf(stderr, "%s\n", text);
}

/* "main = 1f2e3d4c5b6a", or the hash alone. */
static const char *label_of(const struct fb_git_commit *commit, struct fb_arena *arena,
                            struct fb_error *error)
{
    return strncmp(commit->revision, commit->sha, strlen(commit->revision)) == 0
               ? fb_arena_printf(arena, error, "%.12s", commit->sha)
               : fb_arena_printf(arena, error, "%s = %.12s", commit->revision, commit->sha);
}

static enum fb_status build_commits(const struct fb_compare_options *options,
                                    struct fb_arena *arena, struct fb_compare_programs *programs,
                                    struct fb_error *error)
{
    struct fb_git_commit commits[2];
    struct fb_git_programs built[2];
    const char *root;
    enum fb_status status = fb_git_root(arena, &root, error);

    /* Both are looked up before the first one is built: that takes minutes. */
    if (status == FB_OK)
        status = fb_git_resolve(root, options->base, &commits[0], error);
    if (status == FB_OK)
        status = fb_git_resolve(root, options->fresh, &commits[1], error);
    for (int i = 0; i < 2 && status == FB_OK; i++)
        status = fb_git_build(root, &commits[i], options->layout && i == 0, say,
                              (void *)(uintptr_t)options, arena, &built[i], error);
    if (status != FB_OK)
        return status;
    *programs = (struct fb_compare_programs){
        .old_program = built[0].program,
        .new_program = built[1].program,
        .layout_program = built[0].relinked,
        .old_label = label_of(&commits[0], arena, error),
        .new_label = label_of(&commits[1], arena, error),
    };
    return programs->old_label == NULL || programs->new_label == NULL ? FB_ERROR_MEMORY : FB_OK;
}

static int compare(const struct fb_compare_options *options, struct fb_arena *arena)
{
    struct fb_error error;
    struct fb_compare_programs programs = {
        .old_program = options->base,
        .new_program = options->fresh,
        .layout_program = options->aprime,
        .old_label = options->base,
        .new_label = options->fresh,
    };

    if (options->mode == FB_COMPARE_COMMITS &&
        build_commits(options, arena, &programs, &error) != FB_OK)
        return fb_exit_report("compare", &error);
    return options->mode == FB_COMPARE_RUNS ? compare_stored(options, arena)
                                            : fb_compare_live(options, &programs, arena);
}

int fb_cmd_compare(int argc, char **argv)
{
    struct fb_compare_options options;
    struct fb_arena arena;
    struct fb_error error;

    fb_arena_init(&arena, 0);
    const int code = fb_compare_options_parse(argc, argv, &arena, &options, &error) == FB_OK
                         ? compare(&options, &arena)
                         : fb_exit_report("compare", &error);
    fb_arena_free(&arena);
    return code;
}
