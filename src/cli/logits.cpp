#include "engine/logits.hpp"

#include <simdjson.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/option_rows.hpp"
#include "cli/options.hpp"
#include "io/safetensors.hpp"
#include "run/options.hpp"
#include "variants/resolve.hpp"

namespace mxlm::cli {
namespace {

struct LogitsArguments {
  std::string model, adapter, tokens, out, variant;
  api::EvaluateOptions options;
  bool hidden = false;
};

/// Reads a JSON list of lists of token ids. All lists must have the same length.
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

void run_logits(const LogitsArguments& arguments) {
  const auto windows = read_windows(arguments.tokens);
  const LoadedModel loaded = load_model_by_name(arguments.model, /*with_tokenizer=*/false, arguments.adapter);
  const ModelSpec& model = loaded.spec;
  const ResolvedVariant resolved = resolve(model, Variant::parse_or_baseline(arguments.variant));
  const auto backend = api::choose_devices(arguments.options).make_backend(0);

  const auto count = static_cast<int64_t>(windows.size()), length = static_cast<int64_t>(windows.front().size());
  std::vector<SafetensorsWriter::Declared> declared;
  if (arguments.hidden) {
    declared.push_back(
        {"hidden", DType::f32, {static_cast<int64_t>(model.layers.size()) + 1, count, length, model.hidden}});
  }
  declared.push_back({"logits", DType::f32, {count, length, model.vocabulary}});
  SafetensorsWriter writer(arguments.out, declared);
  const auto append = [&](std::span<const float> values) { writer.append(std::as_bytes(values)); };
  LogitsSinks sinks{.logits = append};
  if (arguments.hidden) sinks.hidden = append;
  hidden_and_logits(model, *backend, compute_dtype(model, arguments.options.dtype), resolved, windows,
                    arguments.options.batch_size, sinks);
  writer.finish();
}

}  // namespace

void add_logits(CLI::App& app) {
  auto arguments = std::make_shared<LogitsArguments>();
  LogitsArguments& a = *arguments;
  CLI::App* command = app.add_subcommand("logits", "Logits of given token ids, as safetensors; needs no tokenizer");
  add_model(*command, a.model, a.adapter);
  command->add_option("--tokens", a.tokens, "JSON: a list of lists of token ids, all of one length")
      ->required()
      ->type_name("FILE");
  command->add_option("-o,--output", a.out, "Writes 'logits' F32 [windows, tokens, vocabulary]")
      ->required()
      ->type_name("FILE");
  command->add_option("--mx", a.variant, "A variant; none = the baseline")->type_name("VARIANT");
  command->add_flag("--hidden", a.hidden,
                    "Also writes 'hidden' F32 [layers + 1, windows, tokens, hidden], before the final norm");
  for (const char* name : {"dtype", "device", "gemm", "batch_size", "threads"}) {
    add_option(*command, a.options, api::option_row(name));
  }
  command->footer("Example: mxlm logits ./SmolLM2-135M --tokens ids.json --mx mlp=mxfp4 -o logits.safetensors");
  command->callback([arguments] { run_logits(*arguments); });
}

}  // namespace mxlm::cli
