/* What a suite's memory limit means in bytes on this machine. See measure.h. */
#include "machine.h"
#include "measure.h"

size_t fb_limits_memory_bytes(const struct fb_limits *limits)
{
    if (limits->memory_bytes > 0 || !(limits->memory_fraction > 0.0))
        return limits->memory_bytes;
    return (size_t)(limits->memory_fraction * (double)fb_machine_memory_available());
}
