// What one GPU makes of models of true shapes with random weights, beside what NVIDIA's libraries alone reach. Prints a
// table, and writes JSON. bench/peers/gpu_forward.py measures other people's programs on the same shapes.
//
// A row is a round of windows through the engine as an evaluation runs it (tree of variants, forward pass, head with
// loss over the vocabulary), timed by the backend's own marks around whole rounds, after rounds that warm up. Weights
// stay on the device as they are multiplied with. Where several variants leave no room for that they stay as codes, and
// what the engine says that decoding them took is taken off a round's seconds, and stands beside them. --smoke runs
// tiny shapes on the CPU, to see that the program works.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/backend.hpp"
#include "base/error.hpp"
#include "engine/engine.hpp"
#include "engine/plan.hpp"
#include "engine/tree.hpp"
#include "gpu_limits.hpp"
#include "io/file.hpp"
#include "model/forward.hpp"
#include "mx/format.hpp"
#include "random_models.hpp"
#include "variants/variant.hpp"

namespace mxlm::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Settings {
  bool smoke = false;
  size_t batch = 4;
  bool limits = true;
  int repeats = 7;
  int device = 0;

  [[nodiscard]] std::unique_ptr<Backend> backend(GemmRoute route) const {
    if (smoke) return make_cpu_backend({});
    CudaOptions options;
    options.device = device;
    options.route = route;
    return make_cuda_backend(options);
  }
};

/// What the engine is given: one round of windows.
struct Work {
  const ModelSpec& model;
  DType compute = DType::bf16;
  std::vector<std::string> variants;  // "" = the baseline; the first stands where the engine has the baseline
  std::vector<Window> windows;
  size_t windows_a_batch = 0;
  KeptForm kept = KeptForm::prepared;
  int repeats = 1;
  int warm_ups = 2;
};

struct Timing {
  std::vector<double> rounds, prepare;  // seconds, one a repeat
  std::vector<double> nll;              // mean, one a variant
  int64_t positions = 0;                // of a round
  DeviceMemory memory;
  RouteCounts routes;
  std::map<std::string, int> linears;  // of the first variant, by the route of their products

  /// Seconds of forward and head, without making weights ready.
  [[nodiscard]] std::vector<double> net() const {
    std::vector<double> out;
    out.reserve(rounds.size());
    for (size_t r = 0; r < rounds.size(); ++r) out.push_back(rounds[r] - prepare[r]);
    std::sort(out.begin(), out.end());
    return out;
  }
  [[nodiscard]] double best() const { return net().front(); }
  [[nodiscard]] double median() const { return net()[rounds.size() / 2]; }
  [[nodiscard]] double best_round() const { return *std::min_element(rounds.begin(), rounds.end()); }
};

/// The one place that knows how tree, plan and engine are put together.
Timing run(Backend& backend, const Work& work) {
  std::vector<Variant> variants;
  variants.reserve(work.variants.size());
  for (const std::string& text : work.variants) variants.push_back(Variant::parse_or_baseline(text));
  const ForwardPass forward(work.model, backend, work.compute);
  const VariantTree tree = build_tree(work.model, resolve(work.model, variants));
  Plan plan;
  plan.kept = work.kept;
  plan.on_device = true;
  plan.rounds.emplace_back();
  for (size_t begin = 0; begin < work.windows.size(); begin += work.windows_a_batch) {
    plan.rounds.back().emplace_back(begin, std::min(begin + work.windows_a_batch, work.windows.size()));
  }
  const EngineJob job{.model = work.model, .tree = tree, .plan = plan, .windows = work.windows};
  Engine engine(job, backend, forward);
  Timing timing;
  for (int r = -work.warm_ups; r < work.repeats; ++r) {
    const Mark from = backend.mark();
    const RoundResult result = engine.run_round(plan.rounds.front(), [](double) {});
    const Mark to = backend.mark();
    if (r < 0) continue;
    timing.rounds.push_back(backend.seconds(from, to));
    double prepare = 0;
    for (const VariantSeconds& seconds : result.seconds) prepare += seconds.prepare;
    timing.prepare.push_back(prepare);
    timing.positions = result.positions;
    if (r + 1 < work.repeats) continue;
    for (size_t v = 0; v < work.variants.size(); ++v) {
      double sum = 0;
      int64_t count = 0;
      for (const WindowResult& window : result.windows) {
        for (const TokenScore& token : window.scores[v].tokens) {
          if (!token.finite) fail("A logit of '{}' is NaN or Inf.", work.variants[v]);
          sum += token.nll;
          ++count;
        }
      }
      timing.nll.push_back(sum / static_cast<double>(count));
    }
  }
  const auto routes = engine.routes();
  for (const auto& [module, route] : routes.front()) ++timing.linears[route];
  timing.memory = backend.device_memory();
  timing.routes = backend.route_counts();
  return timing;
}

