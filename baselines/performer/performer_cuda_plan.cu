/* How Performer's features are laid out on a GPU, and the lengths of a padded batch. */
#include "performer_cuda_features.cuh"

namespace
{

constexpr int64_t kBlocksWanted = 264; /* that an H100 runs at once */

} // namespace

extern "C" struct fb_performer_cuda_plan fb_performer_cuda_plan_of(const struct fb_problem *p,
                                                                   int64_t features)
{
    struct fb_performer_cuda_plan plan = {};
    const int64_t heads = p->batch * p->heads;
    const int64_t longest = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    const int64_t panels = (longest + kPanel - 1) / kPanel;
    const int64_t wanted = heads < kBlocksWanted ? kBlocksWanted / heads : 1;
    plan.dtype = p->dtype == FB_BF16 ? FB_BF16 : FB_F32;
    plan.features = features;
    plan.columns = round_up(features, kPanel);
    plan.slices = wanted < panels ? wanted : panels;
    /* wide heads have exponentials far below epsilon, which 16 bits do not show beside it, and f32
     * with few digits left where they are wider still */
    plan.apart = p->dtype != FB_F32 || p->qk_dim > 2 * kPanel ? kEpsilon : 0.0F;
    return plan;
}

extern "C" enum fb_status fb_performer_cuda_lengths(const struct fb_problem *p, int32_t *lengths,
                                                    void *stream, struct fb_error *error)
{
    return fb_cuda_put_lengths(p, lengths, (cudaStream_t)stream, error);
}
