#pragma once

// A model as data: the reader of its family makes a ModelSpec of config.json and the checkpoint's tensors. All families
// share one forward pass.

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "io/safetensors.hpp"
#include "model/adapter.hpp"
#include "model/config.hpp"
#include "model/packed.hpp"
#include "model/rope.hpp"

namespace mxlm {

/// What a Linear does in the model. The family decides it, never a substring of a name.
enum class Role : uint8_t { attention, mlp, lm_head, router };
std::string_view role_name(Role role);

/// A weight as it lies on disk, to be read as [rows, cols].
struct WeightSource {
  /// The shape and type of the values. `data` is their first element if the values exist on disk, row by row or, with
  /// `transposed`, column by column (element (r, c) at c * stride + r * row_step); null if `decode` makes them.
  HostMatrix matrix;
  TensorEntry entry;  // the place of the bytes; for `decode`, of the codes
  bool transposed = false;
  int64_t row_step = 1;  // distance between rows of a transposed weight
  /// The place of each row, if rows do not follow one another.
  std::vector<const std::byte*> row_data;
  /// Writes the values [rows, cols], in the matrix's type, of a weight that is stored in codes and scales, or that is
  /// the sum of a base model's and an adapter's weight.
  std::function<void(std::byte*)> decode;
  double stored_bits = 0;  // bits per element on disk; 0 = the type's

  /// The values row by row: in place if they are stored like that, else in `storage`.
  [[nodiscard]] HostMatrix view(std::vector<std::byte>& storage) const;
  /// The values row by row in the checkpoint's own memory; null if they are not stored like that.
  [[nodiscard]] const HostMatrix* in_place() const {
    return decode || !row_data.empty() || transposed ? nullptr : &matrix;
  }
  /// Asks for the pages to be read ahead / drops them once the weight is prepared.
  void will_need() const { entry.file.will_need(entry.offset, entry.size); }
  void release() const { entry.file.release(entry.offset, entry.size); }
};

/// A Linear of the model: y = x W^T + b.
struct LinearSpec {
  std::string module;  // name on disk without ".weight"
  Role role = Role::mlp;
  WeightSource weight;               // [outputs, inputs]
  std::optional<WeightSource> bias;  // [1, outputs]
  [[nodiscard]] int64_t outputs() const { return weight.matrix.rows; }
  [[nodiscard]] int64_t inputs() const { return weight.matrix.cols; }
  [[nodiscard]] int64_t parameters() const { return outputs() * inputs(); }
};

/// A norm of the model. NormArgs explains the fields.
struct NormSpec {
  NormKind kind = NormKind::rms;
  std::optional<WeightSource> weight, bias;  // [1, width] or [1, group]
  float epsilon = 1e-5F;
  float weight_offset = 0;
  bool round_before_weight = true;
  int64_t group = 0;
  bool by_operators = false;  // the family's own LayerNorm, not torch's layer_norm
};

/// The layout of q, k and v in the projections.
enum class QkvLayout : uint8_t {
  separate,  // three Linears
  blocks,    // one: all of q, then k, then v
  by_head,   // one: for each head its q, k and v (as many key/value heads as heads)
};

struct AttentionSpec {
  std::optional<NormSpec> norm;       // of the input
  std::optional<NormSpec> post_norm;  // of the output, before the residual sum
  QkvLayout layout = QkvLayout::separate;
  std::vector<LinearSpec> qkv;  // three or one
  LinearSpec o;
  std::optional<NormSpec> q_norm, k_norm;  // before the rotation
  float clip = 0;                          // bound of |q|, |k| and |v|; 0 = no bound
  int rope = -1;                           // index into ModelSpec::ropes; -1 = no rotation
  int64_t sliding_window = 0;              // query q sees keys k > q - sliding_window; 0 = all keys up to q
  float scale = 1;
  float softcap = 0;
  std::optional<WeightSource> sinks;  // [1, heads]
};

/// One expert: a gated MLP. Its gate and up are one Linear or two Linears.
struct ExpertSpec {
  std::vector<LinearSpec> in;
  LinearSpec out;
};

struct MlpSpec {
  enum class Kind : uint8_t {
    plain,        // out(act(in(x)))
    gated,        // out(act(gate(x)) * up(x)); `in` is gate and up
    gated_fused,  // `in` is one Linear with gate, then up (or both in turn: GatedArgs::interleaved)
  };
  std::optional<NormSpec> norm;       // of the input; in a parallel block nullopt means the attention's
  std::optional<NormSpec> post_norm;  // of the output, before the residual sum
  Kind kind = Kind::gated;
  GatedArgs activation;  // Kind::plain uses only its function
  std::vector<LinearSpec> in;
  LinearSpec out;
  /// A mixture has a router and experts instead of `in` and `out`. Each expert is of `kind`.
  std::optional<LinearSpec> router;
  RoutingArgs routing;
  std::vector<ExpertSpec> experts;
  [[nodiscard]] bool is_mixture() const { return router.has_value(); }
};

/// x += attention(norm(x)); x += mlp(norm(x)), or, `parallel`, x += attention(norm(x)) + mlp(norm(x)).
struct LayerSpec {
  AttentionSpec attention;
  MlpSpec mlp;
  bool parallel = false;
};

struct ModelSpec {
  std::string family;         // model_type
  DType dtype = DType::bf16;  // of the checkpoint's weights
  int64_t hidden = 0, vocabulary = 0, max_positions = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<RopeSpec> ropes;
  std::vector<float> alibi_slopes;        // [heads]; empty = no ALiBi
  WeightSource embedding;                 // [vocabulary, hidden]
  float embedding_multiplier = 1;         // rounded to the model dtype before use
  std::optional<WeightSource> positions;  // learned: [positions + position_offset, hidden]
  int64_t position_offset = 0;
  float residual_multiplier = 1;  // of what attention and MLP add
  std::vector<LayerSpec> layers;
  std::optional<NormSpec> final_norm;
  std::string
      embedding_module;  // name without ".weight"; the LM head's name if a file holds only the LM head of a tied pair
  LinearSpec lm_head;    // shares the embedding's weight when tied
  bool tied_head = false;
  float logit_multiplier = 1, logit_softcap = 0;
  int32_t bos_id = -1;  // from config.json; -1 = none

