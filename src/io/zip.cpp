#include "io/zip.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr size_t kLocalHeaderSize = 30, kDirectoryHeaderSize = 46, kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20;
constexpr size_t kLongestComment = 0xffff;
constexpr uint64_t kMostEntries = 1'000'000;
constexpr uint16_t kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the field's value is in the zip64 record

struct Extent {
  uint64_t begin, end;
  const std::string* name;
};

struct Directory {
  uint64_t entries, size, offset;
};

class Reader {
 public:
  explicit Reader(const FileView& file) : name_(quote(file.name())), text_(file.text()) {}

  std::map<std::string, ZipEntry, std::less<>> read() {
    directory_ = find_directory();
    // Each entry takes at least this many bytes, so a wrong count cannot ask for memory.
    if (directory_.entries > kMostEntries || directory_.entries > directory_.size / kDirectoryHeaderSize) {
      broken("it claims {} files, more than its directory of {} bytes can hold", directory_.entries, directory_.size);
    }
    uint64_t at = directory_.offset;
    for (uint64_t i = 0; i < directory_.entries; ++i) at = read_entry(at);
    if (at != directory_.offset + directory_.size) broken("its directory has bytes after the last entry");
    check_extents();
    return std::move(entries_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void broken(fmt::format_string<Args...> text, Args&&... args) const {
    fail("{} is not a valid zip archive: {}; get the file again.", name_,
         fmt::format(text, std::forward<Args>(args)...));
  }

  // A little-endian number of `bytes` bytes; the caller has checked the bounds.
  [[nodiscard]] uint64_t number(uint64_t at, size_t bytes) const {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint64_t{static_cast<unsigned char>(text_[at + i])} << (8 * i);
    return value;
  }
  [[nodiscard]] uint16_t u16(uint64_t at) const { return static_cast<uint16_t>(number(at, 2)); }
  [[nodiscard]] uint32_t u32(uint64_t at) const { return static_cast<uint32_t>(number(at, 4)); }
  [[nodiscard]] uint64_t u64(uint64_t at) const { return number(at, 8); }

  // The end record is the last one whose comment ends exactly at the end of the file.
  [[nodiscard]] uint64_t find_end() const {
    if (text_.size() < kEndSize) broken("it has only {} bytes", text_.size());
    const uint64_t last = text_.size() - kEndSize;
    const uint64_t first = last > kLongestComment ? last - kLongestComment : 0;
    for (uint64_t at = last + 1; at-- > first;) {
      if (u32(at) == kEnd && u16(at + 20) == last - at) return at;
    }
    broken("its directory is missing (the file may be truncated)");
  }

  [[nodiscard]] Directory find_directory() const {
    const uint64_t end = find_end();
    uint64_t limit = end;  // the directory must have ended here
    Directory found{u16(end + 10), u32(end + 12), u32(end + 16)};
    uint64_t disks = u16(end + 4) | u16(end + 6);
    if (end >= kLocator64Size && u32(end - kLocator64Size) == kLocator64) {
      const uint64_t at = u64(end - kLocator64Size + 8);
      if (at > end - kLocator64Size || end - kLocator64Size - at < kEnd64Size || u32(at) != kEnd64) {
        broken("its zip64 record is not where it should be");
      }
      disks = u32(at + 16) | u32(at + 20);
      found = {u64(at + 32), u64(at + 40), u64(at + 48)};
      limit = at;
    }
    if (disks != 0) broken("it is one part of several");
    if (found.offset > limit || found.size > limit - found.offset) broken("its directory lies outside the file");
    return found;
  }

  // Reads the directory's entry at `at` and returns where the next entry begins.
  uint64_t read_entry(uint64_t at) {
    const uint64_t directory_end = directory_.offset + directory_.size;
    if (directory_end - at < kDirectoryHeaderSize || u32(at) != kDirectoryHeader) broken("its directory is damaged");
    const uint64_t name_size = u16(at + 28), extra_size = u16(at + 30), comment_size = u16(at + 32);
    const uint64_t next = at + kDirectoryHeaderSize + name_size + extra_size + comment_size;
    if (next > directory_end) broken("an entry of its directory is longer than the directory");
    const std::string_view name = text_.substr(at + kDirectoryHeaderSize, name_size);
    if ((u16(at + 8) & 1U) != 0) broken("the file {} in it is encrypted", quote(name));
    const bool compressed = u16(at + 10) != 0;
    uint64_t size = u32(at + 24), packed_size = u32(at + 20), header = u32(at + 42);
    read_extra64(name, at + kDirectoryHeaderSize + name_size, extra_size, {&size, &packed_size, &header});
    if (!compressed && packed_size != size) broken("the file {} in it has two sizes", quote(name));

    // The data ends before the directory.
    if (header > directory_.offset || directory_.offset - header < kLocalHeaderSize || u32(header) != kLocalHeader) {
      broken("the file {} in it is not where the directory says", quote(name));
    }
    const uint64_t local_name = header + kLocalHeaderSize;
    const uint64_t begin = local_name + u16(header + 26) + u16(header + 28);
    if (begin > directory_.offset || packed_size > directory_.offset - begin) {
      broken("the file {} in it reaches past its data", quote(name));
    }
    if (text_.substr(local_name, u16(header + 26)) != name) broken("the file {} in it has two names", quote(name));
    const auto [place, inserted] = entries_.emplace(name, ZipEntry{begin, packed_size, compressed});
    if (!inserted) broken("it holds {} twice", quote(name));
    extents_.push_back({header, begin + packed_size, &place->first});
    return next;
  }

  // Takes the values that were too large for their 32-bit fields from the zip64 extra field, in its order.
  void read_extra64(std::string_view name, uint64_t at, uint64_t size, const std::vector<uint64_t*>& values) const {
    const bool needed = std::any_of(values.begin(), values.end(), [](const uint64_t* v) { return *v == kIn64; });
    if (!needed) return;
    const uint64_t end = at + size;
    while (end - at >= 4) {
      const uint16_t kind = u16(at), length = u16(at + 2);
      at += 4;
      if (length > end - at) break;
      if (kind != kZip64Extra) {
        at += length;
        continue;
      }
      uint64_t rest = length;
      for (uint64_t* value : values) {
        if (*value != kIn64) continue;
        if (rest < 8) broken("the zip64 sizes of {} in it are cut off", quote(name));
        *value = u64(at);
        at += 8;
        rest -= 8;
      }
      return;
    }
    broken("the zip64 sizes of {} in it are missing", quote(name));
  }

  void check_extents() {
    std::sort(extents_.begin(), extents_.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    uint64_t reached = 0;
    for (const auto& extent : extents_) {
      if (extent.begin < reached) broken("the file {} in it overlaps the one before it", quote(*extent.name));
      reached = extent.end;
    }
  }

  std::string name_;  // quoted
  std::string_view text_;
  Directory directory_{};
  std::map<std::string, ZipEntry, std::less<>> entries_;
  std::vector<Extent> extents_;
};

}  // namespace

std::map<std::string, ZipEntry, std::less<>> read_zip(const FileView& file) { return Reader(file).read(); }

}  // namespace mxlm
