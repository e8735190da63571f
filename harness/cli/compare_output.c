/* Verdicts to standard output, a file, a job summary: see compare_output.h. */
#include "compare_output.h"

#include "commands.h"
#include "text_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int verdict_code(const struct fb_comparison *comparison, bool strict)
{
    switch (fb_comparison_outcome(comparison)) {
    case FB_COMPARISON_FAILED:
    case FB_COMPARISON_NOTHING:
        return FB_EXIT_CLAIM;
    case FB_COMPARISON_AMBIGUOUS:
        return strict ? FB_EXIT_AMBIGUOUS : FB_EXIT_OK;
    default:
        return FB_EXIT_OK;
    }
}

static enum fb_status print(const struct fb_comparison *comparison,
                            const struct fb_compare_options *options,
                            enum fb_comparison_format format, FILE *out, struct fb_arena *arena,
                            struct fb_error *error)
{
    const struct fb_comparison_output output = {
        .out = out,
        .format = format,
        .strict = options->shared.strict,
        .color = out == stdout && fb_color_wanted(options->shared.color, stdout),
        .unicode = fb_text_locale_is_utf8(),
        .arena = arena,
    };

    return fb_comparison_print(comparison, &output, error);
}

/* mode: "we" replaces the file, "ae" adds to it. */
static enum fb_status print_to_file(const struct fb_comparison *comparison,
                                    const struct fb_compare_options *options,
                                    enum fb_comparison_format format, const char *path,
                                    const char *mode, struct fb_arena *arena,
                                    struct fb_error *error)
{
    FILE *file = fopen(path, mode);

    if (file == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    enum fb_status status = print(comparison, options, format, file, arena, error);
    const bool failed = ferror(file) != 0;
    if ((fclose(file) != 0 || failed) && status == FB_OK)
        status = fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
    return status;
}

static enum fb_status write_all(const struct fb_comparison *comparison,
                                const struct fb_compare_options *options, struct fb_arena *arena,
                                struct fb_error *error)
{
    const char *summary = getenv("GITHUB_STEP_SUMMARY");
    enum fb_status status =
        print(comparison, options, options->output != NULL ? FB_COMPARISON_TEXT : options->format,
              stdout, arena, error);

    if (status == FB_OK && options->output != NULL)
        status = print_to_file(comparison, options, options->format, options->output, "we", arena,
                               error);
    if (status == FB_OK && options->format == FB_COMPARISON_GITHUB && summary != NULL &&
        summary[0] != '\0')
        status =
            print_to_file(comparison, options, FB_COMPARISON_MARKDOWN, summary, "ae", arena, error);
    return status;
}

int fb_compare_output_write(const struct fb_comparison *comparison,
                            const struct fb_compare_options *options, struct fb_arena *arena)
{
    struct fb_error error;
    const int code = verdict_code(comparison, options->shared.strict);

    if (write_all(comparison, options, arena, &error) == FB_OK)
        return code;
    /* The verdict says more than where it could not be written. */
    const int failure = fb_exit_report("compare", &error);
    return code == FB_EXIT_CLAIM ? code : failure;
}
