#pragma once

// Explains what a path holds that is not a checkpoint, so that the error message can say what to do.

#include <filesystem>
#include <string>

namespace mxlm {

/// Says what a folder or file holds instead of a Hugging Face checkpoint, and what to do. The text continues a sentence
/// that begins with the path: "holds a GGUF model (...); give ...". It is "" if the content is not known.
std::string describe_other_folder(const std::filesystem::path& folder);
std::string describe_other_file(const std::filesystem::path& file);

}  // namespace mxlm
