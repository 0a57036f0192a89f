#include "io/safetensors.hpp"

#include <simdjson.h>

#include <algorithm>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/sha256.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

constexpr uint64_t kLongestHeader = 100'000'000;  // as in the reference library
constexpr size_t kLengthBytes = 8;
constexpr size_t kJsonDepth = 16;

// Parses JSON that came from the file `name`; `what` says which part of it. The result lives in `parser`.
dom::element parse_json(dom::parser& parser, std::string_view text, const std::string& name, const char* what) {
  dom::element root;
  // allocate() fixes the greatest depth; with too small a capacity parse() would allocate again with the default depth.
  auto error = parser.allocate(text.size() + simdjson::SIMDJSON_PADDING, kJsonDepth);
  if (error == simdjson::SUCCESS) error = parser.parse(text.data(), text.size()).get(root);
  if (error != simdjson::SUCCESS) {
    fail("{} of {} is not valid JSON ({}); get the file again.", what, quote(name), simdjson::error_message(error));
  }
  return root;
}

struct Extent {
  size_t begin, end;
  const std::string* name;
};

class HeaderReader {
 public:
  HeaderReader(const FileView& file, std::map<std::string, TensorEntry, std::less<>>& tensors)
      : file_(file), tensors_(tensors) {}

  void read() {
    const auto bytes = file_.bytes();
    if (bytes.size() < kLengthBytes) {
      fail("{} is not a safetensors file: it has {} bytes and needs at least 8; get the file again.", file_name(),
           bytes.size());
    }
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
    if (length > kLongestHeader) {
      fail(
          "{} is not a valid safetensors file: its header claims {} bytes where at most {} are allowed; get the file "
          "again.",
          file_name(), length, kLongestHeader);
    }
    if (length > bytes.size() - kLengthBytes) {
      fail("{} is truncated: its header needs {} bytes and only {} follow; get the file again.", file_name(), length,
           bytes.size() - kLengthBytes);
    }
    data_begin_ = kLengthBytes + static_cast<size_t>(length);
    data_size_ = bytes.size() - data_begin_;

    dom::parser parser;
    const auto text = file_.text().substr(kLengthBytes, static_cast<size_t>(length));
    const dom::element root = parse_json(parser, text, file_.name(), "The safetensors header");
    dom::object object;
    if (root.get(object) != simdjson::SUCCESS) {
      fail("The safetensors header of {} is not a JSON object; get the file again.", file_name());
    }
    for (const auto [key, value] : object) {
      if (key != "__metadata__") read_tensor(key, value);
    }
    check_extents();
  }

 private:
  [[nodiscard]] std::string file_name() const { return quote(file_.name()); }

  template <typename... Args>
  [[noreturn]] void fail_tensor(std::string_view tensor, fmt::format_string<Args...> text, Args&&... args) const {
    fail("Tensor {} in {} {}; get the file again.", quote(tensor), file_name(),
         fmt::format(text, std::forward<Args>(args)...));
  }

  void read_tensor(std::string_view name, const dom::element& value) {
    dom::object object;
    if (value.get(object) != simdjson::SUCCESS) fail_tensor(name, "is not described by a JSON object");
    TensorEntry entry;
    entry.file = file_;
    std::string_view type;
    dom::array shape, offsets;
    int seen_type = 0, seen_shape = 0, seen_offsets = 0;
    for (const auto [key, field] : object) {
      if (key == "dtype") {
        ++seen_type;
        if (field.get(type) != simdjson::SUCCESS) fail_tensor(name, "has a dtype that is not a string");
      } else if (key == "shape") {
        ++seen_shape;
        if (field.get(shape) != simdjson::SUCCESS) fail_tensor(name, "has a shape that is not a list");
      } else if (key == "data_offsets") {
        ++seen_offsets;
        if (field.get(offsets) != simdjson::SUCCESS) fail_tensor(name, "has data_offsets that are not a list");
      } else {
        fail_tensor(name, "has an unknown field {}", quote(key));
      }
    }
    if (seen_type != 1 || seen_shape != 1 || seen_offsets != 1) {
      fail_tensor(name, "does not have dtype, shape and data_offsets once each");
    }
    const auto known = dtype_from_name(type);
    if (!known) fail_tensor(name, "has the dtype {}, which is not supported", quote(type));
    entry.type = *known;
    read_shape(name, shape, entry);
    const auto [begin, end] = read_offsets(name, offsets);
    if (end - begin != entry.size) {
      fail_tensor(name, "spans {} bytes where its shape and dtype need {}", end - begin, entry.size);
    }
    entry.offset = data_begin_ + begin;
    const auto [place, inserted] = tensors_.emplace(name, std::move(entry));
    if (!inserted) fail_tensor(name, "is declared twice");
    extents_.push_back({begin, end, &place->first});
  }

