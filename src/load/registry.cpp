#include "load/registry.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/error.hpp"
#include "base/suggest.hpp"

namespace mxlm {
namespace {

// The numbers of parameters follow from the configurations. Bytes are parameters times the stored width, except where
// the files hold more: masks in GPT-Neo's files, and an untied copy of the LM head in Qwen1.5's files.
constexpr std::array kModels = {
    RegisteredModel{"tinystories-33m", "roneneldan/TinyStories-33M", "gpt_neo", 68'514'048, 291'000'000, "MIT", false,
                    "quick"},
    RegisteredModel{"qwen1.5-0.5b", "Qwen/Qwen1.5-0.5B", "qwen2", 463'987'712, 1'239'000'000, "Tongyi Qianwen", false,
                    "quick"},
    RegisteredModel{"phi-1_5", "microsoft/phi-1_5", "phi", 1'418'270'720, 2'837'000'000, "MIT", false, "quick"},
    RegisteredModel{"qwen2.5-7b", "Qwen/Qwen2.5-7B", "qwen2", 7'615'616'512, 15'231'000'000, "Apache-2.0", false,
                    "medium"},
    RegisteredModel{"llama-3.1-8b", "meta-llama/Llama-3.1-8B", "llama", 8'030'261'248, 16'061'000'000, "Llama 3.1",
                    true, "medium"},
    RegisteredModel{"phi-3-medium", "microsoft/Phi-3-medium-4k-instruct", "phi3", 13'960'238'080, 27'920'000'000, "MIT",
                    false, "medium"},
    // This is the model above with longrope, so it is in no suite.
    RegisteredModel{"phi-3-medium-128k", "microsoft/Phi-3-medium-128k-instruct", "phi3", 13'960'238'080, 27'920'000'000,
                    "MIT", false, ""},
    RegisteredModel{"qwen2.5-14b", "Qwen/Qwen2.5-14B", "qwen2", 14'770'033'664, 29'540'000'000, "Apache-2.0", false,
                    "medium"},
    RegisteredModel{"mpt-30b", "mosaicml/mpt-30b", "mpt", 29'957'200'896, 59'914'000'000, "Apache-2.0", false, "large"},
    RegisteredModel{"yi-34b", "01-ai/Yi-34B", "llama", 34'388'917'248, 68'778'000'000, "Apache-2.0", false, "large"},
    RegisteredModel{"mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", "mixtral", 46'702'792'704, 93'406'000'000,
                    "Apache-2.0", true, "full"},
    RegisteredModel{"deepseek-67b", "deepseek-ai/deepseek-llm-67b-base", "llama", 67'425'001'472, 134'850'000'000,
                    "DeepSeek", false, "full"},
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

}  // namespace

std::span<const RegisteredModel> registered_models() { return kModels; }

const RegisteredModel* find_registered(std::string_view name) {
  const std::string wanted = lower(name);
  for (const RegisteredModel& model : kModels) {
    const std::string id = lower(model.id);
    if (wanted == model.name || wanted == std::string_view(id).substr(id.find('/') + 1)) return &model;
  }
  return nullptr;
}

const std::vector<std::string>& registered_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const RegisteredModel& model : kModels) {
      out.emplace_back(model.name);
      out.emplace_back(model.id);
    }
    return out;
  }();
  return names;
}

const std::vector<std::string>& suite_names() {
  static const std::vector<std::string> names = {"quick", "medium", "large", "full"};
  return names;
}

std::vector<const RegisteredModel*> suite_models(const std::string& suite) {
  const auto& names = suite_names();
  const auto last = std::find(names.begin(), names.end(), suite);
  if (last == names.end()) {
    fail_usage("There is no suite '{}'; it is one of {}.{}", suite, fmt::join(names, ", "), suggestion(suite, names));
  }
  std::vector<const RegisteredModel*> out;
  for (const RegisteredModel& model : kModels) {
    if (std::find(names.begin(), last + 1, model.suite) != last + 1) out.push_back(&model);
  }
  return out;
}

}  // namespace mxlm
