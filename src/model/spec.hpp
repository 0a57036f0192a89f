#pragma once

// A model family is data: config.json and the names on disk become a ModelSpec; there is one forward pass.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "io/safetensors.hpp"
#include "model/config.hpp"
#include "model/rope.hpp"

namespace mxlm {

/// What a Linear does in the model. Decided by the family, never by a substring of its name.
enum class Role : uint8_t { attention, mlp, lm_head, router };
std::string_view role_name(Role role);

/// A weight as it lies on disk.
struct WeightSource {
  HostMatrix matrix;  // [rows, cols]
  TensorEntry entry;
  /// Asks for the pages to be read ahead / lets them go once the weight is prepared.
  void will_need() const { entry.file.will_need(entry.offset, entry.size); }
  void release() const { entry.file.release(entry.offset, entry.size); }
};

/// A Linear of the model: y = x W^T + b.
struct LinearSpec {
  std::string module;  // name on disk without ".weight"
  Role role = Role::mlp;
  WeightSource weight;               // [outputs, inputs]
  std::optional<WeightSource> bias;  // [1, outputs]
  [[nodiscard]] int64_t parameters() const { return weight.matrix.rows * weight.matrix.cols; }
};

struct NormSpec {
  WeightSource weight;  // [1, width]
  float epsilon = 1e-5F;
};

/// One layer: x += attention(norm(x)); x += mlp(norm(x)). The gated MLP is down(act(gate(x)) * up(x)).
struct LayerSpec {
  NormSpec attention_norm, mlp_norm;
  LinearSpec q, k, v, o;
  LinearSpec gate, up, down;
};

struct ModelSpec {
  std::string family;         // model_type
  DType dtype = DType::bf16;  // of the checkpoint's weights
  int64_t hidden = 0, vocabulary = 0, max_positions = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  Activation activation = Activation::silu;
  RopeSpec rope;
  WeightSource embedding;  // [vocabulary, hidden]
  std::vector<LayerSpec> layers;
  NormSpec final_norm;
  LinearSpec head;  // shares the embedding's weight when tied
  bool tied_head = false;
  int32_t bos_id = -1;  // from config.json; -1 = none

  /// All Linears in forward order, the head last.
  [[nodiscard]] std::vector<const LinearSpec*> linears() const;
  /// Parameters on disk (a tied head counts once).
  [[nodiscard]] int64_t parameters() const;
};

/// Reads tensors of a checkpoint into a spec, checking names, shapes and dtypes; remembers what was read.
class SpecReader {
 public:
  SpecReader(const Config& config, const Checkpoint& checkpoint) : config_(config), checkpoint_(checkpoint) {}
  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] bool has(std::string_view tensor) const { return checkpoint_.find(tensor) != nullptr; }
  /// A matrix [rows, cols] or, with rows 1, also a vector [cols], of dtype F32, F16 or BF16.
  [[nodiscard]] WeightSource matrix(const std::string& tensor, int64_t rows, int64_t cols) const;
  [[nodiscard]] LinearSpec linear(const std::string& module, Role role, int64_t outputs, int64_t inputs,
                                  bool bias) const;

 private:
  const Config& config_;
  const Checkpoint& checkpoint_;
};

/// Builds the spec of a checkpoint by its config's model_type. The spec holds on to the mapped files. Throws Error: an
/// unknown model_type is named with the list of known ones.
ModelSpec load_spec(const Config& config, const Checkpoint& checkpoint);

/// Known values of model_type.
std::vector<std::string> known_families();

}  // namespace mxlm
