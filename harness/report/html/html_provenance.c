/* The end of the page: everything that a run's run.json knows about where its numbers come from. */
#include "html_page.h"

#include "quantity.h"
#include "run_json.h"

#include <math.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

/* Names end in their unit: "freq_hz" reads "freq" and a number with its unit. */
static void write_value(FILE *out, const char *key, const json_t *value)
{
    char text[FB_QUANTITY_SIZE];
    double number = json_number_value(value);
    if (json_is_string(value)) {
        fb_html_text(out, json_string_value(value));
    } else if (json_is_boolean(value)) {
        fb_html_text(out, json_is_true(value) ? "yes" : "no");
    } else if (!json_is_number(value)) {
        (void)fputs("unknown", out);
    } else if (ends_with(key, "_bytes")) {
        fb_html_text(out, fb_quantity_bytes(number, text));
    } else if (ends_with(key, "_hz")) {
        fb_html_printf(out, "%.2f GHz", number / 1e9);
    } else if (ends_with(key, "_s")) {
        fb_html_text(out, fb_html_time(number, text));
    } else {
        fb_html_printf(out, "%.6g", number);
    }
}

static void write_key(FILE *out, const char *key)
{
    static const char *const units[] = {"_bytes", "_hz", "_s"};
    char text[128];
    (void)snprintf(text, sizeof text, "%s", key);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (ends_with(text, units[i])) {
            text[strlen(text) - strlen(units[i])] = '\0';
            break;
        }
    }
    for (char *c = text; *c; c++) {
        *c = (char)(*c == '_' ? ' ' : *c);
    }
    fb_html_text(out, text);
}

/* The scalars of an object as a list of terms. */
static void write_object(FILE *out, const json_t *object, const char *title)
{
    const char *key;
    json_t *value;
    if (json_object_size(object) == 0) {
        return;
    }
    fb_html_printf(out, "<h4>%s</h4>\n<dl>\n", title);
    /* jansson iterates over a constant object with a pointer that is not. */
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        /* A report is made to be passed on: whose computer it was is nobody's business. */
        if (json_is_object(value) || json_is_array(value) || strcmp(key, "hostname") == 0) {
            continue;
        }
        (void)fputs("<div><dt>", out);
        write_key(out, key);
        (void)fputs("</dt><dd>", out);
        write_value(out, key, value);
        (void)fputs("</dd></div>\n", out);
    }
    (void)fputs("</dl>\n", out);
}

static void write_rate(FILE *out, const json_t *ceiling, const char *when, const char *key)
{
    const json_t *at = when[0] ? json_object_get(ceiling, when) : ceiling;
    const json_t *value = json_object_get(at, key);
    double rate = json_is_number(value) ? json_number_value(value) / 1e9 : (double)NAN;
    char text[FB_QUANTITY_SIZE];
    fb_html_cell_number(out, rate, fb_quantity_ratio(rate, text));
}

static void write_ceilings(FILE *out, const struct fb_html_source *source, size_t run)
{
    static const char *const texts[] = {"device", "dtype", "isa"};
    const json_t *ceilings = fb_run_json_at(source->document, "ceilings");
    char id[48];
    if (json_array_size(ceilings) == 0) {
        return;
    }
    (void)snprintf(id, sizeof id, "ceilings-%zu", run + 1);
    fb_html_table_begin(out, id, "",
                        "Measured ceilings, of which the floors are made: the larger "
                        "of start and end counts");
    static const char *const heads[] = {"device", "dtype", "isa"};
    for (size_t i = 0; i < 3; i++) {
        fb_html_table_head(out, "", FB_HTML_TEXT, heads[i]);
    }
    static const char *const rates[] = {"threads",    "GEMM, GFLOP/s", "at the start", "at the end",
                                        "copy, GB/s", "at the start",  "at the end"};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        fb_html_table_head(out, "", FB_HTML_NUMBER, rates[i]);
    }
    fb_html_table_body(out);
    for (size_t i = 0; i < json_array_size(ceilings); i++) {
        const json_t *ceiling = json_array_get(ceilings, i);
        (void)fputs("<tr>", out);
        for (size_t t = 0; t < 3; t++) {
            const char *text = json_string_value(json_object_get(ceiling, texts[t]));
            fb_html_cell_text(out, text ? text : "");
        }
        fb_html_cell_count(out, json_number_value(json_object_get(ceiling, "threads")));
        static const char *const keys[] = {"gemm_flop_per_s", "copy_bytes_per_s"};
        for (size_t k = 0; k < 2; k++) {
            write_rate(out, ceiling, "", keys[k]);
            write_rate(out, ceiling, "start", keys[k]);
            write_rate(out, ceiling, "end", keys[k]);
        }
        (void)fputs("</tr>\n", out);
    }
    fb_html_table_end(out);
}

