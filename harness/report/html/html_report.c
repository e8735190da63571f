/* Puts a report together and its file in place. See html_report.h. */
#include "html_report.h"

#include "html_assets.h"
#include "html_figures.h"
#include "run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How every report begins: by this a later one knows that it may replace it. */
static const char MARK[] = "<!DOCTYPE html>\n<!-- flowbench report -->\n";

/* ---- what is derived of the rows
 * ----------------------------------------------------------------- */

/* What tells measured series apart: a device that is absent names nothing. Of several runs the
 * number of the run stands for its processor. */
static enum fb_status find_varying(struct fb_html_page *page, struct fb_error *error)
{
    struct fb_series_set measured = page->set;
    measured.items =
        fb_arena_alloc(page->arena, page->set.count + 1, sizeof *measured.items, error);
    if (!measured.items) {
        return FB_ERROR_MEMORY;
    }
    measured.count = 0;
    for (size_t i = 0; i < page->set.count; i++) {
        if (page->set.items[i].ok_count > 0) {
            measured.items[measured.count++] = page->set.items[i];
        }
    }
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        page->varies[f] = (f != FB_FACTOR_DEVICE_NAME || page->sources->count == 1) &&
                          fb_factor_varies(&measured, (enum fb_factor)f);
    }
    return FB_OK;
}

static enum fb_status derive_series(struct fb_html_page *page, struct fb_error *error)
{
    enum fb_status status = fb_series_collect(page->sources->results, page->sources->count,
                                              FB_AXIS_SEQ_LEN, page->arena, &page->set, error);
    if (status != FB_OK) {
        return status;
    }
    page->series = fb_arena_alloc(page->arena, page->set.count + 1, sizeof *page->series, error);
    if (!page->series) {
        return FB_ERROR_MEMORY;
    }
    status = find_varying(page, error);
    for (size_t i = 0; i < page->set.count && status == FB_OK; i++) {
        struct fb_html_series *found = &page->series[i];
        found->series = &page->set.items[i];
        found->softmax = fb_series_softmax(&page->set, found->series);
        status = fb_crossover_of(found->series, found->softmax, page->seed, page->arena,
                                 &found->crossover, error);
        if (status == FB_OK && found->series->ok_count > 0) {
            status =
                fb_scaling_of_time(found->series, page->seed, page->arena, &found->scaling, error);
        }
    }
    return status;
}

static enum fb_status judge_claims(struct fb_html_page *page, struct fb_error *error)
{
    const struct fb_html_sources *sources = page->sources;
    page->claims = fb_arena_alloc(page->arena, sources->count, sizeof *page->claims, error);
    if (!page->claims) {
        return FB_ERROR_MEMORY;
    }
    for (size_t r = 0; r < sources->count; r++) {
        struct fb_series_set set;
        const struct fb_suite *suite = &sources->items[r].suite;
        if (!sources->items[r].has_suite || suite->claims_count == 0) {
            continue;
        }
        enum fb_status status =
            fb_series_collect(&sources->results[r], 1, FB_AXIS_SEQ_LEN, page->arena, &set, error);
        for (size_t i = 0; status == FB_OK && i < set.count; i++) {
            set.items[i].run_index = r;
        }
        if (status == FB_OK) {
            status = fb_claims_judge(suite->claims, suite->claims_count, &set, page->seed,
                                     page->arena, &page->claims[r], error);
        }
        if (status != FB_OK) {
            return status;
        }
    }
    return FB_OK;
}

/* ---- the page
 * ------------------------------------------------------------------------------------ */

static enum fb_status write_sections(const struct fb_html_page *page, struct fb_html_made *made,
                                     struct fb_error *error)
{
    if (page->sources->training) {
        const enum fb_status found = fb_html_accuracy(page, &made->why_missing, error);
        fb_html_provenance(page);
        return found;
    }
    enum fb_status status = fb_html_findings(page, error);
    fb_html_runs(page);
    fb_html_claims(page);
    if (status == FB_OK) {
        status = fb_html_figures(page, &made->why_missing, error);
    }
    fb_html_scaling(page);
    if (status == FB_OK) {
        status = fb_html_axes(page, error);
    }
    if (status == FB_OK) {
        status = fb_html_across(page, error);
    }
    if (status == FB_OK) {
        status = fb_html_missing(page, error);
    }
    fb_html_cases(page);
    fb_html_provenance(page);
    (void)fwrite(fb_asset_reading_html, 1, fb_asset_reading_html_size, page->out);
    return status;
}

