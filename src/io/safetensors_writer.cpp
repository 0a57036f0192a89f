#include <cassert>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/output_file.hpp"
#include "io/safetensors.hpp"

namespace mxlm {

struct SafetensorsWriter::State {
  OutputFile file;
  size_t expected = 0;  // bytes of tensor data still to come
  explicit State(std::filesystem::path path) : file(std::move(path)) {}
};

namespace {

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, const std::vector<Declared>& tensors) {
  const std::string name = path.string();
  std::string header = "{";
  std::set<std::string_view> names;
  size_t offset = 0;
  for (const auto& tensor : tensors) {
    if (!names.insert(tensor.name).second || tensor.name == "__metadata__") {
      fail("{} cannot hold two tensors of one name, {}; rename one of them.", quote(name), quote(tensor.name));
    }
    size_t size = dtype_size(tensor.type);
    if (header.size() > 1) header += ',';
    append_json_string(header, tensor.name);
    header += fmt::format(R"(:{{"dtype":"{}","shape":[)", dtype_name(tensor.type));
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      assert(tensor.shape[i] >= 0);
      size *= static_cast<size_t>(tensor.shape[i]);
      header += fmt::format("{}{}", i == 0 ? "" : ",", tensor.shape[i]);
    }
    header += fmt::format(R"(],"data_offsets":[{},{}]}})", offset, offset + size);
    offset += size;
  }
  header += '}';
  // Spaces up to a multiple of eight keep the data aligned.
  header.resize((header.size() + 7) / 8 * 8, ' ');

  state_ = std::make_unique<State>(std::move(path));
  state_->expected = offset;
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(header.size() >> (8 * i) & 0xff);
  state_->file.write(std::as_bytes(std::span(length)));
  state_->file.write(std::as_bytes(std::span(header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  assert(bytes.size() <= state_->expected);
  state_->expected -= bytes.size();
  state_->file.write(bytes);
}

void SafetensorsWriter::finish() {
  assert(state_->expected == 0);
  state_->file.commit();
}

}  // namespace mxlm
