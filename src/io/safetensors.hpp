#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.hpp"
#include "tensor/tensor.hpp"

namespace mxlm {

/// Where a tensor lies in a mapped safetensors file; the fields have been checked against the file.
struct TensorEntry {
  DType type = DType::f32;
  std::vector<int64_t> shape;
  size_t offset = 0;  // from the start of the file
  size_t size = 0;    // bytes
  FileView file;
  [[nodiscard]] const std::byte* data() const { return file.bytes().data() + offset; }
  [[nodiscard]] int64_t elements() const;
};

/// All tensors of a checkpoint: one safetensors file, or the shards of a model.safetensors.index.json.
class Checkpoint {
 public:
  /// `folder` holds model.safetensors or model.safetensors.index.json (or exactly one *.safetensors). Every header field
  /// is validated (length, dtype, shape x size, bounds, overlaps, duplicate names); throws Error naming file and tensor.
  static Checkpoint open(const std::filesystem::path& folder);
  static Checkpoint from_file(FileView file);

  [[nodiscard]] const std::map<std::string, TensorEntry, std::less<>>& tensors() const { return tensors_; }
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  /// SHA-256 over the files in name order, hex.
  [[nodiscard]] std::string sha256() const;

 private:
  std::map<std::string, TensorEntry, std::less<>> tensors_;
  std::vector<FileView> files_;
};

/// A tensor to write. `data` stays the caller's.
struct TensorToWrite {
  std::string name;
  DType type = DType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
};

/// Writes a safetensors file whose tensor data is produced one after the other, so that a file larger than memory can be
/// written: declare all tensors, then append their bytes in order, then finish (renames the temporary file into place).
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType type = DType::f32;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(std::filesystem::path path, const std::vector<Declared>& tensors);
  ~SafetensorsWriter();  // removes the temporary file if finish() was not reached
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  void append(std::span<const std::byte> bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm
