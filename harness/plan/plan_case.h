/* One case: its identity and its factors. Private to the room. */
#ifndef FB_PLAN_CASE_H
#define FB_PLAN_CASE_H

#include "plan.h"

/* The factors of a case in the suite's form; variant, isa and threads are resolved. */
void fb_case_factors(const struct fb_case *item, struct fb_factors *factors);

/* The reverse: everything but id, attention and skip_reason. */
void fb_case_set_factors(struct fb_case *item, const struct fb_factors *factors);

/* Sets the attention of a case that an external program computes: what it refuses and its sizes;
 * its passes are the worker's business. */
enum fb_status fb_peer_attention(struct fb_case *item, struct fb_arena *arena,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Fills item->id from its factors. */
enum fb_status fb_case_identify(struct fb_case *item, struct fb_error *error) FB_MUST_CHECK;

#endif
