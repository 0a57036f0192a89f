#include "model/adapter.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"
#include "io/file.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

constexpr const char* kConfigName = "adapter_config.json";
constexpr int64_t kLargestRank = 1 << 16;

/// Keys of adapter_config.json that change the merged weights only through the tensors.
constexpr std::array kHarmless{"alpha_pattern",
                               "auto_mapping",
                               "base_model_name_or_path",
                               "bias",
                               "corda_config",
                               "ensure_weight_tying",
                               "eva_config",
                               "exclude_modules",
                               "fan_in_fan_out",
                               "inference_mode",
                               "init_lora_weights",
                               "layers_pattern",
                               "layers_to_transform",
                               "loftq_config",
                               "lora_alpha",
                               "lora_dropout",
                               "lora_ga_config",
                               "megatron_core",
                               "modules_to_save",
                               "peft_type",
                               "peft_version",
                               "qalora_group_size",
                               "r",
                               "rank_pattern",
                               "revision",
                               "runtime_config",
                               "target_modules",
                               "task_type",
                               "use_rslora"};

/// Ways to start training that leave the base model as it is, except for the values in A and B.
constexpr std::array kChangeTheBase{"pissa", "olora", "corda", "loftq", "lora_ga", "mica"};

/// The file adapter_config.json, with checked access.
class AdapterConfig {
 public:
  explicit AdapterConfig(FileView file) : file_(std::move(file)) {
    const dom::element root = parse_json(parser_, file_.text(), file_.name(), "The configuration");
    if (root.get(root_) != simdjson::SUCCESS) fail("{} holds no JSON object; get it again.", name());
  }
  [[nodiscard]] std::string name() const { return quote(file_.name()); }
  [[nodiscard]] const FileView& file() const { return file_; }
  [[nodiscard]] const dom::object& root() const { return root_; }

  [[nodiscard]] std::string string(std::string_view key) const {
    std::string_view value;
    return root_.at_key(key).get(value) == simdjson::SUCCESS ? std::string(value) : "";
  }
  [[nodiscard]] bool is_true(std::string_view key) const {
    bool value = false;
    return root_.at_key(key).get(value) == simdjson::SUCCESS && value;
  }
  [[nodiscard]] double number(std::string_view key, double fallback) const {
    dom::element element;
    if (root_.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) return fallback;
    return finite(element, key);
  }
  /// The object of numbers under `key`; its own keys are endings of module names.
  [[nodiscard]] std::map<std::string, double, std::less<>> pattern(std::string_view key) const {
    std::map<std::string, double, std::less<>> out;
    dom::object object;
    if (root_.at_key(key).get(object) != simdjson::SUCCESS) return out;
    for (const auto [module, value] : object) {
      std::string_view plain = module;
      // peft accepts a regular expression here, but users write, and peft saves, endings of names.
      if (plain.starts_with('^')) plain.remove_prefix(1);
      if (plain.find_first_of("*+?|()[]{}\\^$") != plain.npos) {
        fail("{}: {} has the key {}, a regular expression, which is not supported; merge the adapter with peft.",
             name(), key, quote(module));
      }
      out.insert_or_assign(std::string(plain), finite(value, key));
    }
    return out;
  }

  /// Throws Error if the adapter changes more than scaling x B A.
  void check() const {
    if (const std::string type = string("peft_type"); type != "LORA") {
      fail("{}: an adapter of type {} is not supported, only LORA; merge it into its base model with peft.", name(),
           quote(type));
    }
    if (const std::string start = string("init_lora_weights"); std::any_of(
            kChangeTheBase.begin(), kChangeTheBase.end(), [&](const char* s) { return start.starts_with(s); })) {
      fail(
          "{}: init_lora_weights {} also changes the base model's weights, which is not supported; merge the adapter "
          "with peft.",
          name(), quote(start));
    }
    for (const auto [key, value] : root_) {
      if (is_empty(value) || std::find(kHarmless.begin(), kHarmless.end(), key) != kHarmless.end()) continue;
      fail("{}: {} is not supported in an adapter; merge it into its base model with peft (merge_and_unload).", name(),
           quote(key));
    }
  }

 private:
  [[nodiscard]] double finite(const dom::element& element, std::string_view key) const {
    double value = 0;
    if (element.get(value) != simdjson::SUCCESS || !std::isfinite(value)) {
      fail("{}: {} should be a finite number.", name(), quote(key));
    }
    return value;
  }
  [[nodiscard]] static bool is_empty(const dom::element& value) {
    bool flag = false;
    dom::array array;
    dom::object object;
    if (value.is_null()) return true;
    if (value.get(flag) == simdjson::SUCCESS) return !flag;
    if (value.get(array) == simdjson::SUCCESS) return array.size() == 0;
    return value.get(object) == simdjson::SUCCESS && object.size() == 0;
  }

