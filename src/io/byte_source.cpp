#include "io/byte_source.hpp"

#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"
#include "io/file_stamp.hpp"

namespace mxlm {
namespace {

constexpr int kWindowLog = 27;  // 128 MiB, which is also the zstd program's limit without --long

class PlainSource : public ByteSource {
 public:
  PlainSource(Descriptor file, std::string name)
      : file_(std::move(file)), name_(std::move(name)), stamp_(stamp_of_regular()) {}
  size_t read(std::span<std::byte> buffer) override {
    const size_t size = read_fully(file_, buffer, name_);
    if (!stamp_) return size;
    // The bytes read so far may belong to another version of the file than the rest.
    const auto now = FileStamp::of(file_.get());
    if (!now || !now->same_content(*stamp_)) {
      fail("{} was changed while it was read; wait until nothing writes to it, and start again.", quote(name_));
    }
    return size;
  }

 private:
  /// Pipes and devices change while they are read.
  [[nodiscard]] std::optional<FileStamp> stamp_of_regular() const {
    struct stat info {};
    const bool regular = fstat(file_.get(), &info) == 0 && S_ISREG(info.st_mode);
    return regular ? std::optional(FileStamp(info)) : std::nullopt;
  }

  Descriptor file_;
  std::string name_;
  std::optional<FileStamp> stamp_;
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
      // When the output buffer is full, the decoder may hold more output although it has taken all input.
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
  bool at_frame_end_ = false;  // so that a file without any frame counts as cut off
  bool flushing_ = false;
};

class GzipSource : public ByteSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> input, std::string name)
      : input_(std::move(input)), name_(std::move(name)), buffer_(kInput) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;
  ~GzipSource() override { inflateEnd(&stream_); }

  size_t read(std::span<std::byte> buffer) override {
    size_t filled = 0;
    while (filled < buffer.size() && (in_member_ || next_member())) {
      const auto room = static_cast<uInt>(std::min(buffer.size() - filled, kMostAtOnce));
      stream_.next_out = reinterpret_cast<Bytef*>(buffer.data() + filled);
      stream_.avail_out = room;
      // zlib checks the checksum of a member after all of its output, so at the end of input the decoder holds no
      // output.
      if (stream_.avail_in == 0 && !refill()) {
        fail("{} ends in the middle of its compressed data; get the file again.", quote(name_));
      }
      const int result = inflate(&stream_, Z_NO_FLUSH);
      filled += room - stream_.avail_out;
      if (result == Z_STREAM_END) {
        in_member_ = false;
      } else if (result == Z_MEM_ERROR) {
        throw std::bad_alloc();
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        fail("{} could not be decompressed ({}); it must be gzip, and whole.", quote(name_),
             stream_.msg != nullptr ? stream_.msg : "a preset dictionary is needed");
      }
    }
    return filled;
  }

 private:
  static constexpr size_t kInput = size_t{128} << 10;
  static constexpr size_t kMostAtOnce = size_t{1} << 30;  // zlib counts in 32 bits

  bool refill() {
    stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
    stream_.avail_in = static_cast<uInt>(input_->read(buffer_));
    return stream_.avail_in > 0;
  }

  // Skips zero bytes; true if another member begins. A file needs at least one member: an empty file counts as cut off.
  bool next_member() {
    if (begun_) {
      do {
        while (stream_.avail_in > 0 && *stream_.next_in == 0) {
          ++stream_.next_in;
          --stream_.avail_in;
        }
        if (stream_.avail_in > 0) break;
      } while (refill());
      if (stream_.avail_in == 0) return false;
      inflateReset(&stream_);
    }
    begun_ = in_member_ = true;
    return true;
  }

  std::unique_ptr<ByteSource> input_;
  std::string name_;
  std::vector<std::byte> buffer_;
  z_stream stream_{};
  bool in_member_ = false;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path) {
  if (path == "-") return std::make_unique<PlainSource>(Descriptor(STDIN_FILENO, /*owned=*/false), "stdin");
  return std::make_unique<PlainSource>(open_for_reading(path), path.string());
}

std::unique_ptr<ByteSource> decompress_zstd(std::unique_ptr<ByteSource> input, std::string name) {
  return std::make_unique<ZstdSource>(std::move(input), std::move(name));
}

std::unique_ptr<ByteSource> decompress_gzip(std::unique_ptr<ByteSource> input, std::string name) {
  return std::make_unique<GzipSource>(std::move(input), std::move(name));
}

}  // namespace mxlm
