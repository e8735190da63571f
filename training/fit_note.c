/* The note of a checkpoint, as lines of text: see fit_note.h. */
#include "fit_note.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FORMAT "flowbench-fit-2"

enum { HEAD_BYTES = 512, LINE_BYTES = 256 };

/* ---- writing --------------------------------------------------------------------------------- */

static size_t write_head(const struct fb_fit_state *s, char *text, size_t room)
{
    const int used = snprintf(text, room,
                              FORMAT " %d %.17g %.17g %.17g %" PRId64 " %.17g %" PRId64
                                     "\n%d %" PRId64 " %.17g %.17g %.17g %zu\n",
                              s->trial, s->train_s, s->elapsed_s, s->rate_s, s->rate_steps,
                              s->loss_sum, s->loss_steps, s->selected_trial, s->selected_step,
                              s->selected_value, s->selected_test, s->last_test, s->points_count);
    return (size_t)used;
}

static size_t write_correct(const struct fb_fit_state *s, char *text)
{
    const int64_t count = s->correct && s->selected_step >= 0 ? s->correct_count : 0;
    for (int64_t i = 0; i < count; i++)
        text[i] = s->correct[i] ? '1' : '0';
    text[count] = '\0';
    return (size_t)count;
}

const char *fb_fit_note_write(const struct fb_fit_state *s, struct fb_arena *arena,
                              struct fb_error *error)
{
    const size_t room = HEAD_BYTES + s->points_count * LINE_BYTES + (size_t)s->correct_count + 1;
    char *text = fb_arena_alloc(arena, room, 1, error);
    if (!text)
        return NULL;
    size_t used = write_head(s, text, room);
    for (size_t i = 0; i < s->points_count; i++) {
        const struct fb_fit_point *p = &s->points[i];
        used += (size_t)snprintf(
            text + used, room - used, "%d %" PRId64 " %.17g %.17g %.17g %.17g %.17g\n", p->trial,
            p->step, p->epoch, p->train_loss, p->loss, p->metric, p->elapsed_s);
    }
    (void)write_correct(s, text + used);
    return text;
}

/* ---- reading --------------------------------------------------------------------------------- */

static const char *next_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return end ? end + 1 : text + strlen(text);
}

static bool read_head(const char **text, struct fb_fit_state *s, size_t *points)
{
    if (sscanf(*text, FORMAT " %d %lf %lf %lf %" SCNd64 " %lf %" SCNd64, &s->trial, &s->train_s,
               &s->elapsed_s, &s->rate_s, &s->rate_steps, &s->loss_sum, &s->loss_steps) != 7)
        return false;
    *text = next_line(*text);
    if (sscanf(*text, "%d %" SCNd64 " %lf %lf %lf %zu", &s->selected_trial, &s->selected_step,
               &s->selected_value, &s->selected_test, &s->last_test, points) != 6)
        return false;
    *text = next_line(*text);
    return s->trial >= 0 && s->trial < FB_RECIPE_TRIALS_MAX;
}

static bool read_points(const char **text, struct fb_fit_state *s, size_t points)
{
    for (s->points_count = 0; s->points_count < points; s->points_count++) {
        struct fb_fit_point *p = &s->points[s->points_count];
        if (sscanf(*text, "%d %" SCNd64 " %lf %lf %lf %lf %lf", &p->trial, &p->step, &p->epoch,
                   &p->train_loss, &p->loss, &p->metric, &p->elapsed_s) != 7)
            return false;
        *text = next_line(*text);
    }
    return true;
}

static bool read_correct(const char *text, struct fb_fit_state *s)
{
    const size_t wanted = s->correct && s->selected_step >= 0 ? (size_t)s->correct_count : 0;
    if (strspn(text, "01") != wanted || text[wanted] != '\0')
        return false;
    for (size_t i = 0; i < wanted; i++)
        s->correct[i] = text[i] == '1';
    return true;
}

enum fb_status fb_fit_note_read(const char *note, const char *path, struct fb_fit_state *s,
                                struct fb_error *error)
{
    size_t points = 0;
    const char *text = note ? note : "";
    if (read_head(&text, s, &points) && points <= s->points_room && read_points(&text, s, points) &&
        read_correct(text, s))
        return FB_OK;
    return fb_error_set(error, FB_ERROR_INPUT,
                        "%s: its note is not that of this case; delete the file to begin the case "
                        "anew",
                        path);
}
