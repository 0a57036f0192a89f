#pragma once

// The options of an evaluation, and the table that describes each of them. The command line, its completion, the manual
// page, the keys of --config, the keywords of Python's evaluate() and the checks are made from the table.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mxlm/error.hpp"

namespace mxlm::api {

/// Tells whether the caller has cancelled the work. All working threads call it from time to time, several at once, and
/// it must not throw. After true the work ends within about a second, and the function throws Interrupted; evaluate()
/// returns finished shards instead.
using Cancelled = std::function<bool()>;

/// The finished work, in tokens times variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t shard = 0, shards = 0;  // finished shards, and all shards
};

enum class ComputeType : uint8_t {
  automatic,
  float32,
  bfloat16
};  // automatic: the checkpoint's type, but float32 for F16
enum class Bos : uint8_t { from_template, always, never };
enum class Gemm : uint8_t { exact, fast };  // fast: products in FP8, on GPUs only

/// The options of an evaluation. option_table() describes each member. The program chooses a number that is 0, unless
/// the description gives another default.
struct EvaluateOptions {
  // Text and data.
  std::string field = "text";
  int64_t max_samples = 0;  // 0 = all
  // Windows.
  std::string protocol;  // "" = window for texts, document for documents
  int64_t context = 0;   // 0 = the default of the protocol
  int64_t stride = 0;    // 0 = 512
  int64_t windows = 0, max_windows = 0;
  Bos bos = Bos::from_template;
  bool allow_long_context = false;
  /// Variants in the variant grammar, such as "w4: linear=mxfp4/none"; empty = the baseline alone.
  std::vector<std::string> variants = {"attention=mxfp8_e4m3,mlp=mxfp8_e4m3"};
  // Arithmetic and figures.
  ComputeType dtype = ComputeType::automatic;
  Gemm gemm = Gemm::exact;
  bool noise = false, jensen_shannon = false, linear_errors = false, exponents = false;
  // Devices and memory. Only `device` can change a digit.
  std::string device = "auto";  // auto, cpu, cuda, cuda:0,2
  double min_free_ratio = 0;
  int workers_per_device = 1;
  int threads = 0;           // 0 = as many as there are cores
  int loader_workers = -1;   // -1 = as `threads`
  int64_t batch_size = 0;    // windows
  int64_t shard_tokens = 0;  // 0 = chosen from the arithmetic
  bool stream = false;
  // Journal.
  std::filesystem::path journal;  // "" = no journal
  bool resume = false, shared = false;
  double claim_timeout = 60;  // seconds

  /// One thread at a time calls it, not always the caller's thread. It must not throw.
  std::function<void(const Progress&)> on_progress = {};
  Cancelled cancelled = {};
};

/// A member that is an enumeration, with a word for each value.
template <typename Options>
struct Choice {
  std::vector<std::string> words;  // in the order of the enumeration
  size_t (*get)(const Options&) = nullptr;
  void (*set)(Options&, size_t) = nullptr;
};

/// A row of the table of options: a member of the struct `Options`.
template <typename Options>
struct Option {
  using Member = std::variant<bool Options::*, int Options::*, int64_t Options::*, double Options::*,
                              std::string Options::*, std::filesystem::path Options::*, std::vector<int> Options::*,
                              std::vector<std::string> Options::*, Choice<Options>>;
  std::string group;  // the heading of the option in help and guide
  std::string name;   // the name of the member and of Python's keyword: "batch_size"
  Member member;
  std::string value;           // a word for the value: "N", "FILE"; "" = a flag
  std::string help;            // without a full stop
  double least = 0, most = 0;  // bounds of a number; the default is allowed too
  std::string flag = {};       // if it is not the name with dashes: "--mx"
  bool several = false;        // one use of a list option takes several values
  std::string former = {};     // a former flag, which still works with a warning: "--round-tokens"

  /// The flag as the user types it: "--batch-size". Configuration files name options without the leading dashes.
  [[nodiscard]] std::string command_line_flag() const {
    std::string out = flag.empty() ? "--" + name : flag;
    for (size_t i = 2; i < out.size(); ++i) {
      if (out[i] == '_') out[i] = '-';
    }
    return out;
  }
};

/// All options of EvaluateOptions, in the order of help and guide.
MXLM_API const std::vector<Option<EvaluateOptions>>& option_table();

/// The row of the member `name`, which must exist.
MXLM_API const Option<EvaluateOptions>& option_row(std::string_view name);

/// The index of a word in Choice::words, for Choice::set. Throws UsageError for an unknown word.
MXLM_API size_t place_of_word(const std::string& word, const std::vector<std::string>& words, const std::string& flag);

/// Throws UsageError for a number outside its bounds, and for options that exclude or need one another. Messages name
/// options by their flags.
MXLM_API void check_options(const EvaluateOptions& options);

}  // namespace mxlm::api
