#pragma once

// Matrices: buffers that a backend owns, and views of host memory.

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/dtype.hpp"

namespace mxlm {

/// A matrix of rows x cols elements, rows `stride` elements apart. The backend that made it owns the memory, and only
/// that backend may follow `data()`. Movable, not copyable.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType type, int64_t rows, int64_t cols, int64_t stride, std::shared_ptr<void> memory)
      : type_(type), rows_(rows), cols_(cols), stride_(stride), memory_(std::move(memory)) {}
  Tensor(Tensor&&) noexcept = default;
  Tensor& operator=(Tensor&&) noexcept = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() = default;

  [[nodiscard]] DType dtype() const { return type_; }
  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t cols() const { return cols_; }
  [[nodiscard]] int64_t stride() const { return stride_; }
  [[nodiscard]] size_t bytes() const { return static_cast<size_t>(rows_ * stride_) * dtype_size(type_); }
  [[nodiscard]] bool empty() const { return memory_ == nullptr; }
  [[nodiscard]] void* data() { return memory_.get(); }
  [[nodiscard]] const void* data() const { return memory_.get(); }
  template <typename T>
  [[nodiscard]] T* row(int64_t i) {
    return static_cast<T*>(data()) + i * stride_;
  }
  template <typename T>
  [[nodiscard]] const T* row(int64_t i) const {
    return static_cast<const T*>(data()) + i * stride_;
  }

  /// Rows [begin, begin + rows), columns [first, first + cols) of the same memory.
  [[nodiscard]] Tensor view(int64_t begin, int64_t rows, int64_t first, int64_t cols) const {
    assert(begin >= 0 && rows >= 0 && begin + rows <= rows_ && first >= 0 && cols >= 0 && first + cols <= cols_);
    auto* data = static_cast<std::byte*>(memory_.get()) + (begin * stride_ + first) * dtype_size(type_);
    return {type_, rows, cols, stride_, std::shared_ptr<void>(memory_, data)};
  }
  [[nodiscard]] Tensor columns(int64_t first, int64_t cols) const { return view(0, rows_, first, cols); }

 private:
  DType type_ = DType::f32;
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  std::shared_ptr<void> memory_;
};

/// A matrix [rows, cols] in host memory with another owner (a mapped checkpoint), rows `stride` elements apart.
struct HostMatrix {
  DType type = DType::f32;  // f32, bf16 or f16
  int64_t rows = 0, cols = 0, stride = 0;
  const std::byte* data = nullptr;
};

/// A host matrix in bfloat16: the source itself if it is bfloat16, else its values rounded to nearest, ties to even.
class RoundedMatrix {
 public:
  explicit RoundedMatrix(const HostMatrix& source);
  RoundedMatrix(const RoundedMatrix&) = delete;
  RoundedMatrix& operator=(const RoundedMatrix&) = delete;
  [[nodiscard]] const HostMatrix& view() const { return view_; }

 private:
  std::vector<BFloat16> values_;
  HostMatrix view_;
};

}  // namespace mxlm
