#pragma once

// "Did you mean ...?" for names that are not known.

#include <span>
#include <string>
#include <string_view>

namespace mxlm {

/// The number of edits that turn `a` into `b`, in bytes and ignoring case. An edit adds, removes or replaces a letter,
/// or swaps two neighbours.
size_t edit_distance(std::string_view a, std::string_view b);

/// The known name nearest to `name`; "" if more than a third of its letters differ.
std::string nearest_name(std::string_view name, std::span<const std::string> known);

/// The sentence " Did you mean 'NAME'?" with the nearest known name, or "", to append to a message.
std::string suggestion(std::string_view name, std::span<const std::string> known);

}  // namespace mxlm
