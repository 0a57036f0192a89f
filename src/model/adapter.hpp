#pragma once

// LoRA adapters as peft writes them (adapter_config.json beside adapter_model.safetensors or .bin), merged into the
// weights of a base model as peft's merge_and_unload does.

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

/// What an adapter adds to one weight [rows, cols]: scaling x B A.
struct LowRankUpdate {
  TensorEntry a, b;        // A [rank, cols], B [rows, rank]; of an embedding A^T [rank, rows], B^T [cols, rank]
  bool embedding = false;  // the table's layout: the update is (B A)^T
  int64_t rank = 0;
  float scaling = 1;  // alpha / rank, or alpha / sqrt(rank) with use_rslora
  /// Writes the sum with `base`, float32 [rows, cols] in row-major order.
  void add_to(const HostMatrix& base, float* out) const;
};

class Adapter {
 public:
  /// Reads a folder. Throws Error for what is no LoRA adapter, and for those whose merged weights are more than the
  /// base and scaling x B A (DoRA, aLoRA, PiSSA and the like), naming the reason.
  static Adapter open(const std::filesystem::path& folder);

  /// The adapter with the modules' names in the model: `name_of` is given names as they are in the base model's file.
  [[nodiscard]] Adapter renamed(const std::function<std::string(std::string_view)>& name_of) const;
  /// Forgets the tensors of replaced() that `base` has with the same values: peft saves the embedding, unchanged,
  /// beside what is added to it.
  void drop_unchanged(const Checkpoint& base);
  /// What is added to the weight of a Linear [rows, cols] or to an embedding [rows, cols]; nullopt = nothing. Throws
  /// Error if shapes do not fit.
  [[nodiscard]] std::optional<LowRankUpdate> update(const std::string& module, int64_t rows, int64_t cols) const;
  /// Tensors that take the place of the base model's: modules_to_save, biases.
  [[nodiscard]] const TensorMap& replaced() const { return replaced_; }
  /// Modules that have an update.
  [[nodiscard]] std::set<std::string> modules() const;

  /// The folder as it was named, and what adapter_config.json calls the base model ("" if it says nothing).
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& base() const { return base_; }
  /// Of the bytes of adapter_config.json and of the weights.
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

/// What adapter_config.json of a folder calls its base model ("" if it does not say); nullopt if the folder holds none.
std::optional<std::string> adapter_base(const std::filesystem::path& folder);

}  // namespace mxlm
