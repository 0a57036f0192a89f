#pragma once

// SHA-256 and SHA-1.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace mxlm {

/// A hash of bytes that arrive in pieces.
class Digest {
 public:
  enum class Algorithm : uint8_t { sha1, sha256 };
  explicit Digest(Algorithm algorithm);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void update(std::span<const std::byte> bytes);
  /// Returns lowercase hex digits (SHA-256: 64, SHA-1: 40). Call it once; nothing may be added afterwards.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Sha256 : public Digest {
 public:
  Sha256() : Digest(Algorithm::sha256) {}
};

}  // namespace mxlm
