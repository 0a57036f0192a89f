#pragma once

// The files that are built into the program.

#include <cstddef>
#include <span>

/// Files of the project that the program carries, so that it works without any path. src/CMakeLists.txt lists them.
namespace mxlm::embedded {

std::span<const std::byte> booklet_config();     // models/booklet-7m/config.json
std::span<const std::byte> booklet_model();      // models/booklet-7m/model.safetensors
std::span<const std::byte> booklet_tokenizer();  // models/booklet-7m/tokenizer.json
std::span<const std::byte> alice_text();         // data/alice.txt
std::span<const std::byte> report_css();         // src/report/page.css
std::span<const std::byte> report_js();          // src/report/page.js

}  // namespace mxlm::embedded
