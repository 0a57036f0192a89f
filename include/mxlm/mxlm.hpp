#pragma once

// The library's API: load a model, evaluate it, cast arrays and files. docs/library.md has examples.
//
// It prints nothing, installs no signal handler and keeps nothing between calls. Functions may be called from several
// threads at once. They throw mxlm::Error for what the caller or a file is to blame for, and mxlm::Interrupted once the
// caller has called the work off.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mxlm/error.hpp"
#include "mxlm/options.hpp"

namespace mxlm::api {

/// The version of the library, "0.2.0".
MXLM_API const char* version() noexcept;

enum class LogLevel : uint8_t { information, warning, error };
/// Lines that `mxlm` would log go to `handler`, from any thread, one at a time; null (as at the start): nowhere. Holds
/// for the process. The handler must not call the library.
MXLM_API void set_log(std::function<void(LogLevel level, std::string_view line)> handler);

// --- casting

/// An element format of the table in `mxlm formats`.
struct Format {
  std::string name;                  // "mxfp8_e4m3"
  std::vector<std::string> aliases;  // "mxfp8"
  int bits = 0;                      // of an element, without its share of the scale
  int exponent_bits = 0;             // 0 for integers
  int mantissa_bits = 0;             // fraction bits
  int emax = 0;                      // exponent of the largest binade
  double largest = 0, smallest = 0;  // magnitudes, with a scale of 1; `smallest` above zero
  std::string note;
};
/// The named formats; the grammar has more (mxeXmY, mxintN, stages).
MXLM_API std::vector<Format> formats();

enum class ValueType : uint8_t { float32, float16, bfloat16 };
/// Bytes of one value.
constexpr size_t size_of(ValueType type) { return type == ValueType::float32 ? 4 : 2; }

struct CastOptions {
  int threads = 0;      // 0 = as many as there are cores, fewer for small arrays; changes no bit
  Cancelled cancelled;  // null = never
};

/// Quantises an array in row-major order along its last axis and decodes it again.
/// `spec`: a format and its keys, "mxfp4", "mxfp8_e5m2@block=16@rule=rceil": an operand of the variant grammar.
/// `in`: rows x cols values of `in_type`; `out`: as many of `out_type`, at any alignment; both may be the same array of
/// one type. Values are computed in float32 and rounded once to the type of `out`, to nearest even (which changes
/// nothing for bfloat16 where the format decodes exactly to it).
/// A block with a NaN or an Inf becomes NaNs. A scale that a tensor shares (nvfp4, fp8 by tensor) is that of the array.
/// Throws UsageError for a spec that does not parse or that is no format of one tensor, or for negative sizes.
MXLM_API void quantize(std::string_view spec, ValueType in_type, const void* in, ValueType out_type, void* out,
                       int64_t rows, int64_t cols, const CastOptions& options = {});

/// The same for float32 values of rows of `cols`; throws UsageError if they do not divide evenly into rows.
MXLM_API std::vector<float> quantize(std::string_view spec, std::span<const float> values, int64_t cols,
                                     const CastOptions& options = {});

struct CastFileOptions {
  std::filesystem::path input, output;  // safetensors files
  std::string spec;                     // as for quantize
  bool packed = false;                  // write codes (U8) and, as NAME.scale, scales (E8M0) instead of values
  int threads = 0;                      // 0 = as many as there are cores
  Cancelled cancelled;
};
/// `mxlm cast`: every floating tensor of a file quantised along its last axis and decoded to F32, others copied. The
/// output appears whole or not at all. Throws Error for files, UsageError for the spec or one that cannot be packed.
MXLM_API void cast_file(const CastFileOptions& options);

// --- evaluating

/// A checkpoint, opened and understood, its files mapped as long as a copy of this lives. Copies share it.
class MXLM_API Model {
 public:
  /// A folder with config.json, weights and tokenizer.json, a hub id ("org/name[@revision]", downloaded unless the
  /// Hugging Face cache has it or HF_HUB_OFFLINE is set) or a name of `mxlm models`; "" is the model built in,
  /// booklet-7m. `adapter` is the folder of a LoRA adapter to merge into the weights, "" = none. Throws Error.
  static Model load(const std::string& model = "", const Cancelled& cancelled = {}, const std::string& adapter = "");

  [[nodiscard]] std::string name() const;
  [[nodiscard]] std::string family() const;     // "llama"
  [[nodiscard]] std::string dtype() const;      // of the checkpoint, as safetensors says it: "BF16"
  [[nodiscard]] int64_t parameters() const;     // embeddings included
  [[nodiscard]] int64_t max_positions() const;  // tokens

  struct State;
  explicit Model(std::shared_ptr<const State> state);
  [[nodiscard]] const State& state() const { return *state_; }

 private:
  std::shared_ptr<const State> state_;
};

/// Texts or documents. Copies share them.
class MXLM_API Data {
 public:
  /// The text built in, Alice's Adventures in Wonderland.
  static Data embedded();
  /// Texts in UTF-8 (what is not valid becomes U+FFFD); `name` is for the result. Throws UsageError without any.
  static Data texts(std::vector<std::string> texts, std::string name = "text");

  /// NAME_OR_PATH[:SPLIT[:SUBSET]] as --data takes it: a data set that is known by name, or a .txt, .jsonl, .jsonl.gz,
  /// .jsonl.zst or .parquet file or a folder of them. Of the options `field`, `max_samples`, `protocol` (whether rows
  /// of WikiText and ptb are documents) and `cancelled` matter. Throws Error.
  static Data read(const std::string& name, const EvaluateOptions& options = {});

  [[nodiscard]] int64_t documents() const;
  [[nodiscard]] bool is_text() const;  // and no set of documents

  struct State;
  explicit Data(std::shared_ptr<const State> state);
  [[nodiscard]] const State& state() const { return *state_; }

 private:
  std::shared_ptr<const State> state_;
};

/// Main figures of a variant.
struct Figures {
  std::string name, spec;          // "baseline" and ""
  int64_t tokens = 0;              // scored
  double nll = 0;                  // mean nats a scored token, by the protocol's aggregate
  double ppl = 0, ppl_stderr = 0;  // the error by token
  double ppl_stderr_windows = 0;   // the error by cluster, which is the one to quote; NaN with one cluster
  // Nats a token, of the baseline from the variant, with the errors by token and by cluster; none for the baseline.
  std::optional<double> kld_mean, kld_stderr, kld_stderr_windows;
  std::optional<double> top1_agreement;  // a fraction
  double tokens_per_second = 0;
};

struct Evaluation {
  bool complete = true;          // false: cancelled; the figures are those of the finished shards
  std::vector<Figures> figures;  // the baseline first, then the variants in order
  std::string json;              // all there is: schema mxlm.eval/1 of docs/guide.md, one run
};

/// Baseline and variants of one model on one data set. Cancelled, it returns the finished shards, or throws Interrupted
/// if there is none. Throws UsageError for options that make no sense (an unknown protocol, a variant that matches
/// nothing), Error for everything else.
MXLM_API Evaluation evaluate(const Model& model, const Data& data, const EvaluateOptions& options = {});

}  // namespace mxlm::api
