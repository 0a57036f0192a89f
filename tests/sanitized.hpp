#pragma once

namespace mxlm {

/// Whether these tests are slow and take a sanitizer's memory, too.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace mxlm
