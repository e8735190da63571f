/* How many clusters, or blocks, a device runs at once: see cuda_launch.cuh. */
#include "cuda_launch.cuh"

#include <pthread.h>

namespace
{

struct place_answer {
    const void *kernel;
    int blocks, threads; /* blocks: of a cluster; 0: no clusters */
    size_t shared_bytes;
    int at_once;
};

constexpr int kAnswers = 256; /* shapes that are remembered; others are asked for each time */

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
place_answer answers[kAnswers];
int answer_count;

/* Of a question that failed nothing remains. */
bool succeeds(cudaError_t code)
{
    if (code != cudaSuccess)
        (void)cudaGetLastError();
    return code == cudaSuccess;
}

int ask_clusters(const cluster_launch &launch, const void *kernel)
{
    int clusters = 0;
    if (fb_cuda_allow_clusters(launch, kernel, nullptr) != FB_OK)
        return 0;
    cluster_config of(launch);
    of.config.numAttrs = 1; /* the size of clusters alone */
    return succeeds(cudaOccupancyMaxActiveClusters(&clusters, kernel, &of.config)) ? clusters : 0;
}

int ask_blocks(const cluster_launch &launch, const void *kernel)
{
    int multiprocessors = 0, of_each = 0;
    const bool known =
        fb_cuda_allow_shared(kernel, launch.shared_bytes, launch.name, nullptr) == FB_OK &&
        succeeds(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0)) &&
        succeeds(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_each, kernel, launch.threads,
                                                               launch.shared_bytes));
    return known ? multiprocessors * of_each : 0;
}

} // namespace

enum fb_status fb_cuda_allow_clusters(const cluster_launch &launch, const void *kernel,
                                      struct fb_error *error)
{
    enum fb_status status = fb_cuda_allow_shared(kernel, launch.shared_bytes, launch.name, error);
    if (status == FB_OK && launch.most_shared)
        status = fb_cuda_status(cudaFuncSetAttribute(kernel,
                                                     cudaFuncAttributePreferredSharedMemoryCarveout,
                                                     cudaSharedmemCarveoutMaxShared),
                                launch.name, error);
    if (status == FB_OK && launch.blocks > 8)
        status = fb_cuda_status(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
            "allowing clusters of 16 blocks", error);
    return status;
}

int fb_cuda_at_once(const cluster_launch &launch, const void *kernel)
{
    (void)pthread_mutex_lock(&lock);
    const place_answer *known = answers, *const end = answers + answer_count;
    while (known < end &&
           !(known->kernel == kernel && known->blocks == launch.blocks &&
             known->threads == launch.threads && known->shared_bytes == launch.shared_bytes))
        known++;
    int at_once;
    if (known < end) {
        at_once = known->at_once;
    } else {
        at_once = launch.blocks > 0 ? ask_clusters(launch, kernel) : ask_blocks(launch, kernel);
        if (answer_count < kAnswers)
            answers[answer_count++] = {kernel, launch.blocks, launch.threads, launch.shared_bytes,
                                       at_once};
    }
    (void)pthread_mutex_unlock(&lock);
    return at_once;
}
