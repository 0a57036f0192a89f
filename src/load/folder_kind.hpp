#pragma once

#include <filesystem>
#include <string>

namespace mxlm {

/// What a folder or file that is no Hugging Face checkpoint holds instead, and what to do, as the rest of a sentence
/// that began with its name ("holds a GGUF model (...); give ..."); "" if there is no telling.
std::string describe_other_folder(const std::filesystem::path& folder);
std::string describe_other_file(const std::filesystem::path& file);

}  // namespace mxlm
