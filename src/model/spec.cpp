#include "model/spec.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "model/families.hpp"

namespace mxlm {
namespace {

struct Family {
  std::string_view model_type;
  ModelSpec (*read)(const SpecReader&);
};

constexpr Family kFamilies[] = {
    {"llama", read_llama},
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

std::vector<const LinearSpec*> ModelSpec::linears() const {
  std::vector<const LinearSpec*> out;
  for (const LayerSpec& layer : layers) {
    out.insert(out.end(), {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down});
  }
  out.push_back(&head);
  return out;
}

int64_t ModelSpec::parameters() const {
  const auto linear = [](const LinearSpec& l) { return l.parameters() + (l.bias ? l.bias->matrix.cols : 0); };
  int64_t n = embedding.matrix.rows * embedding.matrix.cols + final_norm.weight.matrix.cols;
  if (!tied_head) n += linear(head);
  for (const LayerSpec& layer : layers) {
    n += layer.attention_norm.weight.matrix.cols + layer.mlp_norm.weight.matrix.cols;
    for (const LinearSpec* l : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      n += linear(*l);
    }
  }
  return n;
}

WeightSource SpecReader::matrix(const std::string& tensor, int64_t rows, int64_t cols) const {
  const TensorEntry* entry = checkpoint_.find(tensor);
  if (entry == nullptr) {
    fail("The checkpoint has no tensor '{}', which config.json of model type '{}' calls for; is the download complete?",
         tensor, config_.string_or("model_type", "?"));
  }
  const std::vector<int64_t> want = rows == 1 && entry->shape.size() == 1 ? std::vector{cols} : std::vector{rows, cols};
  if (entry->shape != want) {
    fail("Tensor '{}' has shape {} where config.json calls for {}; config and weights do not belong together.", tensor,
         shape_text(entry->shape), shape_text(want));
  }
  if (entry->type != DType::f32 && entry->type != DType::f16 && entry->type != DType::bf16) {
    fail("Tensor '{}' is stored as {}; only F32, F16 and BF16 weights can be read.", tensor, dtype_name(entry->type));
  }
  return {.matrix = {.type = entry->type, .rows = rows, .cols = cols, .stride = cols, .data = entry->data()},
          .entry = *entry};
}

LinearSpec SpecReader::linear(const std::string& module, Role role, int64_t outputs, int64_t inputs, bool bias) const {
  LinearSpec linear;
  linear.module = module;
  linear.role = role;
  linear.weight = matrix(module + ".weight", outputs, inputs);
  if (bias) linear.bias = matrix(module + ".bias", 1, outputs);
  return linear;
}

std::vector<std::string> known_families() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  return names;
}

ModelSpec load_spec(const Config& config, const Checkpoint& checkpoint) {
  const std::string type = config.string("model_type");
  if (config.has("quantization_config")) {
    fail("'{}' describes a checkpoint that is already quantised (quantization_config); give the original weights.",
         config.name());
  }
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    ModelSpec spec = family.read(SpecReader(config, checkpoint));
    spec.family = type;
    return spec;
  }
  fail("'{}': model type '{}' is not known; the known ones are: {}.", config.name(), type,
       fmt::join(known_families(), ", "));
}

}  // namespace mxlm
