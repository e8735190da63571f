/* The completion script of bash. It needs bash 4, not the bash-completion package. */
#include "completion.h"

static void print_words(FILE *out, const struct fb_command *command)
{
    const struct argp_option *option;

    for (size_t i = 0; (option = fb_completion_next_option(command, &i)) != NULL;)
        fprintf(out, " --%s", option->name);
}

static void print_action(FILE *out, const struct fb_completion *completion)
{
    switch (completion->kind) {
    case FB_COMPLETE_NOTHING:
        fputs(":", out);
        break;
    case FB_COMPLETE_WORDS:
        fprintf(out, "_flowbench_words '%s'", completion->words);
        break;
    case FB_COMPLETE_FOLDERS:
        fputs("_flowbench_files ''", out);
        break;
    case FB_COMPLETE_FILES:
        fprintf(out, "_flowbench_files %s", completion->suffix);
        break;
    }
}

static enum fb_status print_command(FILE *out, const struct fb_command *command,
                                    struct fb_arena *arena, struct fb_error *error)
{
    const struct argp_option *option;
    struct fb_completion completion;

    fprintf(out, "        %s)\n            case $previous in\n", command->name);
    for (size_t i = 0; (option = fb_completion_next_option(command, &i)) != NULL;) {
        const char letter = fb_completion_letter(option);
        if (option->arg == NULL)
            continue;
        if (fb_completion_of(option->arg, arena, &completion, error) != FB_OK)
            return FB_ERROR_MEMORY;
        fprintf(out, "                --%s", option->name);
        if (letter != '\0')
            fprintf(out, "|-%c", letter);
        fputs(") ", out);
        print_action(out, &completion);
        fputs("; return ;;\n", out);
    }
    fputs("            esac\n            options='", out);
    print_words(out, command);
    fputs("'\n            [[ $current == -* ]] || ", out);
    if (fb_completion_of_arguments(command, arena, &completion, error) != FB_OK)
        return FB_ERROR_MEMORY;
    print_action(out, &completion);
    fputs(" ;;\n", out);
    return FB_OK;
}

static const char head[] =
    "# bash completion for flowbench and ./bench, made by `flowbench completion bash`.\n"
    "_flowbench_words() {\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$current\")\n"
    "    # A word that ends in = wants its value at once.\n"
    "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
    "}\n"
    "# Files of the suffix $1 (none: no files) and folders.\n"
    "_flowbench_files() {\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    mapfile -t COMPREPLY < <(compgen -d -- \"$current\"\n"
    "        [[ -z $1 ]] || compgen -f -X \"!*.$1\" -- \"$current\")\n"
    "}\n"
    "_flowbench() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local command='' options='' word\n"
    "    COMPREPLY=()\n"
    "    # Bash splits --option=value into three words.\n"
    "    if [[ $current == = ]]; then\n"
    "        current=''\n"
    "    elif [[ $previous == = ]]; then\n"
    "        previous=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    fi\n"
    "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
    "        if [[ $word != -* ]]; then\n"
    "            command=$word\n"
    "            break\n"
    "        fi\n"
    "    done\n"
    "    [[ $command == *.yaml || $command == *.yml ]] && command=run\n"
    "    case $command in\n"
    "        '')\n"
    "            options='--help --version'\n";

enum fb_status fb_completion_print_bash(FILE *out, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_completion commands;

    if (fb_completion_of("COMMAND", arena, &commands, error) != FB_OK)
        return FB_ERROR_MEMORY;
    fputs(head, out);
    fprintf(out,
            "            if [[ $current != -* ]]; then\n"
            "                _flowbench_files yaml\n"
            "                local files=(\"${COMPREPLY[@]}\")\n"
            "                word='%s'\n"
            "                # What only the launcher knows.\n"
            "                [[ ${COMP_WORDS[0]##*/} == bench ]] && word+=' test'\n"
            "                _flowbench_words \"$word\"\n"
            "                COMPREPLY+=(\"${files[@]}\")\n"
            "            fi ;;\n",
            commands.words);
    for (size_t i = 0; i < fb_command_count(); i++) {
        if (!fb_command_at(i)->hidden &&
            print_command(out, fb_command_at(i), arena, error) != FB_OK)
            return FB_ERROR_MEMORY;
    }
    fputs("    esac\n"
          "    [[ $current == -* ]] && _flowbench_words \"$options\"\n"
          "    return 0\n"
          "}\n"
          "complete -F _flowbench flowbench bench\n",
          out);
    return FB_OK;
}
