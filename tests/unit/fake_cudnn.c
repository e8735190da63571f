/*
 * A library that looks like cuDNN and computes nothing: for test_softmax_cudnn.c, which counts what
 * is built and what is run. FAKE_CUDNN_VERSION sets its version, FAKE_CUDNN_REFUSES makes it build
 * no plan.
 */
#include "softmax/cudnn_api.h"

#include <stdio.h>
#include <stdlib.h>

enum { WORKSPACE_BYTES = 256 };

/* Looked up by the test. */
int fake_cudnn_plans, fake_cudnn_runs, fake_cudnn_alive, fake_cudnn_arguments;

struct descriptor {
    int kind;
    long long arguments;
};

size_t cudnnGetVersion(void);
int cudnnCreate(void **handle);
int cudnnSetStream(void *handle, void *stream);
void cudnnGetLastErrorString(char *text, size_t size);
int cudnnBackendCreateDescriptor(int kind, void **descriptor);
int cudnnBackendDestroyDescriptor(void *descriptor);
int cudnnBackendFinalize(void *descriptor);
int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count,
                             const void *values);
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t room, int64_t *count,
                             void *values);
int cudnnBackendExecute(void *handle, void *plan, void *pack);

size_t cudnnGetVersion(void)
{
    const char *version = getenv("FAKE_CUDNN_VERSION");
    return version != NULL ? (size_t)strtoull(version, NULL, 10) : 91900;
}

int cudnnCreate(void **handle)
{
    static int here;
    *handle = &here;
    return FB_CUDNN_OK;
}

int cudnnSetStream(void *handle, void *stream)
{
    (void)stream;
    return handle == NULL;
}

void cudnnGetLastErrorString(char *text, size_t size)
{
    (void)snprintf(text, size, "the fake\nrefuses");
}

int cudnnBackendCreateDescriptor(int kind, void **descriptor)
{
    struct descriptor *made = calloc(1, sizeof *made);
    if (made == NULL)
        return 1;
    made->kind = kind;
    *descriptor = made;
    fake_cudnn_alive++;
    return FB_CUDNN_OK;
}

int cudnnBackendDestroyDescriptor(void *descriptor)
{
    free(descriptor);
    fake_cudnn_alive--;
    return FB_CUDNN_OK;
}

int cudnnBackendFinalize(void *descriptor)
{
    const struct descriptor *made = descriptor;
    if (made->kind != FB_CUDNN_PLAN)
        return FB_CUDNN_OK;
    fake_cudnn_plans++;
    return getenv("FAKE_CUDNN_REFUSES") != NULL;
}

int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count,
                             const void *values)
{
    struct descriptor *made = descriptor;
    (void)type;
    if (name == FB_CUDNN_PACK_IDS)
        made->arguments = count;
    return values == NULL;
}

int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t room, int64_t *count,
                             void *values)
{
    (void)descriptor;
    (void)type;
    (void)room;
    *count = 1;
    if (name == FB_CUDNN_PLAN_WORKSPACE_SIZE)
        *(int64_t *)values = WORKSPACE_BYTES;
    return FB_CUDNN_OK;
}

int cudnnBackendExecute(void *handle, void *plan, void *pack)
{
    const struct descriptor *made = pack;
    fake_cudnn_arguments = (int)made->arguments;
    fake_cudnn_runs++;
    return handle == NULL || plan == NULL;
}
