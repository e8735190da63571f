/* NVML by dlopen: see cuda_nvml.h. Its functions are declared here as its documentation has them.
 */
#include "cuda_nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };

struct fb_nvml {
    void *library, *device;
    int (*shut_down)(void);
    int (*driver_version)(char *text, unsigned size);
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*clock_max)(void *device, int type, unsigned *mhz);
};

/* POSIX's way around ISO C, which has no cast from an object pointer to a function pointer. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

void fb_nvml_close(struct fb_nvml *nvml)
{
    if (nvml == NULL)
        return;
    if (nvml->shut_down != NULL)
        (void)nvml->shut_down();
    if (nvml->library != NULL)
        (void)dlclose(nvml->library);
    free(nvml);
}

struct fb_nvml *fb_nvml_open(const char *pci)
{
    int (*init)(void) = NULL;
    int (*by_address)(const char *address, void **device) = NULL;
    struct fb_nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL)
        return NULL;
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    const bool found = nvml->library != NULL && find(nvml->library, "nvmlInit_v2", &init) &&
                       find(nvml->library, "nvmlDeviceGetHandleByPciBusId_v2", &by_address) &&
                       find(nvml->library, "nvmlSystemGetDriverVersion", &nvml->driver_version) &&
                       find(nvml->library, "nvmlDeviceGetClockInfo", &nvml->clock) &&
                       find(nvml->library, "nvmlDeviceGetMaxClockInfo", &nvml->clock_max);
    if (found && init() == NVML_SUCCESS) {
        (void)find(nvml->library, "nvmlShutdown", &nvml->shut_down);
        if (by_address(pci, &nvml->device) == NVML_SUCCESS)
            return nvml;
    }
    fb_nvml_close(nvml);
    return NULL;
}

void fb_nvml_read_facts(const struct fb_nvml *nvml, struct fb_nvml_facts *facts)
{
    unsigned mhz = 0;
    *facts = (struct fb_nvml_facts){"", (double)NAN, (double)NAN};
    if (nvml == NULL)
        return;
    if (nvml->driver_version(facts->driver, sizeof facts->driver) != NVML_SUCCESS)
        facts->driver[0] = '\0';
    if (nvml->clock_max(nvml->device, NVML_CLOCK_SM, &mhz) == NVML_SUCCESS)
        facts->clock_max_hz = 1e6 * mhz;
    if (nvml->clock_max(nvml->device, NVML_CLOCK_MEM, &mhz) == NVML_SUCCESS)
        facts->clock_memory_hz = 1e6 * mhz;
}

double fb_nvml_clock_hz(const struct fb_nvml *nvml)
{
    unsigned mhz = 0;
    if (nvml == NULL || nvml->clock(nvml->device, NVML_CLOCK_SM, &mhz) != NVML_SUCCESS)
        return (double)NAN;
    return 1e6 * mhz;
}
