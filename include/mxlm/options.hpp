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

/// Asked now and then by all threads that do the work, several at once: true ends it within about a second, and the
/// function that does it throws Interrupted, but for what evaluate() says of finished shards. Must not throw.
using Cancelled = std::function<bool()>;

/// Work done so far, in tokens x variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t shard = 0, shards = 0;  // finished, in all
};

enum class ComputeType : uint8_t { automatic, float32, bfloat16 };  // automatic: the checkpoint's, F16 in float32
enum class Bos : uint8_t { from_template, always, never };
enum class Gemm : uint8_t { exact, fast };  // fast: a GPU's, in FP8

/// What an evaluation is asked for. option_table() describes each member; a number that is 0 is chosen by the program
/// unless its description gives another default.
struct EvaluateOptions {
  // How data are read.
  std::string field = "text";
  int64_t max_samples = 0;  // 0 = all
  // How the text is cut into windows.
  std::string protocol;  // "" = window for texts, document for documents
  int64_t context = 0;   // 0 = the protocol's
  int64_t stride = 0;    // 0 = 512
  int64_t windows = 0, max_windows = 0;
  Bos bos = Bos::from_template;
  bool allow_long_context = false;
  /// In the variant grammar, "w4: linear=mxfp4/none"; empty = the baseline alone.
  std::vector<std::string> variants = {"attention=mxfp8_e4m3,mlp=mxfp8_e4m3"};
  // What is computed.
  ComputeType dtype = ComputeType::automatic;
  Gemm gemm = Gemm::exact;
  bool noise = false, jensen_shannon = false, linear_errors = false, exponents = false;
  // What computes it. Except for `device`, nothing here changes a digit.
  std::string device = "auto";  // auto, cpu, cuda, cuda:0,2
  double min_free_ratio = 0;
  int workers_per_device = 1;
  int threads = 0;           // 0 = as many as there are cores
  int loader_workers = -1;   // -1 = as `threads`
  int64_t batch_size = 0;    // windows
  int64_t shard_tokens = 0;  // 0 = chosen from the arithmetic
  bool stream = false;
  // Where finished shards are kept.
  std::filesystem::path journal;  // "" = nowhere
  bool resume = false, shared = false;
  double claim_timeout = 60;  // seconds

  /// By one thread at a time, not always the caller's. Must not throw.
  std::function<void(const Progress&)> on_progress = {};
  Cancelled cancelled = {};
};

/// A member that is an enumeration: its values by their words.
template <typename Options>
struct Choice {
  std::vector<std::string> words;  // in the order of the enumeration
  size_t (*get)(const Options&) = nullptr;
  void (*set)(Options&, size_t) = nullptr;
};

/// A row of the table of options of the struct `Options`.
template <typename Options>
struct Option {
  using Member = std::variant<bool Options::*, int Options::*, int64_t Options::*, double Options::*,
                              std::string Options::*, std::filesystem::path Options::*, std::vector<int> Options::*,
                              std::vector<std::string> Options::*, Choice<Options>>;
  std::string group;  // the heading that it stands under in help and guide
  std::string name;   // of the member and of Python's keyword: "batch_size"
  Member member;
  std::string value;           // the word for what it takes: "N", "FILE"; "" = a flag
  std::string help;            // without a full stop
  double least = 0, most = 0;  // of a number; its default is allowed, too
  std::string flag = {};       // where it is not the name with dashes: "--mx"
  bool several = false;        // of a list: one use takes several values, and not one each
  std::string former = {};     // former flag, which still works and says so: "--round-tokens"

  /// As it is typed: "--batch-size". A name in a configuration file is this without the leading dashes.
  [[nodiscard]] std::string command_line_flag() const {
    std::string out = flag.empty() ? "--" + name : flag;
    for (size_t i = 2; i < out.size(); ++i) {
      if (out[i] == '_') out[i] = '-';
    }
    return out;
  }
};

/// Every option of EvaluateOptions, in the order of help and guide.
MXLM_API const std::vector<Option<EvaluateOptions>>& option_table();

/// The row of a member by its name, which must be there.
MXLM_API const Option<EvaluateOptions>& option_row(std::string_view name);

/// The place of a word in Choice::words, for Choice::set. Throws UsageError for another word.
MXLM_API size_t place_of_word(const std::string& word, const std::vector<std::string>& words, const std::string& flag);

/// Throws UsageError for a number out of its bounds and for options that exclude or need one another. Messages call
/// options by their flags.
MXLM_API void check_options(const EvaluateOptions& options);

}  // namespace mxlm::api
