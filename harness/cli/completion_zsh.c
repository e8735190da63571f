/* The completion function of zsh. */
#include "completion.h"

/* Text inside '...' and inside a description of _arguments or _describe. */
static void print_quoted(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (*text == '[' || *text == ']' || *text == ':' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text == '\n' ? ' ' : *text, out);
    }
}

/* ":what:how" */
static enum fb_status print_action(FILE *out, const char *placeholder,
                                   const struct fb_completion *completion)
{
    fputc(':', out);
    print_quoted(out, placeholder);
    fputc(':', out);
    switch (completion->kind) {
    case FB_COMPLETE_NOTHING:
        fputc(' ', out);
        break;
    case FB_COMPLETE_WORDS:
        fprintf(out, "(%s)", completion->words);
        break;
    case FB_COMPLETE_FOLDERS:
        fputs("_files -/", out);
        break;
    case FB_COMPLETE_FILES:
        fprintf(out, "_files -g \"*.%s\"", completion->suffix);
        break;
    }
    return FB_OK;
}

static enum fb_status print_option(FILE *out, const struct argp_option *option,
                                   struct fb_arena *arena, struct fb_error *error)
{
    const char letter = fb_completion_letter(option);
    struct fb_completion completion;

    for (int form = letter != '\0' ? 0 : 1; form < 2; form++) {
        fputs(" \\\n                '*", out);
        if (form == 0)
            fprintf(out, "-%c%s", letter, option->arg != NULL ? "+" : "");
        else
            fprintf(out, "--%s%s", option->name, option->arg != NULL ? "=" : "");
        fputc('[', out);
        print_quoted(out, option->doc);
        fputc(']', out);
        if (option->arg != NULL) {
            if (fb_completion_of(option->arg, arena, &completion, error) != FB_OK ||
                print_action(out, option->arg, &completion) != FB_OK)
                return FB_ERROR_MEMORY;
        }
        fputc('\'', out);
    }
    return FB_OK;
}

static enum fb_status print_command(FILE *out, const struct fb_command *command,
                                    const char *pattern, struct fb_arena *arena,
                                    struct fb_error *error)
{
    const struct argp_option *option;
    struct fb_completion completion;

    fprintf(out, "        %s)\n            _arguments -s -S", pattern);
    for (size_t i = 0; (option = fb_completion_next_option(command, &i)) != NULL;) {
        if (print_option(out, option, arena, error) != FB_OK)
            return FB_ERROR_MEMORY;
    }
    if (fb_completion_of_arguments(command, arena, &completion, error) != FB_OK)
        return FB_ERROR_MEMORY;
    if (completion.kind != FB_COMPLETE_NOTHING) {
        fputs(" \\\n                '*", out);
        (void)print_action(out, "argument", &completion);
        fputc('\'', out);
    }
    fputs(" ;;\n", out);
    return FB_OK;
}

enum fb_status fb_completion_print_zsh(FILE *out, struct fb_arena *arena, struct fb_error *error)
{
    fputs("#compdef flowbench bench\n"
          "# zsh completion for flowbench and ./bench, made by `flowbench completion zsh`.\n"
          "_flowbench() {\n"
          "    local context state state_descr line\n"
          "    typeset -A opt_args\n"
          "    local -a commands\n"
          "    commands=(",
          out);
    for (size_t i = 0; i < fb_command_count(); i++) {
        const struct fb_command *command = fb_command_at(i);
        if (command->hidden)
            continue;
        fprintf(out, "\n        '%s:", command->name);
        print_quoted(out, command->help);
        fputc('\'', out);
    }
    fputs("\n    )\n"
          "    # What only the launcher knows.\n"
          "    [[ ${service:t} == bench ]] && commands+=('test:build and run the tests')\n"
          "    _arguments -C '(- *)'{-h,--help}'[what flowbench can do]' \\\n"
          "        '(- *)'{-V,--version}'[the version]' '1: :->command' '*:: :->arguments'\n"
          "    if [[ $state == command ]]; then\n"
          "        _describe -t commands command commands\n"
          "        _files -g '*.(yaml|yml)'\n"
          "        return\n"
          "    fi\n"
          "    case $words[1] in\n",
          out);
    for (size_t i = 0; i < fb_command_count(); i++) {
        const struct fb_command *command = fb_command_at(i);
        const char *pattern = command->run == fb_cmd_run ? "run|*.yaml|*.yml" : command->name;
        if (!command->hidden && print_command(out, command, pattern, arena, error) != FB_OK)
            return FB_ERROR_MEMORY;
    }
    /* Autoloaded, the file is the function's body and has to call it; sourced, it registers it. */
    fputs("    esac\n"
          "}\n"
          "if [[ $funcstack[1] == _flowbench ]]; then\n"
          "    _flowbench \"$@\"\n"
          "else\n"
          "    compdef _flowbench flowbench bench\n"
          "fi\n",
          out);
    return FB_OK;
}
