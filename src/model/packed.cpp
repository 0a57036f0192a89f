#include "model/packed.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "mx/quantize.hpp"

namespace mxlm {
namespace {

constexpr std::string_view kKey = "quantization_config";
constexpr std::string_view kCompressedTensors = "compressed-tensors", kModelOpt = "modelopt", kQuark = "quark";
constexpr std::string_view kTransformers = "mxfp4";

std::string readable_formats() {
  std::string text;
  for (const mx::StoredFormat& f : mx::kStoredFormats) {
    text += fmt::format("{}{}{}{}", text.empty() ? "" : ", ", f.method, f.name.empty() ? "" : " ", f.name);
  }
  return text;
}

/// Methods (quant_method) that are not Microscaling formats.
struct ForeignMethod {
  std::string_view method, name;
};
constexpr ForeignMethod kForeignMethods[] = {
    {"aqlm", "AQLM"},
    {"auto-round", "AutoRound"},
    {"awq", "AWQ"},
    {"bitnet", "BitNet"},
    {"bitsandbytes", "bitsandbytes"},
    {"eetq", "EETQ"},
    {"exl2", "EXL2"},
    {"fbgemm_fp8", "FP8 (FBGEMM)"},
    {"fp8", "FP8"},
    {"fp_quant", "FP-Quant"},
    {"gptq", "GPTQ"},
    {"higgs", "HIGGS"},
    {"hqq", "HQQ"},
    {"intel/auto-round", "AutoRound"},
    {"marlin", "Marlin"},
    {"quanto", "Quanto"},
    {"quip", "QuIP#"},
    {"spqr", "SpQR"},
    {"torchao", "torchao"},
    {"vptq", "VPTQ"},
};

/// "4 bits, groups of 128, NF4", as far as the config says.
std::string bits_and_groups(const Config& quantization) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? " (" : ", ") + part; };
  const auto integer = [&](const char* key) {
    return quantization.is_integer(key) ? quantization.integer(key, INT32_MIN, INT32_MAX) : 0;
  };
  int64_t bits = integer("bits");
  if (bits == 0) bits = integer("w_bit");
  if (quantization.is_true("load_in_8bit") || quantization.is_true("_load_in_8bit")) bits = 8;
  if (quantization.is_true("load_in_4bit") || quantization.is_true("_load_in_4bit")) bits = 4;
  if (bits > 0) add(fmt::format("{} bits", bits));
  int64_t group = integer("group_size");
  if (group == 0) group = integer("q_group_size");
  if (group > 0) add(fmt::format("groups of {}", group));
  return text.empty() ? text : text + ")";
}

[[noreturn]] void refuse_foreign(const Config& config, const Config& quantization, std::string_view name) {
  fail(
      "'{}': the weights are quantised with {}{}, which is not a Microscaling format and cannot be read; give the "
      "original model{}.",
      config.name(), name, bits_and_groups(quantization), origin(config));
}

[[noreturn]] void refuse(const Config& config, const std::string& reason) {
  fail(
      "'{}': the weights are quantised in a way that cannot be read: {}; mxlm reads {} (or give the original weights).",
      config.name(), reason, readable_formats());
}

void add(std::vector<mx::ElementFormat>& elements, const mx::ElementFormat& element) {
  if (std::find(elements.begin(), elements.end(), element) == elements.end()) elements.push_back(element);
}

/// Adds the element format of a method's word `name`; `what` describes it in a refusal.
void add_named(const Config& config, std::string_view method, const std::string& name, const std::string& what,
               std::vector<mx::ElementFormat>& elements) {
  for (const mx::StoredFormat& f : mx::kStoredFormats) {
    if (f.method == method && f.name == name) return add(elements, f.element);
  }
  refuse(config, fmt::format("{} is '{}'", what, name));
}

void check_group_size(const Config& config, const Config& weights, const std::string& what) {
  const int64_t size = weights.integer_or("group_size", mx::kStoredBlock, INT32_MIN, INT32_MAX);
  if (size != mx::kStoredBlock) {
    refuse(config, fmt::format("{} has group_size {}, not {}", what, size, mx::kStoredBlock));
  }
}

/// True for a config that quantises only activations or the key/value cache, but no weights.
bool stores_plain_weights(const Config& config, const Config& quantization) {
  if (const auto sparsity = quantization.object("sparsity_config")) {
    const std::string format = sparsity->string_or("format", "dense");
    if (format != "dense") refuse(config, fmt::format("its sparsity_config has the format '{}'", format));
  }
  if (quantization.string_or("format", "") != "dense") return false;
  const auto groups = quantization.object("config_groups");
  if (!groups) return true;
  const std::vector<std::string> names = groups->keys();
  return std::none_of(names.begin(), names.end(), [&](const std::string& name) {
    const auto group = groups->object(name);
    return group && group->has("weights");
  });
}

