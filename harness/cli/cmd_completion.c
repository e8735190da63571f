/* flowbench completion: see completion.h. */
#include "commands.h"
#include "completion.h"

#include "nearest.h"

#include <string.h>

static const struct {
    const char *name;
    enum fb_status (*print)(FILE *out, struct fb_arena *arena, struct fb_error *error);
} shells[] = {{"bash", fb_completion_print_bash},
              {"zsh", fb_completion_print_zsh},
              {"fish", fb_completion_print_fish}};
enum { SHELL_COUNT = sizeof shells / sizeof shells[0] };

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    int *shell = state->input;
    const char *names[SHELL_COUNT];

    if (key == ARGP_KEY_END && *shell < 0)
        argp_error(state, "for which shell? bash, zsh or fish");
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (*shell >= 0)
        argp_error(state, "one shell at a time, not also '%s'", argument);
    for (int i = 0; i < SHELL_COUNT; i++) {
        names[i] = shells[i].name;
        if (strcmp(argument, names[i]) == 0)
            *shell = i;
    }
    if (*shell < 0) {
        const char *near = fb_nearest_name(argument, names, SHELL_COUNT);
        argp_error(state, "no completion for '%s'%s%s%s: there is bash, zsh and fish", argument,
                   near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
    }
    return 0;
}

const struct argp fb_argp_completion = {
    .parser = parse_option,
    .args_doc = "bash|zsh|fish",
    .doc = "Prints a script that teaches a shell the commands, options, suites and mechanisms. "
           "`cmake --install` puts it where the shells look; ./bench needs one of these lines:\v"
           "Examples:\n"
           "  source <(./bench completion bash)        in ~/.bashrc\n"
           "  source <(./bench completion zsh)         in ~/.zshrc, after compinit\n"
           "  ./bench completion fish | source         in ~/.config/fish/config.fish\n",
};

int fb_cmd_completion(int argc, char **argv)
{
    struct fb_arena arena;
    struct fb_error error = {.code = FB_OK};
    int shell = -1;

    if (argp_parse(&fb_argp_completion, argc, argv, 0, NULL, &shell) != 0)
        return FB_EXIT_USAGE;
    fb_arena_init(&arena, 0);
    const enum fb_status status = shells[shell].print(stdout, &arena, &error);
    fb_arena_free(&arena);
    return status == FB_OK ? FB_EXIT_OK : fb_exit_report("completion", &error);
}
