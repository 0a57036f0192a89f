#include "io/byte_source.hpp"

#include <unistd.h>
#include <zstd.h>

#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"

namespace mxlm {
namespace {

constexpr int kWindowLog = 27;  // 128 MiB, the limit of the zstd program too unless it is told --long

class PlainSource : public ByteSource {
 public:
  PlainSource(Descriptor file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  size_t read(std::span<std::byte> buffer) override { return read_fully(file_, buffer, name_); }

 private:
  Descriptor file_;
  std::string name_;
};

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> input, std::string name)
      : input_(std::move(input)), name_(std::move(name)), stream_(ZSTD_createDStream()), buffer_(ZSTD_DStreamInSize()) {
    if (!stream_) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kWindowLog);
  }

  size_t read(std::span<std::byte> buffer) override {
    ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
    while (out.pos < out.size) {
      if (pending_.pos == pending_.size && !refill() && !flushing_) {
        if (!at_frame_end_) fail("{} ends in the middle of its compressed data; get the file again.", quote(name_));
        break;
      }
      const size_t before = out.pos;
      const size_t result = ZSTD_decompressStream(stream_.get(), &out, &pending_);
      if (ZSTD_isError(result) != 0U) {
        fail("{} could not be decompressed ({}); it must be Zstandard with a window of at most 128 MiB.", quote(name_),
             ZSTD_getErrorName(result));
      }
      at_frame_end_ = result == 0;
      // With a full output buffer more may wait inside the decoder, though all input has been taken.
      flushing_ = !at_frame_end_ && out.pos == out.size && out.pos > before;
    }
    return out.pos;
  }

 private:
  bool refill() {
    pending_ = {buffer_.data(), input_->read(buffer_), 0};
    return pending_.size > 0;
  }

  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ByteSource> input_;
  std::string name_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  std::vector<std::byte> buffer_;
  ZSTD_inBuffer pending_{nullptr, 0, 0};
  bool at_frame_end_ = false;  // so that a file of no frame at all counts as cut off
  bool flushing_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path) {
  if (path == "-") return std::make_unique<PlainSource>(Descriptor(STDIN_FILENO, /*owned=*/false), "stdin");
  return std::make_unique<PlainSource>(open_for_reading(path), path.string());
}

std::unique_ptr<ByteSource> open_zstd(const std::filesystem::path& path) {
  return std::make_unique<ZstdSource>(std::make_unique<PlainSource>(open_for_reading(path), path.string()),
                                      path.string());
}

}  // namespace mxlm
