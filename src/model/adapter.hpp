#pragma once

// LoRA adapters in peft's files (adapter_config.json beside adapter_model.safetensors or .bin), merged into the weights
// of a base model as peft's merge_and_unload merges them.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "io/checkpoint.hpp"
#include "tensor/tensor.hpp"

namespace mxlm {

/// The change of one weight [rows, cols]: scaling x B A.
struct LowRankUpdate {
  TensorEntry a, b;        // A [rank, cols], B [rows, rank]; for an embedding A^T [rank, rows], B^T [cols, rank]
  bool embedding = false;  // the table's layout: the update is (B A)^T
  int64_t rank = 0;
  float scaling = 1;  // alpha / rank, or alpha / sqrt(rank) with use_rslora
  /// Adds to `base`, float32 [rows, cols] in row-major order, and writes the sum.
  void add_to(const HostMatrix& base, float* out) const;
};

class Adapter {
 public:
  /// Reads a folder. Throws Error with the reason if the folder is not a LoRA adapter, or if its merged weights are
  /// more than the base and scaling x B A (DoRA, aLoRA, PiSSA and similar).
  static Adapter open(const std::filesystem::path& folder);

  /// The adapter under the module names of the model: `name_of` maps the names in the base model's file.
  [[nodiscard]] Adapter renamed(const std::function<std::string(std::string_view)>& name_of) const;
  /// Removes the tensors of replaced() that `base` holds with the same values: peft saves the embedding unchanged
  /// beside its update.
  void drop_unchanged(const Checkpoint& base);
  /// The update of a Linear's weight [rows, cols] or of an embedding [rows, cols]; nullopt = no update. Throws Error if
  /// shapes do not fit.
  [[nodiscard]] std::optional<LowRankUpdate> update(const std::string& module, int64_t rows, int64_t cols) const;
  /// Tensors that replace the base model's: modules_to_save, biases.
  [[nodiscard]] const TensorMap& replaced() const { return replaced_; }
  /// The modules with an update.
  [[nodiscard]] std::set<std::string> modules() const;

  /// The folder's name as given, and the base model's name in adapter_config.json ("" if it has none).
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& base() const { return base_; }
  /// The hash of adapter_config.json and of the weights.
  [[nodiscard]] const std::string& sha256() const { return sha256_; }

 private:
  struct Update {
    std::optional<TensorEntry> a, b;
    bool embedding = false;
  };
  [[nodiscard]] float scaling_of(const std::string& module, int64_t rank) const;

  std::string name_, base_, sha256_;
  double alpha_ = 0;
  int64_t rank_ = 0;
  bool rank_stabilised_ = false;
  std::map<std::string, double, std::less<>> alphas_, ranks_;  // alpha_pattern and rank_pattern
  std::map<std::string, Update, std::less<>> updates_;         // by module
  TensorMap replaced_;
};

/// The base model's name in a folder's adapter_config.json ("" if it has none); nullopt if the folder has no such file.
std::optional<std::string> adapter_base(const std::filesystem::path& folder);

}  // namespace mxlm
