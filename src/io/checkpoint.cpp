#include "io/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/parallel.hpp"
#include "base/quote.hpp"
#include "io/pytorch.hpp"
#include "io/safetensors.hpp"
#include "io/sha256.hpp"
#include "io/shard_index.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

// The *.safetensors files of a folder that may hold a model under the tensor names of Hugging Face. Weights of an
// adapter and the copy with Mistral's own names are excluded.
std::vector<fs::path> list_safetensors(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::directory_iterator iterator(folder, error);
  for (; !error && iterator != fs::directory_iterator(); iterator.increment(error)) {
    const std::string name = iterator->path().filename().string();
    if (!name.ends_with(".safetensors") || name.starts_with("consolidated") || name.starts_with("adapter_")) continue;
    found.push_back(iterator->path());
  }
  if (error)
    fail("The folder {} could not be read ({}); check its permissions.", quote(folder.native()), error.message());
  return found;
}

// The order in which transformers looks for them.
constexpr std::array kNames{"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                            "pytorch_model.bin.index.json"};

struct Found {
  fs::path path;
  bool is_index = false;
};

// The file of a folder that comes first, as documented at Checkpoint::open.
Found find_checkpoint(const fs::path& folder) {
  std::error_code error;
  for (const std::string_view name : kNames) {
    if (fs::exists(folder / name, error)) return {folder / name, name.ends_with(".json")};
  }
  const auto others = list_safetensors(folder);
  if (others.size() > 1) {
    fail(
        "The folder {} holds {} *.safetensors files and no model.safetensors.index.json to say how they belong "
        "together; add the index or keep one file.",
        quote(folder.native()), others.size());
  }
  if (!others.empty()) return {others.front()};
  fail(
      "The folder {} holds no model.safetensors, pytorch_model.bin, index of either (*.index.json) or other "
      "*.safetensors; name the folder of a Hugging Face checkpoint.",
      quote(folder.native()));
}

}  // namespace

int64_t TensorEntry::elements() const { return static_cast<int64_t>(size / dtype_size(type)); }

bool same_values(const TensorEntry& a, const TensorEntry& b) {
  return a.type == b.type && a.shape == b.shape && (a.size == 0 || std::memcmp(a.data(), b.data(), a.size) == 0);
}

bool is_aligned(const TensorEntry& entry) {
  return entry.size == 0 || reinterpret_cast<uintptr_t>(entry.data()) % dtype_size(entry.type) == 0;
}

void align(TensorEntry& entry) {
  if (is_aligned(entry)) return;
  std::vector<std::byte> copy(entry.data(), entry.data() + entry.size);
  entry.file.release(entry.offset, entry.size);
  entry.file = FileView::from_owned(entry.file.name(), std::move(copy));
  entry.offset = 0;
}

Checkpoint Checkpoint::from_file(FileView file) {
  Checkpoint checkpoint;
  // A file that begins like a PyTorch file would claim a longer header than safetensors allows.
  checkpoint.tensors_ = looks_like_pytorch(file) ? read_pytorch(file) : read_safetensors(file, checkpoint.unread_);
  file.watch();
  checkpoint.files_.push_back(std::move(file));
  return checkpoint;
}

Checkpoint Checkpoint::open(const fs::path& folder) {
  std::error_code error;
  const auto status = fs::status(folder, error);
  if (!fs::exists(status)) {
    fail("The model folder {} does not exist; check the path.", quote(folder.native()));
  }
  if (!fs::is_directory(status)) {
    fail("{} is not a folder; name the folder that holds config.json and the weights.", quote(folder.native()));
  }
  const auto found = find_checkpoint(folder);
  if (!found.is_index) return from_file(FileView::map(found.path));

  const fs::path& index = found.path;
  const FileView index_file = FileView::map(index);
  const auto weights = parse_index(index_file.text(), index_file.name());
  std::set<std::string, std::less<>> shards;
  for (const auto& [name, shard] : weights) shards.insert(shard);
  Checkpoint checkpoint;
  for (const auto& shard : shards) {
    throw_if_interrupted();
    Checkpoint added = from_file(FileView::map(folder / shard));
    checkpoint.files_.push_back(added.files_.front());
    for (const auto& [name, tensor] : added.tensors_) {
      const TensorEntry* other = checkpoint.find(name);
      if (other != nullptr && !same_values(*other, tensor)) {
        log_warn("Tensor {} is in two shards of {} with different values; those of {} are taken, as transformers does.",
                 quote(name), quote(index.native()), quote(shard));
      }
      checkpoint.tensors_.insert_or_assign(name, tensor);
    }
    checkpoint.unread_.merge(added.unread_);
  }
  for (const auto& [name, shard] : weights) {
    if (checkpoint.tensors_.contains(name)) continue;
    checkpoint.unread_.emplace(
        name, fmt::format("is in no shard, though {} says that it is in {}", quote(index.native()), quote(shard)));
  }
  return checkpoint;
}

bool Checkpoint::is_in(const fs::path& folder) {
  std::error_code error;
  return std::any_of(kNames.begin(), kNames.end(),
                     [&](const char* name) { return fs::exists(folder / name, error); }) ||
         !list_safetensors(folder).empty();
}

Checkpoint Checkpoint::renamed(const std::function<std::string(std::string_view)>& name_of) const {
  Checkpoint out;
  out.files_ = files_;
  for (const auto& [name, tensor] : tensors_) {
    const std::string renamed = name_of(name);
    if (renamed.empty()) continue;
    const auto [place, inserted] = out.tensors_.emplace(renamed, tensor);
    if (!inserted && !same_values(place->second, tensor)) {
      log_warn("Tensor {} is left out: an earlier one stands for {} too, with other values", quote(name),
               quote(renamed));
    }
  }
  for (const auto& [name, reason] : unread_) {
    if (const std::string renamed = name_of(name); !renamed.empty()) out.unread_.emplace(renamed, reason);
  }
  return out;
}

Checkpoint Checkpoint::with(const TensorMap& tensors) const {
  Checkpoint out = *this;
  for (const auto& [name, tensor] : tensors) out.tensors_.insert_or_assign(name, tensor);
  return out;
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::string Checkpoint::sha256() const {
  std::vector<std::string> hashes(files_.size());
  ThreadPool pool(std::min(default_thread_count(), std::max(static_cast<int>(files_.size()), 1)));
  pool.run(static_cast<int64_t>(files_.size()), [&](int64_t i, int /*worker*/) {
    const auto index = static_cast<size_t>(i);
    hashes[index] = files_[index].sha256();
  });
  if (hashes.size() == 1) return hashes.front();
  Sha256 hash;
  for (const std::string& one : hashes) hash.update(std::as_bytes(std::span(one)));
  return hash.hex();
}

}  // namespace mxlm
