#include "model/spec.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "model/families.hpp"
#include "model/keys.hpp"
#include "model/tensor_names.hpp"
#include "model/wrappers.hpp"

namespace mxlm {
namespace {

struct Family {
  std::string_view model_type;
  ModelSpec (*read)(const SpecReader&);
  std::string_view prefix = "model";  // of all tensors except the LM head's: transformers' base_model_prefix
  std::string_view head = "lm_head";
};

constexpr Family kFamilies[] = {
    {"cohere", read_cohere},
    {"falcon", read_falcon, "transformer"},
    {"gemma", read_gemma},
    {"gemma2", read_gemma2},
    {"gemma3_text", read_gemma3},
    {"gpt2", read_gpt2, "transformer"},
    {"gpt_neo", read_gpt_neo, "transformer"},
    {"gpt_neox", read_gpt_neox, "gpt_neox", "embed_out"},
    {"gpt_oss", read_gpt_oss},
    {"granite", read_granite},
    {"llama", read_llama},
    {"mistral", read_mistral},
    {"mixtral", read_mixtral},
    {"mpt", read_mpt, "transformer"},
    {"olmo", read_olmo},
    {"olmo2", read_olmo2},
    {"opt", read_opt},
    {"phi", read_phi},
    {"phi3", read_phi3},
    {"qwen2", read_qwen2},
    {"qwen3", read_qwen3},
    {"qwen3_moe", read_qwen3_moe},
    {"smollm3", read_smollm3},
    {"stablelm", read_stablelm},
    {"starcoder2", read_starcoder2},
};

/// An older model_type, of repositories that brought their own code before the family was part of transformers. Such a
/// model loads if the checkpoint has `tensor`, which only the layout of the family has. An empty `tensor` means that
/// the family reads all layouts of the older type.
struct OldName {
  std::string_view model_type, family, tensor;
};

constexpr OldName kOldNames[] = {
    {"RefinedWeb", "falcon", "transformer.h.0.self_attention.query_key_value.weight"},
    {"RefinedWebModel", "falcon", "transformer.h.0.self_attention.query_key_value.weight"},
    {"Yi", "llama", "model.layers.0.input_layernorm.weight"},
    {"aquila", "llama", "model.layers.0.input_layernorm.weight"},
    {"deepseek", "llama", "model.layers.0.mlp.gate_proj.weight"},
    {"internlm", "llama", "model.layers.0.mlp.gate_proj.weight"},
    {"mixformer-sequential", "phi", ""},
    {"phi-msft", "phi", ""},
    {"stablelm_epoch", "stablelm", "model.layers.0.input_layernorm.bias"},
};

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::attention:
      return "attention";
    case Role::mlp:
      return "mlp";
    case Role::lm_head:
      return "lm_head";
    case Role::router:
      return "router";
  }
  return "?";
}

HostMatrix WeightSource::view(std::vector<std::byte>& storage) const {
  const auto elements = static_cast<size_t>(matrix.rows * matrix.cols);
  HostMatrix out = matrix;
  if (decode) {
    storage.resize(elements * dtype_size(matrix.type));
    decode(storage.data());
  } else if (!row_data.empty()) {
    const size_t row_bytes = elements / row_data.size() * dtype_size(matrix.type);
    storage.resize(elements * dtype_size(matrix.type));
    for (size_t r = 0; r < row_data.size(); ++r) std::memcpy(storage.data() + r * row_bytes, row_data[r], row_bytes);
  } else if (transposed) {
    const size_t size = dtype_size(matrix.type);
    storage.resize(elements * size);
    const auto copy = [&]<typename T>(T* to) {
      const T* from = reinterpret_cast<const T*>(matrix.data);
      constexpr int64_t kTile = 32;
      for (int64_t r0 = 0; r0 < matrix.rows; r0 += kTile) {
        for (int64_t c = 0; c < matrix.cols; ++c) {
          for (int64_t r = r0; r < std::min(r0 + kTile, matrix.rows); ++r) {
            to[r * matrix.cols + c] = from[c * matrix.stride + r * row_step];
          }
        }
      }
    };
    if (size == 4) {
      copy(reinterpret_cast<uint32_t*>(storage.data()));
    } else {
      copy(reinterpret_cast<uint16_t*>(storage.data()));
    }
  } else {
    return matrix;
  }
  out.data = storage.data();
  out.stride = matrix.cols;
  return out;
}

