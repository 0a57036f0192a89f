// The operations of the CPU backend that a mixture of experts needs beside products.

#include <cassert>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/routing.hpp"

namespace mxlm {

Routing CpuBackend::choose_experts(const Tensor& logits, const RoutingArgs& args) {
  assert(args.top_k >= 1 && args.top_k <= logits.cols());
  Routing routing = empty_routing(logits.rows(), args);
  const int64_t experts = logits.cols();
  for_rows(logits.rows(), 64 * experts, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(experts));
    Router router(args, logits.dtype());
    for (int64_t r = begin; r < end; ++r) {
      const auto* from = static_cast<const std::byte*>(logits.data()) +
                         r * logits.stride() * static_cast<int64_t>(dtype_size(logits.dtype()));
      cpu::convert_row(isa_, logits.dtype(), from, DType::f32, row.data(), experts);
      router.choose(row, r, routing);
    }
  });
  return routing;
}

void CpuBackend::accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                            Tensor& sum) {
  assert(static_cast<int64_t>(rows.size()) == y.rows() && weights.size() == rows.size());
  assert(sum.dtype() == DType::f32 && sum.cols() == y.cols());
  const auto run = [&]<typename T>(T*) {
    for_rows(y.rows(), y.cols() * static_cast<int64_t>(sizeof(T) + 8), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t row = rows[static_cast<size_t>(i)];
        assert(row >= 0 && row < sum.rows());
        cpu::accumulate_row(isa_, y.row<T>(i), weights[static_cast<size_t>(i)], y.cols(), sum.row<float>(row));
      }
    });
  };
  y.dtype() == DType::bf16 ? run(static_cast<BFloat16*>(nullptr)) : run(static_cast<float*>(nullptr));
}

void CpuBackend::zero(Tensor& x) {
  const auto size = static_cast<int64_t>(dtype_size(x.dtype()));
  auto* data = static_cast<std::byte*>(x.data());
  for_rows(x.rows(), x.cols() * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memset(data + r * x.stride() * size, 0, static_cast<size_t>(x.cols() * size));
    }
  });
}

}  // namespace mxlm
