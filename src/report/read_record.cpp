#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/file.hpp"
#include "report/record.hpp"

namespace mxlm::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Far above any real result. Record::limits bounds the total of a file.
constexpr size_t kMostText = size_t{1} << 20;
constexpr size_t kMostCommand = size_t{64} << 20;  // it may name each of thousands of variants
constexpr size_t kMostRuns = 1000, kMostPercentiles = 64, kMostCounts = 4096;
constexpr int64_t kMostLayers = 100'000;
/// Integers up to here are exact in a double.
constexpr int64_t kLargestInteger = int64_t{1} << 53;

using simdjson::dom::element;
using simdjson::dom::element_type;

std::string megabytes(uint64_t bytes) { return fmt::format("{} MB", bytes / 1'000'000); }

/// A file that is being read, and the memory that it takes.
struct Reading {
  const std::string& file;
  const Limits& limits;
  uint64_t bytes;  // including what was read before it
  std::set<std::string> percentile_names;

  void take(uint64_t more) {
    bytes += more;
    if (bytes <= limits.record_bytes) return;
    fail(
        "{}: the results take more than the {} of memory that reading them may take here; give fewer files, or files "
        "of fewer variants.",
        quote(file), megabytes(limits.record_bytes));
  }
};

/// A value of the file and its place. A missing member is a Node without a value.
class Node {
 public:
  Node(Reading& reading, element value, std::string path) : reading_(&reading), value_(value), path_(std::move(path)) {}

  /// True if the value is neither missing nor null.
  [[nodiscard]] bool present() const { return value_ && !value_->is_null(); }

