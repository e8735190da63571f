/* What disturbed a measurement, and what a call occupied: counters of the operating system. */
#ifndef FB_EVIDENCE_H
#define FB_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fb_evidence {
    int64_t ctx_involuntary; /* of all threads of the process */
    int64_t page_faults;     /* minor and major */
    double steal_s;          /* of all processors; NaN when the kernel does not tell */
};

/* Counters since the start of a process (steal: of the machine). pid 0: this one. */
void fb_evidence_read(pid_t pid, struct fb_evidence *evidence);
struct fb_evidence fb_evidence_since(const struct fb_evidence *before,
                                     const struct fb_evidence *after);

/* The frequency at which this thread executes now, in Hz: a chain of dependent one-cycle
 * operations against the clock, about a millisecond. NaN in a build without optimisation. */
double fb_evidence_frequency(void);

/* Resets the peak of the resident set to its present size; false when the kernel refuses. */
bool fb_evidence_reset_peak(pid_t pid);
/* Peak of the resident set and its present size, bytes; false when the kernel does not tell. */
bool fb_evidence_resident(pid_t pid, int64_t *peak_bytes, int64_t *now_bytes);

#endif
