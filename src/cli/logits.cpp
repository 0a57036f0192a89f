#include <simdjson.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/prototype_options.hpp"
#include "eval/evaluate.hpp"
#include "eval/weight_store.hpp"
#include "io/safetensors.hpp"

namespace mxlm::cli {
namespace {

struct LogitsArguments {
  std::string model, adapter, tokens, out, variant, dtype = "auto", device = "auto", gemm = "exact";
  bool hidden = false;
  int64_t batch_size = 0;
  int threads = 0;
};

/// A JSON list of lists of token ids, all of one length.
std::vector<std::vector<int32_t>> read_windows(const std::string& path) {
  const FileView file = FileView::map(path);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::dom::array rows;
  if (parser.parse(file.text().data(), file.text().size()).get(root) != simdjson::SUCCESS ||
      root.get(rows) != simdjson::SUCCESS) {
    fail("'{}' holds no JSON list; give a list of lists of token ids, as [[1, 2, 3], [4, 5, 6]].", path);
  }
  std::vector<std::vector<int32_t>> windows;
  for (const simdjson::dom::element row : rows) {
    simdjson::dom::array ids;
    if (row.get(ids) != simdjson::SUCCESS) {
      fail("'{}': entry {} is not a list; give a list of lists of token ids.", path, windows.size());
    }
    auto& window = windows.emplace_back();
    for (const simdjson::dom::element id : ids) {
      int64_t value = 0;
      if (id.get(value) != simdjson::SUCCESS || value < 0 || value > INT32_MAX) {
        fail("'{}': entry {} of window {} is not a token id.", path, window.size(), windows.size() - 1);
      }
      window.push_back(static_cast<int32_t>(value));
    }
    if (window.size() != windows.front().size()) {
      fail("'{}': window {} has {} tokens and window 0 has {}; windows must be of equal length.", path,
           windows.size() - 1, window.size(), windows.front().size());
    }
  }
  if (windows.empty() || windows.front().empty()) fail("'{}' holds no tokens; give at least one window.", path);
  return windows;
}

void append_tensor(SafetensorsWriter& writer, Backend& backend, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
  backend.download(tensor, values);
  writer.append(std::as_bytes(std::span(values)));
}

void run_logits(const LogitsArguments& arguments) {
  const auto windows = read_windows(arguments.tokens);
  const LoadedModel loaded = load_model_by_name(arguments.model, /*with_tokenizer=*/false, arguments.adapter);
  const ModelSpec& model = loaded.spec;
  std::vector<Variant> variants;
  if (!arguments.variant.empty()) variants.push_back(Variant::parse(arguments.variant));
  check_targets(model, variants);
  if (variants.empty()) variants.push_back({.name = "baseline", .clauses = {}});

  const auto backend = choose_devices(arguments.device, arguments.gemm, {}, arguments.threads).make_backend(0);
  const ForwardPass forward(model, *backend, compute_dtype(model, parse_dtype(arguments.dtype)));
  const VariantTree tree = build_tree(model, forward, variants);
  WeightStore store(*backend, forward.dtype(), KeptForm::nothing);

  const auto count = static_cast<int64_t>(windows.size());
  const auto length = static_cast<int64_t>(windows.front().size());
  const int64_t a_batch = arguments.batch_size > 0 ? arguments.batch_size : std::max<int64_t>(1, 2048 / length);
  std::vector<MicroBatch> batches;
  std::vector<Tensor> hidden;
  for (int64_t begin = 0; begin < count; begin += a_batch) {
    std::vector<std::span<const int32_t>> tokens;
    for (int64_t w = begin; w < std::min(count, begin + a_batch); ++w)
      tokens.emplace_back(windows[static_cast<size_t>(w)]);
    batches.push_back(forward.make_batch(tokens));
    hidden.push_back(forward.embed(batches.back()));
  }

  std::vector<SafetensorsWriter::Declared> declared;
  if (arguments.hidden) {
    declared.push_back(
        {"hidden", DType::f32, {static_cast<int64_t>(model.layers.size()) + 1, count, length, model.hidden}});
  }
  declared.push_back({"logits", DType::f32, {count, length, model.vocabulary}});
  SafetensorsWriter writer(arguments.out, declared);
  const auto write_hidden = [&] {
    for (const Tensor& tensor : hidden) append_tensor(writer, *backend, tensor);
  };

  if (arguments.hidden) write_hidden();
  for (int64_t step = 0; step < forward.steps(); ++step) {
    const StepProducts& products = tree.levels[static_cast<size_t>(step)].front().products;
    const auto linears = forward.step_linears(step);
    StepWeights weights{.linears = {}, .qk = products.qk, .pv = products.pv};
    const auto fetch = [&](size_t l) { return store.get(*linears[l], products.linears[l]).prepared; };
    for (size_t l = 0; l < linears.size(); ++l) {
      weights.linears.push_back(
          {.weight = l < forward.prepared_linears(step) ? fetch(l) : nullptr, .spec = products.linears[l]});
    }
    std::vector<const Tensor*> in;
    std::vector<Tensor*> out;
    for (Tensor& state : hidden) {
      in.push_back(&state);
      out.push_back(&state);
    }
    forward.run(step, weights, fetch, batches, in, out, [](int64_t) { throw_if_interrupted(); });
    for (const LinearSpec* linear : linears) linear->weight.release();
    const bool layer_ends = step + 1 == forward.steps() || forward.layer_of(step + 1) != forward.layer_of(step);
    if (arguments.hidden && layer_ends) write_hidden();
  }

  const StepLinear head{.weight = store.get(model.head, tree.head.front()).prepared, .spec = tree.head.front()};
  constexpr int64_t kRows = 64;  // at a time: never windows x tokens x vocabulary in memory
  std::vector<float> logits;
  for (const Tensor& state : hidden) {
    for (int64_t begin = 0; begin < state.rows(); begin += kRows) {
      throw_if_interrupted();
      std::vector<int32_t> rows;
      for (int64_t r = begin; r < std::min(state.rows(), begin + kRows); ++r) rows.push_back(static_cast<int32_t>(r));
      const std::vector<int64_t> offsets{0, static_cast<int64_t>(rows.size())};
      const Operand operand = forward.head_operand(state, rows, offsets, head);
      logits.resize(rows.size() * static_cast<size_t>(model.vocabulary));
      backend->logits({.hidden = &operand,
                       .weight = head.weight.get(),
                       .bias = forward.head_bias(),
                       .logit_multiplier = model.logit_multiplier,
                       .logit_softcap = model.logit_softcap,
                       .arithmetic = head.spec.arithmetic,
                       .scores = {},
                       .seconds = nullptr},
                      logits);
      writer.append(std::as_bytes(std::span(logits)));
    }
  }
  writer.finish();
}

}  // namespace

void add_logits(CLI::App& app) {
  auto arguments = std::make_shared<LogitsArguments>();
  LogitsArguments& a = *arguments;
  CLI::App* command = app.add_subcommand("logits", "Logits of given token ids, as safetensors; needs no tokenizer");
  command->add_option("MODEL", a.model, "A folder, a hub id (org/name) or a name of 'mxlm models'; none = booklet-7m");
  add_adapter_option(*command, a.adapter);
  command->add_option("--tokens", a.tokens, "JSON: a list of lists of token ids, all of one length")->required();
  command->add_option("-o,--output", a.out, "Writes 'logits' F32 [windows, tokens, vocabulary]")->required();
  command->add_option("--mx", a.variant, "A variant; none = the baseline");
  command->add_flag("--hidden", a.hidden,
                    "Also writes 'hidden' F32 [layers + 1, windows, tokens, hidden], before the final norm");
  command->add_option("--dtype", a.dtype, "auto, float32 or bfloat16")->capture_default_str();
  command->add_option("--device", a.device, "auto, cpu, or a GPU: cuda, cuda:1")->capture_default_str();
  command->add_option("--gemm", a.gemm, "exact or fast products (fast: a GPU's)")->capture_default_str();
  command->add_option("--batch-size", a.batch_size, "Windows a micro-batch")->check(a_count());
  command->add_option("--threads", a.threads, "Threads")->check(CLI::Range(1, 4096));
  command->footer("Example: mxlm logits ./SmolLM2-135M --tokens ids.json --mx mlp=mxfp4 -o logits.safetensors");
  command->callback([arguments] { run_logits(*arguments); });
}

}  // namespace mxlm::cli
