/* What was measured on what: a card for each run, and at the end of the page all provenance. */
#include "html_page.h"

#include "quantity.h"
#include "run_json.h"

#include <math.h>
#include <string.h>
#include <time.h>

static void term(FILE *out, const char *name)
{
    fb_html_printf(out, "<div><dt>%s</dt><dd>", name);
}

static void end_term(FILE *out)
{
    (void)fputs("</dd></div>\n", out);
}

/* A text of run.json under its name; nothing when it is absent. */
static void text_term(FILE *out, const struct fb_html_source *source, const char *name,
                      const char *path)
{
    const char *text = fb_html_source_text(source, path);
    if (text[0]) {
        term(out, name);
        fb_html_text(out, text);
        end_term(out);
    }
}

static double number_at(const struct fb_html_source *source, const char *path)
{
    const json_t *value = fb_run_json_at(source->document, path);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* ---- the card of a run
 * --------------------------------------------------------------------------- */

static void write_processor(FILE *out, const struct fb_html_source *source)
{
    double cores = number_at(source, "machine.cpu.cores");
    double usable = number_at(source, "machine.cpu.threads_usable");
    term(out, "Processor");
    fb_html_text(out, source->device_name[0] ? source->device_name : "unknown");
    if (cores > 0) {
        fb_html_printf(out, ", %.0f cores", cores);
    }
    if (usable > 0) {
        fb_html_printf(out, ", %.0f threads usable", usable);
    }
    if (fb_html_source_text(source, "machine.cpu.isa_best")[0]) {
        fb_html_printf(out, ", up to %s", fb_html_source_text(source, "machine.cpu.isa_best"));
    }
    end_term(out);
}

static void write_caches(FILE *out, const struct fb_html_source *source)
{
    static const char *const levels[] = {"l1d", "l2", "l3"};
    static const char *const names[] = {"L1d", "L2", "L3"};
    char text[FB_QUANTITY_SIZE], path[64];
    const char *separator = "";
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        (void)snprintf(path, sizeof path, "machine.cpu.caches.%s.bytes", levels[i]);
        double bytes = number_at(source, path);
        (void)snprintf(path, sizeof path, "machine.cpu.caches.%s.count", levels[i]);
        double count = number_at(source, path);
        if (!(bytes > 0)) {
            continue;
        }
        if (!separator[0]) {
            term(out, "Caches, memory");
        }
        fb_html_printf(out, "%s%s ", separator, names[i]);
        if (count > 1) {
            fb_html_printf(out, "%.0f \xc3\x97 ", count);
        }
        fb_html_text(out, fb_quantity_bytes(bytes, text));
        separator = ", ";
    }
    double memory = number_at(source, "machine.system.memory_bytes");
    if (memory > 0) {
        if (!separator[0]) {
            term(out, "Memory");
        }
        fb_html_printf(out, "%s%s RAM", separator, fb_quantity_bytes(memory, text));
        separator = ", ";
    }
    if (separator[0]) {
        end_term(out);
    }
}

static void write_build(FILE *out, const struct fb_html_source *source)
{
    const char *sha = fb_html_source_text(source, "build.git_sha");
    const json_t *dirty = fb_run_json_at(source->document, "build.git_dirty");
    if (!source->document) {
        return;
    }
    term(out, "flowbench");
    fb_html_text(out, fb_html_source_text(source, "build.flowbench"));
    if (sha[0]) {
        fb_html_printf(out, ", commit <code>%s</code>", sha);
        (void)fputs(json_is_true(dirty)    ? ", with uncommitted changes"
                    : json_is_false(dirty) ? ", clean"
                                           : "",
                    out);
    } else {
        (void)fputs(", commit unknown", out);
    }
    end_term(out);
    text_term(out, source, "Compiler", "build.compiler");
}

