#pragma once

// The library's API: load a model, evaluate it, cast arrays and files. docs/library.md has examples.
//
// The library prints nothing, installs no signal handler and keeps nothing between calls. Several threads may call its
// functions at once. Functions throw mxlm::Error for mistakes of the caller and defects of files, and mxlm::Interrupted
// if the caller has cancelled the work.

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
/// Sends log lines of the whole process to `handler`. Any thread may call the handler, but only one at a time, and the
/// handler must not call the library. With null, which is the state at the start, log lines are dropped.
MXLM_API void set_log(std::function<void(LogLevel level, std::string_view line)> handler);

// --- casting

/// An element format of the table in `mxlm formats`.
struct Format {
  std::string name;                  // "mxfp8_e4m3"
  std::vector<std::string> aliases;  // "mxfp8"
  int bits = 0;                      // of one element, without its share of the scale
  int exponent_bits = 0;             // 0 for integers
  int mantissa_bits = 0;             // fraction bits
  int emax = 0;                      // exponent of the largest binade
  double largest = 0, smallest = 0;  // magnitudes under a scale of 1; `smallest` is above zero
  std::string note;
};
/// The named element formats. The grammar has more formats: mxeXmY, mxintN and the reference formats.
MXLM_API std::vector<Format> formats();

enum class ValueType : uint8_t { float32, float16, bfloat16 };
/// The number of bytes of one value.
constexpr size_t size_of(ValueType type) { return type == ValueType::float32 ? 4 : 2; }

struct CastOptions {
  int threads = 0;      // 0 = as many as there are cores, fewer for small arrays; changes no bit
  Cancelled cancelled;  // null = never
};

/// Quantises an array in row-major order along its last axis and decodes it again.
///
/// `spec` is a format and its keys, such as "mxfp4" or "mxfp8_e5m2@block=16@rule=rceil"; it is an operand of the
/// variant grammar. `in` holds rows x cols values of `in_type`, and `out` receives as many values of `out_type`, both
/// at any alignment. `in` and `out` may be the same array if their types are equal. Values are computed in float32 and
/// rounded once to the type of `out`, to nearest even. This rounding changes nothing if the format decodes exactly to
/// bfloat16.
///
/// A block with a NaN or an Inf becomes NaNs. Formats with one scale per tensor (nvfp4, fp8 by tensor) take the array
/// as the tensor. Throws UsageError if the spec does not parse or is not a format of one tensor, or if a size is
/// negative.
MXLM_API void quantize(std::string_view spec, ValueType in_type, const void* in, ValueType out_type, void* out,
                       int64_t rows, int64_t cols, const CastOptions& options = {});

/// The same for float32 values in rows of `cols` values. Throws UsageError if the values do not divide into rows.
MXLM_API std::vector<float> quantize(std::string_view spec, std::span<const float> values, int64_t cols,
                                     const CastOptions& options = {});

struct CastFileOptions {
  std::filesystem::path input, output;  // safetensors files
  std::string spec;                     // see quantize()
  bool packed = false;                  // write codes (U8) and, as NAME.scale, scales (E8M0) instead of values
  int threads = 0;                      // 0 = as many as there are cores
  Cancelled cancelled;
};
/// Does what `mxlm cast` does: quantises every floating-point tensor of a file along its last axis, decodes it to F32,
/// and copies all other tensors. The output file appears complete or not at all. Throws Error for a file that cannot be
/// read or written, and UsageError for a spec that does not parse or cannot be packed.
MXLM_API void cast_file(const CastFileOptions& options);

// --- evaluating

/// An open checkpoint. Copies share it, and its files stay mapped as long as a copy lives.
class MXLM_API Model {
 public:
  /// Opens a model. `model` is a folder with config.json, weights and tokenizer.json, a name of `mxlm models`, or a hub
  /// id
  /// ("org/name[@revision]"), which is downloaded unless the Hugging Face cache has it or HF_HUB_OFFLINE is set. "" is
  /// the built-in model booklet-7m. `adapter` is the folder of a LoRA adapter to merge into the weights, "" = no
  /// adapter. Throws Error.
  static Model load(const std::string& model = "", const Cancelled& cancelled = {}, const std::string& adapter = "");

  [[nodiscard]] std::string name() const;
  [[nodiscard]] std::string family() const;     // "llama"
  [[nodiscard]] std::string dtype() const;      // of the checkpoint, in the words of safetensors: "BF16"
  [[nodiscard]] int64_t parameters() const;     // with embeddings
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
  /// The built-in text, Alice's Adventures in Wonderland.
  static Data embedded();
  /// Texts in UTF-8; invalid bytes become U+FFFD. The result shows `name`. Throws UsageError if there is no text.
  static Data texts(std::vector<std::string> texts, std::string name = "text");

  /// Reads NAME_OR_PATH[:SPLIT[:SUBSET]], as --data does. The name is that of a known data set, of a .txt, .jsonl,
  /// .jsonl.gz, .jsonl.zst or .parquet file, or of a folder of such files. Only the options `field`, `max_samples`,
  /// `protocol` (whether rows of WikiText and ptb are documents) and `cancelled` matter. Throws Error.
  static Data read(const std::string& name, const EvaluateOptions& options = {});

  [[nodiscard]] int64_t documents() const;
  [[nodiscard]] bool is_text() const;  // false for a set of documents

  struct State;
  explicit Data(std::shared_ptr<const State> state);
  [[nodiscard]] const State& state() const { return *state_; }

 private:
  std::shared_ptr<const State> state_;
};

/// The main figures of a variant.
struct Figures {
  std::string name, spec;          // "baseline" and ""
  int64_t tokens = 0;              // scored
  double nll = 0;                  // mean nats per scored token, by the protocol's aggregate
  double ppl = 0, ppl_stderr = 0;  // the error with tokens as independent observations
  double ppl_stderr_windows = 0;   // the error by cluster, which is the error to quote; NaN with one cluster
  // KL(baseline || variant) in nats per token, with the errors by token and by cluster; nullopt for the baseline.
  std::optional<double> kld_mean, kld_stderr, kld_stderr_windows;
  std::optional<double> top1_agreement;  // a fraction
  double tokens_per_second = 0;
};

struct Evaluation {
  bool complete = true;          // false = cancelled, with the figures of the finished shards
  std::vector<Figures> figures;  // the baseline first, then the variants in order
  std::string json;              // all figures: schema mxlm.eval/1 of docs/guide.md, one run
};

/// Evaluates the baseline and the variants of one model on one data set. If cancelled, it returns the figures of the
/// finished shards, or throws Interrupted if no shard is finished. Throws UsageError for options that make no sense (an
/// unknown protocol, a variant that matches nothing), and Error for everything else.
MXLM_API Evaluation evaluate(const Model& model, const Data& data, const EvaluateOptions& options = {});

}  // namespace mxlm::api