static void write_warnings(FILE *out, const struct fb_html_source *source)
{
    const json_t *machine = fb_run_json_at(source->document, "machine_warnings");
    const json_t *warnings = fb_run_json_at(source->document, "warnings");
    if (json_array_size(machine) + json_array_size(warnings) == 0) {
        return;
    }
    (void)fputs("<h4>Warnings, and what helps</h4>\n<ul>\n", out);
    for (size_t i = 0; i < json_array_size(machine); i++) {
        const json_t *warning = json_array_get(machine, i);
        const char *text = json_string_value(json_object_get(warning, "text"));
        const char *remedy = json_string_value(json_object_get(warning, "remedy"));
        fb_html_printf(out, "<li>%s: %s</li>\n", text ? text : "", remedy ? remedy : "");
    }
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const char *text = json_string_value(json_array_get(warnings, i));
        bool repeated = false;
        for (size_t m = 0; text && m < json_array_size(machine); m++) {
            const char *known =
                json_string_value(json_object_get(json_array_get(machine, m), "text"));
            repeated = repeated || (known && strncmp(text, known, strlen(known)) == 0);
        }
        if (text && !repeated) {
            fb_html_printf(out, "<li>%s</li>\n", text);
        }
    }
    (void)fputs("</ul>\n", out);
}

static void write_command(FILE *out, const struct fb_html_source *source)
{
    const json_t *argv = fb_run_json_at(source->document, "argv");
    const char *yaml = fb_html_source_text(source, "suite.resolved");
    if (json_array_size(argv) > 0) {
        (void)fputs("<h4>Command</h4>\n<pre class=\"copy\"><code>./bench", out);
        for (size_t i = 0; i < json_array_size(argv); i++) {
            const char *word = json_string_value(json_array_get(argv, i));
            if (!word) {
                continue;
            }
            (void)fputc(' ', out);
            /* argv[0] is "flowbench run": the name of the command, not a word of the shell's. */
            if (i > 0) {
                fb_html_shell_word(out, word);
            } else {
                fb_html_text(out, strncmp(word, "flowbench ", 10) == 0 ? word + 10 : word);
            }
        }
        (void)fputs("</code></pre>\n", out);
    }
    if (yaml[0]) {
        (void)fputs("<h4>The suite, resolved</h4>\n<p>Includes merged and overrides applied: this "
                    "file alone gives the same cases.</p>\n<pre class=\"copy\"><code>",
                    out);
        fb_html_text(out, yaml);
        (void)fputs("</code></pre>\n", out);
    }
}

void fb_html_provenance(const struct fb_html_page *page)
{
    FILE *out = page->out;
    fb_html_section(out, "provenance", "Where the numbers come from");
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_html_source *source = &page->sources->items[r];
        bool only = page->sources->count == 1;
        if (!only) {
            fb_html_printf(out, "<details><summary>Run %zu: %s</summary>\n", r + 1, source->run);
        }
        if (!source->document) {
            (void)fputs("<p>There is no run.json beside these rows.</p>\n", out);
        }
        write_command(out, source);
        write_object(out, fb_run_json_at(source->document, "build"), "Build");
        write_object(out, fb_run_json_at(source->document, "libraries"), "Libraries");
        write_object(out, fb_run_json_at(source->document, "machine.cpu"), "Processor");
        write_object(out, fb_run_json_at(source->document, "machine.system"), "System");
        write_ceilings(out, source, r);
        write_warnings(out, source);
        (void)fputs(only ? "" : "</details>\n", out);
    }
    (void)fputs("</section>\n", out);
}
