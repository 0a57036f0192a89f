// Embeddings: what is looked up on the host, whose memory holds the table, and what goes to the device.

#include "backend/cuda/embed.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"
#include "base/error.hpp"

namespace mxlm {
namespace cuda {
namespace {

/// The rows of `table` that occur in `tokens`, each once, packed; `index` becomes each token's row among them.
std::vector<std::byte> distinct_rows(const HostMatrix& table, const std::vector<int32_t>& tokens,
                                     std::vector<int32_t>& index) {
  std::vector<int32_t> distinct(tokens);
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  index.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    index[i] = static_cast<int32_t>(std::lower_bound(distinct.begin(), distinct.end(), tokens[i]) - distinct.begin());
  }
  const size_t element = dtype_size(table.type);
  const size_t bytes = static_cast<size_t>(table.cols) * element;
  std::vector<std::byte> packed(distinct.size() * bytes);
  for (size_t i = 0; i < distinct.size(); ++i) {
    std::memcpy(packed.data() + i * bytes,
                table.data + static_cast<size_t>(distinct[i]) * static_cast<size_t>(table.stride) * element, bytes);
  }
  return packed;
}

}  // namespace
}  // namespace cuda

void CudaBackend::embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
                        int64_t position_offset, Tensor& hidden) {
  assert(hidden.rows() == batch.rows() && hidden.cols() == table.cols);
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= table.rows) {
      fail("Token id {} is outside the model's vocabulary of {}; use the tokenizer that belongs to the model.", token,
           table.rows);
    }
  }
  std::vector<int32_t> position;  // of each token in its window
  int64_t longest = 0;
  if (positions != nullptr) {
    assert(positions->cols == table.cols);
    for (int64_t w = 0; w < batch.windows(); ++w) {
      const int64_t length = batch.offsets[static_cast<size_t>(w) + 1] - batch.offsets[static_cast<size_t>(w)];
      if (length + position_offset > positions->rows) {
        fail("A window of {} tokens is longer than the {} positions that the model knows; use shorter windows.", length,
             positions->rows - position_offset);
      }
      longest = std::max(longest, length);
      for (int64_t i = 0; i < length; ++i) position.push_back(static_cast<int32_t>(i));
    }
  }
  if (hidden.rows() == 0) return;

  Tensor brought;  // rows of the table, where it is not on the device
  cuda::View words;
  std::shared_ptr<int32_t> tokens;
  if (const auto resident = resident_table(table)) {
    words = *resident;
    tokens = to_device(std::span<const int32_t>(batch.tokens));
  } else {
    std::vector<int32_t> index;
    const std::vector<std::byte> packed = cuda::distinct_rows(table, batch.tokens, index);
    const auto count = static_cast<int64_t>(packed.size() / dtype_size(table.type)) / table.cols;
    brought =
        upload({.type = table.type, .rows = count, .cols = table.cols, .stride = table.cols, .data = packed.data()},
               hidden.dtype());
    words = cuda::view(brought);
    tokens = to_device(std::span<const int32_t>(index));
  }
  Tensor learned;
  std::shared_ptr<int32_t> places;
  if (positions != nullptr) {
    const auto skipped = static_cast<size_t>(position_offset * positions->stride) * dtype_size(positions->type);
    learned = upload({.type = positions->type,
                      .rows = longest,
                      .cols = positions->cols,
                      .stride = positions->stride,
                      .data = positions->data + skipped},
                     hidden.dtype());
    places = to_device(std::span<const int32_t>(position));
  }
  cuda::embed_rows(words, tokens.get(), multiplier, cuda::view(learned), places.get(), cuda::view(hidden), stream());
}

}  // namespace mxlm
