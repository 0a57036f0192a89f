#pragma once

// Safetensors files: a checking reader and a streaming writer.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"

namespace mxlm {

/// The tensors of a safetensors file. Every header field is validated (length, dtype, shape x size, bounds, overlaps,
/// holes, duplicate names), by the rules of the reference library huggingface/safetensors; throws Error naming file and
/// tensor. An unaligned tensor is copied. Tensors of an unsupported dtype go to `unread`; everything except their size
/// is checked.
TensorMap read_safetensors(const FileView& file, UnreadTensors& unread);

/// Writes a safetensors file whose tensors are produced one after another, so that the file may be larger than memory:
/// declare all tensors, append their bytes in order (in pieces of any size), then finish, which renames the temporary
/// file into place. Data follows the order of declaration; declare wide types first to keep all data aligned.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType type = DType::f32;
    std::vector<int64_t> shape;
  };
  /// Throws Error if the file cannot be written or two tensors have the same name.
  SafetensorsWriter(std::filesystem::path path, const std::vector<Declared>& tensors);
  ~SafetensorsWriter();  // removes the temporary file if finish() was not reached
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  /// Appending more bytes than declared, or finishing with fewer, is a bug of the caller.
  void append(std::span<const std::byte> bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm
