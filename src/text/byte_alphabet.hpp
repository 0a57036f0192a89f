#pragma once

// GPT-2's byte alphabet.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace mxlm::text {

/// GPT-2's alphabet shows every byte as a printable character (U+0021 to U+0143), so that tokens are text.
class ByteAlphabet {
 public:
  static const ByteAlphabet& get();

  /// The character of a byte.
  [[nodiscard]] uint32_t character(unsigned char byte) const { return characters_[byte]; }
  /// The byte of a character, or -1.
  [[nodiscard]] int byte(uint32_t character) const { return character < bytes_.size() ? bytes_[character] : -1; }
  /// Bytes to characters.
  [[nodiscard]] std::string map(std::string_view bytes) const;
  /// Characters to bytes. Returns false at a character outside the alphabet; `out` then holds the bytes before it.
  bool unmap(std::string_view text, std::string& out) const;

 private:
  ByteAlphabet();
  std::array<uint32_t, 256> characters_{};
  std::array<int16_t, 0x144> bytes_{};
};

}  // namespace mxlm::text
