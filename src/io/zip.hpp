#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include "io/file.hpp"

namespace mxlm {

/// Where the bytes of a file in a zip archive lie in the archive, compressed or as they are.
struct ZipEntry {
  size_t offset = 0, size = 0;
  bool compressed = false;
};

/// The files of a zip archive (zip64 too) by name; none may be encrypted. Checked: the bounds of every record, that
/// local headers agree with the directory in names, that no two files overlap or have one name. Checksums of the
/// content are not checked. Throws Error naming the archive and the file in it. Layout: PKWARE's APPNOTE.TXT 6.3.10,
/// sections 4.3 and 4.5.3.
std::map<std::string, ZipEntry, std::less<>> read_zip(const FileView& file);

}  // namespace mxlm