  FileView file_;
  dom::parser parser_;
  dom::object root_;
};

/// Removes the first `part` from `text`, if it occurs.
void erase_part(std::string& text, std::string_view part) {
  if (const size_t at = text.find(part); at != text.npos) text.erase(at, part.size());
}

/// Converts `n` stored values (F32, F16 or BF16) to float32.
void widen(DType type, const std::byte* data, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    if (type == DType::f32) {
      std::memcpy(out + i, data + i * 4, sizeof(float));
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, data + i * 2, sizeof(bits));
      out[i] = type == DType::f16 ? half_to_float(bits) : to_float(BFloat16{bits});
    }
  }
}

std::vector<float> widened(const TensorEntry& entry) {
  std::vector<float> out(static_cast<size_t>(entry.elements()));
  widen(entry.type, entry.data(), entry.elements(), out.data());
  return out;
}

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> out(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      out[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
    }
  }
  return out;
}

/// The value of the first key that the module's name ends with, as peft finds it; nullopt if there is none.
std::optional<double> value_of(const std::map<std::string, double, std::less<>>& pattern, std::string_view module) {
  for (const auto& [key, value] : pattern) {
    if (module == key ||
        (module.size() > key.size() && module.ends_with(key) && module[module.size() - key.size() - 1] == '.')) {
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace

void LowRankUpdate::add_to(const HostMatrix& base, float* out) const {
  const int64_t rows = base.rows, cols = base.cols;
  // The right factor is [rank, cols], and the left factor is [rows, rank].
  std::vector<float> right = widened(a), left = widened(b);
  if (embedding) {
    std::swap(right, left);
    right = transposed(right, cols, rank);
    left = transposed(left, rank, rows);
  }
  std::vector<float> sum(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    throw_if_interrupted();
    std::fill(sum.begin(), sum.end(), 0.0F);
    for (int64_t k = 0; k < rank; ++k) {
      const float factor = left[static_cast<size_t>(r * rank + k)];
      const float* row = right.data() + k * cols;
      for (int64_t c = 0; c < cols; ++c) sum[static_cast<size_t>(c)] += factor * row[c];
    }
    float* to = out + r * cols;
    widen(base.type, base.data + static_cast<size_t>(r * base.stride) * dtype_size(base.type), cols, to);
    for (int64_t c = 0; c < cols; ++c) to[c] += sum[static_cast<size_t>(c)] * scaling;
  }
}

Adapter Adapter::open(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    fail("The adapter {} is not a folder; give the folder that holds {} and the adapter's weights.",
         quote(folder.native()), kConfigName);
  }
  if (!fs::exists(folder / kConfigName, error)) {
    fail("The folder {} holds no {}, so it is not an adapter of peft; give the folder of a LoRA adapter.",
         quote(folder.native()), kConfigName);
  }
  const AdapterConfig config(FileView::map(folder / kConfigName));
  config.check();
  Adapter adapter;
  adapter.name_ = folder.string();
  adapter.base_ = config.string("base_model_name_or_path");
  adapter.rank_ = static_cast<int64_t>(std::clamp(config.number("r", 8), 0.0, static_cast<double>(kLargestRank)));
  adapter.alpha_ = config.number("lora_alpha", 8);
  adapter.rank_stabilised_ = config.is_true("use_rslora");
  adapter.alphas_ = config.pattern("alpha_pattern");
  adapter.ranks_ = config.pattern("rank_pattern");

  const char* weights = "adapter_model.safetensors";
  if (!fs::exists(folder / weights, error)) weights = "adapter_model.bin";
  if (!fs::exists(folder / weights, error)) {
    fail("The folder {} holds no adapter_model.safetensors or adapter_model.bin; is the download complete?",
         quote(folder.native()));
  }
  const Checkpoint checkpoint = Checkpoint::from_file(FileView::map(folder / weights));
  const std::string hashes = sha256_hex(config.file().bytes()) + checkpoint.sha256();
  adapter.sha256_ = sha256_hex(std::as_bytes(std::span(hashes)));
  if (!checkpoint.unread().empty()) {
    const auto& [name, reason] = *checkpoint.unread().begin();
    fail("Tensor {} of the adapter {} {}; merge the adapter with peft.", quote(name), quote(adapter.name_), reason);
  }
  constexpr std::string_view kPrefix = "base_model.model.";
  for (const auto& [name, entry] : checkpoint.tensors()) {
    if (!name.starts_with(kPrefix)) {
      fail("Tensor {} of the adapter {} does not begin with {} as in files of peft; save the adapter with peft.",
           quote(name), quote(adapter.name_), quote(kPrefix));
    }
    if (entry.type != DType::f32 && entry.type != DType::f16 && entry.type != DType::bf16) {
      fail("Tensor {} of the adapter {} is stored as {}; only F32, F16 and BF16 can be read.", quote(name),
           quote(adapter.name_), dtype_name(entry.type));
    }
    std::string rest = name.substr(kPrefix.size());
    const size_t lora = rest.find(".lora_");
    if (lora == rest.npos) {
      for (const char* part : {".base_layer", ".modules_to_save.default", ".modules_to_save"}) erase_part(rest, part);
      adapter.replaced_.insert_or_assign(std::move(rest), entry);
      continue;
    }
    std::string kind = rest.substr(lora + 1);
    erase_part(kind, ".default");  // the name of the adapter in a state dict that peft did not write
    Update& update = adapter.updates_[rest.substr(0, lora)];
    update.embedding = kind.starts_with("lora_embedding_");
    if (kind == "lora_A.weight" || kind == "lora_embedding_A") {
      update.a = entry;
    } else if (kind == "lora_B.weight" || kind == "lora_embedding_B") {
      update.b = entry;
    } else {
      fail("Tensor {} of the adapter {} is more than the two factors of LoRA; merge the adapter with peft.",
           quote(name), quote(adapter.name_));
    }
  }
  if (adapter.updates_.empty() && adapter.replaced_.empty()) {
    fail("The adapter {} holds no tensors; is the download complete?", quote(adapter.name_));
  }
  return adapter;
}

Adapter Adapter::renamed(const std::function<std::string(std::string_view)>& name_of) const {
  Adapter out = *this;
  out.updates_.clear();
  out.replaced_.clear();
  for (const auto& [module, update] : updates_) {
    // `name_of` takes names of tensors, so the module gets the ending of its weight.
    std::string name = name_of(module + ".weight");
    if (name.empty()) continue;
    name.resize(name.size() - std::string_view(".weight").size());
    out.updates_.insert_or_assign(std::move(name), update);
  }
  for (const auto& [tensor, entry] : replaced_) {
    if (const std::string name = name_of(tensor); !name.empty()) out.replaced_.insert_or_assign(name, entry);
  }
  return out;
}

void Adapter::drop_unchanged(const Checkpoint& base) {
  std::erase_if(replaced_, [&](const auto& item) {
    const TensorEntry* old = base.find(item.first);
    return old != nullptr && old->shape == item.second.shape && widened(*old) == widened(item.second);
  });
}

float Adapter::scaling_of(const std::string& module, int64_t rank) const {
  const double alpha = value_of(alphas_, module).value_or(alpha_);
  const auto r = static_cast<double>(rank);
  return static_cast<float>(alpha / (rank_stabilised_ ? std::sqrt(r) : r));
}

std::optional<LowRankUpdate> Adapter::update(const std::string& module, int64_t rows, int64_t cols) const {
  const auto found = updates_.find(module);
  if (found == updates_.end()) return std::nullopt;
  const Update& update = found->second;
  if (!update.a || !update.b) {
    fail("The adapter {} holds only one of the two factors of module {}; is the download complete?", quote(name_),
         quote(module));
  }
  const int64_t rank = update.a->shape.empty() ? 0 : update.a->shape[0];
  const auto expected = static_cast<int64_t>(value_of(ranks_, module).value_or(static_cast<double>(rank_)));
  const std::vector<int64_t> a_shape{rank, update.embedding ? rows : cols};
  const std::vector<int64_t> b_shape{update.embedding ? cols : rows, rank};
  if (rank < 1 || rank != expected || update.a->shape != a_shape || update.b->shape != b_shape) {
    fail(
        "The adapter {} does not fit module {} [{}, {}]: its factors have the shapes [{}] and [{}], and its rank is "
        "{}; give the base model that it was trained on{}.",
        quote(name_), quote(module), rows, cols, fmt::join(update.a->shape, ", "), fmt::join(update.b->shape, ", "),
        expected, base_.empty() ? "" : fmt::format(" ({})", quote(base_)));
  }
  return LowRankUpdate{
      .a = *update.a, .b = *update.b, .embedding = update.embedding, .rank = rank, .scaling = scaling_of(module, rank)};
}

std::set<std::string> Adapter::modules() const {
  std::set<std::string> out;
  for (const auto& [module, update] : updates_) out.insert(module);
  return out;
}

std::optional<std::string> adapter_base(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / kConfigName, error)) return std::nullopt;
  try {
    return AdapterConfig(FileView::map(folder / kConfigName)).string("base_model_name_or_path");
  } catch (const Error&) {
    return "";  // only messages use the name
  }
}

}  // namespace mxlm
