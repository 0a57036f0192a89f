#pragma once

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

/// Where a tensor lies in a mapped file; the fields have been checked against the file.
struct TensorEntry {
  DType type = DType::f32;
  std::vector<int64_t> shape;
  size_t offset = 0;  // from the start of `file`
  size_t size = 0;    // bytes; elements() x dtype_size(type)
  FileView file;
  /// The first element, aligned to its size, the others after it in row-major order (a tensor that lies unaligned or in
  /// another order in its file has been copied out of it).
  [[nodiscard]] const std::byte* data() const { return file.bytes().data() + offset; }
  [[nodiscard]] int64_t elements() const;
};

/// Tensors by name.
using TensorMap = std::map<std::string, TensorEntry, std::less<>>;

/// Tensors that a file or an index names and that cannot be read, with the reason ("is stored as F4, ...").
using UnreadTensors = std::map<std::string, std::string, std::less<>>;

/// True if type, shape and bytes agree.
bool same_values(const TensorEntry& a, const TensorEntry& b);

/// True if the first element lies at a multiple of its size, as data() promises.
bool is_aligned(const TensorEntry& entry);

/// Copies the bytes of `entry` out of its file if they are not aligned: files of old writers may begin their data
/// anywhere (GPT-2's safetensors header has an odd length).
void align(TensorEntry& entry);

/// All tensors of a checkpoint: one file, or the shards of an index. A file is safetensors, or the zip archive with a
/// pickle that torch.save writes; which of them, its first bytes say.
class Checkpoint {
 public:
  /// `folder` holds, in order of preference (that of transformers), model.safetensors, model.safetensors.index.json,
  /// pytorch_model.bin, pytorch_model.bin.index.json or exactly one other *.safetensors that is no adapter and no
  /// consolidated*.safetensors. Of an index only the names of the shards count, as in transformers: all tensors of all
  /// shards are taken, and of two with one name that of the later shard. Every field is validated (see read_safetensors
  /// and read_pytorch); throws Error naming file and tensor.
  static Checkpoint open(const std::filesystem::path& folder);
  static Checkpoint from_file(FileView file);
  /// True if `folder` holds weights that open() begins with.
  static bool is_in(const std::filesystem::path& folder);

  [[nodiscard]] const TensorMap& tensors() const { return tensors_; }
  /// nullptr if there is no such tensor.
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  /// Tensors that are named and cannot be read; a model that needs none of them loads.
  [[nodiscard]] const UnreadTensors& unread() const { return unread_; }
  /// The same checkpoint with the tensors that `name_of` names, under those names; "" leaves a tensor out. Of several
  /// with one new name the first by its old name stays, as in transformers; others with other values cause a warning.
  [[nodiscard]] Checkpoint renamed(const std::function<std::string(std::string_view)>& name_of) const;
  /// The same checkpoint with `tensors` added, or in place of those of their names.
  [[nodiscard]] Checkpoint with(const TensorMap& tensors) const;
  /// SHA-256, hex, of the one file; of several files that of their hashes in hex, in name order, one after the other,
  /// so that they can be read at the same time. Reads everything; pages read for it are released again.
  [[nodiscard]] std::string sha256() const;

 private:
  TensorMap tensors_;
  UnreadTensors unread_;
  std::vector<FileView> files_;  // in name order
};

}  // namespace mxlm
