#pragma once

// A fast hash for tables in memory.

#include <cstdint>
#include <cstring>
#include <string_view>

namespace mxlm::text {

/// Multiplies to 128 bits and combines the halves.
inline uint64_t fold_multiply(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// A hash of short byte strings for tables in memory (not stable between versions, not safe against attacks).
inline uint64_t hash_bytes(std::string_view s) {
  constexpr uint64_t kA = 0x9e3779b97f4a7c15ULL;
  constexpr uint64_t kB = 0xd6e8feb86659fd93ULL;
  const char* p = s.data();
  size_t n = s.size();
  uint64_t h = kA ^ (n * kB);
  const auto load8 = [](const char* at) {
    uint64_t x = 0;
    std::memcpy(&x, at, 8);
    return x;
  };
  const auto load4 = [](const char* at) {
    uint32_t x = 0;
    std::memcpy(&x, at, 4);
    return static_cast<uint64_t>(x);
  };
  if (n >= 8) {
    for (; n > 8; n -= 8, p += 8) h = fold_multiply(h ^ load8(p), kB);
    return fold_multiply(h ^ load8(p + n - 8), kA);
  }
  uint64_t tail = 0;
  if (n >= 4) {
    tail = load4(p) << 32 | load4(p + n - 4);
  } else if (n > 0) {
    const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<unsigned char>(p[i])); };
    tail = byte(0) << 16 | byte(n / 2) << 8 | byte(n - 1);
  }
  return fold_multiply(h ^ tail, kA);
}

}  // namespace mxlm::text