void read_compressed_tensors(const Config& config, const Config& quantization,
                             std::vector<mx::ElementFormat>& elements) {
  if (const auto transforms = quantization.object("transform_config")) {
    if (const auto groups = transforms->object("config_groups"); groups && !groups->keys().empty()) {
      refuse(config, "its transform_config rotates weights and activations");
    }
  }
  const std::string status = quantization.string_or("quantization_status", "compressed");
  if (status != "compressed") refuse(config, fmt::format("its quantization_status is '{}', not 'compressed'", status));
  const std::string format = quantization.string_or("format", "");
  const bool mixed = format == "mixed-precision";
  if (!mixed) add_named(config, kCompressedTensors, format, "its format", elements);
  const auto groups = quantization.object("config_groups");
  if (!groups) return;
  for (const std::string& name : groups->keys()) {
    const auto group = groups->object(name);
    if (!group) continue;
    const std::string what = fmt::format("{} of its config_groups", name);
    const std::string own = group->string_or("format", mixed ? "" : format);
    add_named(config, kCompressedTensors, own, "the format of " + what, elements);
    if (const auto weights = group->object("weights")) check_group_size(config, *weights, what);
  }
}

/// Adds the format of one of Quark's layer configs, if the config mentions weights.
void add_quark(const Config& config, const Config& layer, const std::string& what,
               std::vector<mx::ElementFormat>& elements) {
  const auto weight = layer.object("weight");
  if (!weight) return;
  add_named(config, kQuark, weight->string_or("dtype", ""), "the weights' dtype in " + what, elements);
  check_group_size(config, *weight, what);
  const std::string scale = weight->string_or("scale_format", "e8m0");
  if (scale != "e8m0") refuse(config, fmt::format("the weights' scale_format in {} is '{}'", what, scale));
}

void read_quark(const Config& config, const Config& quantization, std::vector<mx::ElementFormat>& elements) {
  if (const auto global = quantization.object("global_quant_config")) {
    add_quark(config, *global, "global_quant_config", elements);
  }
  for (const char* key : {"layer_quant_config", "layer_type_quant_config"}) {
    const auto layers = quantization.object(key);
    if (!layers) continue;
    for (const std::string& name : layers->keys()) {
      if (const auto layer = layers->object(name)) add_quark(config, *layer, key, elements);
    }
  }
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

bool is_byte(DType type) { return type == DType::u8 || type == DType::f8_e4m3; }
bool is_scale(DType type) { return type == DType::u8 || type == DType::f8_e8m0; }

/// Checks the scales of the codes.
const TensorEntry& scales_of(const Checkpoint& checkpoint, const std::string& name, const std::string& codes,
                             const std::vector<int64_t>& shape) {
  const TensorEntry* scales = checkpoint.find(name);
  if (scales == nullptr) {
    fail("The checkpoint has no tensor '{}', the scales of '{}'; is the download complete?", name, codes);
  }
  if (!is_scale(scales->type) || scales->shape != shape) {
    fail(
        "Tensor '{}' is {} {}, not the E8M0 scales {} of the codes in '{}'; only Microscaling formats can be "
        "read ({}).",
        name, dtype_name(scales->type), shape_text(scales->shape), shape_text(shape), codes, readable_formats());
  }
  return *scales;
}

/// Part `index` of `parts` equal parts of an entry.
TensorEntry slice(const TensorEntry& entry, int64_t parts, int64_t index) {
  TensorEntry out = entry;
  out.size = entry.size / static_cast<size_t>(parts);
  out.offset = entry.offset + static_cast<size_t>(index) * out.size;
  return out;
}

}  // namespace

double PackedWeight::bits() const { return element.bits() + 8.0 / mx::kStoredBlock; }

void PackedWeight::decode(BFloat16* out) const {
  const int bits = element.bits();
  assert(bits <= 8 && cols % mx::kStoredBlock == 0);
  std::array<float, 256> values{};
  for (uint32_t code = 0; code < (1U << bits); ++code) values[code] = mx::decode(element, code);
  const auto* code = reinterpret_cast<const uint8_t*>(codes.data());
  const auto* scale = reinterpret_cast<const uint8_t*>(scales.data());
  const int64_t block_bytes = mx::packed_bytes(element, mx::kStoredBlock);
  for (int64_t block = 0; block < rows * (cols / mx::kStoredBlock); ++block, ++scale, code += block_bytes) {
    const bool nan = *scale == mx::kNanScale;
    // A float32 holds 2^-127 and its products with elements exactly, as subnormals.
    const auto factor = static_cast<float>(mx::detail::power_of_two_double(*scale - mx::kScaleBias));
    for (int64_t i = 0; i < mx::kStoredBlock; ++i) {
      const float value = values[bits == 8 ? code[i] : mx::get_code(code, bits, i)];
      *out++ = nan ? BFloat16{0x7fc0} : to_bfloat16(value * factor);
    }
  }
}

