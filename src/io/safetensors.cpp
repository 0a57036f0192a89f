#include "io/safetensors.hpp"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

namespace dom = simdjson::dom;

constexpr uint64_t kLongestHeader = 100'000'000;  // as in the reference library
constexpr size_t kLengthBytes = 8;

struct Extent {
  size_t begin, end;
  const std::string* name;
};

class HeaderReader {
 public:
  HeaderReader(const FileView& file, TensorMap& tensors, UnreadTensors& unread)
      : file_(file), tensors_(tensors), unread_(unread) {}

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
    const auto [begin, end] = read_offsets(name, offsets);
    if (tensors_.contains(name) || unread_.contains(name)) fail_tensor(name, "is declared twice");
    const auto known = dtype_from_name(type);
    if (!known) {
      const auto place =
          unread_.emplace(name, fmt::format("is stored as {}, which is not supported", quote(type))).first;
      extents_.push_back({begin, end, &place->first});
      return;
    }
    entry.type = *known;
    read_shape(name, shape, entry);
    if (end - begin != entry.size) {
      fail_tensor(name, "spans {} bytes where its shape and dtype need {}", end - begin, entry.size);
    }
    entry.offset = data_begin_ + begin;
    const auto place = tensors_.emplace(name, std::move(entry)).first;
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

  // Tensors must fill the data without overlaps or holes, as the reference library demands.
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
  TensorMap& tensors_;
  UnreadTensors& unread_;
  std::vector<Extent> extents_;
  size_t data_begin_ = 0, data_size_ = 0;
};

}  // namespace

TensorMap read_safetensors(const FileView& file, UnreadTensors& unread) {
  TensorMap tensors;
  HeaderReader(file, tensors, unread).read();
  for (auto& [name, entry] : tensors) align(entry);
  return tensors;
}

}  // namespace mxlm
