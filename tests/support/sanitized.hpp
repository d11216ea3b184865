// GPTQ_TEST_SANITIZED is defined under AddressSanitizer, of either compiler.
#pragma once

#if defined(__SANITIZE_ADDRESS__)  // g++
#define GPTQ_TEST_SANITIZED
#elif defined(__has_feature)  // clang
#if __has_feature(address_sanitizer)
#define GPTQ_TEST_SANITIZED
#endif
#endif
