#pragma once

// What functions of mxlm throw. (Others than these are std::bad_alloc, and std::exception for a bug.)

#include <exception>
#include <stdexcept>

#if defined(__GNUC__)
#define MXLM_API __attribute__((visibility("default")))
#else
#define MXLM_API
#endif

namespace mxlm {

/// Something a user can cause: a sentence that says what was wrong, where, and what to do. Ends the program with
/// code 1.
class MXLM_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A command line, variant or option that does not make sense. Ends the program with code 2.
class MXLM_API UsageError : public Error {
 public:
  using Error::Error;
};

/// The work was called off: by Ctrl-C or SIGTERM in the program, which ends with code 130, by the caller's `cancelled`
/// in the library. Finished shards are kept where there is a journal.
class MXLM_API Interrupted : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace mxlm
