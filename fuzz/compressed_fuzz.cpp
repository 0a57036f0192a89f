// Any bytes as a compressed data set: either an Error, or content that does not depend on how it is read, whose lines
// are documents or an Error. The first byte says gzip or Zstandard, and how the content is cut into pieces.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "io/byte_source.hpp"
#include "io/documents.hpp"

namespace {

constexpr size_t kMost = size_t{64} << 10;  // some hundred bytes can hold gigabytes

class Memory : public mxlm::ByteSource {
 public:
  explicit Memory(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  size_t read(std::span<std::byte> buffer) override {
    const size_t size = std::min(buffer.size(), bytes_.size());
    if (size > 0) std::memcpy(buffer.data(), bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return size;
  }

 private:
  std::span<const uint8_t> bytes_;
};

// The content, or what of it comes before an error; `failed` says which.
std::string content(std::span<const uint8_t> bytes, bool gzip, size_t piece, bool& failed) {
  auto memory = std::make_unique<Memory>(bytes);
  const auto source =
      gzip ? mxlm::decompress_gzip(std::move(memory), "fuzz") : mxlm::decompress_zstd(std::move(memory), "fuzz");
  std::string out;
  failed = false;
  try {
    while (out.size() < kMost) {
      const size_t size = out.size(), wanted = std::min(piece, kMost - size);
      out.resize(size + wanted);
      const size_t got = source->read(std::as_writable_bytes(std::span(out)).subspan(size));
      out.resize(size + got);
      if (got < wanted) {
        // The end stays the end.
        std::byte more[1];
        if (source->read(more) != 0) std::abort();
        break;
      }
    }
  } catch (const mxlm::Error&) {
    failed = true;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool gzip = (data[0] & 1) != 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  bool failed = false, failed_in_pieces = false;
  const std::string whole = content(bytes, gzip, kMost, failed);
  const std::string pieces = content(bytes, gzip, size_t{1} << (4 + (data[0] >> 1) % 16), failed_in_pieces);
  if (failed != failed_in_pieces || (!failed && whole != pieces)) std::abort();
  if (failed) return 0;
  try {
    mxlm::DocumentSource documents;
    for (size_t begin = 0; begin < whole.size();) {
      const size_t end = std::min(whole.find('\n', begin), whole.size());
      mxlm::append_json_line(std::string_view(whole).substr(begin, end - begin), "text", "The line", documents);
      begin = end + 1;
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
