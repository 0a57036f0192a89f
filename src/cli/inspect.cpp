#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/memory.hpp"
#include "base/parallel.hpp"
#include "base/quote.hpp"
#include "cli/commands.hpp"
#include "cli/option_rows.hpp"
#include "cli/options.hpp"
#include "devices/device_rates.hpp"
#include "engine/plan.hpp"
#include "io/file.hpp"
#include "report/error_words.hpp"
#include "report/exponents.hpp"
#include "report/text_layout.hpp"
#include "run/options.hpp"
#include "run/results.hpp"
#include "variants/resolve.hpp"

namespace mxlm::cli {
namespace {

struct InspectArguments {
  std::string model, adapter, json;
  api::EvaluateOptions options;
  bool exponents = false;
};

std::string megabytes(uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::string rope_text(const RopeSpec& rope) {
  std::string theta = fmt::format("rotary on {} dimensions of a head, theta {}", rope.dim, rope.theta);
  const auto scaling = [&](const char* name) {
    return fmt::format("{}, {} scaling by {:.6g} of {} positions", theta, name, rope.factor,
                       rope.original_max_positions);
  };
  switch (rope.type) {
    case RopeSpec::Type::standard:
      return theta;
    case RopeSpec::Type::linear:
      return fmt::format("{}, linear scaling by {}", theta, rope.factor);
    case RopeSpec::Type::dynamic:
      return scaling("dynamic");
    case RopeSpec::Type::llama3:
      return scaling("llama3");
    case RopeSpec::Type::longrope:
      return scaling("longrope");
    case RopeSpec::Type::yarn:
      return scaling("yarn");
  }
  return "?";
}

std::string describe_model(const LoadedModel& loaded, DType compute) {
  const ModelSpec& model = loaded.spec;
  std::string out;
  out += fmt::format("{}: {}, {} parameters, stored as {}, computed in {}\n", printable_text(loaded.name), model.family,
                     model.parameters(), dtype_name(model.dtype), compute == DType::f32 ? "float32" : "bfloat16");
  out += fmt::format("  {} layers, hidden {}, {} heads of {} ({} key/value), vocabulary {}, {} positions\n",
                     model.layers.size(), model.hidden, model.heads, model.head_dim, model.kv_heads, model.vocabulary,
                     model.max_positions);
  for (const RopeSpec& rope : model.ropes) out += fmt::format("  {}\n", rope_text(rope));
  if (model.positions) out += fmt::format("  a table of {} learned positions\n", model.max_positions);
  if (!model.alibi_slopes.empty()) out += "  ALiBi\n";
  const MlpSpec& mlp = model.layers.back().mlp;
  if (mlp.is_mixture()) {
    out += fmt::format("  {} experts, {} of them for each token\n", mlp.experts.size(), mlp.routing.top_k);
  }
  const auto windowed = std::count_if(model.layers.begin(), model.layers.end(),
                                      [](const LayerSpec& layer) { return layer.attention.sliding_window > 0; });
  if (windowed > 0) out += fmt::format("  {} layers with a sliding window\n", windowed);
  out += fmt::format("  {} head\n", model.tied_head ? "tied" : "free");
  return out;
}

/// A table of all Linears, with the product spec that each variant gives to the Linear.
std::string describe_linears(const ModelSpec& model, const std::vector<Variant>& variants,
                             const std::vector<ResolvedVariant>& resolved) {
  std::string out = fmt::format("\n{:<44} {:<10} {:>14}", "Linear", "role", "outputs x inputs");
  for (size_t v = 0; v < variants.size(); ++v) out += fmt::format("  [{}]", v + 1);
  out += "\n";
  const std::vector<const LinearSpec*> linears = model.linears();
  for (size_t l = 0; l < linears.size(); ++l) {
    out += fmt::format("{:<44} {:<10} {:>16}", linears[l]->module, role_name(linears[l]->role),
                       fmt::format("{} x {}", linears[l]->outputs(), linears[l]->inputs()));
    for (const ResolvedVariant& variant : resolved) {
      const ProductSpec& product = variant.linear(l);
      out += fmt::format("  {}", product.replaced() ? to_text(product) : "-");
    }
    out += "\n";
  }
  out += "Routers, norms, embeddings and element-wise operations are never replaced.\n";
  for (size_t v = 0; v < variants.size(); ++v) {
    out += fmt::format("[{}] {}{}\n", v + 1, variants[v].canonical(),
                       resolved[v].arithmetic == Arithmetic::bf16_rounded ? " (these round to bfloat16)" : "");
  }
  return out;
}

std::string kept_text(const Plan& plan) {
  switch (plan.kept) {
    case KeptForm::nothing:
      return plan.on_device ? "streamed: read once a shard" : "read once a shard";
    case KeptForm::codes:
      return plan.on_device ? "resident: kept between shards as codes" : "kept between shards";
    case KeptForm::prepared:
      return "resident: kept between shards as products read them";
  }
  return "?";
}

/// The measured rates of the device, and the number of tokens that hides the transfer of weights.
std::string describe_streaming(const Plan& plan, Backend& backend) {
  const DeviceRates rates = measure_rates(backend);
  return fmt::format(
      "Measured: weights come at {:.1f} GB/s, BF16 products run at {:.0f} TFLOP/s. Streaming the {} of weights hides\n"
      "behind the arithmetic from shards of {} tokens on.\n",
      rates.bytes_per_second / 1e9, rates.flops_per_second / 1e12, megabytes(plan.source_bytes),
      tokens_to_hide_transfer(plan, rates));
}

/// Prints histograms of the weights of all Linears, without anything else.
void inspect_exponents(const LoadedModel& loaded, const InspectArguments& arguments) {
  ThreadPool pool(default_thread_count());
  std::vector<LinearExponents> linears;
  for (const LinearSpec* linear : loaded.spec.linears()) {
    std::vector<std::byte> storage;
    linears.push_back({.tensor = linear->module + ".weight",
                       .role = std::string(role_name(linear->role)),
                       .weight = matrix_exponents(linear->weight.view(storage), pool),
                       .activation = std::nullopt});
    linear->weight.release();
  }
  if (arguments.json != "-") print_result(render_exponents(linears));
  if (arguments.json.empty()) return;
  const nlohmann::ordered_json out = {{"schema", "mxlm.exponents/1"},
                                      {"version", MXLM_VERSION},
                                      {"model", loaded.name},
                                      {"exponents", exponents_json(linears)}};
  write_file(arguments.json, out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void run_inspect(const InspectArguments& arguments) {
  if (!arguments.json.empty() && !arguments.exponents) fail_usage("--json needs --exponents; add it.");
  const LoadedModel loaded = load_model_by_name(arguments.model, /*with_tokenizer=*/false, arguments.adapter);
  if (arguments.exponents) return inspect_exponents(loaded, arguments);
  const api::EvaluateOptions& options = arguments.options;
  const ModelSpec& model = loaded.spec;
  const DType compute = compute_dtype(model, options.dtype);
  std::vector<Variant> variants;
  variants.reserve(options.variants.size());
  for (const std::string& text : options.variants) variants.push_back(Variant::parse(text));
  std::vector<ResolvedVariant> resolved = resolve(model, variants);
  std::string out = describe_model(loaded, compute) + describe_linears(model, variants, resolved);

  const DeviceSet devices = api::choose_devices(options);
  const auto backend = devices.make_backend(0);
  resolved.insert(resolved.begin(), resolve(model, Variant::baseline()));
  const VariantTree tree = build_tree(model, resolved);
  const int64_t context = options.context > 0 ? options.context : std::min<int64_t>(model.max_positions, 2048);
  Window window;
  window.tokens.assign(static_cast<size_t>(context), 0);
  const std::vector<Window> windows(static_cast<size_t>(options.max_windows), window);
  const Plan plan = make_plan(model, compute, tree, windows,
                              {.batch_windows = options.batch_size,
                               .keep = options.stream ? KeepWeights::never : KeepWeights::automatic,
                               .memory_limit = memory_budget_bytes(),
                               .memory_in_use = resident_memory_bytes(),
                               .device_limit = devices.worker_limit(),
                               .workers = devices.workers()});
  out += fmt::format("\nMemory plan for {} windows of {} tokens, {} variant{} beside the baseline, on {}:\n",
                     options.max_windows, context, variants.size(), variants.size() == 1 ? "" : "s",
                     backend->description());
  out += fmt::format("  {} shard{} of up to {} micro-batches; weights are {}\n", plan.rounds.size(),
                     plan.rounds.size() == 1 ? "" : "s", plan.rounds.empty() ? 0 : plan.rounds.front().size(),
                     kept_text(plan));
  const auto line = [&out](const char* what, uint64_t bytes) {
    out += fmt::format("  {:<28} {:>12}\n", what, megabytes(bytes));
  };
  if (!plan.on_device) line("the program before the run", plan.base);
  if (plan.resident()) line("kept weights", plan.kept_weights);
  line("weights of one step", plan.step_weights);
  line("head", plan.head_weights);
  line(plan.on_device ? "weights on their way" : "a step's weights in files", plan.staging);
  line("hidden states of a shard", plan.hidden_states);
  line("scratch of a micro-batch", plan.scratch);
  if (!plan.on_device) line("scores", plan.scores);
  line("in all", plan.total());
  line("limit", plan.limit);
  if (plan.on_device) {
    line("scores, in host memory", plan.scores);
    out += describe_streaming(plan, *backend);
  }
  if (!variants.empty()) out += wrapped(power_forecast(options.max_windows * (context - 1)));
  print_result(out);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  InspectArguments& a = *arguments;
  CLI::App* command = app.add_subcommand(
      "inspect", "A model's sizes, every Linear and what a variant would replace, and the memory plan");
  add_model(*command, a.model, a.adapter);
  a.options.variants.clear();
  a.options.device = "cpu";
  a.options.max_windows = 16;
  for (const char* name : {"variants", "dtype", "device", "context", "max_windows", "batch_size", "stream"}) {
    add_option(*command, a.options, api::option_row(name));
  }
  command->get_option("--device")
      ->description("Plan for cpu, or for a GPU (auto, cuda, cuda:1) and measure what it reads");
  command->get_option("--max-windows")->description("Windows of the plan")->check(CLI::Range(1, 1 << 20));
  command->add_flag("--exponents", a.exponents, "Histograms of the weights' exponents instead");
  command->add_option("--json", a.json, "Write the histograms as JSON here ('-' is stdout, without the bars)")
      ->type_name("FILE");
  command->footer("Example: mxlm inspect ./SmolLM2-135M --mx mlp=mxfp4,attention=mxfp8");
  command->callback([arguments] { run_inspect(*arguments); });
}

}  // namespace mxlm::cli
