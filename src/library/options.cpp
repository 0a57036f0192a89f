#include "mxlm/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "base/error.hpp"
#include "base/suggest.hpp"
#include "protocols/protocol.hpp"

namespace mxlm::api {
namespace {

using Row = Option<EvaluateOptions>;

/// `words` are separated by spaces.
template <auto member>
Choice<EvaluateOptions> choice(const std::string& words) {
  using Value = std::remove_cvref_t<decltype(std::declval<EvaluateOptions&>().*member)>;
  std::istringstream stream(words);
  return {.words = {std::istream_iterator<std::string>(stream), {}},
          .get = [](const EvaluateOptions& o) { return static_cast<size_t>(o.*member); },
          .set = [](EvaluateOptions& o, size_t value) { o.*member = static_cast<Value>(value); }};
}

constexpr double kMost = static_cast<double>(int64_t{1} << 40);
constexpr double kMostThreads = 4096;

std::vector<Row> make_table() {
  using O = EvaluateOptions;
  const std::string text = "Text", windows = "Windows", figures = "Figures", devices = "Devices and memory",
                    journal = "Journal";
  return {
      {text, "field", &O::field, "FIELD", "The JSON member or column that holds a document's text"},
      {text, "max_samples", &O::max_samples, "N", "Documents to read at most", 1, kMost},

      {windows, "protocol", &O::protocol, "PROTOCOL",
       fmt::format("One of {} (window for texts, document for data sets)", fmt::join(protocol_names(), ", "))},
      {windows, "context", &O::context, "N",
       "Tokens a window (the model's maximum, at most 2048; document, llamacpp, self: 512; lmeval: the model's "
       "maximum)",
       1, kMost},
      {windows, "stride", &O::stride, "N", "hf-stride: tokens between the starts of windows (512)", 1, kMost},
      {windows, "windows", &O::windows, "N", "Run this many windows, spread evenly over the text", 1, kMost},
      {windows, "max_windows", &O::max_windows, "N", "Run only this many windows from the start", 1, kMost},
      {windows, "bos", choice<&O::bos>("template always never"), "BOS",
       "Begin-of-sequence token: template, always or never"},
      {windows, "allow_long_context", &O::allow_long_context, "", "Let --context pass the model's maximum positions"},

      {"Variants", "variants", &O::variants, "VARIANT",
       "A variant, as 'attention=mxfp8,mlp=mxfp4/mxfp8@block=16'; repeatable", 0, 0, "--mx"},

      {figures, "dtype", choice<&O::dtype>("auto float32 bfloat16"), "DTYPE",
       "auto (as the checkpoint; F16 in float32), float32 or bfloat16"},
      {figures, "gemm", choice<&O::gemm>("exact fast"), "GEMM",
       "exact or fast products (fast: a GPU's, in FP8; a CPU has the exact ones only)"},
      {figures, "noise", &O::noise, "",
       "Run everything a second time with float32 sums in another order, and report how each figure changes"},
      {figures, "jensen_shannon", &O::jensen_shannon, "",
       "In the JSON and CSV: also the Jensen-Shannon divergence; computes the LM head twice"},
      {figures, "linear_errors", &O::linear_errors, "",
       "In the JSON: what quantising does to the operands and products of every Linear"},
      {figures, "exponents", &O::exponents, "",
       "In the JSON: the distribution of the exponents of weights and activations"},

      {devices, "device", &O::device, "DEVICE",
       "auto (GPUs, if any), cpu, cuda (all GPUs), or cuda:0,2 for some of the GPUs"},
      {devices, "min_free_ratio", &O::min_free_ratio, "F",
       "Use a GPU that is not named only if this share of its memory, 0 to 1, is free; no effect on a CPU", 0, 1},
      {devices, "workers_per_device", &O::workers_per_device, "N",
       "Workers per GPU; a CPU always has one worker, with --threads threads", 1, 64},
      {devices, "threads", &O::threads, "N", "Threads; changes no digit", 1, kMostThreads},
      {devices, "loader_workers", &O::loader_workers, "N", "Threads that tokenise documents (as --threads)", 0,
       kMostThreads},
      {devices, "batch_size", &O::batch_size, "N", "Windows a micro-batch; changes no digit", 1, kMost},
      {devices, "shard_tokens", &O::shard_tokens, "N",
       "Most tokens of a shard, which a crash can lose (chosen from the arithmetic: some seconds on a CPU, a minute "
       "on a GPU); changes no digit",
       1, kMost, "", false, "--round-tokens"},
      {devices, "stream", &O::stream, "", "Never keep weights between shards; changes no digit"},

      {journal, "journal", &O::journal, "DIR", "Keep finished shards in this folder"},
      {journal, "resume", &O::resume, "", "Go on with the shards that the journal holds"},
      {journal, "shared", &O::shared, "",
       "Several processes with the same command share the shards through the --journal folder, which may be on a "
       "network file system; each waits for all shards and prints the result"},
      {journal, "claim_timeout", &O::claim_timeout, "F",
       "--shared: seconds without a sign of life after which other processes take over a process's shards", 0.1, 86400},
  };
}

}  // namespace

const std::vector<Row>& option_table() {
  static const std::vector<Row> table = make_table();
  return table;
}

const Row& option_row(std::string_view name) { return *std::ranges::find(option_table(), name, &Row::name); }

size_t place_of_word(const std::string& word, const std::vector<std::string>& words, const std::string& flag) {
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) {
    fail_usage("{} '{}' is not known; it is one of {}.{}", flag, word, fmt::join(words, ", "), suggestion(word, words));
  }
  return static_cast<size_t>(found - words.begin());
}

void check_options(const EvaluateOptions& options) {
  const EvaluateOptions standard;
  const auto check = [&]<typename Member>(const Row& row, const Member& member) {
    if constexpr (std::is_same_v<Member, Choice<EvaluateOptions>>) {
      if (member.get(options) < member.words.size()) return;
      fail_usage("{} does not hold a value of its enumeration; give one of {}.", row.command_line_flag(),
                 fmt::join(member.words, ", "));
    } else if constexpr (requires { options.*member - 1; } && !std::is_same_v<Member, bool EvaluateOptions::*>) {
      const auto value = static_cast<double>(options.*member);
      if (options.*member == standard.*member || (value >= row.least && value <= row.most)) return;
      fail_usage("{} is {}; give {} to {}.", row.command_line_flag(), options.*member, row.least, row.most);
    }
  };
  for (const Row& row : option_table()) std::visit([&](const auto& member) { check(row, member); }, row.member);
  if (options.windows > 0 && options.max_windows > 0) {
    fail_usage("--windows and --max-windows exclude one another; leave one of them out.");
  }
  if (options.shared && options.journal.empty()) fail_usage("--shared needs --journal, the folder to share.");
}

}  // namespace mxlm::api