/// Seconds that a limit says, and its parts.
struct Limit {
  std::string name;
  std::optional<double> seconds;
  Json parts = Json::object();
};

/// The table, and the JSON of a case.
class Report {
 public:
  explicit Report(std::string name) { json_["name"] = std::move(name); }

  void row(const std::string& name, const Timing& timing, const std::vector<Limit>& limits = {}) {
    const auto tokens = static_cast<double>(timing.positions);
    Json row{{"name", name},
             {"tokens", timing.positions},
             {"seconds", timing.best()},
             {"seconds_median", timing.median()},
             {"seconds_of_rounds", timing.rounds},
             {"prepare_seconds", timing.prepare},
             {"tokens_per_second", tokens / timing.best()},
             {"tokens_per_second_median", tokens / timing.median()},
             {"nll", timing.nll},
             {"peak_bytes", timing.memory.peak},
             {"linears_by_route", timing.linears}};
    if (timing.routes.products > 0) {
      row["fast_route"] = {
          {"products", timing.routes.products}, {"rows", timing.routes.rows}, {"fell_back", timing.routes.fell_back}};
    }
    std::string shares;
    for (const Limit& limit : limits) {
      Json entry{{"name", limit.name}, {"parts", limit.parts}};
      if (limit.seconds) {
        entry["seconds"] = *limit.seconds;
        entry["share"] = *limit.seconds / timing.best();
        shares += fmt::format("  {:.3f} of {}", *limit.seconds / timing.best(), limit.name);
      }
      row["limits"].push_back(entry);
    }
    fmt::print("{:<34} {:>10.0f} {:>10.0f} {:>9.2f} {:>9.2f} {:>9.4f}{}\n", name, tokens / timing.best(),
               tokens / timing.median(), 1e3 * timing.best(),
               1e3 * *std::min_element(timing.prepare.begin(), timing.prepare.end()), timing.nll.front(), shares);
    std::fflush(stdout);
    json_["rows"].push_back(row);
  }
  static void header() {
    fmt::print("{:<34} {:>10} {:>10} {:>9} {:>9} {:>9}\n", "", "tokens/s", "median", "ms", "prep. ms", "nll");
  }
  void note(const std::string& key, const std::string& what, double value) {
    json_[key] = value;
    fmt::print("  {}: {:.4f}\n", what, value);
    std::fflush(stdout);
  }
  [[nodiscard]] Json& json() { return json_; }

 private:
  Json json_;
};

std::string both(const char* format) { return fmt::format("attention={0},mlp={0}", format); }

