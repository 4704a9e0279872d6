#pragma once
// GRIST_CHECK and fail(): the two ways to throw. Host code only: nvcc cannot compile fmt, so no .cu
// file includes this.
#include <fmt/core.h>

#include "grist/core/error.h"

namespace grist {

// Throws Error{code} with the formatted message. For conditions that a user, a file or another rank
// can cause.
template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error{internal} naming the source line. Behind GRIST_CHECK.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);

}  // namespace grist

// Always on. For broken contracts between our own parts (an operand's shape); names the values.
#define GRIST_CHECK(condition, ...)                                                      \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      ::grist::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
    }                                                                                    \
  } while (false)
