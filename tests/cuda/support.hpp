#pragma once

// Operations of the GPU beside those of the CPU on the same inputs. Without a GPU these tests are skipped.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/backend.hpp"

namespace mxlm::cuda_test {

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    const CudaDevices found = find_cuda_devices();
    if (found.devices.empty()) GTEST_SKIP() << "no GPU: " << found.reason;
  }
  static std::string architecture() { return find_cuda_devices().devices.at(0).architecture; }  // "sm_90"
  /// Made at the first use; one of each a process.
  static Backend& gpu() {
    static const auto backend = make_cuda_backend({});
    return *backend;
  }
  static Backend& cpu() {
    static const auto backend = make_cpu_backend({.threads = 4, .isa = std::nullopt, .order = cpu::Order::forward});
    return *backend;
  }
};

/// Normal numbers times `scale`; with `special`, also zeros of both signs, subnormals, huge values, NaN and Inf, about
/// one in a hundred each.
inline std::vector<float> random_values(size_t count, uint32_t seed, float scale = 1, bool special = false) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, scale);
  std::uniform_int_distribution<int> which(0, 99);
  std::vector<float> out(count);
  for (float& x : out) {
    x = normal(engine);
    if (!special) continue;
    switch (which(engine)) {
      case 0:
        x = 0;
        break;
      case 1:
        x = -0.0F;
        break;
      case 2:
        x = 1e-40F;
        break;
      case 3:
        x = -3e38F;
        break;
      case 4:
        x = 1e-20F * x;
        break;
      case 5:
        x = std::ldexp(std::round(x * 4), -3);
        break;  // ties
      case 6:
        x = count > 2000 && which(engine) == 0 ? NAN : x;
        break;
      case 7:
        x = count > 2000 && which(engine) == 0 ? INFINITY : x;
        break;
      default:
        break;
    }
  }
  return out;
}

inline std::vector<BFloat16> to_bf16(const std::vector<float>& values) {
  std::vector<BFloat16> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = to_bfloat16(values[i]);
  return out;
}

inline HostMatrix matrix(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {.type = DType::f32,
          .rows = rows,
          .cols = cols,
          .stride = cols,
          .data = reinterpret_cast<const std::byte*>(values.data())};
}
inline HostMatrix matrix(const std::vector<BFloat16>& values, int64_t rows, int64_t cols) {
  return {.type = DType::bf16,
          .rows = rows,
          .cols = cols,
          .stride = cols,
          .data = reinterpret_cast<const std::byte*>(values.data())};
}

inline std::vector<float> values_of(Backend& backend, const Tensor& t) {
  std::vector<float> out(static_cast<size_t>(t.rows() * t.cols()));
  backend.download(t, out);
  return out;
}

/// How many values differ in their bits (NaNs are all alike).
inline size_t different(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::max(a.size(), b.size());
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0 ? 1 : 0;
  }
  return count;
}

/// sqrt(sum (a - b)^2 / sum b^2).
inline double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace mxlm::cuda_test