/// What the libraries alone take for the products and the attention of a model in llama's layout; products of the
/// layers in FP8 if `sums` says how.
Limit llama_limit(GpuLimits& gpu, const LlamaShape& s, int64_t windows, int64_t length, std::optional<Fp8Sums> sums) {
  Limit limit;
  limit.name = !sums ? "BF16 limit" : *sums == Fp8Sums::fast ? "FP8 limit (fast sums)" : "FP8 limit (precise sums)";
  const int64_t m = windows * length, q = int64_t{s.heads} * s.head_dim, kv = int64_t{s.kv_heads} * s.head_dim;
  double total = 0;
  bool known = true;
  const auto add = [&](const char* what, std::optional<double> seconds, double times) {
    limit.parts[what] = seconds ? Json(*seconds) : Json();
    known = known && seconds.has_value();
    total += seconds.value_or(0) * times;
  };
  const auto product = [&](const GemmShape& shape) {
    return sums ? gpu.fp8_gemm(shape, *sums) : std::optional(gpu.bf16_gemm(shape));
  };
  const auto layers = static_cast<double>(s.layers);
  add("qkv", product({m, q + 2 * kv, s.hidden}), layers);
  add("o", product({m, s.hidden, q}), layers);
  add("gate_up", product({m, 2 * s.intermediate, s.hidden}), layers);
  add("down", product({m, s.hidden, s.intermediate}), layers);
  add("head", gpu.bf16_gemm({windows * (length - 1), s.vocabulary, s.hidden}), 1);
  add("sdpa", gpu.sdpa({windows, length, s.heads, s.kv_heads, s.head_dim}), layers);
  if (known) limit.seconds = total;
  return limit;
}

/// The same, one after the other as the model runs them.
Limit llama_limit_in_a_row(GpuLimits& gpu, const LlamaShape& s, int64_t windows, int64_t length,
                           std::optional<Fp8Sums> sums) {
  const int64_t m = windows * length, q = int64_t{s.heads} * s.head_dim, kv = int64_t{s.kv_heads} * s.head_dim;
  Limit limit;
  limit.name = sums ? "FP8 in a row" : "BF16 in a row";
  limit.seconds = gpu.forward({.layers = static_cast<int>(s.layers),
                               .layer = {{m, q + 2 * kv, s.hidden},
                                         {m, s.hidden, q},
                                         {m, 2 * s.intermediate, s.hidden},
                                         {m, s.hidden, s.intermediate}},
                               .attention = {windows, length, s.heads, s.kv_heads, s.head_dim},
                               .head = {windows * (length - 1), s.vocabulary, s.hidden}},
                              sums);
  return limit;
}

LlamaShape tiny(LlamaShape shape) {
  shape.layers = 2;
  shape.hidden = 64;
  shape.intermediate = 128;
  shape.vocabulary = 500;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_dim = 16;
  return shape;
}
PlainShape tiny(PlainShape shape) {
  shape.layers = 2;
  shape.hidden = 64;
  shape.vocabulary = 500;
  shape.heads = 4;
  return shape;
}

/// Enough for the largest matrix twice over; weights of all layers overlap in it.
int64_t shared_elements(int64_t vocabulary, int64_t hidden) {
  return 2 * std::max({vocabulary, 4 * hidden, int64_t{2048}}) * hidden;
}

Json run_llama8b(const Settings& settings) {
  const LlamaShape shape = settings.smoke ? tiny(kLlama8B) : kLlama8B;
  const size_t count = 4, length = settings.smoke ? 32 : 2048;
  RandomWeights weights(DType::bf16, shared_elements(shape.vocabulary, shape.hidden));
  const ModelSpec model = llama_model(weights, shape);
  const std::vector<Window> windows = random_windows(count, length, shape.vocabulary);
  Report report("llama8b");
  fmt::print("\nLlama-3.1-8B shape, {} x {}, bfloat16, weights resident\n", count, length);
  Report::header();
  std::vector<Limit> bf16, fp8;
  if (!settings.smoke && settings.limits) {
    GpuLimits gpu;
    bf16.push_back(llama_limit(gpu, shape, count, length, std::nullopt));
    bf16.push_back(llama_limit_in_a_row(gpu, shape, count, length, std::nullopt));
    fp8.push_back(llama_limit(gpu, shape, count, length, Fp8Sums::precise));
    fp8.push_back(llama_limit_in_a_row(gpu, shape, count, length, Fp8Sums::precise));
    std::vector<Limit> all = bf16;
    all.insert(all.end(), fp8.begin(), fp8.end());
    report.json()["limits"] = Json::array();
    for (const Limit& limit : all) {
      report.json()["limits"].push_back(
          {{"name", limit.name}, {"seconds", limit.seconds ? Json(*limit.seconds) : Json()}, {"parts", limit.parts}});
    }
  }
  const auto time = [&](Backend& backend, const std::string& variant) {
    return run(backend, {.model = model,
                         .variants = {variant},
                         .windows = windows,
                         .windows_a_batch = settings.batch,
                         .repeats = settings.repeats});
  };
  {
    const auto backend = settings.backend(GemmRoute::exact);
    report.row("baseline", time(*backend, ""), bf16);
  }
  {
    const auto backend = settings.backend(GemmRoute::exact);
    report.row("mxfp8 exact", time(*backend, both("mxfp8")), bf16);
  }
  for (const char* format : {"mxfp4", "mxfp6", "mxfp8"}) {
    const auto backend = settings.backend(GemmRoute::fast);
    report.row(fmt::format("{} fast", format), time(*backend, both(format)), fp8);
  }
  return report.json();
}

