#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "io/file.hpp"

namespace mxlm {

/// True if this program was built with Apache Arrow's C++ library (the CMake option MXLM_ARROW), which reads Parquet.
bool parquet_supported();

/// Hands the rows of a Parquet file to `take` in their order until it returns false: the value of the string column
/// `field`, which is valid during the call only, and that of `meta.pile_set_name`, "" where the file has no such
/// column. Both are bytes as they are stored, not checked to be UTF-8. One page of a column is in memory at a time;
/// decoding may take 1 GiB. Throws Error naming the file: where Arrow is not built in, for a column that is missing, no
/// column of strings, or has a null or more than 256 MiB in a row of `field`, and for what Arrow cannot read.
void read_parquet(const FileView& file, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take);

}  // namespace mxlm
