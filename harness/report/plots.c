/* Builds, writes and draws pictures. See plots.h. */
#include "plots.h"

#include "figure.h"
#include "gnuplot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* mkdir -p */
static enum fb_status make_folder(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    char *copy = fb_arena_strdup(arena, path, error);
    if (!copy) {
        return FB_ERROR_MEMORY;
    }
    for (char *slash = copy + 1;; slash++) {
        if (*slash != '/' && *slash != '\0') {
            continue;
        }
        char kept = *slash;
        *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            return fb_error_set(error, FB_ERROR_IO, "cannot create the folder %s: %s", copy,
                                strerror(errno));
        }
        if (kept == '\0') {
            return FB_OK;
        }
        *slash = kept;
    }
}

/* The state of one call of fb_plots_make. */
struct drawing {
    const struct fb_plots_request *request;
    struct fb_arena *arena;
    struct fb_plots_made *made;
    struct fb_plots_place place;
    size_t paths_capacity;
    bool gnuplot_missing;
    struct fb_error missing;
};

static enum fb_status add_path(struct drawing *drawing, const char *path, struct fb_error *error)
{
    struct fb_plots_made *made = drawing->made;
    if (made->paths_count == drawing->paths_capacity) {
        size_t capacity = drawing->paths_capacity ? 2 * drawing->paths_capacity : 16;
        const char **paths = fb_arena_alloc(drawing->arena, capacity, sizeof *paths, error);
        if (!paths) {
            return FB_ERROR_MEMORY;
        }
        if (made->paths_count > 0) {
            memcpy(paths, made->paths, made->paths_count * sizeof *paths);
        }
        made->paths = paths;
        drawing->paths_capacity = capacity;
    }
    made->paths[made->paths_count++] = path;
    return FB_OK;
}

static enum fb_status draw_figure(struct drawing *drawing, const struct fb_figure *figure,
                                  struct fb_error *error)
{
    static const char *const formats[] = {"svg", "png"};
    struct fb_arena *arena = drawing->arena;
    char *stem = fb_arena_printf(arena, error, "%s/%s", drawing->place.dir, figure->name);
    char *settings =
        fb_arena_printf(arena, error, "%s/%s.gp", drawing->place.data_dir, figure->name);
    char *script = fb_arena_printf(arena, error, "%s.gp", fb_plot_kind_name(figure->kind));
    if (!stem || !settings || !script) {
        return FB_ERROR_MEMORY;
    }
    enum fb_status status = fb_figure_write(figure, drawing->place.data_dir, stem, arena, error);
    if (status != FB_OK || drawing->gnuplot_missing) {
        return status;
    }
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        status = fb_gnuplot_draw(settings, drawing->place.scripts_dir, script, formats[f],
                                 &drawing->missing);
        if (status == FB_ERROR_UNSUPPORTED) {
            drawing->gnuplot_missing = true;
            return FB_OK;
        }
        if (status != FB_OK) {
            return fb_error_set(error, status, "%s", drawing->missing.text);
        }
        char *path = fb_arena_printf(arena, error, "%s/%s.%s", drawing->request->dir, figure->name,
                                     formats[f]);
        status = path ? add_path(drawing, path, error) : FB_ERROR_MEMORY;
        if (status != FB_OK) {
            return status;
        }
    }
    drawing->made->pictures_count++;
    return FB_OK;
}

static enum fb_status draw_kind(struct drawing *drawing, enum fb_plot_kind kind,
                                struct fb_error *error)
{
    const struct fb_plots_request *request = drawing->request;
    struct fb_figure_job job = {.runs = request->runs,
                                .runs_count = request->runs_count,
                                .seed = request->seed,
                                .arena = drawing->arena};
    struct fb_figure *figures = NULL;
    size_t count = 0;
    enum fb_status status = fb_figures_build(&job, kind, &figures, &count, error);
    for (size_t i = 0; status == FB_OK && i < count; i++) {
        status = draw_figure(drawing, &figures[i], error);
    }
    if (status == FB_OK && count == 0 && request->kinds) {
        const char *before = drawing->made->empty_kinds;
        drawing->made->empty_kinds =
            fb_arena_printf(drawing->arena, error, "%s%s%s", before, before[0] ? ", " : "",
                            fb_plot_kind_name(kind));
        status = drawing->made->empty_kinds ? FB_OK : FB_ERROR_MEMORY;
    }
    return status;
}

enum fb_status fb_plots_prepare(const char *dir, struct fb_arena *arena,
                                struct fb_plots_place *place, struct fb_error *error)
{
    char *data_dir = fb_arena_printf(arena, error, "%s/data", dir);
    if (!data_dir) {
        return FB_ERROR_MEMORY;
    }
    enum fb_status status = make_folder(data_dir, arena, error);
    if (status != FB_OK) {
        return status;
    }
    char *absolute = realpath(dir, NULL);
    if (!absolute) {
        return fb_error_set(error, FB_ERROR_IO, "cannot find the folder %s: %s", dir,
                            strerror(errno));
    }
    place->dir = fb_arena_strdup(arena, absolute, error);
    place->data_dir = fb_arena_printf(arena, error, "%s/data", absolute);
    free(absolute);
    if (!place->dir || !place->data_dir) {
        return FB_ERROR_MEMORY;
    }
    place->scripts_dir = fb_gnuplot_scripts_dir();
    return place->scripts_dir
               ? FB_OK
               : fb_error_set(error, FB_ERROR_IO,
                              "the gnuplot scripts are in neither %s nor %s: install flowbench "
                              "again, or put its sources back",
                              FLOWBENCH_SOURCE_DIR "/plots", FLOWBENCH_DATA_DIR "/plots");
}

enum fb_status fb_plots_make(const struct fb_plots_request *request, struct fb_arena *arena,
                             struct fb_plots_made *made, struct fb_error *error)
{
    *made = (struct fb_plots_made){.empty_kinds = ""};
    struct drawing drawing = {.request = request, .arena = arena, .made = made};
    enum fb_status status = fb_plots_prepare(request->dir, arena, &drawing.place, error);
    if (request->kinds) {
        for (size_t i = 0; status == FB_OK && i < request->kinds_count; i++) {
            status = draw_kind(&drawing, request->kinds[i], error);
        }
    } else {
        for (int kind = 0; status == FB_OK && kind < FB_PLOT_KIND_COUNT; kind++) {
            status = draw_kind(&drawing, (enum fb_plot_kind)kind, error);
        }
    }
    if (status == FB_OK && drawing.gnuplot_missing) {
        return fb_error_set(error, FB_ERROR_UNSUPPORTED, "%s", drawing.missing.text);
    }
    return status;
}
