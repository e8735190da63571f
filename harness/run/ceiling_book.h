/*
 * The measured ceilings of a run: the best GEMM and copy rates seen so far, per device, dtype,
 * threads and instruction set. The floor of a row is made of them (PERFORMANCE.md, "The floor").
 */
#ifndef FB_CEILING_BOOK_H
#define FB_CEILING_BOOK_H

#include "measure.h"
#include "plan.h"

#include <jansson.h>

enum { FB_CEILINGS_MAX = 64 };

struct fb_ceiling {
    enum fb_backend device;
    enum fb_dtype dtype;
    int threads;
    enum fb_isa isa;
    double gemm_flop_per_s; /* NaN: not measured; the best of start, end and every worker's burst */
    double copy_bytes_per_s;               /* likewise */
    struct fb_measure_ceilings start, end; /* as measured; threads 0: not measured */
};

struct fb_ceiling_book {
    struct fb_ceiling entries[FB_CEILINGS_MAX];
    size_t count;
    enum fb_isa best_isa;
    const char *openblas_core; /* what OpenBLAS chose for this process; "" without OpenBLAS */
};

void fb_ceiling_book_init(struct fb_ceiling_book *book, enum fb_isa best_isa);

/* The entry of a case, made when there is none; NULL when the book is full. A variant that is
 * compiled once runs at the machine's best instruction set. */
struct fb_ceiling *fb_ceiling_book_entry(struct fb_ceiling_book *book, const struct fb_case *item);

/* Notes a rate; NaN and lower values change nothing. */
void fb_ceiling_note_gemm(struct fb_ceiling *entry, double flop_per_s);
void fb_ceiling_note_copy(struct fb_ceiling *entry, double bytes_per_s);

/* What OPENBLAS_CORETYPE has to be so that OpenBLAS computes with the instruction set; NULL when
 * what it chose for this process (chosen: its name for it, "" when unknown) serves already. An
 * OpenBLAS older than the processor takes it for a Prescott, and every plain variant with it. */
const char *fb_ceiling_openblas_core(enum fb_isa isa, enum fb_isa best_isa, const char *chosen);

/* The same for a worker of a case. A count names its kernels, for OpenBLAS's own choice differs
 * from machine to machine. */
const char *fb_ceiling_openblas_core_for(const struct fb_ceiling_book *book,
                                         const struct fb_case *item, enum fb_counter counter);

/* The list `ceilings` of run.json, and the best rates back from it (on resuming). */
json_t *fb_ceiling_book_to_json(const struct fb_ceiling_book *book);
void fb_ceiling_book_from_json(const json_t *json, struct fb_ceiling_book *book);

#endif