int64_t ModelSpec::parameters() const {
  const auto source = [](const std::optional<WeightSource>& s) { return s ? s->matrix.rows * s->matrix.cols : 0; };
  const auto norm = [&](const std::optional<NormSpec>& n) { return n ? source(n->weight) + source(n->bias) : 0; };
  int64_t n = source(embedding) + source(positions) + norm(final_norm);
  for (const LinearSpec* linear : linears()) {
    if (linear != &lm_head || !tied_head) n += linear->parameters();
    n += source(linear->bias);
  }
  for (const LayerSpec& layer : layers) {
    n += norm(layer.attention.norm) + norm(layer.attention.post_norm) + norm(layer.attention.q_norm) +
         norm(layer.attention.k_norm) + norm(layer.mlp.norm) + norm(layer.mlp.post_norm) +
         source(layer.attention.sinks);
  }
  return n;
}

SpecReader::SpecReader(const Config& config, const Checkpoint& named, const Checkpoint& on_disk, std::string_view head,
                       const Adapter* adapter)
    : config_(config),
      checkpoint_(named),
      on_disk_(on_disk),
      head_(head),
      adapter_(adapter),
      packed_(PackedFormats::read(config)) {}

namespace {

WeightSource source_of(PackedWeight packed) {
  WeightSource source;
  source.matrix = {.type = DType::bf16, .rows = packed.rows, .cols = packed.cols, .stride = packed.cols};
  source.entry = packed.codes;
  source.stored_bits = packed.bits();
  source.decode = [weight = std::move(packed)](std::byte* out) { weight.decode(reinterpret_cast<BFloat16*>(out)); };
  return source;
}

}  // namespace

std::optional<WeightSource> SpecReader::packed_part(const std::string& tensor, int64_t parts, int64_t index,
                                                    int64_t rows, int64_t cols) const {
  if (!packed_) return std::nullopt;
  auto packed = packed_->part(checkpoint_, tensor, parts, index, rows, cols);
  if (!packed) return std::nullopt;
  return source_of(*std::move(packed));
}

void SpecReader::fail_missing(const std::string& tensor) const {
  const std::string type = config_.string_or("model_type", "?");
  if (const auto unread = checkpoint_.unread().find(tensor); unread != checkpoint_.unread().end()) {
    fail("Tensor '{}', which config.json of model type '{}' calls for, {}; get the files again.", tensor, type,
         unread->second);
  }
  for (const auto& [name, other] : on_disk_.tensors()) {
    if (!name.ends_with(tensor) || name.size() < tensor.size() + 2 || name[name.size() - tensor.size() - 1] != '.') {
      continue;
    }
    const std::string prefix = name.substr(0, name.size() - tensor.size());
    fail(
        "The checkpoint has no tensor '{}', but {}: its names begin with {}, which transformers does not know either; "
        "write it again with names that begin after that.",
        tensor, quote(name), quote(prefix));
  }
  fail("The checkpoint has no tensor '{}', which config.json of model type '{}' calls for; is the download complete?",
       tensor, type);
}

const TensorEntry& SpecReader::entry(const std::string& tensor, const std::vector<int64_t>& shape) const {
  const TensorEntry* entry = checkpoint_.find(tensor);
  if (entry == nullptr) fail_missing(tensor);
  if (entry->shape != shape && !(shape.size() == 2 && shape[0] == 1 && entry->shape == std::vector{shape[1]})) {
    fail("Tensor '{}' has shape {} where config.json calls for {}; config and weights do not belong together.", tensor,
         shape_text(entry->shape), shape_text(shape));
  }
  if (entry->type != DType::f32 && entry->type != DType::f16 && entry->type != DType::bf16) {
    fail("Tensor '{}' is stored as {}; only F32, F16 and BF16 weights can be read.", tensor, dtype_name(entry->type));
  }
  return *entry;
}