  // Fills in shape and size.
  void read_shape(std::string_view name, const dom::array& shape, TensorEntry& entry) const {
    int64_t size = static_cast<int64_t>(dtype_size(entry.type));
    for (const dom::element element : shape) {
      int64_t extent = 0;
      if (element.get(extent) != simdjson::SUCCESS || extent < 0) {
        fail_tensor(name, "has a shape entry that is not a whole number from 0 to 2^63 - 1");
      }
      if (__builtin_mul_overflow(size, extent, &size)) fail_tensor(name, "has a shape whose size overflows");
      entry.shape.push_back(extent);
    }
    entry.size = static_cast<size_t>(size);
  }

  [[nodiscard]] std::pair<size_t, size_t> read_offsets(std::string_view name, const dom::array& offsets) const {
    std::vector<uint64_t> values;
    for (const dom::element element : offsets) {
      uint64_t value = 0;
      if (element.get(value) != simdjson::SUCCESS) fail_tensor(name, "has data_offsets that are not whole numbers");
      values.push_back(value);
      if (values.size() > 2) break;
    }
    if (values.size() != 2) fail_tensor(name, "does not have two data_offsets");
    if (values[0] > values[1]) fail_tensor(name, "ends at {} before it begins at {}", values[1], values[0]);
    if (values[1] > data_size_) {
      fail_tensor(name, "ends at byte {} of the data while the file has {} (it may be truncated)", values[1],
                  data_size_);
    }
    return {values[0], values[1]};
  }

  // Tensors must fill the data without overlap or hole, as the reference library wants it.
  void check_extents() {
    std::sort(extents_.begin(), extents_.end(),
              [](const Extent& a, const Extent& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    size_t reached = 0;
    for (const auto& extent : extents_) {
      if (extent.begin < reached) fail_tensor(*extent.name, "overlaps the tensor before it");
      if (extent.begin > reached)
        fail_tensor(*extent.name, "leaves a hole of {} bytes before it", extent.begin - reached);
      reached = extent.end;
    }
    if (reached != data_size_) {
      fail("{} has {} bytes after its last tensor; get the file again.", file_name(), data_size_ - reached);
    }
  }

  const FileView& file_;
  std::map<std::string, TensorEntry, std::less<>>& tensors_;
  std::vector<Extent> extents_;
  size_t data_begin_ = 0, data_size_ = 0;
};

// Files of old writers may begin their data anywhere (GPT-2's header has an odd length).
void align(TensorEntry& entry) {
  const auto address = reinterpret_cast<uintptr_t>(entry.data());
  if (entry.size == 0 || address % dtype_size(entry.type) == 0) return;
  std::vector<std::byte> copy(entry.data(), entry.data() + entry.size);
  entry.file.release(entry.offset, entry.size);
  entry.file = FileView::from_owned(entry.file.name(), std::move(copy));
  entry.offset = 0;
}

// name -> shard of a model.safetensors.index.json
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

// The one *.safetensors of a folder that holds neither of the usual names.
fs::path only_safetensors(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::directory_iterator iterator(folder, error);
  for (; !error && iterator != fs::directory_iterator(); iterator.increment(error)) {
    if (iterator->path().extension() == ".safetensors") found.push_back(iterator->path());
  }
  if (error)
    fail("The folder {} could not be read ({}); check its permissions.", quote(folder.native()), error.message());
  if (found.empty()) {
    fail(
        "The folder {} holds no model.safetensors, model.safetensors.index.json or other *.safetensors; name the "
        "folder "
        "of a Hugging Face checkpoint.",
        quote(folder.native()));
  }
  if (found.size() > 1) {
    fail(
        "The folder {} holds {} *.safetensors files and no model.safetensors.index.json to say how they belong "
        "together; "
        "add the index or keep one file.",
        quote(folder.native()), found.size());
  }
  return found.front();
}

}  // namespace

int64_t TensorEntry::elements() const { return static_cast<int64_t>(size / dtype_size(type)); }

Checkpoint Checkpoint::from_file(FileView file) {
  Checkpoint checkpoint;
  HeaderReader(file, checkpoint.tensors_).read();
  for (auto& [name, entry] : checkpoint.tensors_) align(entry);
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
    fail("{} is not a folder; name the folder that holds config.json and model.safetensors.", quote(folder.native()));
  }
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(single, error)) return from_file(FileView::map(single));
  if (!fs::exists(index, error)) return from_file(FileView::map(only_safetensors(folder)));

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
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      fail("Tensor {} is missing from {}, where {} says it is; get both files again.", quote(name),
           quote((folder / shard).native()), quote(index.native()));
    }
    checkpoint.tensors_.insert(tensors.extract(found));
  }
  return checkpoint;
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::string Checkpoint::sha256() const {
  constexpr size_t kPiece = size_t{16} << 20;
  Sha256 hash;
  for (const auto& file : files_) {
    const auto bytes = file.bytes();
    for (size_t offset = 0; offset < bytes.size(); offset += kPiece) {
      throw_if_interrupted();
      const size_t size = std::min(kPiece, bytes.size() - offset);
      file.will_need(offset + size, kPiece);
      hash.update(bytes.subspan(offset, size));
      file.release(offset, size);
    }
  }
  return hash.hex();
}

}  // namespace mxlm