std::optional<PackedFormats> PackedFormats::read(const Config& config) {
  const auto quantization = config.object(kKey);
  const auto mlx = config.object("quantization");
  if (!quantization && !mlx) return std::nullopt;
  // MLX writes its own key, and a copy under the other key without quant_method.
  if (mlx && mlx->has("bits") && !(quantization && quantization->has("quant_method"))) {
    refuse_foreign(config, *mlx, "MLX");
  }
  if (!quantization) return std::nullopt;
  PackedFormats out;
  out.config_name_ = config.name();
  std::string method = quantization->string_or("quant_method", "");
  // The first configs of bitsandbytes do not name their method.
  if (method.empty() && (quantization->has("load_in_8bit") || quantization->has("load_in_4bit"))) {
    method = "bitsandbytes";
  }
  for (const ForeignMethod& foreign : kForeignMethods) {
    if (foreign.method == method) refuse_foreign(config, *quantization, foreign.name);
  }
  if (method == kCompressedTensors && stores_plain_weights(config, *quantization)) return std::nullopt;
  if (method == kCompressedTensors) {
    read_compressed_tensors(config, *quantization, out.elements_);
  } else if (method == kModelOpt) {
    add_named(config, kModelOpt, quantization->string_or("quant_algo", ""), "its quant_algo", out.elements_);
  } else if (method == kQuark) {
    read_quark(config, *quantization, out.elements_);
  } else if (method == kTransformers) {
    add_named(config, kTransformers, "", "its quant_method", out.elements_);
  } else {
    refuse(config, method.empty() ? std::string("its quantization_config names no quant_method")
                                  : fmt::format("its quant_method is {}", quote(method)));
  }
  return out;
}

const mx::ElementFormat& PackedFormats::element_of(const TensorEntry& codes, const std::string& name, int64_t rows,
                                                   int64_t cols) const {
  const mx::ElementFormat* found = nullptr;
  for (const mx::ElementFormat& element : elements_) {
    if (codes.shape != std::vector{rows, mx::packed_bytes(element, cols)}) continue;
    if (codes.type == DType::f8_e4m3 && element.bits() != 8) continue;
    if (found != nullptr) {
      fail("'{}' declares two formats that the codes in '{}' could be in; such a mixture cannot be read.", config_name_,
           name);
    }
    found = &element;
  }
  if (found == nullptr) {
    fail(
        "Tensor '{}' is {} {}, which holds no weight [{}, {}] in the formats that '{}' declares; config and weights do "
        "not belong together.",
        name, dtype_name(codes.type), shape_text(codes.shape), rows, cols, config_name_);
  }
  return *found;
}

std::optional<PackedWeight> PackedFormats::weight(const Checkpoint& checkpoint, const std::string& module, int64_t rows,
                                                  int64_t cols) const {
  std::string name = module + ".weight_packed";
  const TensorEntry* codes = checkpoint.find(name);
  if (codes == nullptr) {
    name = module + ".weight";
    codes = checkpoint.find(name);
    if (codes == nullptr || !is_byte(codes->type)) return std::nullopt;
  }
  if (!is_byte(codes->type)) {
    fail("Tensor '{}' is stored as {}, not as bytes of codes; only Microscaling formats can be read ({}).", name,
         dtype_name(codes->type), readable_formats());
  }
  for (const char* other : {".weight_global_scale", ".weight_zero_point", ".weight_g_idx"}) {
    if (checkpoint.find(module + other) != nullptr) {
      fail("The weight of '{}' comes with '{}{}', which no Microscaling format has; mxlm reads {}.", module, module,
           other, readable_formats());
    }
  }
  const mx::ElementFormat& element = element_of(*codes, name, rows, cols);
  if (cols % mx::kStoredBlock != 0) {
    fail("Tensor '{}' has rows of {} values, which is not a multiple of the block size {}.", name, cols,
         mx::kStoredBlock);
  }
  const TensorEntry& scales = scales_of(checkpoint, module + ".weight_scale", name, {rows, cols / mx::kStoredBlock});
  return PackedWeight{.element = element, .rows = rows, .cols = cols, .codes = *codes, .scales = scales};
}

std::optional<PackedWeight> PackedFormats::part(const Checkpoint& checkpoint, const std::string& tensor, int64_t parts,
                                                int64_t index, int64_t rows, int64_t cols) const {
  assert(index >= 0 && index < parts);
  const std::string name = tensor + "_blocks";
  const TensorEntry* codes = checkpoint.find(name);
  if (codes == nullptr) return std::nullopt;
  const int64_t blocks = cols / mx::kStoredBlock;
  const mx::ElementFormat* element = elements_.empty() ? nullptr : &elements_.front();
  if (element == nullptr || elements_.size() != 1) {
    fail("'{}' declares more than the one format that '{}' could be in.", config_name_, name);
  }
  const std::vector<int64_t> shape{parts, rows, blocks, mx::packed_bytes(*element, mx::kStoredBlock)};
  if (cols % mx::kStoredBlock != 0 || codes->type != DType::u8 || codes->shape != shape) {
    fail("Tensor '{}' is {} {} where config.json calls for U8 {}; config and weights do not belong together.", name,
         dtype_name(codes->type), shape_text(codes->shape), shape_text(shape));
  }
  const TensorEntry& scales = scales_of(checkpoint, tensor + "_scales", name, {parts, rows, blocks});
  return PackedWeight{.element = *element,
                      .rows = rows,
                      .cols = cols,
                      .codes = slice(*codes, parts, index),
                      .scales = slice(scales, parts, index)};
}

}  // namespace mxlm