  [[nodiscard]] Node operator[](std::string_view key) const {
    Node out(*this, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
    if (!present()) return out;
    if (!value_->is_object()) wrong("an object");
    element found;
    if (value_->at_key(key).get(found) == simdjson::SUCCESS) out.value_ = found;
    return out;
  }

  /// The member, which must exist.
  [[nodiscard]] Node at(std::string_view key) const {
    Node out = (*this)[key];
    if (!out.present())
      fail("{}: {} is missing; give a file that 'mxlm eval --json' wrote.", quote(reading_->file), out.path_);
    return out;
  }

  /// Converts each element of this array to a T and passes it to `use`; does nothing if the array is missing.
  template <typename T, typename Use>
  void each(Use use, size_t most = std::numeric_limits<size_t>::max()) const {
    if (!present()) return;
    simdjson::dom::array items;
    if (value_->get_array().get(items) != simdjson::SUCCESS) wrong("a list");
    size_t index = 0;
    for (const element item : items) {
      if (index == most) {
        fail("{}: {} has more than {} entries; give a file that 'mxlm eval --json' wrote.", quote(reading_->file),
             path_, most);
      }
      reading_->take(sizeof(T));
      Node node(*this, fmt::format("{}[{}]", path_, index++));
      node.value_ = item;
      use(node);
    }
  }

  /// Returns "" if it is missing.
  [[nodiscard]] std::string text(size_t most = kMostText) const {
    if (!present()) return {};
    std::string_view out;
    if (value_->get_string().get(out) != simdjson::SUCCESS) wrong("a string");
    if (out.size() > most) {
      fail("{}: {} is a string of more than {}; give a file that 'mxlm eval --json' wrote.", quote(reading_->file),
           path_, megabytes(most));
    }
    reading_->take(out.size());
    return std::string(out);
  }

  /// Returns NaN if it is missing or null.
  [[nodiscard]] double number() const {
    if (!present()) return kNan;
    double out = 0;
    if (value_->get_double().get(out) != simdjson::SUCCESS) wrong("a number");
    return out;
  }

  /// A number that is at least 0.
  [[nodiscard]] double amount() const {
    const double out = number();
    if (out < 0) wrong("a number from 0 up");
    return out;
  }

  /// Returns 0 if it is missing.
  [[nodiscard]] int64_t integer(int64_t least = 0) const {
    if (!present()) return 0;
    int64_t out = 0;
    if (value_->get_int64().get(out) != simdjson::SUCCESS || out < least || out > kLargestInteger) {
      wrong(least == 0 ? "a count" : "an integer of up to 53 bits");
    }
    return out;
  }

  [[nodiscard]] bool boolean(bool otherwise) const {
    if (!present()) return otherwise;
    bool out = false;
    if (value_->get_bool().get(out) != simdjson::SUCCESS) wrong("true or false");
    return out;
  }

  [[nodiscard]] std::map<std::string, double> percentiles() const {
    std::map<std::string, double> out;
    if (!present()) return out;
    simdjson::dom::object members;
    if (value_->get_object().get(members) != simdjson::SUCCESS) wrong("an object");
    for (const auto& [key, value] : members) {
      Node item(*this, fmt::format("{}.{}", path_, quote(key)));
      item.value_ = value;
      auto& names = reading_->percentile_names;
      if (key.size() <= 16) names.emplace(key);
      if (key.size() > 16 || names.size() > kMostPercentiles) item.wrong("a percentile of a result");
      reading_->take(sizeof(*out.begin()) + 4 * sizeof(void*));  // a node of the map
      out[std::string(key)] = item.number();
    }
    return out;
  }

  [[noreturn]] void wrong(const char* wanted) const {
    fail("{}: {} is not {}; give a file that 'mxlm eval --json' wrote.", quote(reading_->file),
         path_.empty() ? "the whole" : path_, wanted);
  }

 private:
  Node(const Node& parent, std::string path) : reading_(parent.reading_), path_(std::move(path)) {}

  Reading* reading_;
  std::optional<element> value_;
  std::string path_;
};

std::optional<VsBaseline> read_vs_baseline(const Node& node, const MemberNames& names) {
  if (!node.present()) return std::nullopt;
  VsBaseline out;
  out.ppl_ratio = node[names.ratio].amount();
  out.ln_ppl_ratio = node[names.ln_ratio].number();
  out.ln_ppl_ratio_stderr = node[names.ln_ratio_stderr].amount();
  out.ln_ppl_ratio_stderr_windows = node[names.ln_ratio_stderr_windows].amount();
  out.correlation = node["correlation"].number();
  out.kld_mean = node["kld_mean"].number();
  out.kld_stderr = node["kld_stderr"].amount();
  out.kld_stderr_windows = node["kld_stderr_windows"].amount();
  out.kld_median = node["kld_median"].number();
  out.kld_max = node["kld_max"].number();
  out.kld_percentiles = node["kld_percentiles"].percentiles();
  out.kld_reverse_mean = node["kld_reverse_mean"].number();
  out.kld_reverse_stderr = node["kld_reverse_stderr"].amount();
  out.kld_reverse_stderr_windows = node["kld_reverse_stderr_windows"].amount();
  if (const Node mean = node["jensen_shannon_mean"]; mean.present()) {
    out.jensen_shannon_mean = mean.number();
    out.jensen_shannon_stderr = node["jensen_shannon_stderr"].amount();
    out.jensen_shannon_stderr_windows = node["jensen_shannon_stderr_windows"].amount();
  }
  out.top1_agreement = node["top1_agreement"].amount();
  out.top1_stderr = node["top1_stderr"].amount();
  out.top1_stderr_windows = node["top1_stderr_windows"].amount();
  out.top1_low = out.top1_high = kNan;
  std::vector<double> interval;
  node["top1_interval"].each<double>([&](const Node& end) { interval.push_back(end.amount()); }, 2);
  if (interval.size() == 2) {
    out.top1_low = interval[0];
    out.top1_high = interval[1];
  }
  out.top1_error = node["top1_error"].amount();
  out.delta_p_mean = node["delta_p_mean"].number();
  out.delta_p_mean_stderr_windows = node["delta_p_mean_stderr_windows"].amount();
  out.delta_p_rms = node["delta_p_rms"].number();
  out.delta_p_rms_stderr = node["delta_p_rms_stderr"].amount();
  out.delta_p_rms_stderr_windows = node["delta_p_rms_stderr_windows"].amount();
  if (const Node flips = node["flips"]; flips.present()) {
    out.flips = Flips{.right_to_wrong = flips["right_to_wrong"].amount(),
                      .right_to_wrong_stderr_windows = flips["right_to_wrong_stderr_windows"].amount(),
                      .wrong_to_right = flips["wrong_to_right"].amount(),
                      .wrong_to_right_stderr_windows = flips["wrong_to_right_stderr_windows"].amount(),
                      .accuracy_difference = node["accuracy_difference"].number(),
                      .accuracy_difference_stderr_windows = node["accuracy_difference_stderr_windows"].amount()};
  }
  out.delta_p_percentiles = node["delta_p_percentiles"].percentiles();
  return out;
}

/// `clusters` belongs to the run or the subset.
VariantFigures read_figures(const Node& node, int64_t clusters) {
  VariantFigures out;
  out.clusters = clusters;
  if (node["self_perplexity"].present()) {
    out.self = SelfFigures{.entropy = node["mean_entropy"].number(),
                           .entropy_stderr = node["mean_entropy_stderr"].amount(),
                           .entropy_stderr_windows = node["mean_entropy_stderr_windows"].amount()};
  }
  if (node["word_perplexity"].present()) {
    out.rolling = RollingFigures{.word_perplexity = node["word_perplexity"].amount(),
                                 .byte_perplexity = node["byte_perplexity"].amount(),
                                 .bits_per_byte = node["bits_per_byte"].amount(),
                                 .word_perplexity_stderr = node["word_perplexity_stderr"].amount(),
                                 .word_perplexity_stderr_windows = node["word_perplexity_stderr_windows"].amount(),
                                 .bits_per_byte_stderr_windows = node["bits_per_byte_stderr_windows"].amount(),
                                 .words = node["words"].integer(),
                                 .bytes = node["bytes"].integer()};
  }
  const MemberNames& names = member_names(out);
  out.nll = node[names.nll].number();
  out.ppl = node[names.ppl].amount();
  out.ppl_stderr = node[names.ppl_stderr].amount();
  out.ppl_stderr_windows = node[names.ppl_stderr_windows].amount();
  out.nll_stderr_windows = node[names.nll_stderr_windows].amount();
  out.accuracy = node["accuracy"].amount();
  out.accuracy_stderr_windows = node["accuracy_stderr_windows"].amount();
  out.tokens = node["tokens"].integer();
  out.nonfinite = node["nonfinite"].integer();
  out.vs_baseline = read_vs_baseline(node["vs_baseline"], names);
  return out;
}

std::optional<OperandError> read_operand_error(const Node& node) {
  if (!node.present()) return std::nullopt;
  return OperandError{.sqnr_db = node["sqnr_db"].number(),
                      .cosine = node["cosine"].number(),
                      .saturated = node["saturated"].amount(),
                      .flushed = node["flushed"].amount(),
                      .subnormal = node["subnormal"].amount(),
                      .spread_mean = node["spread"]["mean"].amount(),
                      .spread_max = node["spread"]["max"].amount()};
}

std::optional<Exponents> read_exponents(const Node& node) {
  if (!node.present()) return std::nullopt;
  Exponents out;
  constexpr int64_t kFurthest = 4096;  // beyond any floating type's exponent
  out.first = node.at("first").integer(-kFurthest);
  if (out.first > kFurthest) node["first"].wrong("a binary exponent");
  out.zeros = node["zeros"].integer();
  int64_t total = out.zeros;
  node.at("counts").each<int64_t>(
      [&](const Node& count) {
        out.counts.push_back(count.integer());
        total += out.counts.back();
        if (total > kLargestInteger) count.wrong("a count of elements of one tensor");
      },
      kMostCounts);
  return out;
}

ClusterCount read_clusters(const Node& node) {
  return {.kind = node["kind"].text(), .number = node["number"].integer()};
}

Variant read_variant(const Node& node, int64_t clusters) {
  Variant out;
  out.name = node.at("name").text();
  out.spec = node["spec"].text();
  out.figures = read_figures(node, clusters);
  out.tokens_per_second = node["tokens_per_second"].amount();
  const Node seconds = node["seconds"];
  out.seconds = {.load = seconds["load"].amount(),
                 .tokenize = seconds["tokenize"].amount(),
                 .prepare = seconds["prepare"].amount(),
                 .forward = seconds["forward"].amount(),
                 .head = seconds["head"].amount()};
  node["replaced"].each<ReplacedLinear>([&](const Node& item) {
    out.replaced.push_back({.tensor = item["tensor"].text(),
                            .role = item["role"].text(),
                            .weights = item["weights"].text(),
                            .activations = item["activations"].text()});
    if (item["outputs"].present()) out.replaced.back().outputs = item["outputs"].text();
  });
  out.weight_bytes_baseline = node["weight_bytes"]["baseline"].amount();
  out.weight_bytes_variant = node["weight_bytes"]["variant"].amount();
  out.weight_bits_baseline = node["weight_bits"]["baseline"].amount();
  out.weight_bits_variant = node["weight_bits"]["variant"].amount();
  out.power = {.ppl_tokens = node["power"]["tokens_ppl_1_percent"].amount(),
               .kld_tokens = node["power"]["tokens_kld_1_mnat"].amount()};
  if (const Node noise = node["noise"]; noise.present()) {
    out.noise = Noise{.nll = noise["nll"].amount(),
                      .kld_mean = noise["kld_mean"].amount(),
                      .top1_agreement = noise["top1_agreement"].amount(),
                      .deviations = {.nll_sd = noise["nll_sd"].amount(),
                                     .ln_ppl_ratio_sd = noise["ln_ppl_ratio_sd"].amount(),
                                     .kld_sd = noise["kld_sd"].amount(),
                                     .top1_sd = noise["top1_sd"].amount(),
                                     .floor_kld = noise["floor_kld"].number(),
                                     .floor_flips = noise["floor_flips"].amount()}};
  }
  node["layers"].each<LayerError>([&](const Node& item) {
    const int64_t layer = item["layer"].integer();
    if (layer >= kMostLayers) item["layer"].wrong("the number of a layer");
    out.layers.push_back({.layer = layer,
                          .part = item["part"].text(),
                          .sqnr_db = item["sqnr_db"].number(),
                          .cosine = item["cosine"].number()});
  });
  node["linears"].each<LinearError>([&](const Node& item) {
    out.linears.push_back({.tensor = item["tensor"].text(),
                           .role = item["role"].text(),
                           .weight = read_operand_error(item["weight"]),
                           .activation = read_operand_error(item["activation"]),
                           .output_sqnr_db = item["output_sqnr_db"].number(),
                           .output_cosine = item["output_cosine"].number()});
  });
  return out;
}

Run read_run(const Node& node) {
  Run out;
  const Node model = node.at("model"), data = node.at("data"), protocol = node.at("protocol");
  out.model = {.name = model["name"].text(),
               .family = model["family"].text(),
               .dtype = model["dtype"].text(),
               .compute_dtype = model["compute_dtype"].text(),
               .revision = model["revision"].text(),
               .sha256 = model["sha256"].text(),
               .parameters = model["parameters"].integer()};
  out.data = {.name = data["name"].text(), .sha256 = data["sha256"].text(), .documents = data["documents"].integer()};
  out.protocol.name = protocol["name"].text();
  out.protocol.context = protocol["context"].integer();
  out.protocol.stride = protocol["stride"].integer();
  out.protocol.bos = protocol["bos"].text();
  out.protocol.aggregate = protocol["aggregate"].text();
  out.protocol.skipped_documents = protocol["skipped_documents"].integer();
  out.command = node["command"].text(kMostCommand);
  out.complete = node["complete"].boolean(true);
  out.windows = node["windows"].integer();
  out.clusters = read_clusters(node["clusters"]);
  out.peak_memory_bytes = node["peak_memory_bytes"].amount();
  out.seconds_total = node["seconds"]["total"].amount();
  out.seconds_load = node["seconds"]["load"].amount();
  out.seconds_tokenize = node["seconds"]["tokenize"].amount();
  node.at("variants").each<Variant>([&](const Node& item) {
    out.variants.push_back(read_variant(item, out.clusters.number));
  });
  node["subsets"].each<SubsetResult>([&](const Node& item) {
    SubsetResult subset;
    subset.name = item["name"].text();
    subset.windows = item["windows"].integer();
    subset.clusters = read_clusters(item["clusters"]);
    item["variants"].each<VariantFigures>(
        [&](const Node& figures) { subset.variants.push_back(read_figures(figures, subset.clusters.number)); });
    if (subset.variants.size() != out.variants.size()) item["variants"].wrong("one entry a variant of the run");
    out.subsets.push_back(std::move(subset));
  });
  node["exponents"].each<TensorExponents>([&](const Node& item) {
    out.exponents.push_back({.tensor = item["tensor"].text(),
                             .role = item["role"].text(),
                             .weight = read_exponents(item["weight"]),
                             .activation = read_exponents(item["activation"])});
  });
  node["pairs"].each<Pair>([&](const Node& item) {
    out.pairs.push_back({.a = item["a"].text(),
                         .b = item["b"].text(),
                         .ln_ppl_ratio = item["ln_ppl_ratio"].number(),
                         .ln_ppl_ratio_stderr = item["ln_ppl_ratio_stderr"].amount(),
                         .ln_ppl_ratio_stderr_windows = item["ln_ppl_ratio_stderr_windows"].amount(),
                         .kld_difference = item["kld_difference"].number(),
                         .kld_difference_stderr = item["kld_difference_stderr"].amount(),
                         .kld_difference_stderr_windows = item["kld_difference_stderr_windows"].amount()});
  });
  return out;
}

MachineInfo read_machine(const Node& node) {
  MachineInfo out;
  out.cpu = node["cpu"].text();
  out.backend = node["backend"].text();
  out.os = node["os"].text();
  const auto small = [&](const char* key) {
    const int64_t value = node[key].integer();
    if (value > std::numeric_limits<int>::max()) node[key].wrong("a number of cores");
    return static_cast<int>(value);
  };
  out.cores = small("cores");
  out.threads = small("threads");
  out.memory_bytes = static_cast<uint64_t>(node["memory_bytes"].integer());
  return out;
}

}  // namespace

