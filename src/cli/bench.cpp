#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/peaks.hpp"
#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/parallel.hpp"
#include "base/system.hpp"
#include "cli/bench_gpu.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "io/file.hpp"
#include "mx/format.hpp"

namespace mxlm::cli {
namespace {

struct BenchArguments {
  std::string json;
  int threads = 0;
};

struct Shape {
  const char* what;
  int64_t n, k;
};

// The Linears of SmolLM2-135M, and three Linears of Llama-3.1-8B.
constexpr Shape kShapes[] = {{"q, o", 576, 576},      {"k, v", 192, 576},      {"gate, up", 1536, 576},
                             {"down", 576, 1536},     {"8B q, o", 4096, 4096}, {"8B gate, up", 14336, 4096},
                             {"8B down", 4096, 14336}};
constexpr int64_t kTokens = 2048;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// The seconds of the fastest of several calls, which together take about a quarter of a second.
template <typename Body>
double best_seconds(Body body) {
  body();
  double best = 1e30;
  const double until = now() + 0.25;
  do {
    throw_if_interrupted();
    const double start = now();
    body();
    best = std::min(best, now() - start);
  } while (now() < until);
  return best;
}

/// Normally distributed numbers as bfloat16.
std::vector<BFloat16> random_values(int64_t count) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> block(std::min<int64_t>(count, 1 << 20)), out(static_cast<size_t>(count));
  for (BFloat16& x : block) x = to_bfloat16(normal(generator));
  for (size_t i = 0; i < out.size(); ++i) out[i] = block[(i * 7) % block.size()];
  return out;
}

HostMatrix matrix(const std::vector<BFloat16>& values, int64_t rows, int64_t cols) {
  return {.type = DType::bf16,
          .rows = rows,
          .cols = cols,
          .stride = cols,
          .data = reinterpret_cast<const std::byte*>(values.data())};
}

double memcpy_gigabytes(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{1} << 28;  // per thread
  const auto threads = static_cast<size_t>(pool.threads());
  std::vector<char> from(kBytes * threads, 1), to(kBytes * threads, 2);
  const double seconds = best_seconds([&] {
    pool.run(static_cast<int64_t>(threads), [&](int64_t t, int) {
      std::memcpy(to.data() + static_cast<size_t>(t) * kBytes, from.data() + static_cast<size_t>(t) * kBytes, kBytes);
    });
  });
  return 2e-9 * static_cast<double>(kBytes * threads) / seconds;
}

void run_bench(const BenchArguments& arguments) {
  const int threads = arguments.threads > 0 ? arguments.threads : default_thread_count();
  nlohmann::ordered_json json = {{"schema", "mxlm.bench/1"}, {"cpu", cpu_name()}, {"threads", threads}};
  const auto backend = make_cpu_backend({.threads = threads, .isa = std::nullopt, .order = cpu::Order::forward});
  ThreadPool pool(threads);
  const cpu::Peaks peaks = cpu::measure_peaks(pool);
  const double copy = memcpy_gigabytes(pool);
  std::string out =
      fmt::format("{}, {} threads, {}\n\nPeaks, all threads\n", cpu_name(), threads, backend->description());
  const auto peak = [&](const char* what, const char* key, double value, const char* unit) {
    json["peaks"][key] = value;
    if (value > 0) out += fmt::format("  {:<34} {:>8.0f} {}\n", what, value, unit);
  };
  peak("float32 multiply-add", "f32_gflops", peaks.f32, "GFLOP/s");
  peak("vdpbf16ps", "bf16_vector_gflops", peaks.bf16_vector, "GFLOP/s");
  peak("AMX BF16", "amx_gflops", peaks.amx, "GFLOP/s");
  peak("memcpy, in plus out", "memcpy_gbytes", copy, "GB/s");
  const bool amx = backend->description().find("amx") != std::string::npos && peaks.amx > 0;
  // The peak of the instruction that the products use. Without AVX-512 no peak is measured.
  const double limit = amx ? peaks.amx : peaks.bf16_vector > 0 ? peaks.bf16_vector : peaks.f32;

  out += fmt::format("\nBF16 products of {} tokens, written as BF16{:>19} {:>12}\n", kTokens, "GFLOP/s", "of the peak");
  for (const Shape& shape : kShapes) {
    const auto weights = random_values(shape.n * shape.k);
    const auto inputs = random_values(kTokens * shape.k);
    const auto weight = backend->prepare(matrix(weights, shape.n, shape.k), std::nullopt);
    Operand x{.type = {.spec = std::nullopt, .storage = DType::bf16},
              .values = backend->upload(matrix(inputs, kTokens, shape.k), DType::bf16)};
    Tensor y = backend->empty(DType::bf16, kTokens, shape.n);
    const double seconds = best_seconds([&] { backend->linear(x, *weight, {}, y); });
    const double rate = 2e-9 * static_cast<double>(kTokens) * static_cast<double>(shape.n * shape.k) / seconds;
    out += fmt::format("  {:<14} N {:>6} K {:>6} {:>26.0f} {:>12}\n", shape.what, shape.n, shape.k, rate,
                       limit > 0 ? fmt::format("{:.0f} %", 100 * rate / limit) : "-");
    json["products"].push_back(
        {{"n", shape.n},
         {"k", shape.k},
         {"tokens", kTokens},
         {"gflops", rate},
         {"share", limit > 0 ? nlohmann::ordered_json(rate / limit) : nlohmann::ordered_json()}});
  }

  out += fmt::format("\nPreparing a weight of 4096 x 4096 from BF16{:>26}\n", "10^9 values/s");
  const auto source = random_values(int64_t{4096} * 4096);
  const auto prepare = [&](const std::string& name, const OperandSpec& spec) {
    const double seconds = best_seconds([&] { backend->prepare(matrix(source, 4096, 4096), spec); });
    const double rate = 4096e-9 * 4096 / seconds;
    out += fmt::format("  {:<42} {:>24.2f}\n", name, rate);
    json["prepare"].push_back({{"format", name}, {"gvalues_per_second", rate}});
  };
  prepare("none", std::nullopt);
  for (const auto& element : mx::kElements) {
    mx::Format format;
    format.element = element.format;
    prepare(std::string(element.name), format);
  }
  out += bench_gpus(json);
  if (arguments.json != "-") print_result(out);
  if (!arguments.json.empty()) write_file(arguments.json, json.dump(2) + "\n");
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command =
      app.add_subcommand("bench", "This machine's peaks and the kernels' share of them, on CPU and GPUs");
  command->add_option("--threads", arguments->threads, "Threads")->check(CLI::Range(1, 4096));
  command->add_option("--json", arguments->json, "Write the figures as JSON here ('-' is stdout, without the table)")
      ->type_name("FILE");
  command->footer("Example: mxlm bench --threads 1");
  command->callback([arguments] { run_bench(*arguments); });
}

}  // namespace mxlm::cli
