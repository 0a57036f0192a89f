#include "engine/quantization_error.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

#include "backend/cpu/compare.hpp"
#include "backend/cpu/quantize.hpp"
#include "backend/cpu/rows.hpp"
#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "mx/quantize.hpp"

namespace mxlm {
namespace {

constexpr int64_t kRowsPerTask = 16;

/// Calls body(row index, row as float32) for every row, in parallel.
template <typename Body>
void for_each_row(const HostMatrix& matrix, ThreadPool& pool, const Body& body) {
  const cpu::Isa isa = cpu::detect_isa();
  const auto size = static_cast<int64_t>(dtype_size(matrix.type));
  const int64_t tasks = (matrix.rows + kRowsPerTask - 1) / kRowsPerTask;
  pool.run(tasks, [&](int64_t task, int /*worker*/) {
    std::vector<float> row(static_cast<size_t>(matrix.cols));
    for (int64_t r = task * kRowsPerTask; r < std::min((task + 1) * kRowsPerTask, matrix.rows); ++r) {
      throw_if_interrupted();
      cpu::convert_row(isa, matrix.type, matrix.data + r * matrix.stride * size, DType::f32, row.data(), matrix.cols);
      body(r, std::span<const float>(row));
    }
  });
}

}  // namespace

QuantizationError& QuantizationError::operator+=(const QuantizationError& more) {
  sums += more.sums;
  elements += more.elements;
  blocks = blocks && more.blocks;
  saturated += more.saturated;
  flushed += more.flushed;
  subnormal += more.subnormal;
  rows += more.rows;
  spread_sum += more.spread_sum;
  spread_max = std::max(spread_max, more.spread_max);
  return *this;
}

QuantizationError row_error(const mx::Format& format, std::span<const float> row) {
  assert(format.scaling == mx::Scaling::block);
  const cpu::Isa isa = cpu::detect_isa();
  const auto n = static_cast<int64_t>(row.size());
  thread_local std::vector<float> decoded;
  decoded.resize(row.size());
  cpu::quantize_decode_row(isa, format, row.data(), n, decoded.data());

  QuantizationError out;
  out.sums = cpu::compare_row(isa, row.data(), decoded.data(), n);
  out.elements = n;
  const bool floating = format.element.kind == mx::ElementKind::floating;
  const int64_t block = format.block_size == 0 ? n : format.block_size;
  int smallest = mx::kNanExponent, largest = -mx::kNanExponent;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t length = std::min(block, n - begin);
    const float* x = row.data() + begin;
    const float* q = decoded.data() + begin;
    const uint32_t amax = mx::block_max(x, length);
    if (amax == 0) continue;
    const int e = format.scaling == mx::Scaling::none ? 0 : mx::block_exponent(format, x, length);
    if (e == mx::kNanExponent) continue;
    smallest = std::min(smallest, e);
    largest = std::max(largest, e);
    const auto limit = static_cast<float>(std::ldexp(static_cast<double>(format.element.max), e));
    const auto normal = floating ? static_cast<float>(std::ldexp(1.0, e + format.element.emin)) : 0.0F;
    int32_t saturated = 0, flushed = 0, subnormal = 0;
    for (int64_t i = 0; i < length; ++i) {
      const float before = std::abs(x[i]), after = std::abs(q[i]);
      saturated += before > limit ? 1 : 0;
      flushed += before > 0 && after == 0 ? 1 : 0;
      subnormal += after > 0 && after < normal ? 1 : 0;
    }
    out.saturated += saturated;
    out.flushed += flushed;
    out.subnormal += subnormal;
  }
  if (smallest <= largest) {
    out.rows = 1;
    out.spread_sum = out.spread_max = largest - smallest;
  }
  return out;
}

QuantizationError decoded_row_error(std::span<const float> row, std::span<const float> decoded) {
  QuantizationError out;
  out.blocks = false;
  out.elements = static_cast<int64_t>(row.size());
  out.sums = cpu::compare_row(cpu::detect_isa(), row.data(), decoded.data(), out.elements);
  for (size_t i = 0; i < row.size(); ++i) out.flushed += row[i] != 0 && decoded[i] == 0 ? 1 : 0;
  return out;
}

QuantizationError matrix_error(const mx::Format& format, const HostMatrix& matrix, ThreadPool& pool) {
  std::vector<QuantizationError> rows(static_cast<size_t>(matrix.rows));
  for_each_row(matrix, pool,
               [&](int64_t r, std::span<const float> row) { rows[static_cast<size_t>(r)] = row_error(format, row); });
  QuantizationError out;
  for (const QuantizationError& row : rows) out += row;
  return out;
}

void ExponentHistogram::add(std::span<const float> values) {
  for (const float value : values) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(value) & 0x7fffffffU;
    if (magnitude == 0) {
      ++zeros_;
    } else if (magnitude >= 0x7f800000U) {
      ++nonfinite_;
    } else {
      const auto field = static_cast<int>(magnitude >> 23);
      const int exponent = field > 0 ? field - 127 : kSmallest - 1 + static_cast<int>(std::bit_width(magnitude));
      ++counts_[static_cast<size_t>(exponent - kSmallest)];
    }
  }
}

ExponentHistogram& ExponentHistogram::operator+=(const ExponentHistogram& more) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += more.counts_[i];
  zeros_ += more.zeros_;
  nonfinite_ += more.nonfinite_;
  return *this;
}

int ExponentHistogram::first() const {
  const auto found = std::find_if(counts_.begin(), counts_.end(), [](int64_t c) { return c > 0; });
  return found == counts_.end() ? 0 : kSmallest + static_cast<int>(found - counts_.begin());
}

std::vector<int64_t> ExponentHistogram::counts() const {
  const auto some = [](int64_t c) { return c > 0; };
  const auto begin = std::find_if(counts_.begin(), counts_.end(), some);
  const auto end = std::find_if(counts_.rbegin(), std::make_reverse_iterator(begin), some).base();
  return {begin, end};
}

ExponentHistogram matrix_exponents(const HostMatrix& matrix, ThreadPool& pool) {
  constexpr int64_t rows_per_part = 256;
  const auto size = static_cast<int64_t>(dtype_size(matrix.type));
  std::vector<ExponentHistogram> parts(static_cast<size_t>((matrix.rows + rows_per_part - 1) / rows_per_part));
  const cpu::Isa isa = cpu::detect_isa();
  pool.run(static_cast<int64_t>(parts.size()), [&](int64_t part, int /*worker*/) {
    throw_if_interrupted();
    std::vector<float> row(static_cast<size_t>(matrix.cols));
    for (int64_t r = part * rows_per_part; r < std::min((part + 1) * rows_per_part, matrix.rows); ++r) {
      cpu::convert_row(isa, matrix.type, matrix.data + r * matrix.stride * size, DType::f32, row.data(), matrix.cols);
      parts[static_cast<size_t>(part)].add(row);
    }
  });
  ExponentHistogram out;
  for (const ExponentHistogram& part : parts) out += part;
  return out;
}

}  // namespace mxlm
