#pragma once

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
/// holes, duplicate names); throws Error naming file and tensor. The rules are those of the reference library,
/// huggingface/safetensors. A tensor that lies unaligned is copied. Tensors of a dtype that is not supported go to
/// `unread`, checked but for their size.
TensorMap read_safetensors(const FileView& file, UnreadTensors& unread);

/// Writes a safetensors file whose tensor data is produced one after the other, so that a file larger than memory can
/// be written: declare all tensors, then append their bytes in order (in pieces of any size), then finish (renames the
/// temporary file into place). Data lies in declaration order; declare wide types first to keep all of it aligned.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType type = DType::f32;
    std::vector<int64_t> shape;
  };
  /// Throws Error when the file cannot be written or two tensors have one name.
  SafetensorsWriter(std::filesystem::path path, const std::vector<Declared>& tensors);
  ~SafetensorsWriter();  // removes the temporary file if finish() was not reached
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  /// Appending more bytes than were declared, or finishing with fewer, is a bug of the caller.
  void append(std::span<const std::byte> bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm
