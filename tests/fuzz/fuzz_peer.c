/*
 * Answers of external programs: the first byte chooses the request that a line answers. It is
 * refused in words, or what was read makes sense: a time above 0, a text fit for a table.
 */
#include "fuzz_input.h"

#include "peer_protocol.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static void check_text(const char *text)
{
    for (; *text != '\0'; text++)
        fuzz_check((unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7F,
                   "a text that no table can hold");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fb_peer_tensors tensors = {.count = 1};
    struct fb_peer_answer answer;
    struct fb_error error = {FB_OK, ""};
    if (size == 0)
        return 0;
    tensors.items[0] = (struct fb_peer_tensor){
        .name = "out", .written = true, .view = fb_tensor_dense(NULL, FB_F32, FB_BHND, 1, 2, 3, 4)};
    const enum fb_peer_request request = (enum fb_peer_request)(data[0] % 4);
    const enum fb_status status =
        fb_peer_parse(request, (const char *)data + 1, size - 1, &tensors, &answer, &error);
    if (status != FB_OK) {
        fuzz_check_refusal(status, &error);
        return 0;
    }
    check_text(answer.text);
    if (request == FB_PEER_CALL && answer.verdict == FB_PEER_DONE)
        fuzz_check(answer.time_s > 0.0 && !isinf(answer.time_s), "a time that cannot be");
    return 0;
}