  /// True if a window may nevertheless be longer than max_positions (rotary positions or ALiBi, no learned table).
  [[nodiscard]] bool extends() const { return !positions.has_value(); }
  /// All Linears in forward order, including routers; the LM head is last.
  [[nodiscard]] std::vector<const LinearSpec*> linears() const;
  /// The number of parameters on disk. A tied LM head counts once.
  [[nodiscard]] int64_t parameters() const;
};

/// Reads tensors of a checkpoint into a spec, checking names, shapes and dtypes.
class SpecReader {
 public:
  /// `named` is `on_disk` under transformers' tensor names of a model whose LM head is `head`. `adapter` (may be null)
  /// has the model's names, too; it is merged into the Linears and the embedding.
  SpecReader(const Config& config, const Checkpoint& named, const Checkpoint& on_disk, std::string_view head,
             const Adapter* adapter = nullptr);
  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] const Checkpoint& on_disk() const { return on_disk_; }
  /// The name of the Linear that produces the logits.
  [[nodiscard]] const std::string& head_module() const { return head_; }
  [[nodiscard]] bool has(std::string_view tensor) const { return checkpoint_.find(tensor) != nullptr; }
  [[nodiscard]] const TensorEntry* find(std::string_view tensor) const { return checkpoint_.find(tensor); }
  /// True if the weight of a Linear exists, as numbers or in codes.
  [[nodiscard]] bool holds_weight(const std::string& module) const {
    return has(module + ".weight") || has(module + ".weight_packed");
  }
  /// A matrix [rows, cols] or, if rows is 1, also a vector [cols], of dtype F32, F16 or BF16.
  [[nodiscard]] WeightSource matrix(const std::string& tensor, int64_t rows, int64_t cols) const;
  /// Part `index` of a tensor [parts, rows, cols], or with `transposed` [parts, cols, rows], read as [rows, cols].
  [[nodiscard]] WeightSource part(const std::string& tensor, int64_t parts, int64_t index, int64_t rows, int64_t cols,
                                  bool transposed) const;
  /// Part `index` of a weight [parts, rows, cols] in codes, TENSOR_blocks and TENSOR_scales; nullopt if the checkpoint
  /// has no such tensors.
  [[nodiscard]] std::optional<WeightSource> packed_part(const std::string& tensor, int64_t parts, int64_t index,
                                                        int64_t rows, int64_t cols) const;
  /// Row `index` of a tensor [rows, cols], as [1, cols].
  [[nodiscard]] WeightSource row(const std::string& tensor, int64_t rows, int64_t index, int64_t cols) const;
  /// `bias` says that a bias must exist. With `transposed` the weight is stored as [inputs, outputs].
  [[nodiscard]] LinearSpec linear(const std::string& module, Role role, int64_t outputs, int64_t inputs, bool bias,
                                  bool transposed = false) const;
  /// `weight` plus the adapter's update of `module`, if any; computed whenever the values are needed.
  [[nodiscard]] WeightSource adapted(const std::string& module, WeightSource weight) const;
  /// The same, computed once if the adapter has an update.
  [[nodiscard]] WeightSource adapted_in_memory(const std::string& module, WeightSource weight) const;
  /// True if the adapter contains this tensor.
  [[nodiscard]] bool is_replaced(const std::string& tensor) const {
    return adapter_ != nullptr && adapter_->replaced().contains(tensor);
  }
  /// The modules that adapted() was called for and that the adapter changes.
  [[nodiscard]] const std::set<std::string>& adapted_modules() const { return adapted_; }
  /// An RMSNorm with a weight NAME.weight [width], rounded before the weight as in llama.
  [[nodiscard]] NormSpec rms_norm(const std::string& name, int64_t width, float epsilon) const;
  /// A LayerNorm with NAME.weight and, where `bias`, NAME.bias [width].
  [[nodiscard]] NormSpec layer_norm(const std::string& name, int64_t width, float epsilon, bool bias) const;

 private:
  [[noreturn]] void fail_missing(const std::string& tensor) const;
  [[nodiscard]] const TensorEntry& entry(const std::string& tensor, const std::vector<int64_t>& shape) const;

  const Config& config_;
  const Checkpoint& checkpoint_;
  const Checkpoint& on_disk_;
  std::string head_;
  const Adapter* adapter_;
  mutable std::set<std::string> adapted_;
  std::optional<PackedFormats> packed_;  // set if the checkpoint holds codes
};

/// Builds the spec of a checkpoint from its config's model_type; for a multimodal model, the spec of its text part.
/// `adapter` (may be null) is merged into the weights. The spec keeps the files mapped. Throws Error; for an unknown
/// model_type, the message lists the known types.
ModelSpec load_spec(const Config& config, const Checkpoint& checkpoint, const Adapter* adapter = nullptr);

/// The known values of model_type, of families and wrappers.
std::vector<std::string> known_families();

}  // namespace mxlm