/* Seconds between two "2026-11-24T03:15:00Z"; NaN when either is none. */
static double seconds_between(const char *start, const char *end)
{
    struct tm from = {0}, to = {0};
    int parts[12];
    if (sscanf(start, "%d-%d-%dT%d:%d:%dZ", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
               &parts[5]) != 6 ||
        sscanf(end, "%d-%d-%dT%d:%d:%dZ", &parts[6], &parts[7], &parts[8], &parts[9], &parts[10],
               &parts[11]) != 6 ||
        parts[0] < 1970 || parts[0] > 9999 || parts[6] < 1970 || parts[6] > 9999) {
        return (double)NAN;
    }
    from.tm_year = parts[0] - 1900;
    from.tm_mon = parts[1] - 1;
    from.tm_mday = parts[2];
    to.tm_year = parts[6] - 1900;
    to.tm_mon = parts[7] - 1;
    to.tm_mday = parts[8];
    double days = difftime(timegm(&to), timegm(&from));
    return days + 3600.0 * (parts[9] - parts[3]) + 60.0 * (parts[10] - parts[4]) +
           (parts[11] - parts[5]);
}

static void write_when(FILE *out, const struct fb_html_source *source)
{
    const char *start = fb_html_source_text(source, "started_utc");
    double seconds = seconds_between(start, fb_html_source_text(source, "ended_utc"));
    if (!start[0]) {
        return;
    }
    term(out, "Measured");
    fb_html_utc(out, start);
    if (seconds >= 0) {
        fb_html_printf(out, ", in %.0f min %.0f s", floor(seconds / 60), fmod(seconds, 60));
    }
    if (json_array_size(fb_run_json_at(source->document, "resumed")) > 0) {
        fb_html_printf(out, ", resumed %zu times",
                       json_array_size(fb_run_json_at(source->document, "resumed")));
    }
    end_term(out);
}

/* "cpu, f32, forward, B 1, H 8, d 64": what all rows of the run share. */
static void write_shared(FILE *out, const struct fb_results *results)
{
    char first[FB_FACTOR_TEXT_SIZE], other[FB_FACTOR_TEXT_SIZE];
    const char *separator = "";
    term(out, "Every case");
    for (int f = FB_FACTOR_DEVICE; f < FB_FACTOR_COUNT; f++) {
        enum fb_factor factor = (enum fb_factor)f;
        const struct fb_row *row = &results->rows[0];
        bool shared = factor != FB_FACTOR_DEVICE_NAME && factor != FB_FACTOR_PARAMS &&
                      !fb_factor_is_plain(row, factor);
        fb_factor_value(row, factor, first);
        for (size_t i = 1; shared && i < results->rows_count; i++) {
            fb_factor_value(&results->rows[i], factor, other);
            shared = strcmp(first, other) == 0;
        }
        if (shared && first[0]) {
            fb_factor_phrase(row, factor, other);
            fb_html_printf(out, "%s%s", separator, other);
            separator = ", ";
        }
    }
    end_term(out);
}

static void write_card(const struct fb_html_page *page, size_t index)
{
    const struct fb_html_source *source = &page->sources->items[index];
    FILE *out = page->out;
    (void)fputs("<article class=\"card\">\n", out);
    if (page->sources->count > 1) {
        fb_html_printf(out, "<h3 id=\"run-%zu\">Run %zu: %s</h3>\n", index + 1, index + 1,
                       source->run);
    } else {
        fb_html_printf(out, "<h3>%s</h3>\n", source->run);
    }
    (void)fputs("<dl>\n", out);
    write_processor(out, source);
    write_caches(out, source);
    text_term(out, source, "System", "machine.system.os");
    text_term(out, source, "Kernel", "machine.system.kernel");
    write_shared(out, &source->results);
    write_when(out, source);
    write_build(out, source);
    term(out, "Read from");
    fb_html_printf(out, "<code>%s</code>", source->csv);
    end_term(out);
    (void)fputs("</dl>\n</article>\n", out);
}

void fb_html_runs(const struct fb_html_page *page)
{
    fb_html_section(page->out, "runs", "What was measured, on what");
    (void)fputs("<div class=\"cards\">\n", page->out);
    for (size_t r = 0; r < page->sources->count; r++) {
        write_card(page, r);
    }
    (void)fputs("</div>\n</section>\n", page->out);
}
