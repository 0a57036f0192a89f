#include "io/pytorch.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/pickle.hpp"
#include "io/zip.hpp"

namespace mxlm {
namespace {

using Archive = std::map<std::string, ZipEntry, std::less<>>;

// The first record of a zip archive, and a pickle of protocol 2 that begins with torch's magic number (LONG1, 10
// bytes).
constexpr std::string_view kZipMagic("PK\x03\x04", 4);
constexpr std::string_view kOldMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);

// Copies `tensor`, whose first element is at `first`, into row-major order. The caller has checked everything.
template <size_t Size>
std::vector<std::byte> gather(const std::byte* first, const PickledTensor& tensor, size_t bytes) {
  std::vector<std::byte> out(bytes);
  const size_t rank = tensor.shape.size();
  const int64_t row = tensor.shape.back(), step = tensor.strides.back();
  std::vector<int64_t> index(rank, 0);
  for (std::byte* to = out.data(); to != out.data() + bytes;) {
    throw_if_interrupted();
    int64_t from = 0;
    for (size_t d = 0; d + 1 < rank; ++d) from += index[d] * tensor.strides[d];
    for (int64_t i = 0; i < row; ++i, to += Size) {
      std::memcpy(to, first + static_cast<size_t>(from + i * step) * Size, Size);
    }
    for (size_t d = rank - 1; d-- > 0;) {
      if (++index[d] < tensor.shape[d]) break;
      index[d] = 0;
    }
  }
  return out;
}

class Reader {
 public:
  explicit Reader(const FileView& file)
      : file_(file), archive_(read_zip(file)), root_(find_root()), copies_left_(file.bytes().size()) {}

  TensorMap read() {
    const auto order = text("byteorder");
    if (order && *order != "little") {
      fail("{} was written in the byte order {}, and only little is supported; save it again on a common machine.",
           name(), quote(*order));
    }
    for (const auto& tensor : read_state_dict(*text("data.pkl"), file_.name())) add(tensor);
    return std::move(tensors_);
  }

 private:
  [[nodiscard]] std::string name() const { return quote(file_.name()); }

  template <typename... Args>
  [[noreturn]] void fail_tensor(const PickledTensor& tensor, fmt::format_string<Args...> text, Args&&... args) const {
    fail("Tensor {} in {} {}; get the file again.", quote(tensor.name), name(),
         fmt::format(text, std::forward<Args>(args)...));
  }

  // The one folder of the archive, with its slash; torch names it after the file or "archive".
  [[nodiscard]] std::string find_root() const {
    constexpr std::string_view kPickle = "/data.pkl";
    std::string found;
    for (const auto& [entry, place] : archive_) {
      if (!entry.ends_with(kPickle) || entry.find('/') != entry.size() - kPickle.size()) continue;
      if (!found.empty()) fail("{} holds two pickles {}; get the file again.", name(), quote("data.pkl"));
      found = entry.substr(0, entry.size() - kPickle.size() + 1);
    }
    if (found.empty()) {
      fail("{} is a zip archive without data.pkl, so torch.save did not write it; name another checkpoint.", name());
    }
    if (archive_.contains(found + "constants.pkl")) {
      fail("{} is a TorchScript program, not a state dict; save model.state_dict() with torch.save.", name());
    }
    return found;
  }

  [[nodiscard]] const ZipEntry* entry(const std::string& path) const {
    const auto found = archive_.find(root_ + path);
    if (found == archive_.end()) return nullptr;
    if (found->second.compressed) {
      fail("The file {} in {} is compressed, so its content cannot be mapped; write the archive again with torch.save.",
           quote(path), name());
    }
    return &found->second;
  }

  [[nodiscard]] std::optional<std::string_view> text(const std::string& path) const {
    const ZipEntry* place = entry(path);
    if (place == nullptr) return std::nullopt;
    return file_.text().substr(place->offset, place->size);
  }

