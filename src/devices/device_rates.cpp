#include "devices/device_rates.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace mxlm {
namespace {

constexpr int kRepeats = 4;  // the first run only warms up

template <typename Body>
double least_seconds(Backend& backend, const Body& body) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRepeats; ++i) {
    const Mark from = backend.mark();
    body();
    const double took = backend.seconds(from, backend.mark());
    if (i > 0) least = std::min(least, took);
  }
  return std::max(least, std::numeric_limits<double>::min());
}

}  // namespace

DeviceRates measure_rates(Backend& backend, int64_t size, uint64_t bytes) {
  const int64_t cols = size;
  const int64_t rows = std::max(size, static_cast<int64_t>(bytes / sizeof(BFloat16)) / cols);
  std::vector<BFloat16> values(static_cast<size_t>(rows * cols));
  // The values have similar sizes and varied bits, because a device draws less power on zeros and runs faster.
  uint32_t state = 1;
  for (BFloat16& value : values) {
    constexpr uint32_t kFactor = 1664525, kStep = 1013904223, kOne = 0x3f80, kMantissa = 0x807f;
    state = state * kFactor + kStep;
    value.bits = static_cast<uint16_t>(kOne ^ ((state >> 16) & kMantissa));
  }
  const auto matrix = [&](int64_t n) {
    return HostMatrix{.type = DType::bf16,
                      .rows = n,
                      .cols = cols,
                      .stride = cols,
                      .data = reinterpret_cast<const std::byte*>(values.data())};
  };
  DeviceRates rates;
  const HostMatrix source = matrix(rows);
  const double transfer = least_seconds(backend, [&] {
    backend.prepare(source, std::nullopt);
    backend.forget(source);
  });
  rates.bytes_per_second = static_cast<double>(values.size() * sizeof(BFloat16)) / transfer;

  const auto weight = backend.prepare(matrix(size), std::nullopt);
  const Operand x{.type = {.spec = std::nullopt, .storage = DType::bf16},
                  .values = backend.upload(matrix(size), DType::bf16)};
  Tensor y = backend.empty(DType::bf16, size, size);
  const double product = least_seconds(backend, [&] { backend.linear(x, *weight, {}, y); });
  rates.flops_per_second = 2.0 * std::pow(static_cast<double>(size), 3) / product;
  return rates;
}

int64_t tokens_to_hide_transfer(const Plan& plan, const DeviceRates& rates) {
  if (plan.flops_a_token <= 0) return 0;
  const double transfer = static_cast<double>(plan.source_bytes) / rates.bytes_per_second;
  return static_cast<int64_t>(std::ceil(transfer * rates.flops_per_second / plan.flops_a_token));
}

}  // namespace mxlm