WeightSource SpecReader::matrix(const std::string& tensor, int64_t rows, int64_t cols) const {
  const TensorEntry& e = entry(tensor, {rows, cols});
  WeightSource source;
  source.matrix = {.type = e.type, .rows = rows, .cols = cols, .stride = cols, .data = e.data()};
  source.entry = e;
  return source;
}

WeightSource SpecReader::part(const std::string& tensor, int64_t parts, int64_t index, int64_t rows, int64_t cols,
                              bool transposed) const {
  const TensorEntry& e = entry(tensor, transposed ? std::vector{parts, cols, rows} : std::vector{parts, rows, cols});
  WeightSource source;
  source.entry = e;
  source.entry.size = e.size / static_cast<size_t>(parts);
  source.entry.offset = e.offset + static_cast<size_t>(index) * source.entry.size;
  source.matrix = {
      .type = e.type, .rows = rows, .cols = cols, .stride = transposed ? rows : cols, .data = source.entry.data()};
  source.transposed = transposed;
  return source;
}

WeightSource SpecReader::row(const std::string& tensor, int64_t rows, int64_t index, int64_t cols) const {
  WeightSource source = matrix(tensor, rows, cols);
  source.matrix.rows = 1;
  source.matrix.data += static_cast<size_t>(index * cols) * dtype_size(source.matrix.type);
  return source;
}

LinearSpec SpecReader::linear(const std::string& module, Role role, int64_t outputs, int64_t inputs, bool bias,
                              bool transposed) const {
  LinearSpec linear;
  linear.module = module;
  linear.role = role;
  if (transposed) {
    linear.weight = matrix(module + ".weight", inputs, outputs);
    std::swap(linear.weight.matrix.rows, linear.weight.matrix.cols);
    linear.weight.transposed = true;
  } else if (auto packed = packed_ ? packed_->weight(checkpoint_, module, outputs, inputs) : std::nullopt) {
    linear.weight = source_of(*std::move(packed));
  } else {
    linear.weight = matrix(module + ".weight", outputs, inputs);
  }
  linear.weight = adapted(module, std::move(linear.weight));
  if (bias) linear.bias = matrix(module + ".bias", 1, outputs);
  return linear;
}

WeightSource SpecReader::adapted(const std::string& module, WeightSource weight) const {
  if (adapter_ == nullptr) return weight;
  const HostMatrix matrix = weight.matrix;
  auto update = adapter_->update(module, matrix.rows, matrix.cols);
  if (!update) return weight;
  adapted_.insert(module);
  WeightSource sum;
  // The sum is float32, as in peft. A bfloat16 run rounds it once, which gives what peft makes of a bfloat16 model.
  sum.matrix = {.type = DType::f32, .rows = matrix.rows, .cols = matrix.cols, .stride = matrix.cols};
  sum.entry = weight.entry;
  sum.stored_bits = weight.stored_bits > 0 ? weight.stored_bits : 8.0 * static_cast<double>(dtype_size(matrix.type));
  sum.decode = [base = std::move(weight), added = *std::move(update)](std::byte* out) {
    std::vector<std::byte> storage;
    added.add_to(base.view(storage), reinterpret_cast<float*>(out));
  };
  return sum;
}

WeightSource SpecReader::adapted_in_memory(const std::string& module, WeightSource weight) const {
  WeightSource sum = adapted(module, std::move(weight));
  if (!sum.decode) return sum;
  std::vector<std::byte> values;
  WeightSource out;
  out.matrix = sum.view(values);
  out.entry = sum.entry;
  out.entry.offset = 0;
  out.entry.size = values.size();
  out.entry.file = FileView::from_owned(sum.entry.file.name(), std::move(values));
  out.matrix.data = out.entry.data();
  return out;
}

NormSpec SpecReader::rms_norm(const std::string& name, int64_t width, float epsilon) const {
  NormSpec norm;
  norm.weight = matrix(name + ".weight", 1, width);
  norm.epsilon = epsilon;
  return norm;
}

