#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mxlm {

/// Edits (a letter added, removed, replaced, or two neighbours swapped) that turn `a` into `b`, in bytes, upper and
/// lower case being the same.
size_t edit_distance(std::string_view a, std::string_view b);

/// The known name nearest to `name`, or "" if none is near enough to be meant (at most a third of its letters differ).
std::string nearest_name(std::string_view name, std::span<const std::string> known);

/// " Did you mean 'NAME'?" with the nearest known name, or "": to be put behind a sentence.
std::string suggestion(std::string_view name, std::span<const std::string> known);

}  // namespace mxlm