Json run_llama8b_variants(const Settings& settings) {
  const LlamaShape shape = settings.smoke ? tiny(kLlama8B) : kLlama8B;
  const size_t count = 4, length = settings.smoke ? 32 : 2048;
  RandomWeights weights(DType::bf16, shared_elements(shape.vocabulary, shape.hidden));
  const ModelSpec model = llama_model(weights, shape);
  const std::vector<Window> windows = random_windows(count, length, shape.vocabulary);
  const std::vector<std::string> variants{"", both("mxfp8"), both("mxfp6"), both("mxfp4"), both("mxint8")};
  Report report("llama8b-variants");
  fmt::print("\nLlama-3.1-8B shape, baseline and 4 variants, {} x {}, bfloat16\n", count, length);
  Report::header();
  const int repeats = std::max(3, settings.repeats / 2);
  const auto time = [&](const std::vector<std::string>& which) {
    const auto backend = settings.backend(GemmRoute::exact);
    return run(*backend, {.model = model,
                          .variants = which,
                          .windows = windows,
                          .windows_a_batch = count,
                          .kept = KeptForm::codes,
                          .repeats = repeats});
  };
  double sum = 0, sum_of_rounds = 0;
  for (const std::string& variant : variants) {
    const Timing one = time({variant});
    report.row(variant.empty() ? "baseline alone" : variant + " alone", one);
    sum += one.best();
    sum_of_rounds += one.best_round();
  }
  const Timing together = time(variants);
  report.row("all in one run", together);
  report.note("against_sum", "one run / sum of the single forwards", together.best() / sum);
  report.note("rounds_against_sum", "the same with making weights ready", together.best_round() / sum_of_rounds);
  return report.json();
}

/// A float32 model, 8 x 512: baseline, and MXFP8 in attention and MLP.
Json run_float32(const Settings& settings, const char* name, const ModelSpec& model) {
  const size_t count = 8, length = settings.smoke ? 32 : 512;
  const std::vector<Window> windows = random_windows(count, length, model.vocabulary);
  Report report(name);
  fmt::print("\n{} shape, {} x {}, float32\n", name, count, length);
  Report::header();
  const auto backend = settings.backend(GemmRoute::exact);
  for (const std::string& variant : {std::string(), both("mxfp8")}) {
    report.row(variant.empty() ? "baseline" : "mxfp8 exact", run(*backend, {.model = model,
                                                                            .compute = DType::f32,
                                                                            .variants = {variant},
                                                                            .windows = windows,
                                                                            .windows_a_batch = count,
                                                                            .repeats = 2 * settings.repeats}));
  }
  return report.json();
}

Json run_phi(const Settings& settings) {
  const PlainShape shape = settings.smoke ? tiny(kPhi15) : kPhi15;
  RandomWeights weights(DType::f32, shared_elements(shape.vocabulary, shape.hidden));
  return run_float32(settings, "phi", phi_model(weights, shape));
}

Json run_tinystories(const Settings& settings) {
  const PlainShape shape = settings.smoke ? tiny(kTinyStories33M) : kTinyStories33M;
  RandomWeights weights(DType::f32, shared_elements(shape.vocabulary, shape.hidden));
  return run_float32(settings, "tinystories", gpt_neo_model(weights, shape));
}

