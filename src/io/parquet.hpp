#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace mxlm {

/// The program that reads Parquet files, src/parquet/, which is built where Apache Arrow's C++ library is (the CMake
/// option MXLM_ARROW): mxlm-parquet beside this program, or where it was built. "" if it was not built.
std::filesystem::path parquet_reader();

/// Hands the rows of a Parquet file to `take` in their order until it returns false: the value of the string column
/// `field`, which is valid during the call only, and that of `meta.pile_set_name`, "" where there is none. Both are
/// bytes as they are stored, not checked to be UTF-8. Throws Error naming the file: where Arrow is not built in, for a
/// column that is missing, no column of strings, or has a null or more than 256 MiB in a row of `field`, for what Arrow
/// cannot read, and when `reader`, which runs as a process of its own, ends before it is done.
void read_parquet(const std::string& path, const std::string& field,
                  const std::function<bool(std::string_view text, std::string_view subset)>& take,
                  const std::filesystem::path& reader = parquet_reader());

}  // namespace mxlm
