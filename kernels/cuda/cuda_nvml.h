/* What NVML tells: the driver's version and clocks. Loaded at run time, absent without a driver. */
#ifndef FB_CUDA_NVML_H
#define FB_CUDA_NVML_H

#include <stddef.h>

struct fb_nvml;

/* The device is found by its PCI address ("0000:1b:00.0"). NULL when NVML is not there. Loading
 * takes a tenth of a second, a question then microseconds. */
struct fb_nvml *fb_nvml_open(const char *pci);
void fb_nvml_close(struct fb_nvml *nvml); /* NULL: nothing */

/* What is unknown, or asked of NULL, is "" or NaN. */
struct fb_nvml_facts {
    char driver[32];
    double clock_max_hz, clock_memory_hz;
};
void fb_nvml_read_facts(const struct fb_nvml *nvml, struct fb_nvml_facts *facts);
double fb_nvml_clock_hz(const struct fb_nvml *nvml);

#endif