  void add(const PickledTensor& tensor) {
    const ZipEntry* storage = entry("data/" + tensor.storage);
    if (storage == nullptr) fail_tensor(tensor, "has the storage {}, which is missing", quote(tensor.storage));
    if (std::cmp_not_equal(storage->size, tensor.storage_bytes)) {
      fail_tensor(tensor, "has a storage of {} bytes where the pickle says {}", storage->size, tensor.storage_bytes);
    }
    TensorEntry out;
    out.type = tensor.type;
    out.shape = tensor.shape;
    out.file = file_;
    const size_t element = dtype_size(tensor.type);
    int64_t bytes = static_cast<int64_t>(element);
    for (const int64_t extent : tensor.shape) {
      if (extent < 0) fail_tensor(tensor, "has a negative extent");
      if (__builtin_mul_overflow(bytes, extent, &bytes)) fail_tensor(tensor, "has a shape whose size overflows");
    }
    out.size = static_cast<size_t>(bytes);
    if (tensor.offset < 0) fail_tensor(tensor, "begins before its storage");
    out.offset = storage->offset;
    if (out.size != 0) {
      check_reach(tensor, static_cast<int64_t>(storage->size / element));
      out.offset += static_cast<size_t>(tensor.offset) * element;
      place(tensor, out, storage->size);
    }
    tensors_.emplace(tensor.name, std::move(out));
  }

  // The last element must lie inside the storage of `count` elements.
  void check_reach(const PickledTensor& tensor, int64_t count) const {
    int64_t last = tensor.offset;
    for (size_t d = 0; d < tensor.shape.size(); ++d) {
      int64_t step = 0;
      if (tensor.strides[d] < 0) fail_tensor(tensor, "has a negative stride");
      if (__builtin_mul_overflow(tensor.shape[d] - 1, tensor.strides[d], &step) ||
          __builtin_add_overflow(last, step, &last)) {
        fail_tensor(tensor, "has strides that overflow");
      }
    }
    if (last >= count) fail_tensor(tensor, "reaches element {} of a storage of {}", last, count);
  }

  [[nodiscard]] static bool is_contiguous(const PickledTensor& tensor) {
    int64_t expected = 1;
    for (size_t d = tensor.shape.size(); d-- > 0;) {
      if (tensor.shape[d] != 1 && tensor.strides[d] != expected) return false;
      expected *= tensor.shape[d];
    }
    return true;
  }

  void place(const PickledTensor& tensor, TensorEntry& out, size_t storage_size) {
    const bool contiguous = is_contiguous(tensor);
    if (contiguous && is_aligned(out)) return;
    // Tensors may share a storage, so without these two limits a small file could ask for much memory.
    if (out.size > storage_size) {
      fail_tensor(tensor, "repeats elements of its storage (an expanded tensor), which is not supported");
    }
    if (out.size > copies_left_) fail_tensor(tensor, "is one of more views of a storage than can be copied");
    copies_left_ -= out.size;
    if (contiguous) return align(out);
    std::vector<std::byte> copy;
    switch (dtype_size(tensor.type)) {
      case 8:
        copy = gather<8>(out.data(), tensor, out.size);
        break;
      case 4:
        copy = gather<4>(out.data(), tensor, out.size);
        break;
      case 2:
        copy = gather<2>(out.data(), tensor, out.size);
        break;
      default:
        copy = gather<1>(out.data(), tensor, out.size);
    }
    file_.release(out.offset, storage_size);
    out.file = FileView::from_owned(file_.name(), std::move(copy));
    out.offset = 0;
  }

  const FileView& file_;
  Archive archive_;
  std::string root_;
  size_t copies_left_;
  TensorMap tensors_;
};

}  // namespace

bool looks_like_pytorch(const FileView& file) {
  return file.text().starts_with(kZipMagic) || file.text().starts_with(kOldMagic);
}

TensorMap read_pytorch(const FileView& file) {
  if (file.text().starts_with(kOldMagic)) {
    fail(
        "{} was written in the format of PyTorch before 1.6, which is not supported; load it with "
        "torch.load(..., weights_only=True) and write it again with torch.save.",
        quote(file.name()));
  }
  return Reader(file).read();
}

}  // namespace mxlm
