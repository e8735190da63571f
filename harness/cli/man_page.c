/* roff with the man(7) macros: see man_page.h. */
#include "man_page.h"

#include "commands.h"
#include "completion.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

/* One line of text; what roff would take for its own is escaped. */
static void print_escaped(FILE *out, const char *text, size_t length)
{
    if (length > 0 && (*text == '.' || *text == '\''))
        fputs("\\&", out);
    for (size_t i = 0; i < length; i++) {
        switch (text[i]) {
        case '\\':
            fputs("\\e", out);
            break;
        case '-':
            fputs("\\-", out);
            break;
        case '\'':
            fputs("\\(aq", out);
            break;
        case '`':
            fputs("\\(ga", out);
            break;
        case '^':
            fputs("\\(ha", out);
            break;
        case '~':
            fputs("\\(ti", out);
            break;
        default:
            fputc(text[i], out);
        }
    }
}

/* A paragraph, broken into lines that people can read in the source, too. */
static void print_filled(FILE *out, const char *text, size_t length)
{
    const size_t width = 72;
    size_t column = 0;

    while (length > 0) {
        size_t word = 0;
        while (word < length && text[word] != ' ' && text[word] != '\n')
            word++;
        if (column > 0 && word > 0) {
            fputc(column + 1 + word > width ? '\n' : ' ', out);
            column = column + 1 + word > width ? 0 : column + 1;
        }
        /* What starts a line is escaped as such; inside a line that does no harm. */
        print_escaped(out, text, word);
        column += word;
        text += word;
        length -= word;
        if (length > 0) {
            text++;
            length--;
        }
    }
}

static void print_text(FILE *out, const char *text)
{
    print_filled(out, text, strlen(text));
}