/// All layers streamed from host memory against its own resident speed, which two numbers of layers that fit say:
/// seconds of all = those of the larger one + the missing layers' at what a layer more took.
Json run_mixtral(const Settings& settings) {
  LlamaShape shape = settings.smoke ? tiny(kMixtral8x7B) : kMixtral8x7B;
  const size_t length = settings.smoke ? 32 : 2048, batch = 4;
  const size_t count = settings.smoke ? 8 : 32;  // 65536 tokens
  const int64_t few = settings.smoke ? 1 : 4, more = settings.smoke ? 2 : 8;
  if (settings.smoke) shape.layers = 4;
  const int64_t of_layer =
      int64_t{shape.experts} * 3 * shape.hidden * shape.intermediate + 4 * shape.hidden * shape.hidden;
  // Weights of `few` layers with addresses of their own, far more than any cache holds; further ones overlap them.
  RandomWeights weights(DType::bf16, few * of_layer + 4 * shape.vocabulary * shape.hidden);
  const std::vector<Window> windows = random_windows(count, length, shape.vocabulary);
  Report report("mixtral");
  fmt::print("\nMixtral-8x7B shape, rounds of {} x {}, bfloat16\n", count, length);
  Report::header();
  const int repeats = std::min(settings.repeats, 3);
  const auto time = [&](int64_t layers, bool resident) {
    LlamaShape part = shape;
    part.layers = layers;
    const ModelSpec model = llama_model(weights, part);
    const auto backend = settings.backend(GemmRoute::exact);
    return run(*backend, {.model = model,
                          .variants = {""},
                          .windows = windows,
                          .windows_a_batch = batch,
                          .kept = resident ? KeptForm::prepared : KeptForm::nothing,
                          .repeats = resident ? repeats : std::min(repeats, 2),
                          .warm_ups = 1});
  };
  const Timing few_resident = time(few, true);
  report.row(fmt::format("{} layers resident", few), few_resident);
  const Timing more_resident = time(more, true);
  report.row(fmt::format("{} layers resident", more), more_resident);
  const Timing streamed = time(shape.layers, false);
  report.row(fmt::format("{} layers streamed", shape.layers), streamed);
  // Whole rounds: what a stream keeps a round waiting may count as making weights ready.
  const double layer = (more_resident.best_round() - few_resident.best_round()) / static_cast<double>(more - few);
  const double resident = more_resident.best_round() + static_cast<double>(shape.layers - more) * layer;
  report.json()["resident_seconds"] = resident;
  report.json()["streamed_seconds"] = streamed.best_round();
  report.json()["tokens_per_second_streamed"] = static_cast<double>(streamed.positions) / streamed.best_round();
  report.note("of_resident", "streamed speed / resident speed", resident / streamed.best_round());
  return report.json();
}

/// Operands of a bfloat16 tensor in every format, as a share of the bandwidth of a copy of the same tensor.
Json run_quantize(const Settings& settings) {
  const int64_t size = settings.smoke ? 64 : 8192;
  RandomWeights weights(DType::bf16, 2 * size * size);
  const auto backend = settings.backend(GemmRoute::exact);
  const Tensor x = backend->upload(weights.matrix(size, size).matrix, DType::bf16);
  const std::vector<int64_t> windows{0, size};
  const int calls = settings.smoke ? 1 : 20;
  const auto time = [&](const auto& call) {
    double best = std::numeric_limits<double>::infinity();
    call();
    for (int r = 0; r < settings.repeats; ++r) {
      const Mark from = backend->mark();
      for (int c = 0; c < calls; ++c) call();
      const Mark to = backend->mark();
      best = std::min(best, backend->seconds(from, to) / calls);
    }
    return best;
  };
  Tensor copy = backend->empty(DType::bf16, size, size);
  const auto values = static_cast<double>(size) * static_cast<double>(size);
  const double own_copy = 4 * values / time([&] { backend->copy(x, copy); });
  double bandwidth = own_copy;
  if (!settings.smoke) bandwidth = std::max(bandwidth, GpuLimits().copy_bandwidth());
  Json json{{"name", "quantize"},
            {"rows", size},
            {"cols", size},
            {"copy_bytes_per_second", bandwidth},
            {"backend_copy_bytes_per_second", own_copy}};
  fmt::print("\nOperands of a bfloat16 tensor of {0} x {0}; a copy moves {1:.0f} GB/s\n", size, 1e-9 * bandwidth);
  for (const mx::NamedElement& element : mx::kElements) {
    mx::Format format;
    format.element = element.format;
    // As a product of a bfloat16 model asks for it.
    const DType storage = mx::decodes_exactly_to_bf16(format) ? DType::bf16 : DType::f32;
    const double seconds = time([&] {
      Operand out{.type = {.spec = format, .storage = storage}};
      backend->operands(x, windows, {&out, 1});
    });
    const double bytes = values * static_cast<double>(2 + dtype_size(storage));
    const std::string name(element.name);
    fmt::print("{:<34} {:>8.0f} GB/s {:>9.1f} us  {:.3f} of a copy\n", name, 1e-9 * bytes / seconds, 1e6 * seconds,
               bytes / seconds / bandwidth);
    json["formats"].push_back({{"format", name},
                               {"seconds", seconds},
                               {"bytes_per_second", bytes / seconds},
                               {"share_of_copy", bytes / seconds / bandwidth}});
  }
  return json;
}