const MemberNames& member_names(const VariantFigures& figures) {
  static constexpr MemberNames kPerplexity{};
  static constexpr MemberNames kSelf{.nll = "self_nll",
                                     .ppl = "self_perplexity",
                                     .ppl_stderr = "self_perplexity_stderr",
                                     .ppl_stderr_windows = "self_perplexity_stderr_windows",
                                     .ratio = "self_perplexity_ratio",
                                     .ln_ratio = "ln_self_perplexity_ratio",
                                     .ln_ratio_stderr = "ln_self_perplexity_ratio_stderr",
                                     .nll_stderr_windows = "self_nll_stderr_windows",
                                     .ln_ratio_stderr_windows = "ln_self_perplexity_ratio_stderr_windows"};
  return figures.self ? kSelf : kPerplexity;
}

Limits limits_of(uint64_t room) {
  // The parser takes half while a file is read. Later the page exists with copies of its parts, each larger than its
  // record.
  constexpr uint64_t kLargestPage = uint64_t{256} << 20;  // no browser opens more
  return {.parsed_bytes = room / 2, .record_bytes = room / 12, .output_bytes = std::min(kLargestPage, room / 8)};
}

void add_json(Record& record, const std::string& name, std::string_view text) {
  const std::string shown = name.empty() ? "the result" : name;
  // The tables of the parser; real results use a third of them.
  constexpr uint64_t kParsedBytesAByte = 14;
  if (text.size() > record.limits.parsed_bytes / kParsedBytesAByte) {
    fail(
        "{} has {}, and reading so much may take more memory than the {} that there are for it here; give a smaller "
        "file, or more memory.",
        quote(shown), megabytes(text.size()), megabytes(record.limits.parsed_bytes));
  }
  simdjson::dom::parser parser;
  element root;
  if (const auto error = parser.parse(text.data(), text.size()).get(root); error != simdjson::SUCCESS) {
    fail("{} is not valid JSON ({}); give a file that 'mxlm eval --json' wrote.", quote(shown),
         simdjson::error_message(error));
  }
  Reading reading{
      .file = shown, .limits = record.limits, .bytes = record.bytes, .percentile_names = record.percentile_names};
  const Node node(reading, root, "");
  const std::string schema = node["schema"].text();
  if (schema != "mxlm.eval/1") {
    fail("{} has the schema {} where mxlm.eval/1 is known; give a file that 'mxlm eval --json' wrote.", quote(shown),
         quote(schema));
  }
  File file;
  file.name = name;
  file.sha256 = sha256_hex(std::as_bytes(std::span(text.data(), text.size())));
  file.version = node["version"].text();
  file.machine = read_machine(node["machine"]);
  std::vector<Run> runs;
  node.at("runs").each<Run>(
      [&](const Node& item) {
        runs.push_back(read_run(item));
        runs.back().file = record.files.size();
        runs.back().index = runs.size() - 1;
      },
      kMostRuns);
  if (record.runs.size() + runs.size() > kMostRuns) {
    fail("{}: with it there are more than {} runs, too many for one page; give fewer files.", quote(shown), kMostRuns);
  }
  record.bytes = reading.bytes;
  record.percentile_names = std::move(reading.percentile_names);
  record.files.push_back(std::move(file));
  std::move(runs.begin(), runs.end(), std::back_inserter(record.runs));
}

}  // namespace mxlm::report
