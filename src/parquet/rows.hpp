#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mxlm::parquet_reader {

/// What is wrong with a file or the choice of a column; reads on from "The Parquet file NAME ", without a full stop.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr uint32_t kLongestText = uint32_t{256} << 20;  // as for lines

/// Hands the rows of a Parquet file to `take` in their order until it returns false: the value of the string column
/// `field`, which is valid during the call only, and that of `meta.pile_set_name`, "" where the file has no such column
/// or the row no such value. Both are bytes as they are stored, not checked to be UTF-8. One page of a column is in
/// memory at a time; decoding may take 1 GiB. Throws Refusal for a column that is missing, no column of strings, or has
/// a null or more than 256 MiB in a row of `field`, and for what Arrow cannot read.
void read_rows(std::span<const std::byte> file, const std::string& field,
               const std::function<bool(std::string_view text, std::string_view subset)>& take);

}  // namespace mxlm::parquet_reader
