#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
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
  size_t offset = 0;  // from the start of `file`
  size_t size = 0;    // bytes; elements() x dtype_size(type)
  FileView file;
  /// The first element, aligned to its size (a tensor that lies unaligned in its file has been copied out of it).
  [[nodiscard]] const std::byte* data() const { return file.bytes().data() + offset; }
  [[nodiscard]] int64_t elements() const;
};

/// All tensors of a checkpoint: one safetensors file, or the shards of a model.safetensors.index.json.
class Checkpoint {
 public:
  /// `folder` holds model.safetensors or model.safetensors.index.json (or exactly one *.safetensors). Every header
  /// field is validated (length, dtype, shape x size, bounds, overlaps, holes, duplicate names); throws Error naming
  /// file and tensor. The rules are those of the reference library, huggingface/safetensors.
  static Checkpoint open(const std::filesystem::path& folder);
  static Checkpoint from_file(FileView file);

  [[nodiscard]] const std::map<std::string, TensorEntry, std::less<>>& tensors() const { return tensors_; }
  /// nullptr if there is no such tensor.
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  /// SHA-256 over the bytes of the files in name order, one after the other, hex. Reads everything; pages read for it
  /// are released again.
  [[nodiscard]] std::string sha256() const;

 private:
  std::map<std::string, TensorEntry, std::less<>> tensors_;
  std::vector<FileView> files_;  // in name order
};

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
