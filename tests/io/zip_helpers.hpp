#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mxlm {

/// A little-endian number.
inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
  return out;
}

/// What a zip archive of the tests may do wrong.
struct ZipOptions {
  bool zip64 = false;          // sizes, offsets and the end record in their 64-bit form
  uint16_t flags = 0;          // of every file
  int64_t entries = -1;        // the count in the end record, if not the right one
  int64_t directory = -1;      // the directory's offset there
  bool overlap = false;        // all files begin at the first one's header
  std::string local_name{};    // the name in local headers, if not that of the directory
  uint64_t size_change = 0;    // added to every size in the directory
  uint64_t packed_change = 0;  // added to every compressed size there
  std::string comment{};
};

/// A zip archive of uncompressed files.
inline std::string zip_archive(const std::vector<std::pair<std::string, std::string>>& files,
                               const ZipOptions& options = {}) {
  std::string out, directory;
  for (const auto& [name, content] : files) {
    const size_t header = options.overlap ? 0 : out.size();
    const std::string& local = options.local_name.empty() ? name : options.local_name;
    out += "PK\x03\x04" + little(45, 2) + little(options.flags, 2) + std::string(10, '\0') + little(0, 8) +
           little(local.size(), 2) + little(3, 2) + local + "pad" + content;
    const uint64_t size = content.size() + options.size_change;
    const uint64_t packed = size + options.packed_change;
    const std::string extra = !options.zip64 ? ""
                                             : little(0x4646, 2) + little(2, 2) + "xx" + little(1, 2) + little(24, 2) +
                                                   little(size, 8) + little(packed, 8) + little(header, 8);
    const uint64_t in64 = 0xffffffff;
    directory += "PK\x01\x02" + little(45, 2) + little(45, 2) + little(options.flags, 2) + std::string(10, '\0') +
                 little(options.zip64 ? in64 : packed, 4) + little(options.zip64 ? in64 : size, 4) +
                 little(name.size(), 2) + little(extra.size(), 2) + std::string(10, '\0') +
                 little(options.zip64 ? in64 : header, 4) + name + extra;
  }
  const uint64_t at = options.directory >= 0 ? static_cast<uint64_t>(options.directory) : out.size();
  const uint64_t count = options.entries >= 0 ? static_cast<uint64_t>(options.entries) : files.size();
  const size_t end64 = out.size() + directory.size();
  out += directory;
  if (options.zip64) {
    out += "PK\x06\x06" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) + little(count, 8) +
           little(count, 8) + little(directory.size(), 8) + little(at, 8);
    out += "PK\x06\x07" + little(0, 4) + little(end64, 8) + little(1, 4);
  }
  out += "PK\x05\x06" + little(0, 4) + little(options.zip64 ? 0xffff : count, 2) +
         little(options.zip64 ? 0xffff : count, 2) + little(options.zip64 ? 0xffffffff : directory.size(), 4) +
         little(options.zip64 ? 0xffffffff : at, 4) + little(options.comment.size(), 2) + options.comment;
  return out;
}

}  // namespace mxlm
