/* The best rates seen in a run: see ceiling_book.h. */
#include "ceiling_book.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#if defined(FB_HAVE_OPENBLAS)
#include <cblas.h>
#endif

void fb_ceiling_book_init(struct fb_ceiling_book *book, enum fb_isa best_isa)
{
    memset(book, 0, sizeof *book);
    book->best_isa = best_isa;
#if defined(FB_HAVE_OPENBLAS)
    book->openblas_core = openblas_get_corename();
#else
    book->openblas_core = "";
#endif
}

static struct fb_ceiling *find_or_add(struct fb_ceiling_book *book, enum fb_backend device,
                                      enum fb_dtype dtype, int threads, enum fb_isa isa)
{
    for (size_t i = 0; i < book->count; i++) {
        struct fb_ceiling *entry = &book->entries[i];
        if (entry->device == device && entry->dtype == dtype && entry->threads == threads &&
            entry->isa == isa)
            return entry;
    }
    if (book->count == FB_CEILINGS_MAX)
        return NULL;
    struct fb_ceiling *entry = &book->entries[book->count++];
    memset(entry, 0, sizeof *entry);
    entry->device = device;
    entry->dtype = dtype;
    entry->threads = threads;
    entry->isa = isa;
    entry->gemm_flop_per_s = (double)NAN;
    entry->copy_bytes_per_s = (double)NAN;
    return entry;
}

struct fb_ceiling *fb_ceiling_book_entry(struct fb_ceiling_book *book, const struct fb_case *item)
{
    const enum fb_isa isa = item->isa == FB_ISA_ANY ? book->best_isa : item->isa;

    return find_or_add(book, item->device, item->dtype, item->threads, isa);
}

static void note(double *best, double value)
{
    if (!isnan(value) && value > 0 && (isnan(*best) || value > *best))
        *best = value;
}

void fb_ceiling_note_gemm(struct fb_ceiling *entry, double flop_per_s)
{
    note(&entry->gemm_flop_per_s, flop_per_s);
}

void fb_ceiling_note_copy(struct fb_ceiling *entry, double bytes_per_s)
{
    note(&entry->copy_bytes_per_s, bytes_per_s);
}

/* Whether OpenBLAS's kernels of this name use the instruction set. */
static bool core_serves(enum fb_isa isa, const char *core)
{
    static const struct {
        enum fb_isa isa;
        const char *core;
    } served[] = {
        {FB_ISA_AVX512, "SkylakeX"},
        {FB_ISA_AVX512, "Cooperlake"},
        {FB_ISA_AVX512, "Sapphirerapids"},
        {FB_ISA_AVX2, "Haswell"},
        {FB_ISA_AVX2, "Zen"},
    };
    for (size_t i = 0; i < sizeof served / sizeof served[0]; i++) {
        if (served[i].isa == isa && strcasecmp(served[i].core, core) == 0) {
            return true;
        }
    }
    return core[0] == '\0' || (isa != FB_ISA_AVX512 && isa != FB_ISA_AVX2);
}

const char *fb_ceiling_openblas_core(enum fb_isa isa, enum fb_isa best_isa, const char *chosen)
{
    if (isa == FB_ISA_ANY || (isa == best_isa && core_serves(isa, chosen)))
        return NULL;
    if (isa == FB_ISA_AVX512)
        return "SkylakeX";
    if (isa == FB_ISA_AVX2)
        return "Haswell";
#if defined(__x86_64__)
    if (isa == FB_ISA_SCALAR)
        return "Prescott";
#endif
    return NULL;
}

const char *fb_ceiling_openblas_core_for(const struct fb_ceiling_book *book,
                                         const struct fb_case *item, enum fb_counter counter)
{
    if (counter == FB_COUNTER_NONE)
        return fb_ceiling_openblas_core(item->isa, book->best_isa, book->openblas_core);
    return fb_ceiling_openblas_core(item->isa != FB_ISA_ANY        ? item->isa
                                    : book->best_isa > FB_ISA_AVX2 ? FB_ISA_AVX2
                                                                   : book->best_isa,
                                    FB_ISA_ANY, book->openblas_core);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *rate_json(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

static json_t *measured_json(const struct fb_measure_ceilings *measured)
{
    return measured->threads == 0 ? json_null() : fb_measure_ceilings_to_json(measured);
}

json_t *fb_ceiling_book_to_json(const struct fb_ceiling_book *book)
{
    json_t *list = json_array();

    for (size_t i = 0; i < book->count; i++) {
        const struct fb_ceiling *entry = &book->entries[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:s, s:o, s:o, s:o, s:o}", "device",
                            fb_backend_name(entry->device), "dtype", fb_dtype_name(entry->dtype),
                            "threads", entry->threads, "isa", fb_isa_name(entry->isa),
                            "gemm_flop_per_s", rate_json(entry->gemm_flop_per_s),
                            "copy_bytes_per_s", rate_json(entry->copy_bytes_per_s), "start",
                            measured_json(&entry->start), "end", measured_json(&entry->end)));
    }
    return list;
}

static int name_of(const json_t *object, const char *key, int (*parse)(const char *name))
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? -1 : parse(text);
}

static double rate_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void measured_of(const json_t *object, const char *key, struct fb_measure_ceilings *measured)
{
    const json_t *json = json_object_get(object, key);

    if (!json_is_object(json) || fb_measure_ceilings_from_json(json, measured, NULL) != FB_OK)
        memset(measured, 0, sizeof *measured);
}

void fb_ceiling_book_from_json(const json_t *json, struct fb_ceiling_book *book)
{
    const json_t *item;
    size_t index;

    json_array_foreach(json, index, item)
    {
        const int device = name_of(item, "device", fb_backend_parse);
        const int dtype = name_of(item, "dtype", fb_dtype_parse);
        const int isa = name_of(item, "isa", fb_isa_parse);
        const int threads = (int)json_integer_value(json_object_get(item, "threads"));
        struct fb_ceiling *entry =
            device < 0 || dtype < 0 || isa < 0 || threads < 1
                ? NULL
                : find_or_add(book, (enum fb_backend)device, (enum fb_dtype)dtype, threads,
                              (enum fb_isa)isa);
        if (entry == NULL)
            continue;
        fb_ceiling_note_gemm(entry, rate_of(item, "gemm_flop_per_s"));
        fb_ceiling_note_copy(entry, rate_of(item, "copy_bytes_per_s"));
        measured_of(item, "start", &entry->start);
        measured_of(item, "end", &entry->end);
    }
}