struct Case {
  const char* name;
  Json (*run)(const Settings&);
};
constexpr Case kCases[] = {
    {"quantize", run_quantize}, {"llama8b", run_llama8b},         {"llama8b-variants", run_llama8b_variants},
    {"phi", run_phi},           {"tinystories", run_tinystories}, {"mixtral", run_mixtral}};

int main_of(int argc, char** argv) {
  CLI::App app("Speed of a GPU on models of true shapes with random weights, beside the limits of NVIDIA's libraries");
  Settings settings;
  std::vector<std::string> names;
  std::string json_path;
  std::vector<std::string> known;
  for (const Case& c : kCases) known.emplace_back(c.name);
  app.add_option("cases", names, "Which cases (all)")->check(CLI::IsMember(known));
  app.add_option("--repeats", settings.repeats, "Timed rounds")->check(CLI::Range(1, 1000));
  app.add_option("--device", settings.device, "Index of the GPU");
  app.add_option("--json", json_path, "Write the figures here");
  app.add_option("--batch", settings.batch, "Windows a micro-batch in the cases of llama8b (all)")
      ->check(CLI::Range(1, 4));
  app.add_flag("!--no-limits", settings.limits, "Do not measure the libraries' limits");
  app.add_flag("--smoke", settings.smoke, "Tiny shapes on the CPU, to see that this program works");
  CLI11_PARSE(app, argc, argv);
  if (names.empty()) names = known;

  Json json{{"schema", "mxlm.gpu-bench/1"}};
  if (settings.smoke) {
    json["device"] = "cpu";
  } else {
    const CudaDevices found = find_cuda_devices();
    if (static_cast<size_t>(settings.device) >= found.devices.size()) {
      fail("There is no GPU {}: {}.", settings.device,
           found.reason.empty() ? fmt::format("there are {}", found.devices.size()) : found.reason);
    }
    const CudaDevice& device = found.devices[static_cast<size_t>(settings.device)];
    json["device"] = device.name;
    json["architecture"] = device.architecture;
    json["memory_bytes"] = device.memory_bytes;
    fmt::print("{}, {}, {} GB\n", device.name, device.architecture, device.memory_bytes >> 30);
  }
  json["backend"] = settings.backend(GemmRoute::exact)->description();
  int failed = 0;
  for (const Case& c : kCases) {
    if (std::find(names.begin(), names.end(), c.name) == names.end()) continue;
    // A case that fails leaves the others their turn.
    try {
      json["cases"].push_back(c.run(settings));
    } catch (const Error& error) {
      ++failed;
      fmt::print("{}: {}\n", c.name, error.what());
      json["cases"].push_back({{"name", c.name}, {"error", error.what()}});
    }
    std::fflush(stdout);
    if (!json_path.empty()) write_file(json_path, json.dump(1) + "\n");
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace mxlm::bench

int main(int argc, char** argv) {
  try {
    return mxlm::bench::main_of(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "gpu_bench: {}\n", error.what());
    return 1;
  }
}
