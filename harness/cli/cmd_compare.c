/* flowbench compare: verdicts between two runs or two programs. docs/comparing.md. */
#include "commands.h"

#include "compare_live.h"
#include "compare_options.h"
#include "compare_output.h"
#include "compare_stored.h"

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

static int compare(const struct fb_compare_options *options, struct fb_arena *arena)
{
    const struct fb_compare_programs programs = {
        .old_program = options->base,
        .new_program = options->fresh,
        .layout_program = options->aprime,
        .old_label = options->base,
        .new_label = options->fresh,
    };

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
