#pragma once

// Zip archives, as far as torch.save uses them.

#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include "io/file.hpp"

namespace mxlm {

/// The place of a file's bytes in a zip archive, compressed or not.
struct ZipEntry {
  size_t offset = 0, size = 0;
  bool compressed = false;
};

/// The files of a zip archive (zip64 too) by name. Encrypted files are refused. Checks the bounds of every record, that
/// local headers and directory agree on names, and that no two files overlap or share a name; does not check checksums
/// of the content. Throws Error naming the archive and the file in it. Layout: PKWARE's APPNOTE.TXT 6.3.10, sections
/// 4.3 and 4.5.3.
std::map<std::string, ZipEntry, std::less<>> read_zip(const FileView& file);

}  // namespace mxlm
