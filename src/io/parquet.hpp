#pragma once

// Texts in Parquet files.

#include <functional>
#include <string>
#include <string_view>

#include "io/file.hpp"

namespace mxlm {

/// Passes the rows of a Parquet file to `take` in their order, until it returns false: the value of the string column
/// `field` (for a member of a struct: STRUCT.MEMBER), valid during the call only, and the value of
/// `meta.pile_set_name`, "" if there is no such column. Both are the stored bytes, not checked to be UTF-8.
///
/// Reads flat columns of byte arrays: data pages of both versions, plain, dictionary and both delta encodings,
/// uncompressed or with Snappy, gzip, Zstandard or LZ4 (LZ4_RAW), with nulls. Other columns are not read. The CRC of a
/// page is checked if there is one. Memory holds one page of each column and the column's dictionary. Throws Error
/// naming the file if `field` is missing, is not a column of strings, has several strings in a row, or holds a null or
/// more than 256 MiB in a row; if the file is damaged, encrypted, or uses another codec or encoding; and for a page of
/// more than 1 GiB.
void read_parquet(const FileView& file, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take);

/// The same for a file on disk.
void read_parquet(const std::string& path, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take);

/// True if the Parquet file has the column `field` and read_parquet could read it. Throws Error if the file is not
/// Parquet.
bool parquet_has_strings(const std::string& path, const std::string& field);

}  // namespace mxlm
