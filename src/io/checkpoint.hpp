#pragma once

// The tensors of a checkpoint by name, whatever files they lie in.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.hpp"
#include "tensor/tensor.hpp"

namespace mxlm {

/// The place of a tensor in a mapped file. The fields were checked against the file.
struct TensorEntry {
  DType type = DType::f32;
  std::vector<int64_t> shape;
  size_t offset = 0;  // from the start of `file`
  size_t size = 0;    // bytes; elements() x dtype_size(type)
  FileView file;
  /// The first element, aligned to its size; the others follow in row-major order. A tensor that is unaligned or in
  /// another order in its file was copied.
  [[nodiscard]] const std::byte* data() const { return file.bytes().data() + offset; }
  [[nodiscard]] int64_t elements() const;
};

/// Tensors by name.
using TensorMap = std::map<std::string, TensorEntry, std::less<>>;

/// Tensors that a file or an index names and that cannot be read, with the reason ("is stored as F4, ...").
using UnreadTensors = std::map<std::string, std::string, std::less<>>;

/// True if type, shape and bytes agree.
bool same_values(const TensorEntry& a, const TensorEntry& b);

/// True if the offset of the first element is a multiple of its size, as data() promises.
bool is_aligned(const TensorEntry& entry);

/// Copies the bytes of `entry` out of its file if they are unaligned. Old writers began the data anywhere (GPT-2's
/// safetensors header has an odd length).
void align(TensorEntry& entry);

/// All tensors of a checkpoint: of one file, or of the shards of an index. A file is safetensors, or the zip archive
/// with a pickle that torch.save writes; its first bytes decide.
class Checkpoint {
 public:
  /// `folder` holds model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json,
  /// or exactly one other *.safetensors that is neither an adapter nor consolidated*.safetensors; the first of these
  /// counts, as in transformers. Of an index only the names of the shards count: all tensors of all shards are read,
  /// and if two have the same name, the tensor of the later shard counts. Every field is validated (see
  /// read_safetensors and read_pytorch). Throws Error naming file and tensor.
  static Checkpoint open(const std::filesystem::path& folder);
  static Checkpoint from_file(FileView file);
  /// True if `folder` holds weights that open() would find.
  static bool is_in(const std::filesystem::path& folder);

  [[nodiscard]] const TensorMap& tensors() const { return tensors_; }
  /// nullptr if there is no such tensor.
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  /// Tensors that are named and cannot be read. A model that needs none of them still loads.
  [[nodiscard]] const UnreadTensors& unread() const { return unread_; }
  /// The same checkpoint with the tensors that `name_of` names, under the new names; "" drops a tensor. If several
  /// tensors get the same name, the first one by its old name stays, as in transformers, and a warning says so if their
  /// values differ.
  [[nodiscard]] Checkpoint renamed(const std::function<std::string(std::string_view)>& name_of) const;
  /// The same checkpoint with `tensors` added; they replace tensors of the same names.
  [[nodiscard]] Checkpoint with(const TensorMap& tensors) const;
  /// SHA-256 in hex. For one file it is the file's hash; for several files it is the hash of their hashes in hex, in
  /// name order, so that files can be read at the same time. Reads everything and releases the pages again.
  [[nodiscard]] std::string sha256() const;

 private:
  TensorMap tensors_;
  UnreadTensors unread_;
  std::vector<FileView> files_;  // in name order
};

}  // namespace mxlm
