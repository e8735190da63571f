/* NVML by dlopen: see cuda_nvml.h. Its functions are declared here as its documentation has them.
 */
#include "cuda_nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };

struct nvml {
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

static void nvml_close(struct nvml *nvml)
{
    if (nvml->shut_down != NULL)
        (void)nvml->shut_down();
    if (nvml->library != NULL)
        (void)dlclose(nvml->library);
}

static bool nvml_open(struct nvml *nvml, const char *pci)
{
    int (*init)(void) = NULL;
    int (*by_address)(const char *address, void **device) = NULL;
    *nvml = (struct nvml){.library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (nvml->library == NULL)
        return false;
    const bool found = find(nvml->library, "nvmlInit_v2", &init) &&
                       find(nvml->library, "nvmlDeviceGetHandleByPciBusId_v2", &by_address) &&
                       find(nvml->library, "nvmlSystemGetDriverVersion", &nvml->driver_version) &&
                       find(nvml->library, "nvmlDeviceGetClockInfo", &nvml->clock) &&
                       find(nvml->library, "nvmlDeviceGetMaxClockInfo", &nvml->clock_max);
    if (found && init() == NVML_SUCCESS) {
        (void)find(nvml->library, "nvmlShutdown", &nvml->shut_down);
        if (by_address(pci, &nvml->device) == NVML_SUCCESS)
            return true;
    }
    nvml_close(nvml);
    return false;
}

void fb_nvml_read_facts(const char *pci, struct fb_nvml_facts *facts)
{
    struct nvml nvml;
    unsigned mhz = 0;
    *facts = (struct fb_nvml_facts){"", (double)NAN, (double)NAN};
    if (!nvml_open(&nvml, pci))
        return;
    if (nvml.driver_version(facts->driver, sizeof facts->driver) != NVML_SUCCESS)
        facts->driver[0] = '\0';
    if (nvml.clock_max(nvml.device, NVML_CLOCK_SM, &mhz) == NVML_SUCCESS)
        facts->clock_max_hz = 1e6 * mhz;
    if (nvml.clock_max(nvml.device, NVML_CLOCK_MEM, &mhz) == NVML_SUCCESS)
        facts->clock_memory_hz = 1e6 * mhz;
    nvml_close(&nvml);
}

double fb_nvml_clock_hz(const char *pci)
{
    struct nvml nvml;
    unsigned mhz = 0;
    if (!nvml_open(&nvml, pci))
        return (double)NAN;
    const bool known = nvml.clock(nvml.device, NVML_CLOCK_SM, &mhz) == NVML_SUCCESS;
    nvml_close(&nvml);
    return known ? 1e6 * mhz : (double)NAN;
}