/* Paragraphs; lines indented by blanks keep their form. */
static void print_block(FILE *out, const char *text)
{
    bool example = false;

    while (*text != '\0') {
        const size_t length = strcspn(text, "\n");
        const bool indented = *text == ' ';
        if (indented != example && length > 0) {
            fputs(indented ? ".PP\n.RS 4\n.EX\n" : ".EE\n.RE\n", out);
            example = indented;
        }
        if (indented) {
            print_escaped(out, text + 2, length - 2);
            fputc('\n', out);
        } else if (length > 0) {
            fputs(".PP\n", out);
            print_filled(out, text, length);
            fputc('\n', out);
        }
        text += length + (text[length] == '\n');
    }
    if (example)
        fputs(".EE\n.RE\n", out);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void print_usage(FILE *out, const struct fb_command *command)
{
    const char *text = command->argp->args_doc != NULL ? command->argp->args_doc : "";

    for (bool first = true; first || *text != '\0'; first = false) {
        const size_t length = strcspn(text, "\n");
        fprintf(out, "%s.B flowbench %s\n", first ? "" : ".br\n", command->name);
        if (command->argp->options != NULL)
            fputs("[\\fIOPTION\\fR...]\n", out);
        if (length > 0) {
            print_escaped(out, text, length);
            fputc('\n', out);
        }
        text += length + (text[length] == '\n');
    }
}

static void print_option(FILE *out, const struct argp_option *option)
{
    const char letter = fb_completion_letter(option);

    fputs(".TP\n", out);
    if (letter != '\0')
        fprintf(out, "\\fB\\-%c\\fR, ", letter);
    fputs("\\fB\\-\\-", out);
    print_text(out, option->name);
    fputs("\\fR", out);
    if (option->arg != NULL) {
        fputs("=\\fI", out);
        print_text(out, option->arg);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    print_text(out, option->doc);
    fputc('\n', out);
}

static void print_command(FILE *out, const struct fb_command *command)
{
    const struct argp *argp = command->argp;
    const struct argp_option *option;
    const char *doc = argp->doc;
    const char *after = strchr(doc, '\v');

    fprintf(out, ".SS %s\n", command->name);
    print_usage(out, command);
    fputs(".PP\n", out);
    print_filled(out, doc, after != NULL ? (size_t)(after - doc) : strlen(doc));
    fputc('\n', out);
    for (size_t i = 0; (option = fb_completion_next_option(command, &i)) != NULL;) {
        /* Those that every command has are told once. */
        if (strcmp(option->name, "help") != 0 && strcmp(option->name, "usage") != 0)
            print_option(out, option);
    }
    if (after == NULL)
        return;
    char *filtered = argp->help_filter != NULL
                         ? argp->help_filter(ARGP_KEY_HELP_POST_DOC, after + 1, NULL)
                         : NULL;
    print_block(out, filtered != NULL ? filtered : after + 1);
    if (filtered != after + 1)
        free(filtered);
}

/* ---- page ------------------------------------------------------------------------------------ */

static const char head[] =
    ".SH NAME\n"
    "flowbench \\- reproducible benchmarks of Flow\\-Attention and its peers\n"
    ".SH SYNOPSIS\n"
    ".B flowbench\n"
    "\\fISUITE.yaml\\fR...\n"
    ".br\n"
    ".B flowbench\n"
    "\\fICOMMAND\\fR [\\fIOPTION\\fR...]\n"
    ".br\n"
    ".B flowbench\n"
    "\\fB\\-\\-help\\fR | \\fB\\-\\-version\\fR\n"
    ".SH DESCRIPTION\n"
    "Flowbench measures what Flow\\-Attention (Flowformer, ICML 2022) costs\n"
    "next to softmax, linear, Performer and local attention on this machine.\n"
    "A suite file names the cases; each is measured in a process of its own,\n"
    "checked against a float64 definition, and becomes one row with its\n"
    "uncertainty and its distance from the limit of the machine.\n"
    ".PP\n"
    "Results go to standard output, everything else to standard error.\n"
    "In a source tree \\fB./bench\\fR takes the place of \\fBflowbench\\fR:\n"
    "it builds what is missing first, and \\fB./bench test\\fR runs the tests.\n"
    ".SH COMMANDS\n"
    "Every command has \\fB\\-\\-help\\fR, which shows its options and examples, and\n"
    "\\fB\\-\\-usage\\fR.\n";

static const char tail[] =
    ".SH FILES\n"
    ".TP\n"
    ".I results/SUITE/TIME\\-MACHINE/\n"
    "What a run leaves: \\fIresults.csv\\fR with one row per case,\n"
    "\\fIsamples.csv\\fR with every sample, \\fIrun.json\\fR with machine,\n"
    "build, suite and seeds, and \\fIplots/\\fR.\n"
    ".TP\n"
    ".I suites/*.yaml\n"
    "The suites that come with flowbench.\n"
    ".SH ENVIRONMENT\n"
    ".TP\n"
    ".B NO_COLOR\n"
    "When set and not empty, no colours unless \\fB\\-\\-color=always\\fR\n"
    "asks for them.\n"
    ".TP\n"
    ".B BENCH_NO_INSTALL\n"
    "When 1, \\fB./bench\\fR prints the command that installs what is missing\n"
    "instead of running it.\n"
    ".SH SEE ALSO\n"
    ".BR gnuplot (1)\n"
    ".PP\n"
    "The folder \\fIdocs\\fR of the source tree: command\\-line,\n"
    "suite\\-format, results\\-format, measuring, adding\\-a\\-mechanism,\n"
    "architecture.\n"
    ".PP\n"
    "H. Wu, J. Wu, J. Xu, J. Wang and M. Long, \\fIFlowformer: Linearizing\n"
    "Transformers with Conservation Flows\\fR, ICML 2022.\n";

void fb_man_page_print(FILE *out)
{
    fputs(".\\\" Made by `flowbench help --man`; do not edit.\n", out);
    fprintf(out, ".TH FLOWBENCH 1 \"%s\" \"flowbench %s\" \"User Commands\"\n.nh\n.ad l\n",
            FLOWBENCH_DATE, FLOWBENCH_VERSION);
    fputs(head, out);
    for (size_t i = 0; i < fb_command_count(); i++) {
        if (!fb_command_at(i)->hidden)
            print_command(out, fb_command_at(i));
    }
    fputs(".SH \"EXIT STATUS\"\n", out);
    for (size_t i = 0; fb_exit_meanings[i].text != NULL; i++) {
        fprintf(out, ".TP\n.B %d\n", fb_exit_meanings[i].code);
        print_text(out, fb_exit_meanings[i].text);
        fputc('\n', out);
    }
    fputs(tail, out);
}
