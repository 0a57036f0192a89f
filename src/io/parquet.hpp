#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "io/file.hpp"

namespace mxlm {

/// Hands the rows of a Parquet file to `take` in their order until it returns false: the value of the string column
/// `field` (of a struct's member: STRUCT.MEMBER), which is valid during the call only, and that of
/// `meta.pile_set_name`, "" where there is none. Both are bytes as they are stored, not checked to be UTF-8.
///
/// Read are flat columns of byte arrays: data pages of both versions, plain, by a dictionary and in both delta
/// encodings, uncompressed or by Snappy, gzip, Zstandard or LZ4 (LZ4_RAW), with nulls. Other columns are not looked at.
/// A page's CRC is checked where there is one. A page of each column is in memory at a time, and the column's
/// dictionary. Throws Error naming the file: for a column that is missing, no column of strings, one with several in a
/// row, or has a null or more than 256 MiB in a row of `field`; for what is damaged, encrypted, or of another codec or
/// encoding; and for a page of more than 1 GiB.
void read_parquet(const FileView& file, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take);

/// The same of a file on disk.
void read_parquet(const std::string& path, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take);

/// True if the Parquet file has the column `field`, and read_parquet could read it. Throws Error for what is no Parquet
/// file.
bool parquet_has_strings(const std::string& path, const std::string& field);

}  // namespace mxlm