static const char *title_of(const struct fb_html_page *page)
{
    const struct fb_html_source *first = &page->sources->items[0];
    if (first->has_suite && first->suite.title && first->suite.title[0]) {
        return first->suite.title;
    }
    if (first->training) {
        return first->accuracy.rows[0].suite;
    }
    return first->results.rows[0].suite[0] ? first->results.rows[0].suite : "Stored results";
}

static void write_head(FILE *out, const char *title)
{
    (void)fputs(MARK, out);
    fb_html_printf(out,
                   "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                   "img-src data:; style-src 'sha256-%s'; script-src 'sha256-%s'; "
                   "base-uri 'none'; form-action 'none'\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n"
                   "<meta name=\"referrer\" content=\"no-referrer\">\n"
                   "<meta name=\"generator\" content=\"flowbench %s\">\n"
                   "<link rel=\"icon\" href=\"data:,\">\n<title>%s \xe2\x80\x93 flowbench "
                   "report</title>\n<style>",
                   fb_asset_report_css_sha256, fb_asset_report_js_sha256, FLOWBENCH_VERSION, title);
    (void)fwrite(fb_asset_report_css, 1, fb_asset_report_css_size, out);
    (void)fputs("</style>\n</head>\n", out);
}

/* Links to the sections that there are. */
static void write_navigation(FILE *out, const char *content)
{
    static const struct {
        const char *id, *title;
    } links[] = {{"findings", "Findings"},     {"runs", "Setup"},
                 {"claims", "Claims"},         {"figures", "Figures"},
                 {"scaling", "Scaling"},       {"axes", "Other factors"},
                 {"across", "Across runs"},    {"missing", "Without a time"},
                 {"all", "All cases"},         {"provenance", "Provenance"},
                 {"reading", "How to read it"}};
    (void)fputs("<nav aria-label=\"Sections\"><ul>\n", out);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        char section[64];
        (void)snprintf(section, sizeof section, "<section id=\"%s\"", links[i].id);
        if (strstr(content, section)) {
            fb_html_printf(out, "<li><a href=\"#%s\">%s</a></li>\n", links[i].id, links[i].title);
        }
    }
    (void)fputs("</ul></nav>\n", out);
}

static void write_page(FILE *out, const struct fb_html_page *page, const char *content,
                       size_t length)
{
    const char *title = title_of(page);
    const struct fb_html_source *first = &page->sources->items[0];
    const char *started = fb_html_source_text(first, "started_utc");
    write_head(out, title);
    fb_html_printf(out,
                   "<body>\n<a class=\"skip\" href=\"#main\">Skip to the findings</a>\n"
                   "<header>\n<p class=\"brand\">flowbench report</p>\n<h1>%s</h1>\n"
                   "<p class=\"lead\">",
                   title);
    if (page->sources->count > 1) {
        fb_html_printf(out, "%zu runs%s", page->sources->count,
                       page->sources->several_machines ? " of different machines"
                                                       : " of one machine");
    } else {
        fb_html_printf(out, "%s%s", first->device_name, started[0] ? ", " : "");
        fb_html_utc(out, started);
    }
    (void)fputs("</p>\n</header>\n", out);
    write_navigation(out, content);
    (void)fputs("<main id=\"main\" tabindex=\"-1\">\n", out);
    (void)fwrite(content, 1, length, out);
    fb_html_printf(out,
                   "</main>\n<footer><p>Written by flowbench %s from stored rows. This file needs "
                   "no network and loads nothing.</p></footer>\n<script>",
                   FLOWBENCH_VERSION);
    (void)fwrite(fb_asset_report_js, 1, fb_asset_report_js_size, out);
    (void)fputs("</script>\n</body>\n</html>\n", out);
}

