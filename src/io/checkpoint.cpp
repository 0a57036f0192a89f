#include "io/checkpoint.hpp"

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/parallel.hpp"
#include "base/quote.hpp"
#include "io/json.hpp"
#include "io/pytorch.hpp"
#include "io/safetensors.hpp"
#include "io/sha256.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

// name -> shard of a model.safetensors.index.json or pytorch_model.bin.index.json
std::map<std::string, std::string, std::less<>> read_index(const fs::path& path) {
  const FileView file = FileView::map(path);
  dom::parser parser;
  const dom::element root = parse_json(parser, file.text(), file.name(), "The index");
  dom::object members, weights;
  bool found = false;
  if (root.get(members) != simdjson::SUCCESS)
    fail("The index {} is not a JSON object; get it again.", quote(file.name()));
  for (const auto [key, value] : members) {
    if (key != "weight_map") continue;
    if (found) fail("The index {} has two weight_maps; get it again.", quote(file.name()));
    found = value.get(weights) == simdjson::SUCCESS;
    if (!found) break;
  }
  if (!found) fail("The index {} has no weight_map that is a JSON object; get it again.", quote(file.name()));
  std::map<std::string, std::string, std::less<>> map;
  for (const auto [name, value] : weights) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS) {
      fail("The index {} names no shard for tensor {}; get it again.", quote(file.name()), quote(name));
    }
    // A plain name keeps the index from reaching outside its folder.
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos) {
      fail("The index {} names {} as a shard, which is not a plain file name in its folder; get it again.",
           quote(file.name()), quote(shard));
    }
    if (!map.emplace(name, shard).second) {
      fail("The index {} names tensor {} twice; get it again.", quote(file.name()), quote(name));
    }
  }
  if (map.empty()) fail("The index {} names no tensors; get it again.", quote(file.name()));
  return map;
}

// The files *.safetensors of a folder.
std::vector<fs::path> list_safetensors(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::directory_iterator iterator(folder, error);
  for (; !error && iterator != fs::directory_iterator(); iterator.increment(error)) {
    if (iterator->path().extension() == ".safetensors") found.push_back(iterator->path());
  }
  if (error)
    fail("The folder {} could not be read ({}); check its permissions.", quote(folder.native()), error.message());
  return found;
}

struct Found {
  fs::path path;
  bool is_index = false;
};

// The file of a folder to begin with, as Checkpoint::open documents.
Found find_checkpoint(const fs::path& folder) {
  std::error_code error;
  const auto exists = [&](const char* name) { return fs::exists(folder / name, error); };
  if (exists("model.safetensors")) return {folder / "model.safetensors"};
  if (exists("model.safetensors.index.json")) return {folder / "model.safetensors.index.json", true};
  if (exists("pytorch_model.bin")) return {folder / "pytorch_model.bin"};
  if (exists("pytorch_model.bin.index.json")) return {folder / "pytorch_model.bin.index.json", true};
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
  // What begins like a PyTorch file would claim a longer header than safetensors may have.
  checkpoint.tensors_ = looks_like_pytorch(file) ? read_pytorch(file) : read_safetensors(file);
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
  const auto weights = read_index(index);
  std::set<std::string, std::less<>> shards;
  for (const auto& [name, shard] : weights) shards.insert(shard);
  Checkpoint checkpoint;
  std::map<std::string, Checkpoint, std::less<>> opened;
  for (const auto& shard : shards) {
    throw_if_interrupted();
    const auto& added = opened.emplace(shard, from_file(FileView::map(folder / shard))).first->second;
    checkpoint.files_.push_back(added.files_.front());
  }
  for (const auto& [name, shard] : weights) {
    auto& tensors = opened.find(shard)->second.tensors_;
    const auto tensor = tensors.find(name);
    if (tensor == tensors.end()) {
      fail("Tensor {} is missing from {}, where {} says it is; get both files again.", quote(name),
           quote((folder / shard).native()), quote(index.native()));
    }
    checkpoint.tensors_.insert(tensors.extract(tensor));
  }
  return checkpoint;
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

namespace {

std::string sha256_of(const FileView& file) {
  constexpr size_t kPiece = size_t{16} << 20;
  Sha256 hash;
  const auto bytes = file.bytes();
  for (size_t offset = 0; offset < bytes.size(); offset += kPiece) {
    throw_if_interrupted();
    const size_t size = std::min(kPiece, bytes.size() - offset);
    file.will_need(offset + size, kPiece);
    hash.update(bytes.subspan(offset, size));
    file.release(offset, size);
  }
  return hash.hex();
}

}  // namespace

std::string Checkpoint::sha256() const {
  std::vector<std::string> hashes(files_.size());
  ThreadPool pool(std::min(default_thread_count(), std::max(static_cast<int>(files_.size()), 1)));
  pool.run(static_cast<int64_t>(files_.size()), [&](int64_t i, int /*worker*/) {
    const auto index = static_cast<size_t>(i);
    hashes[index] = sha256_of(files_[index]);
  });
  if (hashes.size() == 1) return hashes.front();
  Sha256 hash;
  for (const std::string& one : hashes) hash.update(std::as_bytes(std::span(one)));
  return hash.hex();
}

}  // namespace mxlm
