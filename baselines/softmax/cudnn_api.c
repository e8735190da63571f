/* Loading cuDNN: see cudnn_api.h. */
#include "softmax/cudnn_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

static struct fb_cudnn cudnn;
static struct fb_error failure; /* code FB_OK: cudnn is loaded */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* As a number: ISO C has no cast from an object pointer to a function pointer. */
static uintptr_t find(void *library, const char *name, bool *found)
{
    const uintptr_t address = (uintptr_t)dlsym(library, name);
    *found = *found && address != 0;
    return address;
}

static bool find_functions(void *library)
{
    bool found = true;
    cudnn.create_handle = (int (*)(void **))find(library, "cudnnCreate", &found);
    cudnn.set_stream = (int (*)(void *, void *))find(library, "cudnnSetStream", &found);
    cudnn.last_error = (void (*)(char *, size_t))find(library, "cudnnGetLastErrorString", &found);
    cudnn.create = (int (*)(int, void **))find(library, "cudnnBackendCreateDescriptor", &found);
    cudnn.destroy = (int (*)(void *))find(library, "cudnnBackendDestroyDescriptor", &found);
    cudnn.finalize = (int (*)(void *))find(library, "cudnnBackendFinalize", &found);
    cudnn.set = (int (*)(void *, int, int, int64_t, const void *))find(
        library, "cudnnBackendSetAttribute", &found);
    cudnn.get = (int (*)(void *, int, int, int64_t, int64_t *, void *))find(
        library, "cudnnBackendGetAttribute", &found);
    cudnn.execute = (int (*)(void *, void *, void *))find(library, "cudnnBackendExecute", &found);
    return found;
}

static void load(void)
{
    static const char *const usual = "libcudnn.so.9";
    const char *named = getenv("FLOWBENCH_CUDNN");
    const char *file = named != NULL && *named != '\0' ? named : usual;
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        (void)fb_error_set(&failure, FB_ERROR_UNSUPPORTED,
                           "softmax cudnn: %.160s cannot be loaded: put the folder of cuDNN 9 into "
                           "LD_LIBRARY_PATH, or name its libcudnn.so.9 in FLOWBENCH_CUDNN",
                           file);
        return;
    }
    bool found = true;
    size_t (*version)(void) = (size_t(*)(void))find(library, "cudnnGetVersion", &found);
    cudnn.version = found ? version() : 0;
    if (!find_functions(library) || cudnn.version < FB_CUDNN_VERSION_LEAST) {
        (void)fb_error_set(
            &failure, FB_ERROR_UNSUPPORTED,
            "softmax cudnn: %.160s is cuDNN %zu, %d is the least that serves: install "
            "a newer one, or name it in FLOWBENCH_CUDNN",
            file, cudnn.version, (int)FB_CUDNN_VERSION_LEAST);
        (void)dlclose(library);
    }
}

const struct fb_cudnn *fb_cudnn_load(struct fb_error *why)
{
    (void)pthread_once(&once, load);
    if (failure.code == FB_OK)
        return &cudnn;
    (void)fb_error_set(why, failure.code, "%s", failure.text);
    return NULL;
}
