#pragma once

// The content of a JSON file of the schema mxlm.eval/1. The page, the CSV and the Markdown table are made of this
// alone, so `eval` at its end and `report` years later write the same.

#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.hpp"
#include "run/results.hpp"

namespace mxlm::report {

/// The error of the hidden state after a step of the forward pass, compared with the baseline's.
struct LayerError {
  int64_t layer = 0;
  std::string part;                // "attention", "mlp" or "block"
  double sqnr_db = 0, cosine = 0;  // NaN if the file has null
};

/// The error of one operand of a Linear.
struct OperandError {
  double sqnr_db = 0, cosine = 0;
  double saturated = 0, flushed = 0, subnormal = 0;  // shares of the elements, 0..1
  double spread_mean = 0, spread_max = 0;            // of the shared exponents inside a row
};

struct LinearError {
  std::string tensor, role;
  std::optional<OperandError> weight, activation;  // nullopt: that side is not quantised
  double output_sqnr_db = 0, output_cosine = 0;
};

/// counts[i] elements have floor(log2|x|) = first + i.
struct Exponents {
  int64_t first = 0, zeros = 0;
  std::vector<int64_t> counts;
};

struct TensorExponents {
  std::string tensor, role;
  std::optional<Exponents> weight, activation;
};

/// The effect of another order of float32 sums: |difference| of one repetition, the standard deviation of a figure, and
/// the baseline against itself. NaN if the file has none.
struct Noise {
  double nll = 0, kld_mean = 0, top1_agreement = 0;
  NoiseFigures deviations;

  [[nodiscard]] std::optional<double> floor() const {
    return std::isfinite(deviations.floor_kld) ? std::optional(deviations.floor_kld) : std::nullopt;
  }
  /// The possible effect of rounding on ln(PPL ratio): two standard deviations, or in old files the one difference.
  [[nodiscard]] double of_ratio() const {
    return std::isfinite(deviations.ln_ppl_ratio_sd) ? 2 * deviations.ln_ppl_ratio_sd : nll;
  }
};

/// A paired comparison of two variants.
struct Pair {
  std::string a, b;
  double ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0, ln_ppl_ratio_stderr_windows = 0;
  double kld_difference = 0, kld_difference_stderr = 0, kld_difference_stderr_windows = 0;
};

struct Variant {
  std::string name, spec;
  VariantFigures figures;  // NaN if the file has null or nothing
  double tokens_per_second = 0;
  PhaseSeconds seconds;
  std::vector<ReplacedLinear> replaced;
  double weight_bytes_baseline = 0, weight_bytes_variant = 0;
  double weight_bits_baseline = 0, weight_bits_variant = 0;  // mean bits of a weight of the Linears; NaN if unknown
  std::optional<Noise> noise;
  Power power;  // NaN if the file has none
  std::vector<LayerError> layers;
  std::vector<LinearError> linears;
};

struct Run {
  size_t file = 0, index = 0;  // which file, and which of its runs
  ModelInfo model;
  DataInfo data;
  ProtocolInfo protocol;
  std::string command;
  bool complete = true;
  int64_t windows = 0;
  ClusterCount clusters;  // number 0: the file is older than 0.2, which introduced errors by cluster
  double peak_memory_bytes = 0;
  double seconds_total = 0, seconds_load = 0, seconds_tokenize = 0;
  std::vector<Variant> variants;  // the baseline first; empty if nothing was scored
  std::vector<SubsetResult> subsets;
  std::vector<TensorExponents> exponents;
  std::vector<Pair> pairs;
};

struct File {
  std::string name;     // the user's name for the file; "" if the result comes from an evaluation directly
  std::string sha256;   // of the file's bytes
  std::string version;  // of the program that wrote the file
  MachineInfo machine;
};

/// The members of a variant that protocol `self` names differently, because it does not measure a perplexity.
struct MemberNames {
  std::string_view nll = "nll", ppl = "ppl", ppl_stderr = "ppl_stderr", ppl_stderr_windows = "ppl_stderr_windows",
                   ratio = "ppl_ratio", ln_ratio = "ln_ppl_ratio", ln_ratio_stderr = "ln_ppl_ratio_stderr",
                   nll_stderr_windows = "nll_stderr_windows", ln_ratio_stderr_windows = "ln_ppl_ratio_stderr_windows";
};
const MemberNames& member_names(const VariantFigures& figures);

/// Limits of results in total, so that reading them and making their page fits the memory of the process. What `eval`
/// writes is far smaller.
struct Limits {
  uint64_t parsed_bytes = 0;  // of a file while its JSON is parsed
  uint64_t record_bytes = 0;  // of all that was read
  uint64_t output_bytes = 0;  // of the page or CSV that is made of it
};
/// The limits for a process that may still take `room` bytes.
Limits limits_of(uint64_t room);

/// The runs of one or several files, in order.
struct Record {
  std::vector<File> files;
  std::vector<Run> runs;
  Limits limits = limits_of(memory_room_bytes());
  uint64_t bytes = 0;                      // of files and runs, approximately
  std::set<std::string> percentile_names;  // each is a column
};

/// Adds the content of the JSON `text` to `record`; messages and the page use `name`. Fields that the schema gained
/// later may be missing; unknown fields are ignored. Throws Error in one sentence, naming the member, if the text is
/// not JSON, has another schema or a member of the wrong type, or takes more than `record.limits`.
void add_json(Record& record, const std::string& name, std::string_view text);

}  // namespace mxlm::report