NormSpec SpecReader::layer_norm(const std::string& name, int64_t width, float epsilon, bool bias) const {
  NormSpec norm;
  norm.kind = NormKind::layer;
  norm.weight = matrix(name + ".weight", 1, width);
  if (bias) norm.bias = matrix(name + ".bias", 1, width);
  norm.epsilon = epsilon;
  norm.round_before_weight = false;
  return norm;
}

std::vector<std::string> known_families() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  const std::vector<std::string> wrappers = known_wrappers();
  names.insert(names.end(), wrappers.begin(), wrappers.end());
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

using NameOf = std::function<std::string(std::string_view)>;

/// `base` with those tensors of `adapter` that replace tensors of the base model.
Checkpoint with_replaced(const Checkpoint& base, const Adapter& adapter, std::string_view head) {
  for (const auto& [name, entry] : adapter.replaced()) {
    const TensorEntry* old = base.find(name);
    if (old == nullptr && name != std::string(head) + ".weight") {
      fail(
          "The adapter {} holds a tensor {}, which the model does not have; give the base model that it was "
          "trained on.",
          quote(adapter.name()), quote(name));
    }
    if (old != nullptr && old->shape != entry.shape) {
      fail(
          "The adapter {} replaces tensor {}, whose shape is {}, by a tensor of shape {}: the model that it was "
          "trained on had another size; merge the adapter with peft.",
          quote(adapter.name()), quote(name), shape_text(old->shape), shape_text(entry.shape));
    }
  }
  return base.with(adapter.replaced());
}

ModelSpec read_family(const Family& family, const Config& config, const Checkpoint& checkpoint, const NameOf& name_of,
                      const Adapter* given, const OldName* old) {
  const Checkpoint base = checkpoint.renamed(name_of);
  std::optional<Adapter> adapter;
  if (given != nullptr) {
    adapter = given->renamed(name_of);
    adapter->drop_unchanged(base);
  }
  const Checkpoint named = adapter ? with_replaced(base, *adapter, family.head) : base;
  const SpecReader reader(config, named, checkpoint, family.head, adapter ? &*adapter : nullptr);
  if (old != nullptr && !old->tensor.empty() && !reader.has(old->tensor)) {
    fail("'{}': model type '{}' is an older layout of '{}' (there is no tensor '{}'); convert it with transformers.",
         config.name(), old->model_type, old->family, old->tensor);
  }
  ModelSpec spec = family.read(reader);
  spec.family = family.model_type;
  if (!adapter) return spec;
  // The dtype is that of the base model, because an adapter may replace the embedding by wider values.
  if (const TensorEntry* embedding = base.find(spec.embedding_module + ".weight")) spec.dtype = embedding->type;
  for (const std::string& module : adapter->modules()) {
    if (!reader.adapted_modules().contains(module)) {
      fail(
          "The adapter {} changes module {}, which the model does not have or which takes no adapter here; give the "
          "base model that it was trained on, or merge the adapter with peft.",
          quote(adapter->name()), quote(module));
    }
  }
  return spec;
}

}  // namespace

ModelSpec load_spec(const Config& config, const Checkpoint& checkpoint, const Adapter* adapter) {
  const std::string type = config.string("model_type");
  const Wrapper* wrapper = find_wrapper(type);
  const Config text = wrapper != nullptr ? text_config(*wrapper, config) : config;
  const auto* old =
      std::find_if(std::begin(kOldNames), std::end(kOldNames), [&](const OldName& o) { return o.model_type == type; });
  if (old == std::end(kOldNames)) old = nullptr;
  const std::string name = old != nullptr ? std::string(old->family) : text.string("model_type");
  for (const Family& family : kFamilies) {
    if (family.model_type != name) continue;
    const auto name_of = [&](std::string_view tensor) {
      return wrapper != nullptr ? text_name(*wrapper, tensor) : prefixed(tensor, family.prefix, family.head);
    };
    return read_family(family, with_family_keys(text, old != nullptr ? old->model_type : family.model_type), checkpoint,
                       name_of, adapter, old);
  }
  fail("'{}': model type '{}' is not known; the known ones are: {}.", config.name(), type,
       fmt::join(known_families(), ", "));
}

}  // namespace mxlm
