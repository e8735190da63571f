/* What NVML tells: the driver's version and clocks. Loaded at run time, absent without a driver. */
#ifndef FB_CUDA_NVML_H
#define FB_CUDA_NVML_H

#include <stddef.h>

/* The device is found by its PCI address ("0000:1b:00.0"). What is unknown stays "" or NaN. */
struct fb_nvml_facts {
    char driver[32];
    double clock_max_hz, clock_memory_hz;
};
void fb_nvml_read_facts(const char *pci, struct fb_nvml_facts *facts);
double fb_nvml_clock_hz(const char *pci);

#endif