/* ---- the file
 * ------------------------------------------------------------------------------------ */

/* Only a report is replaced, unless forced; a folder or a device never is. */
static enum fb_status check_target(const char *path, bool force, struct fb_error *error)
{
    struct stat info;
    char start[sizeof MARK] = "";
    if (stat(path, &info) != 0) {
        return errno == ENOENT ? FB_OK
                               : fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path,
                                              strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return fb_error_set(error, FB_ERROR_USAGE, "'%s' is not a file: name one with -o FILE.html",
                            path);
    }
    FILE *file = force ? NULL : fopen(path, "rb");
    if (!file && !force) {
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    }
    if (file) {
        (void)fread(start, 1, sizeof start - 1, file);
        (void)fclose(file);
    }
    if (!force && strcmp(start, MARK) != 0) {
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' exists and is no report of flowbench: choose another name with "
                            "-o FILE.html, or replace it with --force",
                            path);
    }
    return FB_OK;
}

static enum fb_status fail_write(const char *path, struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
}

/* The folder that a path names a file in. */
static const char *folder_of(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    const char *slash = strrchr(path, '/');
    if (!slash) {
        return ".";
    }
    return slash == path ? "/" : fb_arena_printf(arena, error, "%.*s", (int)(slash - path), path);
}

static enum fb_status write_file(const char *path, const struct fb_html_page *page,
                                 const char *content, size_t length, struct fb_error *error)
{
    const char *folder = folder_of(path, page->arena, error);
    char *temporary = folder ? fb_arena_printf(page->arena, error, "%s/.flowbench-report.%ld.new",
                                               folder, (long)getpid())
                             : NULL;
    if (!temporary) {
        return FB_ERROR_MEMORY;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!file) {
        enum fb_status status = fail_write(path, error);
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(temporary);
        }
        return status;
    }
    write_page(file, page, content, length);
    bool failed = fflush(file) != 0 || ferror(file) || (fsync(fd) != 0 && errno != EINVAL);
    enum fb_status status = failed ? fail_write(path, error) : FB_OK;
    if (fclose(file) != 0 && status == FB_OK) {
        status = fail_write(path, error);
    }
    if (status == FB_OK && rename(temporary, path) != 0) {
        status = fail_write(path, error);
    }
    if (status != FB_OK) {
        (void)unlink(temporary);
        return status;
    }
    return fb_folder_sync(folder, error);
}

static enum fb_status make(struct fb_html_page *page, struct fb_html_made *made,
                           struct fb_error *error)
{
    char *content = NULL;
    size_t length = 0;
    const bool timed = !page->sources->training;
    enum fb_status status = timed ? derive_series(page, error) : FB_OK;
    if (status == FB_OK && timed) {
        status = judge_claims(page, error);
    }
    if (status != FB_OK) {
        return status;
    }
    page->out = open_memstream(&content, &length);
    if (!page->out) {
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the report");
    }
    status = write_sections(page, made, error);
    if (fclose(page->out) != 0 && status == FB_OK) {
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the report");
    }
    page->out = NULL;
    if (status == FB_OK) {
        status = write_file(made->path, page, content, length, error);
    }
    free(content);
    return status;
}

enum fb_status fb_html_report_write(const struct fb_html_request *request, struct fb_arena *arena,
                                    struct fb_html_made *made, struct fb_error *error)
{
    struct fb_html_sources sources;
    *made = (struct fb_html_made){.path = request->out_path, .why_missing = ""};
    enum fb_status status =
        fb_html_sources_read(request->runs, request->runs_count, arena, &sources, error);
    if (status == FB_OK && !made->path) {
        made->path = fb_arena_printf(arena, error, "%s/report.html", sources.items[0].folder);
        status = made->path ? FB_OK : FB_ERROR_MEMORY;
    }
    if (status == FB_OK) {
        status = check_target(made->path, request->force, error);
    }
    if (status == FB_OK) {
        struct fb_html_page page = {.arena = arena, .sources = &sources, .seed = request->seed};
        status = make(&page, made, error);
    }
    fb_html_sources_free(&sources);
    return status;
}
