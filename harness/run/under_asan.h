/* Whether AddressSanitizer is at work. It reserves terabytes of addresses, so no limit on memory
 * can be set beside it, and it looks for leaks when exit() is called. */
#ifndef FB_UNDER_ASAN_H
#define FB_UNDER_ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define FB_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FB_UNDER_ASAN 1
#endif
#endif
#ifndef FB_UNDER_ASAN
#define FB_UNDER_ASAN 0
#endif

#endif
