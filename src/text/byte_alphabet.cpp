#include "text/byte_alphabet.hpp"

#include "text/unicode.hpp"

namespace mxlm::text {

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    characters_[b] = printable ? b : next++;
    bytes_[characters_[b]] = static_cast<int16_t>(b);
  }
}

const ByteAlphabet& ByteAlphabet::get() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

std::string ByteAlphabet::map(std::string_view bytes) const {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char c : bytes) append_utf8(out, character(static_cast<unsigned char>(c)));
  return out;
}

bool ByteAlphabet::unmap(std::string_view text, std::string& out) const {
  for (size_t at = 0; at < text.size();) {
    const Decoded d = decode_at(text, at);
    const int b = byte(d.code);
    if (b < 0) return false;
    out += static_cast<char>(b);
    at += d.size;
  }
  return true;
}

}  // namespace mxlm::text
