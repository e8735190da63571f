/* Progress on a terminal and elsewhere: see progress.h. */
#include "progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_DEFAULT = 80, LINE_SIZE = 1024 };

bool fb_color_parse(const char *text, enum fb_color *color)
{
    static const struct {
        const char *name;
        enum fb_color value;
    } choices[] = {{"auto", FB_COLOR_AUTO}, {"always", FB_COLOR_ALWAYS}, {"never", FB_COLOR_NEVER}};

    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        if (strcmp(text, choices[i].name) == 0) {
            *color = choices[i].value;
            return true;
        }
    }
    return false;
}

bool fb_color_wanted(enum fb_color choice, FILE *file)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    if (choice != FB_COLOR_AUTO)
        return choice == FB_COLOR_ALWAYS;
    return (no_color == NULL || *no_color == '\0') && isatty(fileno(file)) &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

/* ---- figures for people ---------------------------------------------------------------------- */

char *fb_human_time(double seconds, char *text, size_t text_size)
{
    if (isnan(seconds))
        snprintf(text, text_size, "-");
    else if (seconds < 1e-3)
        snprintf(text, text_size, "%.3g us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(text, text_size, "%.3g ms", seconds * 1e3);
    else
        snprintf(text, text_size, "%.3g s", seconds);
    return text;
}

char *fb_human_duration(double seconds, char *text, size_t text_size)
{
    if (isnan(seconds))
        snprintf(text, text_size, "?");
    else if (seconds < 60)
        snprintf(text, text_size, "%.0fs", ceil(seconds));
    else if (seconds < 3600)
        snprintf(text, text_size, "%dm%02ds", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(text, text_size, "%.0fh%02dm", floor(seconds / 3600),
                 (int)(fmod(seconds, 3600) / 60));
    return text;
}

char *fb_human_bytes(double bytes, char *text, size_t text_size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;

    while (bytes >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        unit++;
    }
    snprintf(text, text_size, "%.3g %s", bytes, units[unit]);
    return text;
}

char *fb_human_instructions(int64_t count, char *text, size_t text_size)
{
    snprintf(text, text_size, "%.4g M instructions", (double)count * 1e-6);
    return text;
}

/* What a row that is ok has found. */
static char *human_finding(const struct fb_row *row, char *text, size_t text_size)
{
    return row->instructions != FB_ROW_NONE
               ? fb_human_instructions(row->instructions, text, text_size)
               : fb_human_time(row->time_median_s, text, text_size);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static int terminal_width(FILE *out)
{
    struct winsize size;

    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return WIDTH_DEFAULT;
}

void fb_progress_init(struct fb_progress *progress, FILE *out, enum fb_color color, bool quiet)
{
    const char *term = getenv("TERM");

    memset(progress, 0, sizeof *progress);
    progress->out = out;
    progress->quiet = quiet;
    if (out == NULL)
        return;
    progress->terminal = isatty(fileno(out)) && (term == NULL || strcmp(term, "dumb") != 0);
    progress->color = fb_color_wanted(color, out);
}

void fb_progress_start(struct fb_progress *progress, size_t rows_total, size_t rows_done)
{
    progress->rows_total = rows_total;
    progress->rows_done = rows_done;
}

static void clear_line(struct fb_progress *progress)
{
    if (progress->line_open)
        fputs("\r\033[K", progress->out);
    progress->line_open = false;
}

static int digits_of(size_t count)
{
    int digits = 1;

    for (; count >= 10; count /= 10)
        digits++;
    return digits;
}

void fb_progress_case(struct fb_progress *progress, const char *description, double eta_s)
{
    char line[LINE_SIZE];
    char left[32];

    if (progress->out == NULL || progress->quiet || !progress->terminal)
        return;
    snprintf(line, sizeof line, "[%*zu/%zu] %s left  %s", digits_of(progress->rows_total),
             progress->rows_done, progress->rows_total, fb_human_duration(eta_s, left, sizeof left),
             description);
    progress->width = terminal_width(progress->out);
    clear_line(progress);
    fprintf(progress->out, "%.*s", progress->width - 1, line);
    fflush(progress->out);
    progress->line_open = true;
}

static bool has_failed(const char *status)
{
    return strcmp(status, "wrong") == 0 || strcmp(status, "crash") == 0 ||
           strcmp(status, "error") == 0;
}

void fb_progress_row(struct fb_progress *progress, const struct fb_row *row,
                     const char *description, double eta_s)
{
    char finding[48];
    const struct fb_progress_outcome outcome = {row->status, row->reason,
                                                human_finding(row, finding, sizeof finding)};

    fb_progress_outcome(progress, &outcome, description, eta_s);
}

void fb_progress_outcome(struct fb_progress *progress, const struct fb_progress_outcome *outcome,
                         const char *description, double eta_s)
{
    char left[48] = "";
    char duration[32];
    const bool ok = strcmp(outcome->status, "ok") == 0;
    const bool failed = has_failed(outcome->status);

    progress->rows_done++;
    if (progress->out == NULL || (progress->quiet && !failed))
        return;
    /* On a terminal the good news scrolls by in the one line; the rest stays. */
    if (progress->terminal && ok)
        return;
    clear_line(progress);
    if (!isnan(eta_s) && !progress->terminal && progress->rows_done < progress->rows_total)
        snprintf(left, sizeof left, "  (%s left)",
                 fb_human_duration(eta_s, duration, sizeof duration));
    const char *on = progress->color && !ok ? (failed ? "\033[31m" : "\033[33m") : "";
    const char *off = *on != '\0' ? "\033[0m" : "";
    fprintf(progress->out, "[%*zu/%zu] %s  %s%s%s%s%s%s\n", digits_of(progress->rows_total),
            progress->rows_done, progress->rows_total, description, on,
            ok ? outcome->finding : outcome->status, off, outcome->reason[0] != '\0' ? ": " : "",
            outcome->reason, left);
    fflush(progress->out);
}

void fb_progress_skipped(struct fb_progress *progress, size_t count, const char *reason)
{
    progress->rows_done += count;
    if (progress->out == NULL || progress->quiet)
        return;
    clear_line(progress);
    fprintf(progress->out, "[%*zu/%zu] %zu case%s skipped: %s\n", digits_of(progress->rows_total),
            progress->rows_done, progress->rows_total, count, count == 1 ? "" : "s", reason);
    fflush(progress->out);
}

void fb_progress_say(struct fb_progress *progress, const char *text)
{
    if (progress->out == NULL)
        return;
    clear_line(progress);
    fprintf(progress->out, "%s\n", text);
    fflush(progress->out);
}

void fb_progress_end(struct fb_progress *progress)
{
    if (progress->out == NULL)
        return;
    clear_line(progress);
    fflush(progress->out);
}
