#include "cli/bench_gpu.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "backend/cuda/backend.hpp"
#include "base/interrupt.hpp"
#include "mx/format.hpp"

namespace mxlm::cli {
namespace {

struct Shape {
  const char* what;
  int64_t n, k;
};

// Llama-3.1-8B; projections that read the same input are one product.
constexpr Shape kShapes[] = {{"q, k, v", 6144, 4096},
                             {"o", 4096, 4096},
                             {"gate, up", 28672, 4096},
                             {"down", 4096, 14336},
                             {"head", 128256, 4096}};
constexpr int64_t kTokens = 8192;
constexpr int kCalls = 10;

/// The seconds of a call in the fastest of several series of calls, by the device's own clock.
template <typename Body>
double best_seconds(Backend& backend, Body body) {
  for (int i = 0; i < 2; ++i) body();
  double best = std::numeric_limits<double>::infinity();
  for (int r = 0; r < 5; ++r) {
    throw_if_interrupted();
    const Mark from = backend.mark();
    for (int i = 0; i < kCalls; ++i) body();
    const Mark to = backend.mark();
    best = std::min(best, backend.seconds(from, to) / kCalls);
  }
  return best;
}

/// Matrices of normally distributed numbers in host memory. All matrices share the same values.
class RandomRows {
 public:
  explicit RandomRows(int64_t largest) : values_(static_cast<size_t>(largest)) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<BFloat16> block(std::min<size_t>(values_.size(), 1048573));  // a prime, so that rows do not repeat
    for (BFloat16& x : block) x = to_bfloat16(normal(generator));
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = block[i % block.size()];
  }
  [[nodiscard]] HostMatrix matrix(int64_t rows, int64_t cols) const {
    return {.type = DType::bf16,
            .rows = rows,
            .cols = cols,
            .stride = cols,
            .data = reinterpret_cast<const std::byte*>(values_.data())};
  }

 private:
  std::vector<BFloat16> values_;
};

std::string bench_gpu(const CudaDevice& device, const RandomRows& random, nlohmann::ordered_json& json) {
  CudaOptions options;
  options.device = device.index;
  const auto backend = make_cuda_backend(options);
  json = {{"name", device.name}, {"architecture", device.architecture}, {"backend", backend->description()}};
  std::string out = fmt::format("\n{}, {}\n", device.name, backend->description());

  const Tensor x = backend->upload(random.matrix(kTokens, kTokens), DType::bf16);
  Tensor y = backend->empty(DType::bf16, kTokens, kTokens);
  constexpr auto kValues = static_cast<double>(kTokens * kTokens);
  const double copy = 4 * kValues / best_seconds(*backend, [&] { backend->copy(x, y); });
  json["copy_gbytes"] = 1e-9 * copy;
  out += fmt::format("  {:<34} {:>8.0f} GB/s\n", "copy, read plus written", 1e-9 * copy);

  out += fmt::format("\nBF16 products of {} tokens, written as BF16{:>19}\n", kTokens, "TFLOP/s");
  for (const Shape& shape : kShapes) {
    const HostMatrix source = random.matrix(shape.n, shape.k);
    const auto weight = backend->prepare(source, std::nullopt);
    backend->forget(source);
    Operand operand{.type = {.spec = std::nullopt, .storage = DType::bf16},
                    .values = backend->upload(random.matrix(kTokens, shape.k), DType::bf16)};
    Tensor product = backend->empty(DType::bf16, kTokens, shape.n);
    const double seconds = best_seconds(*backend, [&] { backend->linear(operand, *weight, {}, product); });
    const double rate = 2e-12 * static_cast<double>(kTokens) * static_cast<double>(shape.n * shape.k) / seconds;
    out += fmt::format("  {:<14} N {:>6} K {:>6} {:>26.0f}\n", shape.what, shape.n, shape.k, rate);
    json["products"].push_back({{"n", shape.n}, {"k", shape.k}, {"tokens", kTokens}, {"tflops", rate}});
  }

  out += fmt::format("\nQuantising {0} x {0} BF16 activations{1:>25} {2:>9}\n", kTokens, "GB/s", "of a copy");
  const std::vector<int64_t> window{0, kTokens};
  for (const mx::NamedElement& element : mx::kElements) {
    mx::Format format;
    format.element = element.format;
    const DType storage = mx::decodes_exactly_to_bf16(format) ? DType::bf16 : DType::f32;
    const double seconds = best_seconds(*backend, [&] {
      Operand operand{.type = {.spec = format, .storage = storage}};
      backend->operands(x, window, {&operand, 1});
    });
    const double rate = kValues * static_cast<double>(2 + dtype_size(storage)) / seconds;
    out += fmt::format("  {:<42} {:>15.0f} {:>8.0f} %\n", element.name, 1e-9 * rate, 100 * rate / copy);
    json["quantize"].push_back(
        {{"format", std::string(element.name)}, {"gbytes", 1e-9 * rate}, {"share_of_copy", rate / copy}});
  }
  return out;
}

}  // namespace

std::string bench_gpus(nlohmann::ordered_json& json) {
  const CudaDevices found = find_cuda_devices();
  json["gpus"] = nlohmann::ordered_json::array();
  if (found.devices.empty()) {
    json["no_gpu"] = found.reason;
    return fmt::format("\nNo GPU: {}\n", found.reason);
  }
  int64_t largest = kTokens * kTokens;
  for (const Shape& shape : kShapes) largest = std::max({largest, shape.n * shape.k, kTokens * shape.k});
  const RandomRows random(largest);
  std::string out;
  for (const CudaDevice& device : found.devices) {
    if (!device.supported) {
      out += fmt::format("\n{} ({}): this build has no code for this GPU\n", device.name, device.architecture);
      continue;
    }
    out += bench_gpu(device, random, json["gpus"].emplace_back());
  }
  return out;
}

}  // namespace mxlm::cli
